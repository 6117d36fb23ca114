//! Overlay mounts of layer folders.
//!
//! `volatile`: a step whose machine dies is run again, so its changes need not reach the disk at unmount. No index, no
//! metacopy, no redirects: layer folders are read by others as plain folders with whiteouts.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount,
};

use super::mounting::{attach, bind, refer};
use crate::executor::step::FileSystem;

const OPTIONS: [(&str, &str); 4] = [
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "off"),
    ("xino", "off"),
];

/// Mounts `files` over the folder `target`, with `bottom` under its lowest layer. `spare` is an empty folder for the
/// links that old kernels need.
pub(super) fn mount_over(
    files: &FileSystem,
    bottom: Option<&Path>,
    target: &Path,
    spare: &Path,
) -> io::Result<()> {
    let mut layers: Vec<&Path> = files
        .lowers
        .iter()
        .rev()
        .map(PathBuf::as_path)
        .chain(bottom)
        .collect();
    // overlayfs refuses to be pointless: one folder to read alone, or none under the one to write.
    match (&files.writable, &layers[..]) {
        (None, [only]) => return bind(refer(only)?.as_fd(), refer(target)?.as_fd(), true),
        (None, []) => return bind(refer(spare)?.as_fd(), refer(target)?.as_fd(), true),
        (_, []) => layers.push(spare),
        _ => {}
    }
    match assemble(files, &layers) {
        Ok(overlay) => attach(overlay.as_fd(), refer(target)?.as_fd()),
        // Before Linux 6.8 there is no way to add layers one by one.
        Err(rustix::io::Errno::INVAL) => mount_by_string(files, &layers, target, spare),
        Err(error) => Err(error.into()),
    }
}

fn assemble(files: &FileSystem, layers: &[&Path]) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &Path| fsconfig_set_string(context.as_fd(), key, value);
    fsconfig_set_string(context.as_fd(), "source", "overlay")?;
    for layer in layers {
        set("lowerdir+", layer)?;
    }
    for (key, value) in OPTIONS {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    let mut attributes = MountAttrFlags::empty();
    match &files.writable {
        Some(writable) => {
            set("upperdir", &writable.upper)?;
            set("workdir", &writable.work)?;
            fsconfig_set_flag(context.as_fd(), "volatile")?;
        }
        None => attributes = MountAttrFlags::MOUNT_ATTR_RDONLY,
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The classic call: all options in one page, so layers go by short links in the current folder.
fn mount_by_string(files: &FileSystem, layers: &[&Path], target: &Path, spare: &Path) -> io::Result<()> {
    let links = spare.join("links");
    fs::create_dir(&links)?;
    let mut names = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().enumerate() {
        let name = format!("{index:x}");
        symlink(layer, links.join(&name))?;
        names.push(name);
    }
    let mut data = format!("lowerdir={}", names.join(":"));
    for (key, value) in OPTIONS {
        data.push_str(&format!(",{key}={value}"));
    }
    let mut flags = MountFlags::empty();
    match &files.writable {
        Some(writable) => {
            symlink(&writable.upper, links.join("u"))?;
            symlink(&writable.work, links.join("w"))?;
            data.push_str(",upperdir=u,workdir=w,volatile");
        }
        None => flags = MountFlags::RDONLY,
    }
    let data = std::ffi::CString::new(data)?;
    std::env::set_current_dir(&links)?;
    let mounted = mount("overlay", target, "overlay", flags, data.as_c_str());
    std::env::set_current_dir("/")?;
    fs::remove_dir_all(&links)?;
    Ok(mounted?)
}
