//! Where this machine's cgroups are: one hierarchy for all controllers (cgroup2), or several old ones with some each.

use std::path::PathBuf;

/// Controllers that an old hierarchy may be of; all else among its options says something different.
const CONTROLLERS: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hierarchies {
    Split(Vec<Hierarchy>),
    Unified(PathBuf),
}

/// One of the old kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) folder: PathBuf,
    pub(super) controllers: Vec<&'static str>,
}

impl Hierarchies {
    /// Those that the text of /proc/self/mountinfo tells of. Old ones that only have a name limit nothing and are left
    /// out; where there is any other, the controllers are there.
    pub(super) fn in_mounts(text: &str) -> Option<Self> {
        let mut split: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for line in text.lines() {
            let Some((place, kind)) = line.split_once(" - ") else {
                continue;
            };
            let (mut place, mut kind) = (place.split(' '), kind.split(' '));
            let (Some(folder), Some(name)) = (place.nth(4), kind.next()) else {
                continue;
            };
            let folder = PathBuf::from(unescape(folder));
            match name {
                "cgroup2" => unified = unified.or(Some(folder)),
                "cgroup" => {
                    let options = kind.nth(1).unwrap_or_default();
                    let controllers = controllers(options);
                    if !controllers.is_empty() && !split.iter().any(|known| known.controllers == controllers)
                    {
                        split.push(Hierarchy { folder, controllers });
                    }
                }
                _ => {}
            }
        }
        match split.is_empty() {
            true => unified.map(Self::Unified),
            false => Some(Self::Split(split)),
        }
    }
}

fn controllers(options: &str) -> Vec<&'static str> {
    let is_one = |name: &&str| options.split(',').any(|option| option == *name);
    CONTROLLERS.into_iter().filter(is_one).collect()
}

/// A path as the kernel writes it there: blanks and the like as three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_hierarchies_are_found_with_their_controllers() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,seclabel,cpu,cpuacct\n\
            35 31 0:32 /docker/x /a\\040b rw - cgroup cgroup rw,memory\n\
            36 31 0:32 / /again rw - cgroup cgroup rw,memory\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let hierarchy = |folder: &str, controllers: &[&'static str]| Hierarchy {
            folder: folder.into(),
            controllers: controllers.to_vec(),
        };
        assert_eq!(
            Hierarchies::in_mounts(text),
            Some(Hierarchies::Split(vec![
                hierarchy("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"]),
                hierarchy("/a b", &["memory"]),
            ]))
        );
    }

    #[test]
    fn the_one_hierarchy_is_found_and_none_is_none() {
        let text = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            Hierarchies::in_mounts(text),
            Some(Hierarchies::Unified("/sys/fs/cgroup".into()))
        );
        assert_eq!(
            Hierarchies::in_mounts("23 1 0:1 / / rw - ext4 /dev/vda rw\nwhat\n"),
            None
        );
    }
}
