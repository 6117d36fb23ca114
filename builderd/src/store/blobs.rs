//! Content-addressed blobs: files named by their digest.
//!
//! A blob has its name only when it is complete and its bytes were verified; writers work in `tmp/` and hash on the
//! way. Two writers of one blob do not disturb each other: the last rename wins, with equal bytes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry::digest::{Algorithm, Digest, Hasher};

use super::folder::StateFolder;
use super::holds::Lease;
use super::metadata::{Metadata, Table};

/// What a blob should be: its digest and its size, if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub digest: Digest,
    pub size: Option<u64>,
}

impl Expected {
    /// Whether what went through `hasher` is what was announced.
    pub fn verify(&self, hasher: Hasher) -> Result<(), BlobError> {
        let size = hasher.bytes();
        self.verify_found(&hasher.finish(), size)
    }

    fn verify_found(&self, found: &Digest, size: u64) -> Result<(), BlobError> {
        if let Some(expected) = self.size.filter(|expected| *expected != size) {
            return Err(BlobError::Size {
                digest: self.digest.clone(),
                expected,
                found: size,
            });
        }
        if self.digest != *found {
            return Err(BlobError::Digest {
                expected: self.digest.clone(),
                found: found.clone(),
            });
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("cannot {doing} blob file {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("blob has digest {found}, but {expected} was announced")]
    Digest { expected: Digest, found: Digest },
    #[error("blob {digest} has {found} bytes, but {expected} were announced")]
    Size {
        digest: Digest,
        expected: u64,
        found: u64,
    },
    #[error("blob {digest} has {size} bytes, more than the {limit} that fit here")]
    TooLarge { digest: Digest, size: u64, limit: u64 },
}

/// The blobs of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BlobStore {
    // Fields are dropped in order: records are written before the folder is unlocked.
    metadata: Arc<Metadata>,
    folder: Arc<StateFolder>,
    lease: Option<Arc<Lease>>,
}

impl BlobStore {
    pub(super) fn new(folder: Arc<StateFolder>, metadata: Arc<Metadata>, lease: Option<Arc<Lease>>) -> Self {
        Self {
            metadata,
            folder,
            lease,
        }
    }

    /// Keeps a blob, if it is there, from being removed.
    pub fn hold(&self, digest: &Digest) {
        if let Some(lease) = &self.lease {
            lease.hold_blob(digest);
        }
    }

    /// Where the blob lies, or would lie.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder
            .blobs()
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    pub fn has(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Size of a blob that is here.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest))
            .ok()
            .map(|metadata| metadata.len())
    }

    pub fn open(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| BlobError::File {
            doing: "open",
            path,
            source,
        })
    }

    /// A small blob as a whole.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, BlobError> {
        let file = self.open(digest)?;
        let fail = |source| BlobError::File {
            doing: "read",
            path: self.path(digest),
            source,
        };
        let size = file.metadata().map_err(fail)?.len();
        if size > limit {
            return Err(BlobError::TooLarge {
                digest: digest.clone(),
                size,
                limit,
            });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(limit).read_to_end(&mut bytes).map_err(fail)?;
        Ok(bytes)
    }

    /// Stores a small blob; returns its SHA-256 digest.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let mut writer = self.writer(None)?;
        writer
            .write_all(bytes)
            .map_err(|source| writer.failed("write", source))?;
        Ok(writer.commit()?.0)
    }

    /// Stores a small blob unless it is here; returns its SHA-256 digest.
    pub fn keep(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::of(bytes);
        self.hold(&digest);
        if self.has(&digest) {
            return Ok(digest);
        }
        self.put(bytes)
    }

    /// A writer for a new blob. With `expected`, `commit` succeeds for exactly these bytes only; without, the blob
    /// gets its SHA-256 digest.
    pub fn writer(&self, expected: Option<Expected>) -> Result<BlobWriter, BlobError> {
        let path = self.folder.temporary();
        let file = File::create_new(&path).map_err(|source| BlobError::File {
            doing: "create",
            path: path.clone(),
            source,
        })?;
        let algorithm = expected
            .as_ref()
            .map_or(Algorithm::Sha256, |expected| expected.digest.algorithm());
        Ok(BlobWriter {
            blobs: self.clone(),
            path,
            file,
            hasher: Hasher::new(algorithm),
            expected,
            published: false,
        })
    }

    pub fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BlobError::File {
                doing: "remove",
                path,
                source: error,
            }),
            _ => Ok(()),
        }
    }
}

/// A blob that is being written. Dropped without `commit`, it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: BlobStore,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    expected: Option<Expected>,
    published: bool,
}

impl BlobWriter {
    /// How many bytes were written so far.
    pub fn written(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Verifies what was written and gives it its name. Returns digest and size.
    pub fn commit(mut self) -> Result<(Digest, u64), BlobError> {
        let size = self.hasher.bytes();
        let digest = self.hasher.clone().finish();
        if let Some(expected) = &self.expected {
            expected.verify_found(&digest, size)?;
        }
        self.blobs.hold(&digest);
        let path = self.blobs.path(&digest);
        self.publish(&path).map_err(|source| BlobError::File {
            doing: "publish",
            path,
            source,
        })?;
        self.blobs
            .metadata
            .put(Table::Unsynced, format!("blob {digest}").as_bytes(), []);
        self.published = true;
        Ok((digest, size))
    }

    fn publish(&self, path: &Path) -> io::Result<()> {
        match fs::rename(&self.path, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The first blob of its algorithm.
                fs::create_dir_all(path.parent().unwrap_or(path))?;
                fs::rename(&self.path, path)
            }
            other => other,
        }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> BlobError {
        BlobError::File {
            doing,
            path: self.path.clone(),
            source,
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(Expected {
            digest,
            size: Some(size),
        }) = &self.expected
            && self.hasher.bytes() + bytes.len() as u64 > *size
        {
            return Err(io::Error::other(format!(
                "blob {digest} has more than the announced {size} bytes"
            )));
        }
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "left behind until the next start");
        }
    }
}
