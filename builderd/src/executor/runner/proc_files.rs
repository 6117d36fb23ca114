//! /proc and /sys of a step, with runc's defaults covered or read-only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::mount::MountAttrFlags;

use super::cgroups::{self, Hierarchies};
use super::housing::Housing;
use super::mounting::{self, Doing, NOSUID_NODEV_NOEXEC, SetupError};
use crate::executor::step::Step;

const MASKED: [&str; 9] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
];
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const MASKED_IN_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// Whether what could harm the machine is out of reach.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    Covered,
    Open,
}

pub(super) fn furnish_proc(root: BorrowedFd<'_>, housing: &Housing, cover: Cover) -> Result<(), SetupError> {
    let proc = mounting::new_mount("proc", &[("source", "proc")], NOSUID_NODEV_NOEXEC)
        .doing(|| "mounting /proc".into())?;
    let target = mounting::resolve(root, "proc").doing(|| "finding /proc".into())?;
    mounting::attach(proc.as_fd(), target.as_fd()).doing(|| "mounting /proc".into())?;
    if cover == Cover::Open {
        return Ok(());
    }
    for path in READ_ONLY {
        over(proc.as_fd(), path, |target| mounting::bind(target, target, true))?;
    }
    let null = mounting::refer(&housing.null).doing(|| "opening the null device".into())?;
    let empty = mounting::refer(&housing.empty).doing(|| "opening an empty folder".into())?;
    for path in MASKED {
        over(proc.as_fd(), path, |target| {
            mask(target, null.as_fd(), empty.as_fd())
        })?;
    }
    Ok(())
}

/// Does something to a path that this kernel may not have.
fn over(
    base: BorrowedFd<'_>,
    path: &str,
    action: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> Result<(), SetupError> {
    match mounting::resolve(base, path) {
        Ok(target) => action(target.as_fd()).doing(|| format!("covering {path}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(SetupError::new(format!("finding {path}"), error)),
    }
}

fn mask(target: BorrowedFd<'_>, null: BorrowedFd<'_>, empty: BorrowedFd<'_>) -> io::Result<()> {
    let is_folder = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(target)?.st_mode).is_dir();
    // Read-only, or its mode could be changed for all steps of the sandbox.
    mounting::bind(if is_folder { empty } else { null }, target, true)
}

/// Covers the folders of a sysfs and mounts the sandbox's own cgroups, read-only.
pub(super) fn furnish_sys(
    sys: BorrowedFd<'_>,
    empty: &Path,
    hierarchies: &Hierarchies,
) -> Result<(), SetupError> {
    let empty = mounting::refer(empty).doing(|| "opening an empty folder".into())?;
    for path in MASKED_IN_SYS {
        over(sys, path, |target| mounting::bind(empty.as_fd(), target, true))?;
    }
    over(sys, "fs/cgroup", |target| cgroups::show(target, hierarchies))
}

/// A network of its own also wants a /sys of its own, for /sys/class/net.
pub(super) fn place_sys(
    root: BorrowedFd<'_>,
    housing: &Housing,
    cover: Cover,
    step: &Step,
) -> Result<(), SetupError> {
    let own_network = step.has_own_network();
    let target = mounting::resolve(root, "sys").doing(|| "finding /sys".into())?;
    let sys = match (cover, own_network) {
        (Cover::Covered, false) => {
            mounting::refer(&housing.sys).and_then(|sys| mounting::copy_mount(sys.as_fd(), true))
        }
        (Cover::Covered, true) => mounting::new_mount(
            "sysfs",
            &[("source", "sysfs")],
            NOSUID_NODEV_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY,
        ),
        (Cover::Open, _) => mounting::new_mount("sysfs", &[("source", "sysfs")], NOSUID_NODEV_NOEXEC),
    };
    let sys = sys.doing(|| "mounting /sys".into())?;
    mounting::attach(sys.as_fd(), target.as_fd()).doing(|| "mounting /sys".into())?;
    if own_network && cover == Cover::Covered {
        furnish_sys(sys.as_fd(), &housing.empty, &housing.hierarchies)?;
    } else if cover == Cover::Open {
        over(sys.as_fd(), "fs/cgroup", |target| {
            cgroups::show(target, &housing.hierarchies)
        })?;
    }
    if step.cgroup.is_some() {
        over(sys.as_fd(), "fs/cgroup", |target| {
            cgroups::show_own(target, &housing.hierarchies)
        })?;
    }
    Ok(())
}
