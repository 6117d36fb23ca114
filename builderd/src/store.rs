//! The state folder: blobs, layer folders, cache records. Nobody else touches it.
//!
//! A *layer* is an immutable folder in overlayfs upper format; a *snapshot* is a list of layers, lowest first.
//! Things are made under temporary names and published by one rename, records go through one writer: a kill at any
//! moment loses at most the work in flight. Functions here block for a few system calls at most, unless they are
//! `async`. What a build uses is *leased* (`holds`), so that pruning can run at any time.

mod blobs;
mod cache;
mod caches;
pub mod checksum;
mod compress;
mod convert;
mod estargz;
mod flight;
mod folder;
mod history;
mod holds;
mod layer_blob;
mod layer_record;
mod layers;
mod measure;
mod metadata;
mod pack;
mod pool;
mod prune;
mod remove;
mod repositories;
mod sweep;
pub mod tar;
#[cfg(test)]
mod tests;
mod times;
mod unpack;
mod usage;
pub mod view;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

pub use blobs::{BlobError, BlobStore, BlobWriter, Expected};
pub use cache::{CacheKey, CachedResult, RecordKind};
pub use compress::{Compression, CompressionKind};
pub use convert::Conversion;
pub use flight::Flights;
pub use history::{AboutBuild, BuildRecord};
pub use layer_blob::{LayerBlob, LayerBlobError};
pub use layer_record::{Descriptor, LayerRecord, RemoteBlob};
pub use layers::{LayerDraft, LayerError, Made, NewLayer, RemoteLayer};
pub use metadata::{FlushError, ReadError};
pub use pack::PackError;
pub use pool::{Pool, WorkLost};
pub use prune::{DiskSpace, PruneError, PrunePolicy};
pub use repositories::Repository;
pub use unpack::{KeepBlob, UnpackError};
pub use usage::{Content, Usage, UsageError};

/// Name of a layer folder: a random id for layers built here, the diff id (`sha256:…`) for layers of images.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
pub struct LayerId(Arc<str>);

impl LayerId {
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for LayerId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file system: its layers, lowest first. Empty is `scratch`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<LayerId>", into = "Vec<LayerId>")]
pub struct Snapshot(Arc<[LayerId]>);

impl Snapshot {
    pub fn new(layers: impl Into<Arc<[LayerId]>>) -> Self {
        Self(layers.into())
    }

    pub fn layers(&self) -> &[LayerId] {
        &self.0
    }

    pub fn is_scratch(&self) -> bool {
        self.0.is_empty()
    }

    /// The snapshot that has `layer` on top of this one.
    pub fn with(&self, layer: LayerId) -> Self {
        self.0
            .iter()
            .cloned()
            .chain([layer])
            .collect::<Vec<_>>()
            .into_iter()
            .collect()
    }
}

impl From<Vec<LayerId>> for Snapshot {
    fn from(layers: Vec<LayerId>) -> Self {
        Self(layers.into())
    }
}

impl From<Snapshot> for Vec<LayerId> {
    fn from(snapshot: Snapshot) -> Self {
        snapshot.0.to_vec()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {doing} {} in the state folder", path.display())]
    Folder {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("state folder {} is in use by another daemon{}", path.display(), process.map(|id| format!(" (process {id})")).unwrap_or_default())]
    InUse { path: PathBuf, process: Option<u32> },
    #[error("cannot open {}", path.display())]
    Metadata {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("{} has format {found:?}, which this version does not know; use another state folder or the version that made it", path.display())]
    Format { path: PathBuf, found: String },
    #[error("cannot sweep state folder {}", path.display())]
    Sweep {
        path: PathBuf,
        #[source]
        source: ReadError,
    },
}

/// The open state folder. Cheap to clone; the last clone to go writes what is queued and frees the lock.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    /// Keeps what goes through this handle from being removed.
    lease: Option<Arc<holds::Lease>>,
}

#[derive(Debug)]
struct Inner {
    // Fields are dropped in order: records are written before the folder is unlocked.
    metadata: Arc<metadata::Metadata>,
    folder: Arc<folder::StateFolder>,
    pool: Pool,
    /// Each piece of work takes as many threads as there are cores.
    compressors: Pool,
    unpackers: Pool,
    layer_locks: Mutex<HashMap<LayerId, Weak<tokio::sync::Mutex<()>>>>,
    layer_updates: Mutex<()>,
    repository_locks: Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>,
    known_layers: Mutex<HashSet<LayerId>>,
    holds: Arc<holds::Holds>,
    /// One at a time looks for what can go.
    pruning: tokio::sync::Mutex<()>,
    /// Whether the machine was restarted since the folder was open last.
    restarted: bool,
}

impl Store {
    /// Opens the state folder, creates it if it is not there (its parent must be), and sweeps what a kill left.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let folder = Arc::new(folder::StateFolder::open(root)?);
        let metadata = Arc::new(metadata::Metadata::open(folder.root())?);
        let restarted = metadata.note_boot().map_err(|source| OpenError::Sweep {
            path: folder.root().to_path_buf(),
            source,
        })?;
        let inner = Arc::new(Inner {
            metadata,
            folder,
            pool: Pool::new((2 * pool::cores()).max(4)),
            compressors: Pool::new(pool::cores().min(4)),
            // Those that wait for the network must not keep others from the cores.
            unpackers: Pool::new(pool::cores().clamp(4, 16)),
            layer_locks: Mutex::default(),
            layer_updates: Mutex::default(),
            repository_locks: Mutex::default(),
            known_layers: Mutex::default(),
            holds: Arc::default(),
            pruning: tokio::sync::Mutex::default(),
            restarted,
        });
        let store = Self { inner, lease: None };
        store.sweep()?;
        Ok(store)
    }

    pub fn blobs(&self) -> BlobStore {
        let inner = self.inner();
        BlobStore::new(
            Arc::clone(&inner.folder),
            Arc::clone(&inner.metadata),
            self.lease.clone(),
        )
    }

    /// The folder for the constant bottom layer of the sandboxes; the executor keeps it.
    pub fn stubs_folder(&self) -> PathBuf {
        self.inner.folder.stubs()
    }

    /// Where blocking work on files runs.
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// Waits until everything recorded so far is on disk.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.inner.metadata.flush().await
    }

    fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl FromIterator<LayerId> for Snapshot {
    fn from_iter<I: IntoIterator<Item = LayerId>>(layers: I) -> Self {
        Self(layers.into_iter().collect())
    }
}
