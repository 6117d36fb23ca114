//! One folder of builder instances, in the layout that buildx has too:
//!
//! `instances/<name>` a group · `current` the one in use and for which Docker endpoint · `defaults/<hash>` the one to
//! fall back to for an endpoint · `activity/<name>` when it was last used · `.lock` held while something is changed.
//!
//! Every write goes to a temporary file that is renamed into place, so a reader without the lock, or a kill, never sees
//! half a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::group::{Builder, GroupError, Origin, valid_name};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("opening the builder store {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is no builder instance, remove the file or mend it", path.display())]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("no builder \"{name}\" found, `trimaran ls` lists those there are")]
    NotFound { name: String },
    #[error("failed to generate random name")]
    NoFreeName,
    #[error(transparent)]
    Group(#[from] GroupError),
}

#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    origin: Origin,
}

impl Folder {
    pub(super) fn new(path: PathBuf, origin: Origin) -> Self {
        Self { path, origin }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes what is missing.
    fn prepare(&self) -> Result<(), StoreError> {
        for part in ["instances", "defaults", "activity"] {
            let part = self.path.join(part);
            if !part.is_dir() {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&part)
                    .map_err(|source| StoreError::Open {
                        path: self.path.clone(),
                        source,
                    })?;
            }
        }
        Ok(())
    }

    /// Takes the lock; others wait until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let failed = |source| StoreError::Open {
            path: self.path.clone(),
            source,
        };
        self.prepare()?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.join(".lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(lock)
    }

    /// The names of all instances, in no order. A folder that is not there has none.
    pub(super) fn names(&self) -> Result<Vec<String>, StoreError> {
        let folder = self.path.join("instances");
        let failed = |source| StoreError::Read {
            path: folder.clone(),
            source,
        };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            // Temporary files of a killed process begin with a dot, which no name does.
            if let Some(name) = name.to_str().filter(|name| valid_name(name).is_ok()) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    pub(super) fn find(&self, name: &str) -> Result<Option<Builder>, StoreError> {
        let path = self.instance(name)?;
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let mut builder: Builder =
            serde_json::from_slice(&bytes).map_err(|source| StoreError::Parse { path, source })?;
        builder.origin = self.origin;
        Ok(Some(builder))
    }

    pub(super) fn save(&self, builder: &Builder) -> Result<(), StoreError> {
        let path = self.instance(&builder.name)?;
        let bytes = serde_json::to_vec(builder).map_err(|source| StoreError::Parse {
            path: path.clone(),
            source,
        })?;
        self.touch(&builder.name)?;
        write(&path, &bytes)
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let name = valid_name(name)?;
        remove(&self.path.join("activity").join(&name))?;
        if self.origin == Origin::Buildx {
            // What buildx remembers of the builds of an instance goes with it, as when it removes one itself.
            let references = self.path.join("refs").join(&name);
            match fs::remove_dir_all(&references) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::Write {
                        path: references,
                        source,
                    });
                }
                _ => {}
            }
        }
        remove(&self.path.join("instances").join(&name))
    }

    /// Notes that the instance was used just now.
    pub(super) fn touch(&self, name: &str) -> Result<(), StoreError> {
        self.prepare()?;
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        write(&self.activity(name)?, now.to_string().as_bytes())
    }

    pub(super) fn last_activity(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(
            read(&self.activity(name)?)?
                .and_then(|bytes| String::from_utf8_lossy(&bytes).trim().parse().ok()),
        )
    }

    fn instance(&self, name: &str) -> Result<PathBuf, StoreError> {
        Ok(self.path.join("instances").join(valid_name(name)?))
    }

    fn activity(&self, name: &str) -> Result<PathBuf, StoreError> {
        Ok(self.path.join("activity").join(valid_name(name)?))
    }
}

pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_atomically(path, bytes).map_err(|source| StoreError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Writes a whole file or nothing.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".").tempfile_in(folder)?;
    file.write_all(bytes)?;
    // Under sudo a file in a user's folder must stay the user's own: it is private, and would be lost to them.
    if nix::unistd::geteuid().is_root() {
        let owner = fs::metadata(folder)?;
        std::os::unix::fs::fchown(file.as_file(), Some(owner.uid()), Some(owner.gid()))?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
