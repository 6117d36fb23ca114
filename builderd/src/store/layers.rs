//! Layers: immutable folders in overlayfs upper format, and what is known about each.
//!
//! A layer folder is made in a `LayerDraft` and gets its name by one rename. The record of a layer of an image can be
//! there long before its folder: such a layer is *remote* until somebody needs its files.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use registry::digest::Digest;
use serde::{Deserialize, Serialize};

use super::folder::{StateFolder, random_name};
use super::metadata::{ReadError, Table};
use super::{LayerId, Store};

/// More repositories than this are not remembered: they only serve to mount a blob instead of uploading it.
const REPOSITORIES: usize = 16;
/// Bound of the memory of layers that were found.
const KNOWN_LAYERS: usize = 1 << 14;
/// `last_used` is not rewritten more often than this.
const USE_GRANULARITY: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

/// Where the blob of an image layer can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteBlob {
    pub descriptor: Descriptor,
    /// Full names (`registry/path`), in the order in which they were seen.
    pub repositories: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Digest of the uncompressed tar, once somebody made or read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// Blobs made of this layer, by the name of their compression and level.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub blobs: BTreeMap<String, Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteBlob>,
    /// Bytes of the uncompressed tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(with = "unix_seconds")]
    pub created_at: SystemTime,
    #[serde(with = "unix_seconds")]
    pub last_used: SystemTime,
}

/// What is known about a layer when its folder is finished.
#[derive(Clone, Debug, Default)]
pub struct NewLayer {
    pub description: String,
    /// Now, unless given.
    pub created_at: Option<SystemTime>,
    pub diff_id: Option<Digest>,
    pub size: Option<u64>,
}

/// A layer of an image whose files nobody has needed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteLayer {
    pub diff_id: Digest,
    pub descriptor: Descriptor,
    /// Full name (`registry/path`) of the repository it was found in.
    pub repository: String,
}

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("cannot {doing} layer folder {}", path.display())]
    Folder {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the record of layer {layer}")]
    Record {
        layer: LayerId,
        #[source]
        source: ReadError,
    },
    #[error("the record of layer {layer} is damaged")]
    Damaged {
        layer: LayerId,
        #[source]
        source: serde_json::Error,
    },
}

/// A layer folder that is being made. Dropped without being committed, it goes away.
#[derive(Debug)]
pub struct LayerDraft {
    state: Arc<StateFolder>,
    folder: PathBuf,
    committed: bool,
}

impl LayerDraft {
    /// The folder that becomes the layer; empty, mode 0755, to be filled in overlayfs upper format.
    pub fn upper(&self) -> PathBuf {
        self.folder.join("fs")
    }

    /// overlayfs' work folder on the same file system.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }
}

impl Drop for LayerDraft {
    fn drop(&mut self) {
        if !self.committed {
            self.state.discard(&self.folder);
        }
    }
}

impl LayerId {
    /// The id of an image layer.
    pub fn of_image(diff_id: &Digest) -> Self {
        Self::new(diff_id.as_str())
    }

    fn random() -> Self {
        Self::new(random_name())
    }

    /// Name of this layer's folder. Ids may come from outside: whatever they hold, the name stays one harmless word
    /// (and has no colon, which mount options separate paths by).
    fn folder_name(&self) -> String {
        let harmless = |c: char| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '-'
            }
        };
        self.as_str().chars().map(harmless).collect()
    }
}

impl Store {
    /// A new, empty layer folder to be filled.
    pub fn draft(&self) -> Result<LayerDraft, LayerError> {
        let folder = self.inner().folder.temporary();
        let fail = |source| LayerError::Folder {
            doing: "create",
            path: folder.clone(),
            source,
        };
        let create = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        create(&folder).map_err(fail)?;
        let draft = LayerDraft {
            state: Arc::clone(&self.inner().folder),
            folder: folder.clone(),
            committed: false,
        };
        create(&draft.upper()).map_err(fail)?;
        create(&draft.work()).map_err(fail)?;
        // Whatever the umask: this mode is what `/` has in the container.
        fs::set_permissions(draft.upper(), fs::Permissions::from_mode(0o755)).map_err(fail)?;
        Ok(draft)
    }

    /// Publishes a finished draft under a new id.
    pub fn commit(&self, draft: LayerDraft, layer: NewLayer) -> Result<LayerId, LayerError> {
        let id = LayerId::random();
        self.commit_as(draft, &id, layer)?;
        Ok(id)
    }

    /// Publishes a finished draft under an id that its content determines. If somebody else was faster, theirs stays.
    pub fn commit_as(&self, mut draft: LayerDraft, id: &LayerId, layer: NewLayer) -> Result<(), LayerError> {
        let folder = &self.inner().folder;
        let work = draft.work();
        // What overlayfs leaves in it, the mark of volatile mounts first; anything more takes the slow way.
        for left in ["work/incompat/volatile", "work/incompat", "work"] {
            let _ = fs::remove_dir(work.join(left));
        }
        if fs::remove_dir(&work).is_err() {
            folder.discard(&work);
        }
        let path = folder.layers().join(id.folder_name());
        match fs::rename(&draft.folder, &path) {
            Ok(()) => draft.committed = true,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                // It may have been killed before it wrote the record.
                tracing::debug!(layer = %id, "another writer finished this layer first");
            }
            Err(source) => {
                return Err(LayerError::Folder {
                    doing: "publish",
                    path,
                    source,
                });
            }
        }
        self.inner()
            .metadata
            .put(Table::Unsynced, format!("layer {id}").as_bytes(), []);
        let now = SystemTime::now();
        self.update_layer(id, |known| {
            let mut record = known.unwrap_or_else(|| LayerRecord::new(now));
            record.created_at = layer.created_at.unwrap_or(record.created_at);
            record.last_used = now;
            record.diff_id = layer.diff_id.or(record.diff_id);
            record.size = layer.size.or(record.size);
            if !layer.description.is_empty() {
                record.description = layer.description;
            }
            record
        })?;
        Ok(())
    }

    /// The files of a layer, if they are here (see [`Store::has_folder`]).
    pub fn layer_folder(&self, id: &LayerId) -> PathBuf {
        self.inner().folder.layers().join(id.folder_name()).join("fs")
    }

    pub fn has_folder(&self, id: &LayerId) -> bool {
        self.layer_folder(id).is_dir()
    }

    /// What is known about a layer; a record that cannot be read counts as unknown.
    pub fn layer(&self, id: &LayerId) -> Option<LayerRecord> {
        self.read_layer(id).unwrap_or_else(|error| {
            tracing::warn!(layer = %id, error = &error as &dyn std::error::Error, "layer record ignored");
            None
        })
    }

    /// Notes where layers of an image can be had, so that they can be fetched when somebody needs their files and
    /// mounted or named without ever being fetched.
    pub fn record_remote_layers(
        &self,
        layers: impl IntoIterator<Item = RemoteLayer>,
    ) -> Result<(), LayerError> {
        let now = SystemTime::now();
        for layer in layers {
            let id = LayerId::of_image(&layer.diff_id);
            self.update_layer(&id, |known| {
                let mut record = known.unwrap_or_else(|| LayerRecord::new(now));
                record.diff_id = Some(layer.diff_id);
                match &mut record.remote {
                    Some(remote) if remote.descriptor.digest == layer.descriptor.digest => {
                        if remote.repositories.len() < REPOSITORIES
                            && !remote.repositories.contains(&layer.repository)
                        {
                            remote.repositories.push(layer.repository);
                        }
                    }
                    // An image that says otherwise is believed by the build that uses it, not by all others.
                    Some(_) => {}
                    remote @ None => {
                        *remote = Some(RemoteBlob {
                            descriptor: layer.descriptor,
                            repositories: vec![layer.repository],
                        });
                    }
                }
                record
            })?;
        }
        Ok(())
    }

    /// Notes the blob that a layer of an image was unpacked from: its diff id was verified, so it stands in the place of
    /// one that an image only claimed.
    pub fn record_unpacked_from(&self, id: &LayerId, blob: &RemoteBlob) -> Result<(), LayerError> {
        let now = SystemTime::now();
        self.update_layer(id, |known| {
            let mut record = known.unwrap_or_else(|| LayerRecord::new(now));
            let known = record.remote.as_ref().map(|remote| &remote.descriptor.digest);
            if known != Some(&blob.descriptor.digest) {
                record.remote = Some(blob.clone());
            }
            record
        })?;
        Ok(())
    }

    /// Whether this layer is here or can be fetched. Of those found once this is remembered: a build of a thousand steps
    /// asks for the same lower layers again and again.
    pub(super) fn knows_layer(&self, id: &LayerId) -> bool {
        let known = || {
            self.inner()
                .known_layers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if known().contains(id) {
            return true;
        }
        let Some(record) = self.layer(id) else {
            return false;
        };
        if record.remote.is_none() && !self.has_folder(id) {
            tracing::warn!(layer = %id, "the folder of a layer was removed from outside");
            return false;
        }
        self.touch_layer(id, &record);
        let mut known = known();
        if known.len() >= KNOWN_LAYERS {
            known.clear();
        }
        known.insert(id.clone())
    }

    /// Notes that a layer was used, for those that later look for what can go.
    fn touch_layer(&self, id: &LayerId, record: &LayerRecord) {
        let now = SystemTime::now();
        if now
            .duration_since(record.last_used)
            .is_ok_and(|age| age > USE_GRANULARITY)
        {
            let touched = self.update_layer(id, |known| {
                let mut record = known.unwrap_or_else(|| record.clone());
                record.last_used = now;
                record
            });
            if let Err(error) = touched {
                tracing::debug!(layer = %id, error = &error as &dyn std::error::Error, "use not noted");
            }
        }
    }

    /// Changes one record; changes of one record do not overlap.
    pub(super) fn update_layer(
        &self,
        id: &LayerId,
        change: impl FnOnce(Option<LayerRecord>) -> LayerRecord,
    ) -> Result<LayerRecord, LayerError> {
        let _one_at_a_time = self
            .inner()
            .layer_updates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = self.read_layer(id)?;
        let record = change(known.clone());
        if known.as_ref() != Some(&record) {
            let bytes = serde_json::to_vec(&record).map_err(|source| LayerError::Damaged {
                layer: id.clone(),
                source,
            })?;
            self.inner()
                .metadata
                .put(Table::Layers, id.as_str().as_bytes(), bytes);
        }
        Ok(record)
    }

    pub(super) fn read_layer(&self, id: &LayerId) -> Result<Option<LayerRecord>, LayerError> {
        let bytes = self
            .inner()
            .metadata
            .get(Table::Layers, id.as_str().as_bytes())
            .map_err(|source| LayerError::Record {
                layer: id.clone(),
                source,
            })?;
        bytes
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()
            .map_err(|source| LayerError::Damaged {
                layer: id.clone(),
                source,
            })
    }

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
        let ids = inner.metadata.keys(Table::Layers).map_err(fail)?;
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
        Ok(())
    }
}

impl Store {
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

impl LayerRecord {
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            description: String::new(),
            diff_id: None,
            blobs: BTreeMap::new(),
            remote: None,
            size: None,
            created_at: now,
            last_used: now,
        }
    }
}

/// Times as whole seconds: short, and nobody needs more of them.
pub(super) mod unix_seconds {
    use std::time::{Duration, SystemTime};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::store) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(
            time.duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        )
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .ok_or_else(|| serde::de::Error::custom("time out of range"))
    }
}
