//! Layers: immutable folders in overlayfs upper format, and what is known about each.
//!
//! A layer folder is made in a `LayerDraft` and gets its name by one rename. The record of a layer of an image can be
//! there long before its folder: such a layer is *remote* until somebody needs its files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use registry::digest::Digest;

use super::folder::{StateFolder, random_name};
use super::layer_record::{Descriptor, LayerRecord, RemoteBlob};
use super::metadata::{ReadError, Table};
use super::usage::Content;
use super::{LayerId, Store};

/// More repositories than this are not remembered: they only serve to mount a blob instead of uploading it.
const REPOSITORIES: usize = 16;
/// Bound of the memory of layers that were found.
const KNOWN_LAYERS: usize = 1 << 14;
/// A step with a script in it has a long name.
const STEP_LENGTH: usize = 512;

/// What is known about a layer when its folder is finished.
#[derive(Clone, Debug, Default)]
pub struct NewLayer {
    pub description: String,
    /// Now, unless given.
    pub created_at: Option<SystemTime>,
    pub diff_id: Option<Digest>,
    pub size: Option<u64>,
    pub content: Content,
    /// The layer that this one was made on.
    pub parent: Option<LayerId>,
}

/// A layer of an image whose files nobody has needed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteLayer {
    pub diff_id: Digest,
    pub descriptor: Descriptor,
    /// Full name (`registry/path`) of the repository it was found in; none if its blob is brought here at once.
    pub repository: Option<String>,
    /// How and when it was made, if whoever knows of it says so.
    pub made: Option<Made>,
}

/// How and when a layer was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub description: String,
    pub at: SystemTime,
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
    pub(super) fn folder_name(&self) -> String {
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
        let lease = self.lease();
        lease.hold([id]);
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
            record.disk_size = None;
            record.content = layer.content;
            record.parent = record.parent.or(layer.parent);
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
        self.layer_path(id).join("fs")
    }

    /// What goes when the layer goes.
    pub(super) fn layer_path(&self, id: &LayerId) -> PathBuf {
        self.cache_of(id)
            .unwrap_or_else(|| self.inner().folder.layers().join(id.folder_name()))
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
        let lease = self.lease();
        let mut below = None;
        for layer in layers {
            let id = LayerId::of_image(&layer.diff_id);
            lease.hold([&id]);
            let parent = below.replace(id.clone());
            self.update_layer(&id, |known| {
                // Only of a new record, whose parent is older: so no layer can come to lie below itself.
                let mut record = known.unwrap_or_else(|| {
                    let mut record = LayerRecord::new(now);
                    record.parent = parent;
                    if let Some(made) = layer.made {
                        record.created_at = made.at;
                        record.description = made.description;
                    }
                    record
                });
                record.diff_id = Some(layer.diff_id);
                match &mut record.remote {
                    Some(remote) if remote.descriptor.digest == layer.descriptor.digest => {
                        if let Some(name) = layer.repository
                            && remote.repositories.len() < REPOSITORIES
                            && !remote.repositories.contains(&name)
                        {
                            remote.repositories.push(name);
                        }
                    }
                    // An image that says otherwise is believed by the build that uses it, not by all others.
                    Some(_) => {}
                    remote @ None => {
                        *remote = Some(RemoteBlob {
                            descriptor: layer.descriptor,
                            repositories: layer.repository.into_iter().collect(),
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

    /// Notes which step made the top layers of `outputs`, on the layers below them.
    pub fn note_step(&self, outputs: &[super::Snapshot], step: &str) {
        for output in outputs {
            let mut layers = output.layers().iter().rev();
            let Some(top) = layers.next() else { continue };
            let below = layers.next();
            let noted = self.update_existing_layer(top, |record| {
                if record.step.is_empty() && record.remote.is_none() {
                    record.step = step.chars().take(STEP_LENGTH).collect();
                    record.parent = record.parent.take().or_else(|| below.cloned());
                }
            });
            if let Err(error) = noted {
                tracing::debug!(layer = %top, error = &error as &dyn std::error::Error, "step not noted");
            }
        }
    }

    /// Changes a record if it is there.
    pub(super) fn update_existing_layer(
        &self,
        id: &LayerId,
        change: impl FnOnce(&mut LayerRecord),
    ) -> Result<(), LayerError> {
        let _one_at_a_time = self
            .inner()
            .layer_updates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(known) = self.read_layer(id)? else {
            return Ok(());
        };
        let mut record = known.clone();
        change(&mut record);
        self.write_layer(id, Some(&known), &record)
    }

    /// Whether the files of this layer are here; if they are, they stay as long as the lease of this handle.
    pub fn use_layer(&self, id: &LayerId) -> bool {
        let lease = self.lease();
        lease.hold([id]);
        self.layer(id).is_some() && self.has_folder(id)
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
        let mut known = known();
        if known.len() >= KNOWN_LAYERS {
            known.clear();
        }
        known.insert(id.clone())
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
        self.write_layer(id, known.as_ref(), &record)?;
        Ok(record)
    }

    fn write_layer(
        &self,
        id: &LayerId,
        known: Option<&LayerRecord>,
        record: &LayerRecord,
    ) -> Result<(), LayerError> {
        if known != Some(record) {
            let bytes = serde_json::to_vec(record).map_err(|source| LayerError::Damaged {
                layer: id.clone(),
                source,
            })?;
            self.inner()
                .metadata
                .put(Table::Layers, id.as_str().as_bytes(), bytes);
        }
        Ok(())
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
}
