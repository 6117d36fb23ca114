//! Checksums of what an operation takes from a view: the content half of its cache key.
//!
//! Covered are relative path, type, mode, owner, attributes, link target, device number and file bytes; times are
//! not, so that a fresh checkout of the same files finds what an earlier one built. Which names are one file (hard
//! links) is not covered either, as in BuildKit.

mod known;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::view::{
    Attributes, Directory, Entry, Kind, Metadata, Reason, Resolved, Selection, View, ViewError, Visit,
};

pub use known::{KnownDigests, layer_of, record};

pub type FileDigest = [u8; 32];

/// Files are hashed in groups of at most this many, from at most [`MAX_FOLDERS`] folders: a group keeps the folders of
/// its files open.
const MAX_FILES: usize = 2048;
const MAX_FOLDERS: usize = 128;
/// Below this many bytes a second thread costs more than it gains.
const WORTH_THREADS: u64 = 1 << 20;

/// How the root of a walk counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root<'a> {
    /// With its metadata and under this name.
    Named(&'a Path),
    /// A folder that only stands for what is in it.
    ContentsOnly,
}

/// Checksum of what `selection` takes of `source`.
pub fn of_selection(
    view: &View,
    source: &Resolved,
    selection: &Selection,
    root: Root<'_>,
    known: &KnownDigests,
) -> Result<FileDigest, ViewError> {
    let mut summer = Summer {
        view,
        known,
        root,
        hasher: blake3::Hasher::new(),
        group: Vec::new(),
        folders: 0,
    };
    selection.walk(source, &mut summer)?;
    summer.hash_group()?;
    Ok(*summer.hasher.finalize().as_bytes())
}

/// What is covered of a name, apart from the bytes of a regular file.
pub fn header(relative: &Path, metadata: &Metadata, attributes: &Attributes, link: Option<&[u8]>) -> Vec<u8> {
    let mut header = Vec::with_capacity(64);
    let mut add = |bytes: &[u8]| {
        header.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        header.extend_from_slice(bytes);
    };
    add(relative.as_os_str().as_bytes());
    let kind = match metadata.kind {
        Kind::Regular => b"f",
        Kind::Directory => b"d",
        Kind::Symlink => b"l",
        Kind::CharDevice => b"c",
        Kind::BlockDevice => b"b",
        Kind::Fifo => b"p",
        Kind::Socket => b"s",
    };
    add(kind);
    // The mode of a link means nothing and differs between systems.
    let mode = if metadata.kind == Kind::Symlink {
        0
    } else {
        metadata.mode
    };
    for number in [
        mode,
        metadata.uid,
        metadata.gid,
        metadata.device.0,
        metadata.device.1,
    ] {
        add(&number.to_le_bytes());
    }
    add(&(attributes.len() as u64).to_le_bytes());
    for (name, value) in attributes {
        add(name.as_bytes());
        add(value);
    }
    add(link.unwrap_or_default());
    header
}

/// Digest of everything that can be read from `file`.
pub fn of_file(file: &mut File) -> io::Result<FileDigest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0_u8; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(*hasher.finalize().as_bytes()),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
}

struct Item {
    header: Vec<u8>,
    /// A regular file whose bytes are still to be hashed.
    unread: Option<Entry>,
    digest: FileDigest,
}

struct Summer<'a> {
    view: &'a View,
    known: &'a KnownDigests,
    root: Root<'a>,
    hasher: blake3::Hasher,
    group: Vec<Item>,
    folders: usize,
}

impl Summer<'_> {
    fn name<'b>(&'b self, relative: &'b Path) -> &'b Path {
        match self.root {
            Root::Named(name) if relative.as_os_str().is_empty() => name,
            _ => relative,
        }
    }

    fn hash_group(&mut self) -> Result<(), ViewError> {
        let mut group = std::mem::take(&mut self.group);
        self.folders = 0;
        fill_digests(&mut group)?;
        for item in group {
            self.hasher.update(&item.header);
            self.hasher.update(&item.digest);
        }
        Ok(())
    }
}

impl Visit for Summer<'_> {
    type Error = ViewError;

    fn enter(&mut self, relative: &Path, directory: &Directory, _: Reason) -> Result<(), ViewError> {
        if relative.as_os_str().is_empty() && self.root == Root::ContentsOnly {
            return Ok(());
        }
        let header = header(
            self.name(relative),
            directory.metadata(),
            &directory.attributes()?,
            None,
        );
        self.group.push(Item {
            header,
            unread: None,
            digest: [0; 32],
        });
        self.folders += 1;
        if self.folders >= MAX_FOLDERS {
            self.hash_group()
        } else {
            Ok(())
        }
    }

    fn leaf(&mut self, relative: &Path, entry: &Entry) -> Result<(), ViewError> {
        let metadata = entry.metadata();
        let link = match metadata.kind {
            Kind::Symlink => Some(entry.read_link()?),
            _ => None,
        };
        let link = link.as_ref().map(|target| target.as_bytes());
        let header = header(self.name(relative), metadata, &entry.attributes()?, link);
        let known = self.known.get(self.view, entry);
        let unread = (metadata.kind == Kind::Regular && known.is_none()).then(|| entry.clone());
        self.group.push(Item {
            header,
            unread,
            digest: known.unwrap_or_default(),
        });
        if self.group.len() >= MAX_FILES {
            self.hash_group()
        } else {
            Ok(())
        }
    }

    fn leave(&mut self) -> Result<(), ViewError> {
        Ok(())
    }
}

fn fill_digests(group: &mut [Item]) -> Result<(), ViewError> {
    let bytes: u64 = group
        .iter()
        .filter_map(|item| item.unread.as_ref())
        .map(|e| e.metadata().size)
        .sum();
    let unread = group.iter().filter(|item| item.unread.is_some()).count();
    let threads = if bytes < WORTH_THREADS {
        1
    } else {
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(8)
            .min(unread)
    };
    if threads <= 1 {
        return group.iter_mut().try_for_each(fill_digest);
    }
    // Each thread takes the next item nobody has: sizes differ, equal shares would not be equal work.
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<&mut Item>> = group.iter_mut().map(Mutex::new).collect();
    std::thread::scope(|scope| {
        let work = || {
            while let Some(slot) = slots.get(next.fetch_add(1, Ordering::Relaxed)) {
                fill_digest(&mut slot.lock().expect("no other thread takes this slot"))?;
            }
            Ok(())
        };
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().fold(own, |result, other| {
            result.and(
                other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            )
        })
    })
}

fn fill_digest(item: &mut Item) -> Result<(), ViewError> {
    if let Some(entry) = item.unread.take() {
        let mut file = entry.open_file()?;
        item.digest = of_file(&mut file).map_err(|source| ViewError::Read {
            path: entry.path().to_owned(),
            source,
        })?;
    }
    Ok(())
}
