//! The files that belong to a record, by digest: on the daemon or in the folder of an imported record.
//!
//! Everything is checked against its digest. What is copied was handed on before the last byte was checked: a copy that
//! fails is to be thrown away.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use proto::content::content_client::ContentClient;
use proto::content::{InfoRequest, ReadContentRequest};
use registry::Digest;
use registry::digest::Hasher;
use tonic::transport::Channel;
use tonic::{Code, Status};

const PIECE: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("\"{digest}\" is no digest")]
    Digest { digest: String },
    #[error("reading {digest} of the build record")]
    Call { digest: String, source: Box<Status> },
    #[error("{digest} of the build record is gone")]
    Missing { digest: String },
    #[error("reading {digest} of the build record")]
    Read { digest: String, source: io::Error },
    #[error("writing {digest}")]
    Write { digest: String, source: io::Error },
    #[error("what was read as {digest} has the digest {found}")]
    Mismatch { digest: String, found: String },
    #[error("{digest} is larger than the {limit} bytes that it may have here")]
    TooLarge { digest: String, limit: usize },
}

#[derive(Clone, Debug)]
pub struct Blobs(Place);

#[derive(Clone, Debug)]
enum Place {
    Daemon(Channel),
    Folder(PathBuf),
}

impl Blobs {
    pub fn daemon(channel: Channel) -> Self {
        Self(Place::Daemon(channel))
    }

    /// The folder of an imported record.
    pub fn folder(record: &Path) -> Self {
        Self(Place::Folder(record.join("blobs")))
    }

    pub async fn has(&self, digest: &str) -> Result<bool, BlobError> {
        let parsed = parse(digest)?;
        match &self.0 {
            Place::Daemon(channel) => {
                let request = InfoRequest {
                    digest: parsed.to_string(),
                };
                match ContentClient::new(channel.clone()).info(request).await {
                    Ok(_) => Ok(true),
                    Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(false),
                    Err(status) => Err(call(digest, status)),
                }
            }
            Place::Folder(folder) => Ok(file(folder, &parsed).is_file()),
        }
    }

    /// A small file as a whole.
    pub async fn read(&self, digest: &str, limit: usize) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Limited {
            bytes: Vec::new(),
            limit,
        };
        match self.copy(digest, &mut bytes).await {
            Err(BlobError::Write { digest, .. }) => Err(BlobError::TooLarge { digest, limit }),
            Err(other) => Err(other),
            Ok(_) => Ok(bytes.bytes),
        }
    }

    /// Copies a file and returns its size.
    pub async fn copy(&self, digest: &str, to: &mut dyn Write) -> Result<u64, BlobError> {
        let parsed = parse(digest)?;
        let mut hash = Hasher::new(parsed.algorithm());
        let mut size = 0;
        let mut take = |piece: &[u8]| {
            hash.update(piece);
            size += piece.len() as u64;
            to.write_all(piece).map_err(|source| BlobError::Write {
                digest: digest.to_owned(),
                source,
            })
        };
        match &self.0 {
            Place::Daemon(channel) => {
                let request = ReadContentRequest {
                    digest: parsed.to_string(),
                    ..ReadContentRequest::default()
                };
                let mut client =
                    ContentClient::new(channel.clone()).max_decoding_message_size(proto::tunnel::MAX_MESSAGE);
                let mut pieces = client
                    .read(request)
                    .await
                    .map_err(|status| call(digest, status))?
                    .into_inner();
                while let Some(piece) = pieces.message().await.map_err(|status| call(digest, status))? {
                    take(&piece.data)?;
                }
            }
            Place::Folder(folder) => {
                let wrong = |source: io::Error| match source.kind() {
                    io::ErrorKind::NotFound => BlobError::Missing {
                        digest: digest.to_owned(),
                    },
                    _ => BlobError::Read {
                        digest: digest.to_owned(),
                        source,
                    },
                };
                let mut file = File::open(file(folder, &parsed)).map_err(wrong)?;
                let mut buffer = vec![0; PIECE];
                loop {
                    let count = file.read(&mut buffer).map_err(wrong)?;
                    if count == 0 {
                        break;
                    }
                    take(&buffer[..count])?;
                }
            }
        }
        let found = hash.finish();
        if found != parsed {
            return Err(BlobError::Mismatch {
                digest: digest.to_owned(),
                found: found.to_string(),
            });
        }
        Ok(size)
    }

    /// The file itself, where there is one.
    pub fn path(&self, digest: &str) -> Result<Option<PathBuf>, BlobError> {
        let parsed = parse(digest)?;
        Ok(match &self.0 {
            Place::Daemon(_) => None,
            Place::Folder(folder) => Some(file(folder, &parsed)),
        })
    }
}

struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Limited {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn parse(digest: &str) -> Result<Digest, BlobError> {
    digest.parse().map_err(|_| BlobError::Digest {
        digest: digest.to_owned(),
    })
}

fn file(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
}

fn call(digest: &str, status: Status) -> BlobError {
    match status.code() {
        Code::NotFound => BlobError::Missing {
            digest: digest.to_owned(),
        },
        _ => BlobError::Call {
            digest: digest.to_owned(),
            source: Box::new(status),
        },
    }
}
