//! Builder instances on disk, one JSON file each, below the configuration folder:
//!
//! `instances/<name>` the group · `current` the one in use and for which Docker endpoint · `defaults/<hash>` the one to
//! fall back to for an endpoint · `activity/<name>` when it was last used · `.lock` held through a [`Transaction`].
//!
//! Every write goes to a temporary file that is renamed into place, so a reader without the lock, or a kill, never sees
//! half a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::group::{Builder, GroupError, valid_name};
use super::names;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("opening the builder store {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is no builder instance", path.display())]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("no builder \"{name}\" found")]
    NotFound { name: String },
    #[error("failed to generate random name")]
    NoFreeName,
    #[error(transparent)]
    Group(#[from] GroupError),
}

#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Current {
    key: String,
    name: String,
    global: bool,
}

/// How far a choice of builder reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Until another one is chosen, for one Docker endpoint.
    Endpoint,
    /// For every Docker endpoint.
    Global,
    /// For one Docker endpoint, also after a change to another endpoint and back.
    Default,
}

impl Store {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Takes the lock; others wait until the transaction is dropped.
    pub fn lock(&self) -> Result<Transaction, StoreError> {
        let failed = |source| StoreError::Open {
            path: self.folder.clone(),
            source,
        };
        for part in ["instances", "defaults", "activity"] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(self.folder.join(part))
                .map_err(failed)?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.folder.join(".lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Transaction {
            folder: self.folder.clone(),
            _lock: lock,
        })
    }
}

/// The store while nobody else can change it.
#[derive(Debug)]
pub struct Transaction {
    folder: PathBuf,
    _lock: File,
}

impl Transaction {
    /// All instances by name.
    pub fn list(&self) -> Result<Vec<Builder>, StoreError> {
        let folder = self.folder.join("instances");
        let failed = |source| StoreError::Read {
            path: folder.clone(),
            source,
        };
        let mut builders = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // Temporary files of a killed process begin with a dot.
            if let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) {
                builders.push(self.builder(name)?);
            }
        }
        builders.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(builders)
    }

    pub fn builder(&self, name: &str) -> Result<Builder, StoreError> {
        self.find(name)?.ok_or_else(|| StoreError::NotFound {
            name: name.to_owned(),
        })
    }

    pub fn find(&self, name: &str) -> Result<Option<Builder>, StoreError> {
        let path = self.folder.join("instances").join(valid_name(name)?);
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| StoreError::Parse { path, source })
    }

    pub fn save(&self, builder: &Builder) -> Result<(), StoreError> {
        let path = self.folder.join("instances").join(valid_name(&builder.name)?);
        let bytes = serde_json::to_vec(builder).map_err(|source| StoreError::Parse {
            path: path.clone(),
            source,
        })?;
        self.touch(&builder.name)?;
        write(&path, &bytes)
    }

    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let name = valid_name(name)?;
        remove(&self.folder.join("activity").join(&name))?;
        remove(&self.folder.join("instances").join(&name))
    }

    /// Notes that the instance was used just now.
    pub fn touch(&self, name: &str) -> Result<(), StoreError> {
        let path = self.folder.join("activity").join(valid_name(name)?);
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        write(&path, now.to_string().as_bytes())
    }

    pub fn last_activity(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let path = self.folder.join("activity").join(valid_name(name)?);
        Ok(read(&path)?.and_then(|bytes| String::from_utf8_lossy(&bytes).trim().parse().ok()))
    }

    /// The instance chosen for this Docker endpoint, if any that still exists.
    pub fn current(&self, endpoint: &str) -> Result<Option<Builder>, StoreError> {
        if let Some(bytes) = read(&self.folder.join("current"))?
            && let Ok(current) = serde_json::from_slice::<Current>(&bytes)
            && !current.name.is_empty()
            && (current.global || current.key == endpoint)
            && let Some(builder) = self.find(&current.name)?
        {
            return Ok(Some(builder));
        }
        match read(&self.default_path(endpoint))? {
            Some(name) => self.find(String::from_utf8_lossy(&name).trim()),
            None => Ok(None),
        }
    }

    /// Chooses an instance; an empty name takes the choice back.
    pub fn set_current(&self, endpoint: &str, name: &str, reach: Reach) -> Result<(), StoreError> {
        let path = self.folder.join("current");
        let current = Current {
            key: endpoint.to_owned(),
            name: name.to_owned(),
            global: reach == Reach::Global,
        };
        let bytes = serde_json::to_vec(&current).map_err(|source| StoreError::Parse {
            path: path.clone(),
            source,
        })?;
        write(&path, &bytes)?;
        let default = self.default_path(endpoint);
        if reach == Reach::Default {
            write(&default, name.as_bytes())
        } else {
            remove(&default)
        }
    }

    /// A name that no instance has.
    pub fn free_name(&self) -> Result<String, StoreError> {
        for attempt in 0..20 {
            let name = names::random(attempt);
            if self.find(&name)?.is_none() {
                return Ok(name);
            }
        }
        Err(StoreError::NoFreeName)
    }

    fn default_path(&self, endpoint: &str) -> PathBuf {
        let hash = hex::encode(sha2::Sha256::digest(endpoint));
        self.folder.join("defaults").join(&hash[..20])
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
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
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests;
