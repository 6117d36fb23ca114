//! The new kind: one folder, with controllers handed down to it from above.
//!
//! A cgroup other than the machine's uppermost hands controllers down only while no process is in it. In a container, the
//! daemon is alone in what it takes for the uppermost one, so it moves all processes there into one below.

use std::collections::BTreeSet;
use std::path::Path;

use super::files::{make_folder, read, write, write_raw};
use super::limits::Limits;
use super::{CgroupError, Draft};

/// Handed down also if no limit needs it: it counts what was killed as memory ran out.
const COUNTING: &str = "memory";

/// Where the processes of a container go. Programs in containers agree on the name.
const REFUGE: &str = "init";

/// Processes start while others are moved.
const ROUNDS: usize = 10;

pub(super) fn make(
    root: &Path,
    place: &[String],
    limits: &Limits,
    draft: &mut Draft,
) -> Result<(), CgroupError> {
    let settings = limits.unified();
    let needed: BTreeSet<&'static str> = settings.iter().map(|setting| setting.controller).collect();
    let mut folder = root.to_owned();
    for (at, name) in place.iter().enumerate() {
        hand_down(root, &folder, &needed)?;
        folder.push(name);
        if at + 1 == place.len() {
            draft.make_own(&folder)?;
        } else {
            make_folder(&folder)?;
        }
    }
    for setting in &settings {
        write(&folder.join(setting.file), &setting.value)?;
    }
    draft.events = Some(folder.join("memory.events"));
    draft.enter_through(&folder)
}

/// Lets the cgroups right below `folder` use the controllers that are needed.
fn hand_down(root: &Path, folder: &Path, needed: &BTreeSet<&'static str>) -> Result<(), CgroupError> {
    let file = folder.join("cgroup.subtree_control");
    let known = read(&file)?;
    let missing = |name: &&str| !known.split_whitespace().any(|handed| handed == *name);
    if !needed.contains(COUNTING) && missing(&COUNTING) {
        // Without it nothing is limited less.
        let _uncounted = write_raw(&file, &format!("+{COUNTING}"));
    }
    let available = read(&folder.join("cgroup.controllers"))?;
    for name in needed.iter().copied().filter(missing) {
        if !available.split_whitespace().any(|there| there == name) {
            return Err(CgroupError::NoController(name));
        }
        let handed = match write_raw(&file, &format!("+{name}")) {
            Err(error) if is_occupied(&error) && folder == root && is_of_container(root) => {
                evacuate(root)?;
                write_raw(&file, &format!("+{name}"))
            }
            handed => handed,
        };
        handed.map_err(|source| match is_occupied(&source) {
            true => CgroupError::Occupied {
                folder: folder.to_owned(),
                controller: name,
            },
            false => CgroupError::Write {
                path: file.clone(),
                value: format!("+{name}"),
                source,
            },
        })?;
    }
    Ok(())
}

fn is_occupied(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ResourceBusy
}

/// Whether this process is in a cgroup that looks uppermost only from within its namespace: the real one has no type.
fn is_of_container(root: &Path) -> bool {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    own.lines().any(|line| line == "0::/") && root.join("cgroup.type").exists()
}

fn evacuate(root: &Path) -> Result<(), CgroupError> {
    let refuge = root.join(REFUGE);
    make_folder(&refuge)?;
    let (from, to) = (root.join("cgroup.procs"), refuge.join("cgroup.procs"));
    for _ in 0..ROUNDS {
        let processes = read(&from)?;
        if processes.trim().is_empty() {
            break;
        }
        for process in processes.split_whitespace() {
            // It may have ended; one that cannot be moved shows when the controllers are handed down.
            let _gone = write_raw(&to, process);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder that looks like a cgroup.
    fn pretend(folder: &Path, available: &str, handed: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("cgroup.controllers"), available).unwrap();
        fs::write(folder.join("cgroup.subtree_control"), handed).unwrap();
        fs::write(folder.join("cgroup.procs"), "").unwrap();
        for file in ["memory.max", "memory.swap.max", "cpu.max"] {
            fs::write(folder.join(file), "").unwrap();
        }
    }

    #[test]
    fn controllers_are_handed_down_and_limits_written() {
        let root = tempfile::tempdir().unwrap();
        let place = ["builds".to_owned(), "buildkit".to_owned(), "x".to_owned()];
        pretend(root.path(), "cpu memory pids\n", "memory\n");
        pretend(&root.path().join("builds"), "cpu memory\n", "cpu memory\n");
        pretend(&root.path().join("builds/buildkit"), "cpu memory\n", "\n");
        let limits = Limits {
            memory: 100,
            memory_swap: 300,
            cpu_quota: 7,
            ..Limits::default()
        };
        // What is below the last one handed it down comes about with the folder, where there is a kernel.
        let mut draft = Draft::default();
        let made = make(root.path(), &place, &limits, &mut draft);
        assert!(matches!(made, Err(CgroupError::Write { .. })), "{made:?}");
        let text = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(text("cgroup.subtree_control"), "+cpu");
        assert_eq!(text("builds/cgroup.subtree_control"), "cpu memory\n");
        assert_eq!(text("builds/buildkit/cgroup.subtree_control"), "+memory");

        let lacking = Limits {
            cpuset_cpus: "0".into(),
            ..Limits::default()
        };
        let refusal = make(root.path(), &place, &lacking, &mut Draft::default()).unwrap_err();
        assert!(
            matches!(refusal, CgroupError::NoController("cpuset")),
            "{refusal:?}"
        );
    }

    #[test]
    fn whoever_is_in_the_way_is_moved() {
        let root = tempfile::tempdir().unwrap();
        let refuge = root.path().join(REFUGE);
        pretend(&refuge, "", "");
        fs::write(root.path().join("cgroup.procs"), "17\n23\n").unwrap();
        evacuate(root.path()).unwrap();
        assert_eq!(fs::read_to_string(refuge.join("cgroup.procs")).unwrap(), "23");
    }
}
