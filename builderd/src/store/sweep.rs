//! What is thrown away when the state folder is opened: what a kill, or the end of the machine, left.

use std::fs;

use registry::digest::Digest;

use super::metadata::Table;
use super::{LayerId, Store};

impl Store {
    /// Throws away what a kill left: folders without a record; and, if the machine was restarted since, whatever had
    /// not reached the disk for certain.
    pub(super) fn sweep(&self) -> Result<(), super::OpenError> {
        let inner = self.inner();
        let fail = |source| super::OpenError::Sweep {
            path: inner.folder.root().to_path_buf(),
            source,
        };
        if inner.restarted {
            for key in inner.metadata.keys(Table::Unsynced).map_err(fail)? {
                let text = String::from_utf8_lossy(&key);
                tracing::warn!(what = %text, "thrown away: the machine stopped before it reached the disk");
                if let Some(id) = text.strip_prefix("layer ") {
                    inner.metadata.remove(Table::Layers, id.as_bytes());
                    inner
                        .folder
                        .discard(&inner.folder.layers().join(LayerId::new(id).folder_name()));
                } else if let Some(Ok(digest)) = text.strip_prefix("blob ").map(str::parse::<Digest>) {
                    inner.folder.discard(&self.blobs().path(&digest));
                }
                inner.metadata.remove(Table::Unsynced, &key);
            }
        }
        let removing = inner
            .metadata
            .get(Table::State, super::prune::REMOVING)
            .map_err(fail)?;
        let mut ids = inner.metadata.keys(Table::Layers).map_err(fail)?;
        if removing.is_some() {
            ids.retain(|id| !self.sweep_half_removed(id));
            inner.metadata.remove(Table::State, super::prune::REMOVING);
        }
        if inner.restarted {
            self.sweep_unfinished_image_layers(&ids);
        }
        let known: std::collections::HashSet<String> = ids
            .iter()
            .map(|id| LayerId::new(String::from_utf8_lossy(id)).folder_name())
            .collect();
        let layers = inner.folder.layers();
        let entries = fs::read_dir(&layers).map_err(|source| super::OpenError::Folder {
            doing: "read",
            path: layers.clone(),
            source,
        })?;
        for entry in entries.flatten() {
            if !entry
                .file_name()
                .to_str()
                .is_some_and(|name| known.contains(name))
            {
                inner.folder.discard(&entry.path());
            }
        }
        self.record_caches().map_err(|source| super::OpenError::Folder {
            doing: "read",
            path: inner.folder.caches(),
            source,
        })
    }
}

impl Store {
    /// Forgets a layer whose folder went without its record; nobody else can bring it here again.
    fn sweep_half_removed(&self, id: &[u8]) -> bool {
        let layer = LayerId::new(String::from_utf8_lossy(id));
        let has_files = match self.cache_of(&layer) {
            Some(path) => path.is_dir(),
            None => self.has_folder(&layer),
        };
        let gone = !has_files && self.layer(&layer).is_none_or(|record| record.remote.is_none());
        if gone {
            self.inner().metadata.remove(Table::Layers, id);
        }
        gone
    }

    /// The record of an image layer is there before its folder, so it does not tell that the folder was finished; the
    /// size, written after that, does. Such a folder may have reached the disk without its files and without the note
    /// that it is suspect. It is fetched again when somebody needs it.
    fn sweep_unfinished_image_layers(&self, ids: &[Vec<u8>]) {
        for id in ids {
            let Some(id) = std::str::from_utf8(id)
                .ok()
                .filter(|id| id.parse::<Digest>().is_ok())
                .map(LayerId::new)
            else {
                continue;
            };
            if self.layer(&id).is_none_or(|record| record.size.is_none()) {
                let folder = &self.inner().folder;
                folder.discard(&folder.layers().join(id.folder_name()));
            }
        }
    }
}
