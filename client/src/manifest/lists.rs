//! Lists under construction: `<Docker's configuration>/manifests/<list>/<image>`, one file for each image.
//!
//! Docker takes every file in a list's folder for an image, so drafts and the lock lie beside the folders: what appears
//! in one, appears whole, by a rename. Changes are made under the lock, which is never held while a registry is asked;
//! readers need none. Docker itself knows no lock: against it only whole files can be promised.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use registry::Reference;

use super::member::Member;

#[derive(Debug, thiserror::Error)]
pub enum ListsError {
    #[error("No such manifest: {name}")]
    NotFound { name: Reference },
    #[error("refusing to amend an existing manifest list with no --amend flag")]
    Exists,
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("invalid manifest file {} (drop the whole list with `trimaran manifest rm`)", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// What to do with a list that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    Amend,
}

#[derive(Clone, Debug)]
pub struct Lists {
    folder: PathBuf,
}

/// The files of a list at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    folder: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
}

impl Snapshot {
    /// The images, in the order of their files' names, as Docker has it.
    pub fn members(&self) -> Result<Vec<Member>, ListsError> {
        let parsed = self.files.iter().map(|(name, bytes)| self.parse(name, bytes));
        parsed.collect()
    }

    pub fn member(&self, image: &Reference) -> Result<Option<Member>, ListsError> {
        let name = file_name(image);
        let found = self.files.get(&name).map(|bytes| self.parse(&name, bytes));
        found.transpose()
    }

    fn parse(&self, name: &str, bytes: &[u8]) -> Result<Member, ListsError> {
        serde_json::from_slice(bytes).map_err(|source| ListsError::Parse {
            path: self.folder.join(name),
            source,
        })
    }
}

impl Lists {
    /// The lists of the Docker configuration in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.join("manifests"),
        }
    }

    /// The list as it is now.
    pub fn read(&self, list: &Reference) -> Result<Snapshot, ListsError> {
        let folder = self.folder.join(file_name(list));
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source: io::Error| match source.kind() {
                // Somebody removed the list, or does so this moment.
                io::ErrorKind::NotFound => ListsError::NotFound { name: list.clone() },
                _ => ListsError::Read { path, source },
            }
        };
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
            let path = entry.map_err(failed(&folder))?.path();
            let bytes = fs::read(&path).map_err(failed(&path))?;
            if let Some(name) = path.file_name() {
                files.insert(name.to_string_lossy().into_owned(), bytes);
            }
        }
        Ok(Snapshot { folder, files })
    }

    /// The list if there is one.
    pub fn find(&self, list: &Reference) -> Result<Option<Snapshot>, ListsError> {
        match self.read(list) {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(ListsError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds images. Those that the list has by now stay as they are: somebody may have annotated them.
    pub fn add(&self, list: &Reference, members: &[Member], existing: Existing) -> Result<(), ListsError> {
        let _lock = self.lock()?;
        let folder = self.folder.join(file_name(list));
        match self.find(list)? {
            Some(_) if existing == Existing::Refuse => Err(ListsError::Exists),
            Some(found) => {
                for member in members {
                    if !found
                        .member(&member.reference)?
                        .is_some_and(|found| found.is_complete())
                    {
                        self.write(&folder, member)?;
                    }
                }
                Ok(())
            }
            None => {
                let draft = tempfile::Builder::new()
                    .prefix(".draft-")
                    .permissions(Permissions::from_mode(0o755))
                    .tempdir_in(&self.folder)
                    .map_err(write_failed(&self.folder))?;
                for member in members {
                    self.write(draft.path(), member)?;
                }
                fs::rename(draft.path(), &folder).map_err(write_failed(&folder))
            }
        }
    }

    /// Changes one image of a list; false if the list does not have it. A change that fails changes nothing.
    pub fn change<E: From<ListsError>>(
        &self,
        list: &Reference,
        image: &Reference,
        change: impl FnOnce(&mut Member) -> Result<(), E>,
    ) -> Result<bool, E> {
        // Nothing is created for a list that is not there.
        if self.find(list)?.is_none() {
            return Ok(false);
        }
        let _lock = self.lock()?;
        let Some(found) = self.find(list)? else {
            return Ok(false);
        };
        let Some(mut member) = found.member(image)? else {
            return Ok(false);
        };
        change(&mut member)?;
        self.write(&found.folder, &member)?;
        Ok(true)
    }

    pub fn remove(&self, list: &Reference) -> Result<(), ListsError> {
        self.read(list)?;
        let _lock = self.lock()?;
        self.drop_folder(&self.folder.join(file_name(list)))
    }

    /// Removes a list that nobody changed since `snapshot`; false if somebody did.
    pub fn remove_unchanged(&self, list: &Reference, snapshot: &Snapshot) -> Result<bool, ListsError> {
        let _lock = self.lock()?;
        match self.find(list)? {
            Some(found) if found != *snapshot => Ok(false),
            Some(_) => self.drop_folder(&snapshot.folder).map(|()| true),
            None => Ok(true),
        }
    }

    /// Out of sight at once, then file by file.
    fn drop_folder(&self, folder: &Path) -> Result<(), ListsError> {
        let grave = tempfile::Builder::new()
            .prefix(".dropped-")
            .tempdir_in(&self.folder)
            .map_err(write_failed(&self.folder))?;
        match fs::rename(folder, grave.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(write_failed(folder)),
        }
    }

    fn write(&self, folder: &Path, member: &Member) -> Result<(), ListsError> {
        let path = folder.join(file_name(&member.reference));
        let bytes = registry::json::compact(member).map_err(|source| ListsError::Parse {
            path: path.clone(),
            source,
        })?;
        let written = || {
            let mut draft = tempfile::Builder::new()
                .prefix(".draft-")
                .permissions(Permissions::from_mode(0o644))
                .tempfile_in(&self.folder)?;
            draft.write_all(&bytes)?;
            draft.as_file().sync_all()?;
            draft.persist(&path)?;
            Ok(())
        };
        written().map_err(write_failed(&path))
    }

    /// Others wait until the lock is dropped.
    fn lock(&self) -> Result<File, ListsError> {
        let failed = write_failed(&self.folder);
        let locked = || {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&self.folder)?;
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(self.folder.join(".lock"))?;
            lock.lock()?;
            Ok(lock)
        };
        locked().map_err(failed)
    }
}

fn write_failed(path: &Path) -> impl FnOnce(io::Error) -> ListsError {
    let path = path.to_owned();
    |source| ListsError::Write { path, source }
}

/// Docker's rule. No reference begins with a dot, so nothing of ours is in its way.
fn file_name(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

#[cfg(test)]
mod tests;
