//! Folders that steps keep between builds (`RUN --mount=type=cache`). They are the only files that steps write in place:
//! nothing is derived from them, so losing one costs time and nothing else.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use super::{CacheKey, Store};

impl Store {
    /// The folder of a cache, made if it is not there.
    pub fn cache_folder(&self, key: &CacheKey) -> io::Result<PathBuf> {
        let path = self.inner().folder.caches().join(hex::encode(key.as_bytes()));
        // Who may write is the step's matter: it sees the folder as its own.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)?;
        Ok(path)
    }
}
