//! What was computed before: results of operations by their cache keys.
//!
//! A result counts only while all layers of its snapshots are known; one that points at nothing is no result.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::metadata::{ReadError, Table};
use super::times::unix_seconds;
use super::{Snapshot, Store};

/// What determines a result: a BLAKE3 hash over named parts. It never leaves this machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of `parts` in the domain `of` (for instance `"exec"`); parts are told apart by their lengths.
    pub fn new<P: AsRef<[u8]>>(of: &str, parts: impl IntoIterator<Item = P>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        add(of.as_bytes());
        for part in parts {
            add(part.as_ref());
        }
        Self(*hasher.finalize().as_bytes())
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl AsRef<[u8]> for CacheKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedResult {
    pub outputs: Vec<Snapshot>,
    #[serde(with = "unix_seconds")]
    pub created_at: SystemTime,
}

impl CachedResult {
    pub fn now(outputs: Vec<Snapshot>) -> Self {
        Self {
            outputs,
            created_at: SystemTime::now(),
        }
    }
}

/// Small records of other rooms, each kind with its own keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// What was transferred from a client's folder.
    Contexts,
    /// What image references resolved to.
    Images,
    /// What git and http sources resolved to.
    Sources,
    /// What steps with the proxy for their network fetched, by the cache keys of their results: gone with them.
    Fetched,
}

impl RecordKind {
    pub(super) fn table(self) -> Table {
        match self {
            Self::Contexts => Table::Contexts,
            Self::Images => Table::Images,
            Self::Sources => Table::Sources,
            Self::Fetched => Table::Fetched,
        }
    }
}

impl Store {
    pub fn lookup(&self, key: &CacheKey) -> Option<CachedResult> {
        let bytes = match self.inner().metadata.get(Table::Results, &key.0) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(%key, error = &error as &dyn std::error::Error, "cached result ignored");
                return None;
            }
        };
        let result: CachedResult = match serde_json::from_slice(&bytes) {
            Ok(result) => result,
            Err(error) => {
                tracing::warn!(%key, %error, "damaged cached result ignored");
                return None;
            }
        };
        let lease = self.lease();
        lease.hold(result.outputs.iter().flat_map(Snapshot::layers));
        let mut layers = result.outputs.iter().flat_map(Snapshot::layers);
        if let Some(layer) = layers.find(|layer| !self.knows_layer(layer)) {
            tracing::debug!(%key, %layer, "cached result ignored: its layer is gone");
            return None;
        }
        Some(result)
    }

    pub fn remember(&self, key: &CacheKey, result: &CachedResult) {
        match serde_json::to_vec(result) {
            Ok(bytes) => self.inner().metadata.put(Table::Results, &key.0, bytes),
            Err(error) => tracing::error!(%key, %error, "result not remembered"),
        }
    }

    pub fn forget(&self, key: &CacheKey) {
        self.inner().metadata.remove(Table::Results, &key.0);
    }

    pub fn get_record(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        self.inner().metadata.get(kind.table(), key)
    }

    pub fn put_record(&self, kind: RecordKind, key: &[u8], value: impl Into<Arc<[u8]>>) {
        self.inner().metadata.put(kind.table(), key, value);
    }

    pub fn remove_record(&self, kind: RecordKind, key: &[u8]) {
        self.inner().metadata.remove(kind.table(), key);
    }
}
