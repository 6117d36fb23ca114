//! Trees as one tar, written while it is sent.

use std::collections::HashSet;
use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::walk::{Found, Tree};
use crate::store::tar;
use crate::store::view::Kind;

/// Size of the pieces in which it is sent.
const CHUNK: usize = 256 * 1024;

/// Writes a tar in pieces.
pub(super) struct Tarball {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Tarball {
    pub fn new(chunks: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self {
            chunks,
            buffer: Vec::with_capacity(CHUNK),
        }
    }

    pub fn write(&mut self, trees: Vec<Tree>) -> io::Result<()> {
        let mut written = HashSet::new();
        for tree in trees {
            for found in tree {
                let found = found.map_err(io::Error::other)?;
                if found.metadata.is_dir() && !written.insert(found.path.clone()) {
                    continue;
                }
                self.entry(&found)?;
            }
        }
        self.buffer.extend_from_slice(tar::end_of_archive());
        self.flush()
    }

    fn entry(&mut self, found: &Found) -> io::Result<()> {
        let Some(kind) = kind(found) else { return Ok(()) };
        let mut path = found.path.clone().into_bytes();
        if found.metadata.is_dir() {
            path.push(b'/');
        }
        let metadata = &found.metadata;
        let size = match kind {
            tar::Kind::File { size } => Some(size),
            _ => None,
        };
        tar::push_header(
            &mut self.buffer,
            &tar::Entry {
                path,
                kind,
                mode: metadata.mode,
                uid: metadata.uid,
                gid: metadata.gid,
                mtime: tar::Time {
                    seconds: metadata.modified.seconds,
                    nanoseconds: metadata.modified.nanoseconds,
                },
                xattrs: found.xattrs.clone(),
            },
        );
        if let Some(size) = size {
            self.content(found, size)?;
        }
        if self.buffer.len() >= CHUNK {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn content(&mut self, found: &Found, size: u64) -> io::Result<()> {
        let mut file = std::fs::File::open(&found.disk)?.take(size);
        let mut left = size;
        while left > 0 {
            let start = self.buffer.len();
            let room = CHUNK.max(start + tar::BLOCK);
            self.buffer.resize(room, 0);
            let read = file.read(self.buffer.get_mut(start..).unwrap_or_default())?;
            self.buffer.truncate(start + read);
            if read == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{} shrank", found.path),
                ));
            }
            left -= read as u64;
            if self.buffer.len() >= CHUNK {
                self.flush()?;
            }
        }
        self.buffer.resize(self.buffer.len() + tar::padding(size), 0);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.chunks
            .blocking_send(Ok(chunk.into()))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// `None` for sockets, which no archive holds.
fn kind(found: &Found) -> Option<tar::Kind> {
    let metadata = &found.metadata;
    let (major, minor) = metadata.device;
    Some(match metadata.kind {
        Kind::Directory => tar::Kind::Folder,
        Kind::Symlink => tar::Kind::Symlink {
            target: found.target.clone().into_bytes(),
        },
        Kind::CharDevice => tar::Kind::Character { major, minor },
        Kind::BlockDevice => tar::Kind::Block { major, minor },
        Kind::Fifo => tar::Kind::Fifo,
        Kind::Socket => return None,
        Kind::Regular => match &found.link {
            Some(first) => tar::Kind::HardLink {
                target: first.clone().into_bytes(),
            },
            None => tar::Kind::File { size: metadata.size },
        },
    })
}
