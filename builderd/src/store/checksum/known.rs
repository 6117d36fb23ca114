//! Digests of files that somebody has hashed before, kept per layer: layers never change.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::FileDigest;
use crate::store::view::{Entry, View};
use crate::store::{LayerId, RecordKind, Snapshot, Store};

/// The digests known for the layers of a snapshot, by path inside the layer.
#[derive(Debug, Default)]
pub struct KnownDigests {
    layers: HashMap<PathBuf, HashMap<PathBuf, FileDigest>>,
}

impl KnownDigests {
    /// What was recorded about the layers of `snapshot`.
    pub fn of(snapshot: &Snapshot, store: &Store) -> Self {
        let read = |layer: &LayerId| {
            let record = store.get_record(RecordKind::Contexts, &key(layer)).ok()??;
            Some((store.layer_folder(layer), decode(&record)?))
        };
        Self {
            layers: snapshot.layers().iter().filter_map(read).collect(),
        }
    }

    pub(super) fn get(&self, view: &View, entry: &Entry) -> Option<FileDigest> {
        let folder = view.folders().get(entry.layer())?;
        self.layers.get(folder)?.get(entry.path()).copied()
    }
}

/// Records the digests of the regular files of a layer; paths are absolute inside it.
pub fn record<'a>(
    store: &Store,
    layer: &LayerId,
    files: impl IntoIterator<Item = (&'a Path, &'a FileDigest)>,
) {
    let mut bytes = Vec::new();
    for (path, digest) in files {
        let path = path.as_os_str().as_bytes();
        bytes.extend_from_slice(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(path);
        bytes.extend_from_slice(digest);
    }
    store.put_record(RecordKind::Contexts, &key(layer), bytes);
}

const KEY: &str = "file digests ";

fn key(layer: &LayerId) -> Vec<u8> {
    format!("{KEY}{layer}").into_bytes()
}

/// The layer that the record under this key is about, if it is one of ours.
pub fn layer_of(key: &[u8]) -> Option<LayerId> {
    let layer = std::str::from_utf8(key).ok()?.strip_prefix(KEY)?;
    Some(LayerId::new(layer))
}

/// Nothing if the record is damaged: the files are hashed again then.
fn decode(mut bytes: &[u8]) -> Option<HashMap<PathBuf, FileDigest>> {
    let mut files = HashMap::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (path, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let (digest, rest) = rest.split_first_chunk()?;
        files.insert(PathBuf::from(OsString::from_vec(path.to_vec())), *digest);
        bytes = rest;
    }
    Some(files)
}
