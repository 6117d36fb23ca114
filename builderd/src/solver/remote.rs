//! Build caches that travel: results as layers in a registry, in a client's folder or inside an image.
//!
//! The keys of local records name layers of this machine. A cache that travels has *portable* ones, as BuildKit's
//! format wants them: each result is a record with a digest and links to the records of its inputs. A source counts by
//! its content, every other operation by its bytes. They are computed only for builds that import or export a cache.

mod attributes;
mod destination;
mod export;
mod format;
mod import;
mod matching;
mod records;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::digest::Digest;
use registry::manifest::ManifestError;
use registry::reference::ReferenceError;

use crate::exporters::ExportError;
use crate::session::SessionError;
use crate::sources::image::FetchError;
use crate::store::LayerError;

pub(super) use attributes::imports;
pub(super) use format::INLINE;
use import::Imported;
pub(super) use matching::answer;

/// A cache to import or to export, as clients name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// BuildKit's name of the kind: `registry`, `local`, `inline` …
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
}

impl CacheOptions {
    fn attribute(&self, key: &str) -> Option<&str> {
        let value = self.attributes.get(key).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    fn needed(&self, key: &'static str) -> Result<&str, CacheError> {
        self.attribute(key).ok_or_else(|| CacheError::Missing {
            kind: self.kind.clone(),
            key,
        })
    }

    /// What messages call it.
    fn name(&self) -> &str {
        let keys = ["ref", "src", "dest"];
        let named = keys.into_iter().find_map(|key| self.attribute(key));
        named.unwrap_or(&self.kind)
    }

    /// Whether it goes into the image that the build exports.
    pub fn is_inline(&self) -> bool {
        self.kind == "inline"
    }
}

/// Why a cache was not imported or exported.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("cache of type {kind:?} is not supported: use registry, local or inline")]
    Kind { kind: String },
    #[error("{kind} cache requires {key}")]
    Missing { kind: String, key: &'static str },
    #[error("invalid value {value:?} of cache attribute {key}: expected {expected}")]
    Attribute {
        key: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("invalid cache options")]
    Options(#[source] Box<ExportError>),
    #[error("invalid configuration for remote cache: image-manifest=true needs oci-mediatypes=true")]
    DockerManifest,
    #[error("invalid cache reference {name:?}")]
    Reference {
        name: String,
        #[source]
        source: ReferenceError,
    },
    #[error("invalid digest {0:?} of a local cache")]
    Digest(String),
    #[error("cannot reach cache {name}")]
    Registry {
        name: String,
        #[source]
        source: Box<registry::Error>,
    },
    #[error("cannot reach the client's cache")]
    Session(#[from] Box<SessionError>),
    #[error("the cache's manifest cannot be read")]
    Manifest(#[from] ManifestError),
    #[error("the cache's config cannot be read")]
    Config(#[from] serde_json::Error),
    #[error("the cache's config is not valid: {0}")]
    Invalid(&'static str),
    #[error("cannot get a layer of the cache")]
    Fetch(#[from] Box<FetchError>),
    #[error("cannot record a layer of the cache")]
    Layer(#[from] LayerError),
    #[error("cannot read a layer to export")]
    Read(#[source] std::io::Error),
}

impl From<SessionError> for CacheError {
    fn from(error: SessionError) -> Self {
        Self::Session(Box::new(error))
    }
}

impl From<FetchError> for CacheError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Box::new(error))
    }
}

/// A record of an imported cache: which cache, which record.
type Place = (usize, usize);

/// The records that stand for an output of a vertex, by digest and number.
type Matched = HashMap<(String, usize), Arc<BTreeSet<Place>>>;

/// What a build knows of caches that travel.
#[derive(Debug, Default)]
pub(super) struct Caches {
    imported: Mutex<Vec<(CacheOptions, Option<Arc<Imported>>)>>,
    matched: Mutex<Matched>,
    /// The outputs that are there of vertices which were not run as a whole.
    parts: Mutex<HashMap<String, BTreeSet<usize>>>,
    /// Digests by content, of sources and of file operations, by vertex.
    contents: Mutex<HashMap<String, Option<Digest>>>,
}

impl Caches {
    /// Whether there is anything that could answer a vertex.
    pub(super) fn any(&self) -> bool {
        lock(&self.imported)
            .iter()
            .any(|(_, imported)| imported.is_some())
    }

    /// Whether an output of a finished vertex is there.
    pub(super) fn has(&self, vertex: &str, output: usize) -> bool {
        lock(&self.parts)
            .get(vertex)
            .is_none_or(|outputs| outputs.contains(&output))
    }

    /// One more output of a vertex is there that is not run.
    pub(super) fn add_part(&self, vertex: &str, output: usize) {
        let mut parts = lock(&self.parts);
        parts.entry(vertex.to_owned()).or_default().insert(output);
    }

    /// A vertex was run: all of its outputs are there.
    pub(super) fn is_whole(&self, vertex: &str) {
        lock(&self.parts).remove(vertex);
    }

    fn imported(&self) -> Vec<Arc<Imported>> {
        let imported = lock(&self.imported);
        imported
            .iter()
            .filter_map(|(_, imported)| imported.clone())
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
