//! What all steps of a sandbox share, made once: a root for the runner that holds nothing but the state folder, the
//! stubs under every step's root, a /sys with what steps must not see covered, the filter, the resolver's file.
//!
//! The runner leaves the machine's (or container's) mounts behind, so a step's mount namespace starts out with only
//! a handful of mounts to copy, and nothing that the machine unmounts later is pinned by a sandbox.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};

use super::cgroups::Hierarchies;
use super::devices::Nodes;
use super::mounting::{self, Doing, SetupError};
use super::{files, proc_files, seccomp};
use crate::executor::Resolver;

/// Where the runner keeps its own things, in a root that is its own.
const HOME: &str = "/.trimaran";

pub(super) struct Housing {
    /// Bottom of every root: empty folders and files to mount upon.
    pub(super) stubs: PathBuf,
    /// An empty folder, where each step mounts its root.
    pub(super) root: PathBuf,
    /// An empty folder, where each step mounts the memory that holds its own files.
    pub(super) memory: PathBuf,
    /// A read-only /sys with its masks and cgroups, to be copied. By path, as are the covers: a mount can only be
    /// copied by somebody in its own mount namespace, and each step has a namespace and copies of its own.
    pub(super) sys: PathBuf,
    /// An empty read-only folder, to cover folders with.
    pub(super) empty: PathBuf,
    /// The null device, to cover files with.
    pub(super) null: PathBuf,
    /// Where steps that are not insecure can open device nodes.
    pub(super) nodes: Nodes,
    pub(super) filter: Vec<libc::sock_filter>,
    pub(super) hierarchies: Hierarchies,
    /// The sandbox's own resolver configuration, good for every step that shares its network.
    pub(super) resolv_conf: String,
}

impl Housing {
    pub(super) fn prepare(
        state: &Path,
        scratch: &Path,
        nodes: Nodes,
        resolver: &Resolver,
    ) -> Result<Self, SetupError> {
        let filter = seccomp::default_filter().ok_or_else(|| {
            SetupError::new(
                "choosing the seccomp filter",
                io::Error::other(format!("no table for {}", std::env::consts::ARCH)),
            )
        })?;
        let resolv_conf = files::read_resolver_configuration(resolver);
        let hierarchies = Hierarchies::of_this_machine();

        nix::sched::unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)
            .doing(|| "making a mount namespace".into())?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .doing(|| "making the mounts private".into())?;
        enter_own_root(state, scratch).doing(|| format!("moving into a root below {}", scratch.display()))?;

        let home = Path::new(HOME);
        for folder in [
            "stubs/proc",
            "stubs/sys",
            "stubs/dev",
            "stubs/etc",
            "root",
            "memory",
            "sys",
            "empty",
        ] {
            fs::create_dir_all(home.join(folder)).doing(|| format!("making {folder}"))?;
        }
        for file in ["stubs/etc/hosts", "stubs/etc/resolv.conf"] {
            fs::File::create(home.join(file)).doing(|| format!("making {file}"))?;
        }
        let (empty, sys, null) = (home.join("empty"), home.join("sys"), home.join("null"));
        let everybody = Mode::from_raw_mode(0o666);
        mknodat(CWD, &null, FileType::CharacterDevice, everybody, makedev(1, 3))
            .doing(|| "making a null device".into())?;
        cover(
            &empty,
            "tmpfs",
            &[("size", "4k")],
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )
        .doing(|| "making an empty folder".into())?;
        cover(
            &sys,
            "sysfs",
            &[],
            mounting::NOSUID_NODEV_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY,
        )
        .doing(|| "mounting sysfs".into())?;
        let opened = mounting::refer(&sys).doing(|| "opening sysfs".into())?;
        proc_files::furnish_sys(opened.as_fd(), &empty, &hierarchies)?;
        Ok(Self {
            stubs: home.join("stubs"),
            root: home.join("root"),
            memory: home.join("memory"),
            sys,
            empty,
            null,
            nodes,
            filter,
            hierarchies,
            resolv_conf,
        })
    }
}

/// Mounts a new file system over a folder of ours.
fn cover(folder: &Path, kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<()> {
    let mount = mounting::new_mount(kind, options, attributes)?;
    mounting::attach(mount.as_fd(), mounting::refer(folder)?.as_fd())
}

/// A new root in memory, over the scratch folder, with the state folder at the place where the daemon sees it.
fn enter_own_root(state: &Path, scratch: &Path) -> io::Result<()> {
    let state_mount = mounting::copy_mount(mounting::refer(state)?.as_fd(), true)?;
    let root = mounting::new_mount("tmpfs", &[("mode", "0755")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    mounting::attach(root.as_fd(), mounting::refer(scratch)?.as_fd())?;
    drop(root);
    let inside = scratch.join(state.strip_prefix("/").map_err(io::Error::other)?);
    fs::create_dir_all(&inside)?;
    fs::create_dir(scratch.join(HOME.trim_start_matches('/')))?;
    mounting::attach(state_mount.as_fd(), mounting::refer(&inside)?.as_fd())?;
    std::env::set_current_dir(scratch)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}
