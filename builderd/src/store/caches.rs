//! Folders that steps keep between builds (`RUN --mount=type=cache`). They are the only files that steps write in place:
//! nothing is derived from them, so losing one costs time and nothing else.
//!
//! Each has a record among those of layers, so that it is listed, held and pruned like them.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use super::layer_record::LayerRecord;
use super::measure::disk_size;
use super::usage::Content;
use super::{CacheKey, LayerDraft, LayerId, Store};

/// Before the name of a cache's folder, in the id of its record.
const PREFIX: &str = "cache-";

impl Store {
    /// The folder of a cache, made if it is not there. `description` says in listings what it is.
    pub fn cache_folder(&self, key: &CacheKey, description: &str) -> io::Result<PathBuf> {
        let id = self.hold_cache(key);
        let now = SystemTime::now();
        self.update_layer(&id, |known| {
            let mut record = known.unwrap_or_else(|| new_record(now));
            record.step = description.to_owned();
            record.last_used = now;
            record.disk_size = None;
            record
        })
        .map_err(io::Error::other)?;
        let path = self.cache_path(key);
        // Who may write is the step's matter: it sees the folder as its own.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)?;
        Ok(path)
    }

    pub fn has_cache(&self, key: &CacheKey) -> bool {
        self.hold_cache(key);
        self.cache_path(key).is_dir()
    }

    /// Makes what is in the draft the beginning of a cache; one that is there stays.
    pub fn begin_cache(&self, key: &CacheKey, draft: &LayerDraft) -> io::Result<()> {
        self.hold_cache(key);
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

    /// From here on it stays as long as this handle.
    fn hold_cache(&self, key: &CacheKey) -> LayerId {
        let id = LayerId::new(format!("{PREFIX}{}", hex::encode(key.as_bytes())));
        self.lease().hold([&id]);
        id
    }

    /// The folder of the cache whose record this is.
    pub(super) fn cache_of(&self, id: &LayerId) -> Option<PathBuf> {
        let name = id.as_str().strip_prefix(PREFIX)?;
        let harmless = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        harmless.then(|| self.inner().folder.caches().join(name))
    }

    /// Bytes that a cache takes. It is measured again whenever it was used.
    pub(super) fn cache_size(&self, id: &LayerId, record: &LayerRecord) -> u64 {
        let in_use = self.inner().holds.lock().holds_layer(id);
        if let (Some(known), false) = (record.disk_size, in_use) {
            return known;
        }
        let size = self.cache_of(id).filter(|path| path.is_dir());
        let Some(Ok(size)) = size.map(|path| disk_size(&path)) else {
            return 0;
        };
        if !in_use {
            let noted = self.update_existing_layer(id, |record| record.disk_size = Some(size));
            if let Err(error) = noted {
                tracing::debug!(cache = %id, error = &error as &dyn std::error::Error, "size not noted");
            }
        }
        size
    }

    /// Gives caches that have no record one: those of daemons that did not keep any.
    pub(super) fn record_caches(&self) -> io::Result<()> {
        let folder = self.inner().folder.caches();
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let id = LayerId::new(format!("{PREFIX}{name}"));
            if self.cache_of(&id).is_none() || self.layer(&id).is_some() {
                continue;
            }
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let modified = modified.unwrap_or(SystemTime::UNIX_EPOCH);
            self.update_layer(&id, |known| known.unwrap_or_else(|| new_record(modified)))
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}

fn new_record(at: SystemTime) -> LayerRecord {
    let mut record = LayerRecord::new(at);
    record.content = Content::CacheMount;
    record.step = "cached mount".to_owned();
    record
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::{PrunePolicy, Usage};

    async fn caches(store: &Store) -> Vec<Usage> {
        let mut usage = store.usage().await.unwrap();
        usage.retain(|entry| entry.content == Content::CacheMount);
        usage
    }

    async fn prune(store: &Store) -> usize {
        let (removed, mut listener) = tokio::sync::mpsc::channel(8);
        store.prune(&[PrunePolicy::default()], removed).await.unwrap();
        let mut count = 0;
        while listener.recv().await.is_some() {
            count += 1;
        }
        count
    }

    #[tokio::test]
    async fn a_cache_is_listed_held_while_it_is_used_and_pruned_after_that() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let key = CacheKey::new("test", ["a"]);
        let user = store.leased();
        let folder = user.cache_folder(&key, "cached mount /a").unwrap();
        fs::write(folder.join("file"), vec![1; 100_000]).unwrap();
        let listed = caches(&store).await;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].description, "cached mount /a");
        assert!(listed[0].in_use && listed[0].mutable);
        assert!(listed[0].size >= 100_000);
        assert_eq!(prune(&store).await, 0);
        fs::write(folder.join("more"), vec![1; 100_000]).unwrap();
        drop(user);
        let listed = caches(&store).await;
        assert!(!listed[0].in_use);
        assert!(listed[0].size >= 200_000, "{listed:?}");
        assert_eq!(listed[0].uses, 1);
        assert_eq!(prune(&store).await, 1);
        assert!(!folder.exists());
        assert!(caches(&store).await.is_empty());
    }

    #[tokio::test]
    async fn caches_without_a_record_get_one_and_records_survive_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let name = "ab".repeat(32);
        let store = Store::open(root.path()).unwrap();
        fs::create_dir_all(store.inner().folder.caches().join(&name)).unwrap();
        drop(store);
        for _ in 0..2 {
            let store = Store::open(root.path()).unwrap();
            let listed = caches(&store).await;
            assert_eq!(listed.len(), 1);
            assert_eq!(listed[0].id, format!("{PREFIX}{name}"));
            store.flush().await.unwrap();
        }
    }
}
