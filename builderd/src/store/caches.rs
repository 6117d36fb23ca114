//! Folders that steps keep between builds (`RUN --mount=type=cache`). They are the only files that steps write in place:
//! nothing is derived from them, so losing one costs time and nothing else.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use super::{CacheKey, LayerDraft, Store};

impl Store {
    /// The folder of a cache, made if it is not there.
    pub fn cache_folder(&self, key: &CacheKey) -> io::Result<PathBuf> {
        let path = self.cache_path(key);
        // Who may write is the step's matter: it sees the folder as its own.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)?;
        Ok(path)
    }

    pub fn has_cache(&self, key: &CacheKey) -> bool {
        self.cache_path(key).is_dir()
    }

    /// Makes what is in the draft the beginning of a cache; one that is there stays.
    pub fn begin_cache(&self, key: &CacheKey, draft: &LayerDraft) -> io::Result<()> {
        let path = self.cache_path(key);
        std::fs::create_dir_all(self.inner().folder.caches())?;
        match std::fs::rename(draft.upper(), &path) {
            Err(_) if path.is_dir() => Ok(()),
            renamed => renamed,
        }
    }

    /// Empties a cache. Steps that have it mounted go on with what it was.
    pub fn forget_cache(&self, key: &CacheKey) -> io::Result<()> {
        let folder = &self.inner().folder;
        let gone = folder.temporary();
        match std::fs::rename(self.cache_path(key), &gone) {
            Ok(()) => {
                folder.discard(&gone);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn cache_path(&self, key: &CacheKey) -> PathBuf {
        self.inner().folder.caches().join(hex::encode(key.as_bytes()))
    }
}
