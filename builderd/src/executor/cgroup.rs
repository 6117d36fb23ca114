//! Steps in cgroups of their own: below a parent that somebody named, or because they have limits.
//!
//! The daemon makes the cgroup and opens its `cgroup.procs`; a process of the step that writes into the open file enters
//! it, wherever the process is and whatever it may do: the kernel asks who has opened the file. So a sandbox needs no
//! cgroup file system. When no process of the step is left its cgroup is removed; what a killed daemon left is removed
//! when its next life makes one at the same place. Paths are those that BuildKit uses: `PARENT/buildkit/NAME`.

mod files;
mod hierarchies;
mod limits;
mod split;
mod unified;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;

use hierarchies::Hierarchies;
pub use limits::{LimitError, Limits, is_list};

/// Between a parent and the cgroups of steps.
const FOLDER: &str = "buildkit";

/// When to look again whether the last process of a cgroup is gone.
const PATIENCE: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(50),
    Duration::from_millis(500),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("invalid cgroup parent {parent:?}: {problem}")]
    Parent { parent: String, problem: &'static str },
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(
        "no cgroup file system is mounted where the daemon runs: mount one, or leave limits and cgroup parents of steps out"
    )]
    NoFileSystem,
    #[error(
        "the cgroups of this machine have no controller {0}, which a limit of the step needs: leave the limit out"
    )]
    NoController(&'static str),
    #[error(
        "cannot make the cgroup {}: the daemon must be allowed to write there, or limits and cgroup parents of steps left out", path.display()
    )]
    Make { path: PathBuf, source: std::io::Error },
    #[error("cannot set {} to {value:?}", path.display())]
    Write {
        path: PathBuf,
        value: String,
        source: std::io::Error,
    },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "the cgroup {} cannot hand the controller {controller} down, as processes are in it: name a cgroup parent without any", folder.display()
    )]
    Occupied {
        folder: PathBuf,
        controller: &'static str,
    },
    #[error("cannot make a cgroup for the step")]
    Lost(#[source] tokio::task::JoinError),
}

/// The daemon's cgroups for steps.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// What the names of all of them start with, and then those of this life.
    owner: String,
    life: String,
    next: AtomicU64,
    /// Where steps go that name no parent.
    default_parent: Option<String>,
    background: Weak<Mutex<JoinSet<()>>>,
}

/// The cgroup of one step, which is removed when this is dropped.
#[derive(Debug)]
pub struct Cgroup {
    entrances: Vec<OwnedFd>,
    /// Where the kernel counts what it killed for want of memory.
    events: Option<PathBuf>,
    folders: Vec<PathBuf>,
    background: Weak<Mutex<JoinSet<()>>>,
}

/// A cgroup in the making: what is there of it when that fails is removed.
#[derive(Debug, Default)]
struct Draft {
    entrances: Vec<OwnedFd>,
    events: Option<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Cgroups {
    pub(super) fn new(
        daemon: &str,
        default_parent: Option<String>,
        background: Weak<Mutex<JoinSet<()>>>,
    ) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            owner: format!("{}-", &blake3::hash(daemon.as_bytes()).to_hex()[..16]),
            life: format!("{:x}-", started.as_nanos()),
            next: AtomicU64::new(1),
            default_parent,
            background,
        }
    }

    /// The cgroup of a step, if it shall have one. An empty parent is the daemon's default.
    pub(super) async fn make(&self, parent: &str, limits: &Limits) -> Result<Option<Cgroup>, CgroupError> {
        let parent = match (parent, &self.default_parent) {
            ("", Some(default)) => default,
            (parent, _) => parent,
        };
        if parent.is_empty() && limits.is_empty() {
            return Ok(None);
        }
        limits.check()?;
        let mut above = path_of(parent)?;
        let below_parent = !parent.is_empty();
        above.push(FOLDER.to_owned());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}{number}", self.owner, self.life);
        let (owner, life) = (self.owner.clone(), format!("{}{}", self.owner, self.life));
        let limits = limits.clone();
        let making = tokio::task::spawn_blocking(move || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let hierarchies = Hierarchies::in_mounts(&mounts).ok_or(CgroupError::NoFileSystem)?;
            let mut draft = Draft::default();
            let place = [&above[..], &[name]].concat();
            let (made, neighbourhoods) = match &hierarchies {
                Hierarchies::Split(all) => (
                    split::make(all, &place, below_parent, &limits, &mut draft),
                    split::neighbourhoods(all, &above),
                ),
                Hierarchies::Unified(root) => (
                    unified::make(root, &place, &limits, &mut draft),
                    vec![root.join(above.iter().collect::<PathBuf>())],
                ),
            };
            for folder in neighbourhoods {
                sweep(&folder, &owner, &life);
            }
            made.map(|()| draft)
        });
        let mut draft = making.await.map_err(CgroupError::Lost)??;
        Ok(Some(Cgroup {
            entrances: std::mem::take(&mut draft.entrances),
            events: draft.events.take(),
            folders: std::mem::take(&mut draft.folders),
            background: Weak::clone(&self.background),
        }))
    }
}

/// Whether steps could be put below it, as far as its name tells.
pub fn check_parent(parent: &str) -> Result<(), CgroupError> {
    path_of(parent).map(|_| ())
}

/// The folders of a parent; none for the uppermost cgroup.
fn path_of(parent: &str) -> Result<Vec<String>, CgroupError> {
    let refuse = |problem| {
        Err(CgroupError::Parent {
            parent: parent.to_owned(),
            problem,
        })
    };
    if parent.contains(".slice") && parent.ends_with(':') {
        return refuse("slices of systemd are not asked for: name a path, such as /builds.slice");
    }
    if parent.contains(['\0', '\n']) {
        return refuse("no cgroup has such a name");
    }
    let names = parent.split('/').filter(|name| !matches!(*name, "" | "."));
    let names: Vec<String> = names.map(str::to_owned).collect();
    if names.iter().any(|name| name == "..") {
        return refuse("a path within the cgroup file system has no `..`");
    }
    Ok(names)
}

/// Removes what earlier lives of this daemon left in a folder.
fn sweep(folder: &Path, owner: &str, life: &str) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(owner) && !name.starts_with(life) {
            // One with a process in it is left to the next life.
            let _gone = files::remove(&entry.path());
        }
    }
}

impl Draft {
    /// Makes the folder that is the step's own in one hierarchy.
    fn make_own(&mut self, folder: &Path) -> Result<(), CgroupError> {
        fs::create_dir(folder).map_err(|source| CgroupError::Make {
            path: folder.to_owned(),
            source,
        })?;
        self.folders.push(folder.to_owned());
        Ok(())
    }

    fn enter_through(&mut self, folder: &Path) -> Result<(), CgroupError> {
        let path = folder.join("cgroup.procs");
        let file = fs::OpenOptions::new().write(true).open(&path);
        let file = file.map_err(|source| CgroupError::Make { path, source })?;
        self.entrances.push(file.into());
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for folder in &self.folders {
            files::is_removed(folder);
        }
    }
}

impl Cgroup {
    /// A process that writes `0` into all of these enters it.
    pub(super) fn entrances(&self) -> &[OwnedFd] {
        &self.entrances
    }

    /// Whether one of its processes was killed because memory ran out.
    pub fn ran_out_of_memory(&self) -> bool {
        let text = self.events.as_ref().map(fs::read_to_string);
        text.is_some_and(|text| text.is_ok_and(|text| kills(&text) > 0))
    }
}

/// How often memory ran out, as both kinds of cgroups write it.
fn kills(events: &str) -> u64 {
    let mut counts = events.lines().filter_map(|line| line.strip_prefix("oom_kill "));
    counts
        .next()
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_default()
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.folders.retain(|folder| !files::is_removed(folder));
        if self.folders.is_empty() {
            return;
        }
        // Outside of a runtime the daemon is ending, and its next life removes them.
        let (Some(background), Ok(_)) = (self.background.upgrade(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let folders = std::mem::take(&mut self.folders);
        let mut background = background.lock().unwrap_or_else(PoisonError::into_inner);
        background.spawn(remove_in_time(folders));
    }
}

async fn remove_in_time(mut folders: Vec<PathBuf>) {
    for pause in PATIENCE {
        tokio::time::sleep(pause).await;
        let removing = tokio::task::spawn_blocking(move || {
            folders.retain(|folder| !files::remove(folder));
            folders
        });
        match removing.await {
            Ok(left) if left.is_empty() => return,
            Ok(left) => folders = left,
            Err(_) => return,
        }
    }
    tracing::warn!(?folders, "cannot remove cgroups of a step that has ended");
}

/// The cgroup of a step in its description: on the way to the runner only how many entrances it has, which come with the
/// request as open files.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Membership {
    pub(super) entrances: usize,
    #[serde(skip)]
    cgroup: Option<Arc<Cgroup>>,
}

impl Membership {
    pub(super) fn new(cgroup: Cgroup) -> Self {
        Self {
            entrances: cgroup.entrances.len(),
            cgroup: Some(Arc::new(cgroup)),
        }
    }

    pub(super) fn cgroup(&self) -> Option<Arc<Cgroup>> {
        self.cgroup.clone()
    }

    /// See [`Cgroup::ran_out_of_memory`].
    pub fn ran_out_of_memory(&self) -> bool {
        self.cgroup
            .as_ref()
            .is_some_and(|cgroup| cgroup.ran_out_of_memory())
    }
}

#[cfg(test)]
mod tests;
