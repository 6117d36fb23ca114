//! A folder of a view: the stack of folders, highest layer first, that merge into it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{self, Attributes};
use super::{Entry, Metadata, ViewError};

pub(super) const OPEN_FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What one layer contributes to a folder.
#[derive(Debug)]
pub(super) struct Part {
    pub layer: usize,
    pub fd: OwnedFd,
}

#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    metadata: Metadata,
    parts: Vec<Arc<Part>>,
}

impl Directory {
    /// The roots of all layers merge, whatever their attributes say.
    pub(super) fn root(folders: &[PathBuf]) -> Result<Self, ViewError> {
        let mut parts = Vec::with_capacity(folders.len());
        for (layer, folder) in folders.iter().enumerate().rev() {
            let fd = rustix::fs::open(folder, OPEN_FOLDER, Mode::empty()).map_err(|errno| {
                ViewError::OpenLayer {
                    folder: folder.clone(),
                    source: errno.into(),
                }
            })?;
            parts.push(Arc::new(Part { layer, fd }));
        }
        let path = PathBuf::from("/");
        let metadata = match parts.first() {
            Some(top) => Metadata::of(&rustix::fs::fstat(&top.fd).map_err(ViewError::read(&path))?),
            None => Metadata::EMPTY_ROOT,
        };
        Ok(Self {
            path,
            metadata,
            parts,
        })
    }

    /// Absolute inside the view.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The layers that merge into it, highest first, as [`super::View::folders`] counts them.
    pub(super) fn layers(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.layer)
    }

    pub fn attributes(&self) -> Result<Attributes, ViewError> {
        match self.parts.first() {
            Some(top) => attributes::read(&top.fd, OsStr::new(".")).map_err(ViewError::read(&self.path)),
            None => Ok(Attributes::default()),
        }
    }

    /// Whether its highest layer hides what lower ones have in it.
    pub(super) fn is_opaque(&self) -> Result<bool, ViewError> {
        match self.parts.first() {
            Some(top) => attributes::is_opaque(&top.fd).map_err(ViewError::read(&self.path)),
            None => Ok(false),
        }
    }

    pub fn lookup(&self, name: &OsStr) -> Result<Option<Entry>, ViewError> {
        if !super::is_plain_name(name) {
            return Ok(None);
        }
        for part in &self.parts {
            match rustix::fs::statat(&part.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let metadata = Metadata::of(&stat);
                    return Ok((!metadata.is_whiteout()).then(|| self.entry(part, name, metadata)));
                }
                Err(Errno::NOENT) => {}
                // No folder can hold such a name.
                Err(Errno::NAMETOOLONG) => return Ok(None),
                Err(errno) => return Err(ViewError::read(self.path.join(name))(errno)),
            }
        }
        Ok(None)
    }

    /// All entries, sorted by the bytes of their names.
    pub fn entries(&self) -> Result<Vec<Entry>, ViewError> {
        let mut merged: BTreeMap<OsString, Option<Entry>> = BTreeMap::new();
        for part in &self.parts {
            let listing = Dir::read_from(&part.fd).map_err(ViewError::read(&self.path))?;
            for item in listing {
                let item = item.map_err(ViewError::read(&self.path))?;
                let name = OsStr::from_bytes(item.file_name().to_bytes());
                if !super::is_plain_name(name) || merged.contains_key(name) {
                    continue;
                }
                let stat = rustix::fs::statat(&part.fd, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(ViewError::read(self.path.join(name)))?;
                let metadata = Metadata::of(&stat);
                let entry = (!metadata.is_whiteout()).then(|| self.entry(part, name, metadata));
                merged.insert(name.to_owned(), entry);
            }
        }
        Ok(merged.into_values().flatten().collect())
    }

    /// The folder that `entry`, which this folder returned, stands for.
    pub fn open(&self, entry: &Entry) -> Result<Self, ViewError> {
        if !entry.metadata().is_dir() {
            return Err(ViewError::NotADirectory {
                path: entry.path().to_owned(),
            });
        }
        let mut parts = Vec::new();
        for part in self.parts.iter().skip_while(|part| part.layer != entry.layer()) {
            match rustix::fs::openat(&part.fd, entry.name(), OPEN_FOLDER, Mode::empty()) {
                Ok(fd) => {
                    let opaque = attributes::is_opaque(&fd).map_err(ViewError::read(entry.path()))?;
                    parts.push(Arc::new(Part {
                        layer: part.layer,
                        fd,
                    }));
                    if opaque {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                // A whiteout, or something that is no folder: it hides all that is below.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(errno) => return Err(ViewError::read(entry.path())(errno)),
            }
        }
        Ok(Self {
            path: entry.path().to_owned(),
            metadata: *entry.metadata(),
            parts,
        })
    }

    fn entry(&self, part: &Arc<Part>, name: &OsStr, metadata: Metadata) -> Entry {
        Entry {
            part: Arc::clone(part),
            path: self.path.join(name),
            metadata,
        }
    }
}
