//! All builder instances: our own, and beside them those of buildx.
//!
//! The choice of the current one is ours alone. An instance of buildx stays where it is: it is read from there, and
//! changed there under buildx's own lock, which is only taken for that, as buildx holds it while it waits for daemons.
//! Of two instances with one name ours is meant.

use std::fs::File;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::folder::{Folder, StoreError, read, remove, write};
use super::group::{Builder, Origin};
use super::names;

#[derive(Clone, Debug)]
pub struct Store {
    own: Folder,
    buildx: Folder,
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
    /// The store in our folder, and the one of buildx.
    pub fn new(own: PathBuf, buildx: PathBuf) -> Self {
        Self {
            own: Folder::new(own, Origin::Own),
            buildx: Folder::new(buildx, Origin::Buildx),
        }
    }

    /// Takes the lock; others wait until the transaction is dropped.
    pub fn lock(&self) -> Result<Transaction, StoreError> {
        Ok(Transaction {
            _own_lock: self.own.lock()?,
            buildx_lock: None,
            store: self.clone(),
        })
    }

    /// Takes the lock of the store that the instance is in: what is read through the transaction and then saved is
    /// changed by nobody in between.
    pub fn lock_for(&self, name: &str) -> Result<Transaction, StoreError> {
        let mut transaction = self.lock()?;
        if transaction.origin(name)? == Some(Origin::Buildx) {
            transaction.buildx_lock = Some(self.buildx.lock()?);
        }
        Ok(transaction)
    }

    /// The names of all instances, for those who want no more.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = self.own.names()?;
        names.extend(self.buildx.names()?);
        names.sort();
        names.dedup();
        Ok(names)
    }
}

/// The store while nobody else can change it.
#[derive(Debug)]
pub struct Transaction {
    store: Store,
    _own_lock: File,
    buildx_lock: Option<File>,
}

impl Transaction {
    /// All instances by name.
    pub fn list(&self) -> Result<Vec<Builder>, StoreError> {
        // One that buildx removes meanwhile is none.
        self.store
            .names()?
            .iter()
            .filter_map(|name| self.find(name).transpose())
            .collect()
    }

    pub fn builder(&self, name: &str) -> Result<Builder, StoreError> {
        self.find(name)?.ok_or_else(|| StoreError::NotFound {
            name: name.to_owned(),
        })
    }

    pub fn find(&self, name: &str) -> Result<Option<Builder>, StoreError> {
        match self.store.own.find(name)? {
            Some(builder) => Ok(Some(builder)),
            None => self.store.buildx.find(name),
        }
    }

    fn origin(&self, name: &str) -> Result<Option<Origin>, StoreError> {
        Ok(self.find(name)?.map(|builder| builder.origin))
    }

    pub fn save(&self, builder: &Builder) -> Result<(), StoreError> {
        let _lock = self.hold(builder.origin)?;
        self.folder(builder.origin).save(builder)
    }

    pub fn remove(&self, builder: &Builder) -> Result<(), StoreError> {
        let _lock = self.hold(builder.origin)?;
        self.folder(builder.origin).remove(&builder.name)
    }

    /// Notes that the instance was used just now, if it is stored at all.
    pub fn touch(&self, name: &str) -> Result<(), StoreError> {
        match self.origin(name)? {
            Some(origin) => self.folder(origin).touch(name),
            None => Ok(()),
        }
    }

    pub fn last_activity(&self, builder: &Builder) -> Result<Option<Timestamp>, StoreError> {
        self.folder(builder.origin).last_activity(&builder.name)
    }

    /// The instance chosen for this Docker endpoint, if any that still exists.
    pub fn current(&self, endpoint: &str) -> Result<Option<Builder>, StoreError> {
        if let Some(bytes) = read(&self.current_path())?
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
        let path = self.current_path();
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

    fn folder(&self, origin: Origin) -> &Folder {
        match origin {
            Origin::Own | Origin::Context => &self.store.own,
            Origin::Buildx => &self.store.buildx,
        }
    }

    /// The lock that writing to a folder takes beyond those that are held.
    fn hold(&self, origin: Origin) -> Result<Option<File>, StoreError> {
        match (origin, &self.buildx_lock) {
            (Origin::Buildx, None) => Ok(Some(self.store.buildx.lock()?)),
            _ => Ok(None),
        }
    }

    fn current_path(&self) -> PathBuf {
        self.store.own.path().join("current")
    }

    fn default_path(&self, endpoint: &str) -> PathBuf {
        let hash = hex::encode(sha2::Sha256::digest(endpoint));
        self.store.own.path().join("defaults").join(&hash[..20])
    }
}

#[cfg(test)]
mod tests;
