//! The repositories of git sources: for each remote one bare repository, which everybody who builds from it shares.
//!
//! What is in one can always be fetched again, so whatever is wrong with it is mended by throwing it away. Whoever
//! uses one holds its lock: git does not expect two fetches at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use tokio::sync::OwnedMutexGuard;

use super::folder::StateFolder;
use super::measure::disk_size;
use super::{CacheKey, LayerDraft, Store};

/// Locks that nobody holds are forgotten when there are more than this.
const LOCKS: usize = 256;

/// The only right to use one repository.
#[derive(Debug)]
pub struct Repository {
    state: Arc<StateFolder>,
    folder: PathBuf,
    _lock: OwnedMutexGuard<()>,
}

impl Store {
    /// The repository for a remote, of which `name` tells all that matters. Waits for whoever uses it.
    pub async fn repository(&self, name: &str) -> Repository {
        let state = &self.inner().folder;
        let folder = state
            .repositories()
            .join(CacheKey::new("git repository", [name]).to_string());
        let lock = {
            let mut locks = self
                .inner()
                .repository_locks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if locks.len() > LOCKS {
                locks.retain(|_, lock| lock.strong_count() > 0);
            }
            match locks.get(&folder).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::default();
                    locks.insert(folder.clone(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        Repository {
            state: Arc::clone(state),
            folder,
            _lock: lock.lock_owned().await,
        }
    }
}

/// A repository and what it takes.
#[derive(Clone, Debug)]
pub(super) struct RepositoryUse {
    /// The name of its folder.
    pub name: String,
    pub size: u64,
    pub in_use: bool,
    pub created_at: SystemTime,
    pub last_used: SystemTime,
}

impl Store {
    /// All repositories. They change, so each is measured anew; git keeps what is in one in a few large files.
    pub(super) fn repositories(&self) -> io::Result<Vec<RepositoryUse>> {
        let folder = self.inner().folder.repositories();
        let mut repositories = Vec::new();
        for entry in std::fs::read_dir(folder)?.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // What was last fetched is noted in a file; one that goes while one looks takes no space.
            let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
            let path = entry.path();
            let (Ok(created_at), Ok(size)) = (modified(&path.join("HEAD")), disk_size(&path)) else {
                continue;
            };
            repositories.push(RepositoryUse {
                in_use: self.is_locked(&path),
                last_used: modified(&path.join("FETCH_HEAD"))
                    .unwrap_or(created_at)
                    .max(created_at),
                created_at,
                size,
                name,
            });
        }
        Ok(repositories)
    }

    fn is_locked(&self, folder: &Path) -> bool {
        let locks = self.inner().repository_locks.lock();
        let locks = locks.unwrap_or_else(PoisonError::into_inner);
        locks.get(folder).is_some_and(|lock| lock.strong_count() > 0)
    }

    /// Throws a repository away unless somebody uses it or waits for it.
    pub(super) fn remove_repository(&self, name: &str) -> bool {
        let folder = self.inner().folder.repositories().join(name);
        let locks = self.inner().repository_locks.lock();
        // Nobody gets the right to use it as long as the locks are locked.
        let locks = locks.unwrap_or_else(PoisonError::into_inner);
        let is_free = locks.get(&folder).is_none_or(|lock| lock.strong_count() == 0);
        if is_free {
            self.inner().folder.discard(&folder);
        }
        is_free
    }
}

impl Repository {
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn exists(&self) -> bool {
        self.folder.is_dir()
    }

    /// A name for a new repository, to be put in place by [`Repository::publish`] when it is complete.
    pub fn draft(&self) -> PathBuf {
        self.state.temporary()
    }

    pub fn publish(&self, draft: &Path) -> io::Result<()> {
        std::fs::rename(draft, &self.folder)
    }

    /// Throws away what is there.
    pub fn discard(&self) {
        self.state.discard(&self.folder);
    }
}

impl LayerDraft {
    /// Makes a folder inside of [`LayerDraft::work`] the layer's own. What else is there does not get into the layer.
    pub fn keep_folder_of_work(&self, folder: &Path) -> io::Result<()> {
        let work = rustix::fs::openat(
            CWD,
            self.work(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let (parent, name) = (
            folder.parent().unwrap_or(Path::new("")),
            folder.file_name().ok_or(io::ErrorKind::InvalidInput)?,
        );
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        let parent = rustix::fs::openat2(
            &work,
            parent,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )?;
        // The name of the layer's folder is taken by an empty one, which a rename of a folder replaces.
        Ok(rustix::fs::renameat(&parent, name, CWD, self.upper())?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_repository_has_one_user_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path()).unwrap();
        let first = store.repository("https://e.com/a.git").await;
        let other = store.repository("https://e.com/b.git").await;
        assert_ne!(first.folder(), other.folder());
        let second = store.repository("https://e.com/a.git");
        let mut second = std::pin::pin!(second);
        assert!(futures::poll!(second.as_mut()).is_pending());
        let folder = first.folder().to_owned();
        let draft = first.draft();
        fs::create_dir(&draft).unwrap();
        first.publish(&draft).unwrap();
        drop(first);
        let second = second.await;
        assert_eq!(second.folder(), folder);
        assert!(second.exists());
        second.discard();
        assert!(!second.exists());
    }

    #[test]
    fn a_folder_of_the_work_folder_becomes_the_layer() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path()).unwrap();
        let draft = store.draft().unwrap();
        fs::create_dir_all(draft.work().join("tree/a/b")).unwrap();
        fs::write(draft.work().join("tree/a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("a", draft.work().join("tree/link")).unwrap();
        assert!(draft.keep_folder_of_work(Path::new("tree/link/b")).is_err());
        assert!(draft.keep_folder_of_work(Path::new("../fs")).is_err());
        draft.keep_folder_of_work(Path::new("tree/a/b")).unwrap();
        assert_eq!(fs::read(draft.upper().join("file")).unwrap(), b"x");
    }
}
