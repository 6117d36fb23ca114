//! /dev of a step, as `docker build` has it: six devices, pseudo terminals, shared memory, message queues, links.
//!
//! A step may make a node of any device, and images bring some along. Where no device cgroup keeps it from using them,
//! all that it can reach is mounted so that no device can be opened there, and its six devices are mounts of their own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, chmodat, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::mount::MountAttrFlags;

use super::mounting::{self, Doing, NOSUID_NODEV_NOEXEC, SetupError};
use super::volumes::Targets;
use crate::executor::step::DeviceNode;

/// Name, major, minor.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// Where a step can open device nodes, its own or an image's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nodes {
    /// A device cgroup says which devices those may be, or all are allowed.
    Anywhere,
    OnlyInDev,
}

impl Nodes {
    /// What every mount of a step gets.
    pub(super) fn attributes(self) -> MountAttrFlags {
        match self {
            Self::Anywhere => MountAttrFlags::empty(),
            Self::OnlyInDev => MountAttrFlags::MOUNT_ATTR_NODEV,
        }
    }
}

/// Returns the null device of this very /dev, to read from: what the step does to its standard input stays within it.
/// `memory` is a folder for files of the step that it sees only where they are mounted.
pub(super) fn furnish(
    root: BorrowedFd<'_>,
    memory: &Path,
    shm_size: Option<u64>,
    usable: Nodes,
) -> Result<OwnedFd, SetupError> {
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME | usable.attributes();
    let dev = mounting::new_mount(
        "tmpfs",
        &[("source", "tmpfs"), ("mode", "0755"), ("size", "65536k")],
        attributes,
    )
    .doing(|| "mounting /dev".into())?;
    names(dev.as_fd()).doing(|| "making links in /dev".into())?;
    if usable == Nodes::Anywhere {
        nodes(dev.as_fd()).doing(|| "making devices".into())?;
    }
    let target = mounting::resolve(root, "dev").doing(|| "finding /dev".into())?;
    mounting::attach(dev.as_fd(), target.as_fd()).doing(|| "mounting /dev".into())?;
    if usable == Nodes::OnlyInDev {
        mount_nodes(dev.as_fd(), &memory.join("dev")).doing(|| "mounting devices".into())?;
    }

    let shm_size = shm_size.unwrap_or(DEFAULT_SHM_SIZE).to_string();
    let pts_attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    for (folder, kind, options, attributes) in [
        (
            "pts",
            "devpts",
            &[
                ("newinstance", ""),
                ("ptmxmode", "0666"),
                ("mode", "0620"),
                ("gid", "5"),
            ][..],
            pts_attributes,
        ),
        (
            "shm",
            "tmpfs",
            &[("source", "shm"), ("mode", "1777"), ("size", &shm_size)],
            NOSUID_NODEV_NOEXEC,
        ),
        ("mqueue", "mqueue", &[], NOSUID_NODEV_NOEXEC),
    ] {
        let place = |mount: std::os::fd::OwnedFd| {
            mounting::attach(mount.as_fd(), mounting::resolve(dev.as_fd(), folder)?.as_fd())
        };
        mounting::new_mount(kind, options, attributes)
            .and_then(place)
            .doing(|| format!("mounting /dev/{folder}"))?;
    }
    openat(&dev, "null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(|| "opening /dev/null".into())
}

/// Mounts nodes made in `folder`, each by itself.
fn mount_nodes(dev: BorrowedFd<'_>, folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    nodes(mounting::refer(folder)?.as_fd())?;
    for (name, ..) in DEVICES {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let target = openat(dev, name, flags, Mode::from_raw_mode(0o644))?;
        mounting::bind(
            mounting::refer(&folder.join(name))?.as_fd(),
            target.as_fd(),
            false,
        )?;
    }
    Ok(())
}

/// Mounts the machine's devices that a step asked for, each by itself: so they work also where no others do.
pub(super) fn add(
    devices: &[DeviceNode],
    targets: &mut Targets<'_>,
    memory: &Path,
) -> Result<(), SetupError> {
    for (number, device) in devices.iter().enumerate() {
        let own = memory.join(format!("device-{number}"));
        add_one(device, &own, targets).doing(|| format!("placing device {}", device.path))?;
    }
    Ok(())
}

fn add_one(device: &DeviceNode, own: &Path, targets: &mut Targets<'_>) -> io::Result<()> {
    let kind = if device.block {
        FileType::BlockDevice
    } else {
        FileType::CharacterDevice
    };
    let mode = Mode::from_raw_mode(device.mode & 0o777);
    mknodat(CWD, own, kind, mode, makedev(device.major, device.minor))?;
    std::os::unix::fs::lchown(own, Some(device.uid), Some(device.gid))?;
    chmodat(CWD, own, mode, rustix::fs::AtFlags::empty())?;
    let target = targets.file(&device.path)?;
    mounting::bind(mounting::refer(own)?.as_fd(), target.as_fd(), false)
}

fn nodes(dev: BorrowedFd<'_>) -> io::Result<()> {
    let everybody = Mode::from_raw_mode(0o666);
    for (name, major, minor) in DEVICES {
        mknodat(
            dev,
            name,
            FileType::CharacterDevice,
            everybody,
            makedev(major, minor),
        )?;
        // The node was made under our umask.
        chmodat(dev, name, everybody, rustix::fs::AtFlags::empty())?;
    }
    Ok(())
}

fn names(dev: BorrowedFd<'_>) -> io::Result<()> {
    for (to, name) in LINKS {
        symlinkat(to, dev, name)?;
    }
    for folder in ["pts", "shm", "mqueue"] {
        mkdirat(dev, folder, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}
