//! The repositories of git sources: for each remote one bare repository, which everybody who builds from it shares.
//!
//! What is in one can always be fetched again, so whatever is wrong with it is mended by throwing it away. Whoever
//! uses one holds its lock: git does not expect two fetches at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use tokio::sync::OwnedMutexGuard;

use super::folder::StateFolder;
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
