//! /dev of a step, as `docker build` has it: six devices, pseudo terminals, shared memory, message queues, links.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode, chmodat, makedev, mkdirat, mknodat, symlinkat};
use rustix::mount::MountAttrFlags;

use super::mounting::{self, Doing, NOSUID_NODEV_NOEXEC, SetupError};

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

pub(super) fn furnish(root: BorrowedFd<'_>, shm_size: Option<u64>) -> Result<(), SetupError> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = mounting::new_mount(
        "tmpfs",
        &[("source", "tmpfs"), ("mode", "0755"), ("size", "65536k")],
        attributes,
    )
    .doing(|| "mounting /dev".into())?;
    nodes(dev.as_fd()).doing(|| "making devices".into())?;
    let target = mounting::resolve(root, "dev").doing(|| "finding /dev".into())?;
    mounting::attach(dev.as_fd(), target.as_fd()).doing(|| "mounting /dev".into())?;

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
    Ok(())
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
    for (to, name) in LINKS {
        symlinkat(to, dev, name)?;
    }
    for folder in ["pts", "shm", "mqueue"] {
        mkdirat(dev, folder, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}
