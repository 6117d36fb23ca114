//! The tar of an image layer to a layer folder.
//!
//! Archives come from anywhere, so nothing in one can lead out of the folder (see `unpack/tree.rs`), and what comes in
//! is counted against generous limits. Marks of image layers become those of overlayfs: `.wh.name` a character device
//! 0/0, `.wh..wh..opq` an attribute. A mark speaks of lower layers only: what the same layer holds stays.
//!
//! Decompressing and hashing run beside the writing of files, on a thread of their own.

mod feed;
mod tree;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;
use registry::digest::{Algorithm, Digest, Hasher};
use tokio_stream::Stream;

use super::compress::decompress;
use super::pack::{OPAQUE, WHITEOUT};
use super::tar::{Archive, ArchiveError, Kind};
use super::{
    BlobError, BlobWriter, Descriptor, Expected, LayerDraft, LayerError, LayerId, NewLayer, Store, WorkLost,
};
use feed::Chunks;
use tree::Tree;

/// More entries than this are an attack.
const ENTRY_LIMIT: u64 = 1 << 23;
/// More bytes than this are an attack.
const SIZE_LIMIT: u64 = 1 << 40;
const CHUNK: usize = 1 << 18;

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("cannot read the layer's archive")]
    Archive(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot decompress the layer")]
    Decompress(#[source] io::Error),
    #[error("cannot {doing} {} of the layer", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("layer entry {path:?} leads out of the layer")]
    Escape { path: String },
    #[error("layer entry {path:?} has a name that no file can have")]
    Name { path: String },
    #[error("layer entry {path:?} lies below something that is no folder")]
    NotAFolder { path: String },
    #[error("hard link {path:?} points at {target:?}, which is not in the same layer")]
    HardLink { path: String, target: String },
    #[error("the layer has more than {limit} {what}")]
    Limit { what: &'static str, limit: u64 },
    #[error("the layer's tar has digest {found}, but its image says {expected}")]
    DiffId { expected: Digest, found: Digest },
    #[error("cannot take in the layer's blob")]
    Blob(#[from] BlobError),
    #[error("cannot keep the layer")]
    Layer(#[from] LayerError),
    #[error("cannot receive the layer's blob")]
    Receive(#[source] io::Error),
    #[error(transparent)]
    Lost(#[from] WorkLost),
}

/// What an archive held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    pub diff_id: Digest,
    /// Bytes of the uncompressed tar.
    pub size: u64,
    pub entries: u64,
}

/// Whether the blob of a fetched layer stays in the blob store beside the layer's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepBlob {
    Yes,
    No,
}

impl Store {
    /// Unpacks the blob that `bytes` brings into the layer folder of `diff_id`, while it arrives. Both digests are
    /// verified before the layer can be seen.
    pub async fn unpack_layer(
        &self,
        diff_id: &Digest,
        descriptor: &Descriptor,
        bytes: impl Stream<Item = io::Result<Bytes>>,
        keep: KeepBlob,
    ) -> Result<LayerId, UnpackError> {
        let expected = Expected {
            digest: descriptor.digest.clone(),
            size: Some(descriptor.size),
        };
        let check = match keep {
            KeepBlob::Yes => Check::Keep(self.blobs().writer(Some(expected))?),
            KeepBlob::No => Check::Hash(Hasher::new(expected.digest.algorithm()), expected),
        };
        let (sender, chunks) = Chunks::channel(check);
        let draft = self.draft()?;
        let unpacking = self
            .inner()
            .unpackers
            .run(move || unpack_and_check(chunks, draft));
        let (sent, unpacked) = tokio::join!(feed::send(bytes, sender), unpacking);
        // A stream that broke off is the cause of whatever the archive then lacked.
        sent.map_err(UnpackError::Receive)?;
        let (draft, unpacked) = unpacked??;
        self.keep_layer(diff_id, draft, unpacked)
    }

    /// Unpacks a blob that is in the blob store.
    pub async fn unpack_stored_layer(&self, diff_id: &Digest, blob: &Digest) -> Result<LayerId, UnpackError> {
        let file = self.blobs().open(blob)?;
        let draft = self.draft()?;
        let unpacking = self.inner().unpackers.run(move || {
            let unpacked = unpack(file, &draft.upper())?;
            Ok::<_, UnpackError>((draft, unpacked))
        });
        let (draft, unpacked) = unpacking.await??;
        self.keep_layer(diff_id, draft, unpacked)
    }

    fn keep_layer(
        &self,
        diff_id: &Digest,
        draft: LayerDraft,
        unpacked: Unpacked,
    ) -> Result<LayerId, UnpackError> {
        if unpacked.diff_id != *diff_id {
            return Err(UnpackError::DiffId {
                expected: diff_id.clone(),
                found: unpacked.diff_id,
            });
        }
        let layer = LayerId::of_image(diff_id);
        let new = NewLayer {
            diff_id: Some(unpacked.diff_id),
            size: Some(unpacked.size),
            ..NewLayer::default()
        };
        self.commit_as(draft, &layer, new)?;
        Ok(layer)
    }
}

/// What becomes of the compressed bytes as they pass.
enum Check {
    Keep(BlobWriter),
    Hash(Hasher, Expected),
}

impl Check {
    fn update(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Keep(writer) => io::Write::write_all(writer, bytes),
            Self::Hash(hasher, Expected { size, .. }) => {
                if size.is_some_and(|size| hasher.bytes() + bytes.len() as u64 > size) {
                    return Err(io::Error::other("more bytes than announced"));
                }
                hasher.update(bytes);
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<(), BlobError> {
        match self {
            Self::Keep(writer) => writer.commit().map(drop),
            Self::Hash(hasher, expected) => expected.verify(hasher),
        }
    }
}

fn unpack_and_check(mut chunks: Chunks, draft: LayerDraft) -> Result<(LayerDraft, Unpacked), UnpackError> {
    match unpack(&mut chunks, &draft.upper()) {
        // Bytes behind the end of the compressed stream belong to the blob as well.
        Ok(unpacked) => {
            chunks.finish()?;
            Ok((draft, unpacked))
        }
        // That the blob is not what was announced explains best why its archive is damaged.
        Err(damaged @ (UnpackError::Archive(_) | UnpackError::Decompress(_))) => {
            chunks.finish()?;
            Err(damaged)
        }
        Err(error) => Err(error),
    }
}

/// Unpacks a layer blob, compressed or not, into an empty folder.
pub(super) fn unpack(blob: impl Read + Send, folder: &Path) -> Result<Unpacked, UnpackError> {
    let (sender, chunks) = sync_channel(4);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read_tar(blob, &sender));
        let mut archive = Archive::new(feed::Received::new(chunks));
        let entries = place_entries(&mut archive, folder);
        // On success, what follows the end of the archive counts for the diff id; on failure the reader must stop.
        let drained = match &entries {
            Ok(_) => io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop),
            Err(_) => {
                drop(archive);
                Ok(())
            }
        };
        let read = reading
            .join()
            .map_err(|_| UnpackError::Decompress(io::Error::other("the decompressing thread panicked")))?;
        match (read, entries) {
            // The archive broke off because the bytes did.
            (Err(error), Err(UnpackError::Archive(_)) | Ok(_)) => Err(UnpackError::Decompress(error)),
            (_, Err(error)) => Err(error),
            (Ok((diff_id, size)), Ok(entries)) => {
                drained.map_err(UnpackError::Decompress)?;
                Ok(Unpacked {
                    diff_id,
                    size,
                    entries,
                })
            }
        }
    })
}

/// Decompresses and hashes.
fn read_tar(blob: impl Read + Send, chunks: &SyncSender<Vec<u8>>) -> io::Result<(Digest, u64)> {
    let mut tar = decompress(blob)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        tar.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            break;
        }
        hasher.update(&chunk);
        if chunks.send(chunk).is_err() {
            // The other end failed and knows why.
            break;
        }
    }
    let size = hasher.bytes();
    Ok((hasher.finish(), size))
}

fn place_entries(archive: &mut Archive<feed::Received>, folder: &Path) -> Result<u64, UnpackError> {
    let mut tree = Tree::open(folder)?;
    let (mut entries, mut size) = (0, 0_u64);
    while let Some(entry) = archive.next_entry().map_err(archive_failed)? {
        entries += 1;
        if entries > ENTRY_LIMIT {
            return Err(UnpackError::Limit {
                what: "entries",
                limit: ENTRY_LIMIT,
            });
        }
        if let Kind::File { size: more } = entry.kind {
            size = size.saturating_add(more);
            if size > SIZE_LIMIT {
                return Err(UnpackError::Limit {
                    what: "bytes",
                    limit: SIZE_LIMIT,
                });
            }
        }
        let path = tree::clean(&entry.path)?;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let parent = path
            .get(..path.len().saturating_sub(name.len() + 1))
            .unwrap_or_default();
        if name == OPAQUE.as_bytes() {
            tree.hide_lower(parent)?;
        } else if name.starts_with(b".wh..wh.") {
            // Leftovers of AUFS that speak of no file.
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT.as_bytes()) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(UnpackError::Name {
                    path: tree::printable(&entry.path),
                });
            }
            let hidden = if parent.is_empty() {
                hidden.to_vec()
            } else {
                [parent, b"/", hidden].concat()
            };
            tree.hide(&hidden)?;
        } else {
            tree.place(&path, &entry, archive)?;
        }
    }
    tree.finish()?;
    Ok(entries)
}

fn archive_failed(error: ArchiveError) -> UnpackError {
    UnpackError::Archive(error.into())
}

#[cfg(test)]
mod tests;
