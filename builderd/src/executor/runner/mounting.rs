//! Mounts by file descriptor: a mount is made detached, gets its attributes, and is then put in place.
//!
//! Every path inside a step's root is resolved by the kernel within that root, so that no link of an image leads out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::sys;

/// What went wrong in a sandbox or in a step before its program ran; it reaches the daemon as text.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub(super) struct SetupError {
    doing: String,
    #[source]
    source: io::Error,
}

impl SetupError {
    pub(super) fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            doing: doing.into(),
            source: source.into(),
        }
    }

    /// The whole chain, for the wire.
    pub(super) fn text(&self) -> String {
        format!("{}: {}", self.doing, self.source)
    }
}

/// Says what was being done when a system call failed.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, SetupError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, SetupError> {
        self.map_err(|source| SetupError::new(what(), source))
    }
}

pub(super) const NOSUID_NODEV_NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A new, detached mount of a file system that needs no device. An option without value is a flag.
pub(super) fn new_mount(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// A detached copy of the mount at `source`, which is a folder or a file.
pub(super) fn copy_mount(source: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(source, "", flags)?)
}

/// Puts a detached mount over `target`.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

pub(super) fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: MountAttrFlags,
    recursive: bool,
) -> io::Result<()> {
    sys::set_mount_attributes(mount, u64::from(attributes.bits()), recursive)
}

/// Opens a path of the runner's own world, only to refer to it.
pub(super) fn refer(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Resolves `path` as if `root` were the root folder, only to refer to it.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let path = match path.trim_start_matches('/') {
        "" => ".",
        path => path,
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?)
}

/// Binds `source` over `target`, read-only if asked.
pub(super) fn bind(source: BorrowedFd<'_>, target: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let copy = copy_mount(source, false)?;
    if read_only {
        set_attributes(copy.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false)?;
    }
    attach(copy.as_fd(), target)
}
