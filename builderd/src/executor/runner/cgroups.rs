//! The cgroups that a step is in, and what it sees of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::fs::Mode;
use rustix::mount::MountAttrFlags;

use super::mounting::{self, Doing, NOSUID_NODEV_NOEXEC, SetupError};

/// How this machine arranges its cgroups.
pub(super) enum Hierarchies {
    Unified,
    /// The old ones, each by its controllers, with commas between them.
    Split(Vec<String>),
}

impl Hierarchies {
    /// Looks at the machine's own mount and the runner's own cgroups, so only before they are left behind.
    pub(super) fn of_this_machine() -> Self {
        const CGROUP2_MAGIC: u64 = 0x6367_7270;
        match rustix::fs::statfs("/sys/fs/cgroup") {
            Ok(found) if found.f_type.cast_unsigned() == CGROUP2_MAGIC => Self::Unified,
            _ => Self::Split(split(
                &std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
            )),
        }
    }
}

/// Of lines such as `4:cpu,cpuacct:/`, those of hierarchies that have controllers.
fn split(text: &str) -> Vec<String> {
    let controllers = |line: &str| {
        let name = line.split(':').nth(1)?;
        (!name.is_empty() && !name.contains('=')).then(|| name.to_owned())
    };
    text.lines().filter_map(controllers).collect()
}

/// In the child: enters the step's cgroup, which a first process then sees as the uppermost one.
pub(super) fn enter(entrances: &[OwnedFd], is_first: bool) -> Result<(), SetupError> {
    if entrances.is_empty() {
        return Ok(());
    }
    for entrance in entrances {
        rustix::io::write(entrance, b"0").doing(|| "entering its cgroup".into())?;
    }
    if is_first {
        nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).doing(|| "making a cgroup namespace".into())?;
    }
    Ok(())
}

/// Mounts the one hierarchy of cgroup2; nothing where the old ones are in use, whose limits programs look for in as many
/// places as there are controllers.
pub(super) fn show(target: BorrowedFd<'_>, hierarchies: &Hierarchies) -> io::Result<()> {
    let (kind, options): (_, &[_]) = match hierarchies {
        Hierarchies::Unified => ("cgroup2", &[("source", "cgroup")]),
        Hierarchies::Split(_) => ("tmpfs", &[("source", "cgroup"), ("size", "4k")]),
    };
    let attributes = NOSUID_NODEV_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
    mounting::attach(mounting::new_mount(kind, options, attributes)?.as_fd(), target)
}

/// The same for a step that has a cgroup of its own, so that programs find their limits.
pub(super) fn show_own(target: BorrowedFd<'_>, hierarchies: &Hierarchies) -> io::Result<()> {
    let Hierarchies::Split(all) = hierarchies else {
        return show(target, hierarchies);
    };
    let options = [("source", "cgroup"), ("mode", "0755"), ("size", "64k")];
    let folder = mounting::new_mount("tmpfs", &options, NOSUID_NODEV_NOEXEC)?;
    for name in all {
        rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o555))?;
        for each in name.split(',').filter(|each| each != name) {
            rustix::fs::symlinkat(name, &folder, each)?;
        }
    }
    mounting::attach(folder.as_fd(), target)?;
    for name in all {
        let options: Vec<(&str, &str)> = [("source", "cgroup")]
            .into_iter()
            .chain(name.split(',').map(|controller| (controller, "")))
            .collect();
        let attributes = NOSUID_NODEV_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let hierarchy = mounting::new_mount("cgroup", &options, attributes)?;
        let target = mounting::resolve(folder.as_fd(), name)?;
        mounting::attach(hierarchy.as_fd(), target.as_fd())?;
    }
    mounting::set_attributes(folder.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_named_by_their_controllers() {
        let text = "9:name=systemd:/a\n4:memory:/x:y\n2:cpu,cpuacct:/\n0::/\n";
        assert_eq!(split(text), ["memory", "cpu,cpuacct"]);
        assert_eq!(split("0::/\n"), <[&str; 0]>::default());
    }
}
