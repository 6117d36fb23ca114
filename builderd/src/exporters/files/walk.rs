//! The files of a result, in path order: folders before what they hold, names sorted by their bytes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::fsutil::Stat;
use proto::transfer::{self, Listed, WalkError};

use crate::store::tar::Xattrs;
use crate::store::view::{Directory, Entry, Kind, Metadata, Time, View, ViewError};

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("the name or target of {} is not valid UTF-8", path.display())]
    Name { path: PathBuf },
}

/// A result to be walked.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    view: View,
    prefix: Option<String>,
    modified: Option<Time>,
    /// Files beside those of the result, by their names in its root.
    extras: BTreeMap<String, Extra>,
}

/// A file that goes with a result.
#[derive(Clone, Debug)]
pub(super) struct Extra {
    pub disk: PathBuf,
    pub size: u64,
}

/// One file, folder, link or device.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Without a slash at either end.
    pub path: String,
    pub metadata: Metadata,
    /// Of a symbolic link.
    pub target: String,
    /// The first name of this file, if it had one before.
    pub link: Option<String>,
    pub xattrs: Xattrs,
    /// Where the content is.
    pub disk: PathBuf,
}

impl Tree {
    /// The merged layers `folders`, lowest first, below `prefix`; all times are `epoch` if that is given.
    pub fn open(folders: &[PathBuf], prefix: Option<String>, epoch: Option<i64>) -> Result<Self, TreeError> {
        Ok(Self {
            view: View::open(folders)?,
            prefix,
            modified: epoch.map(|seconds| Time {
                seconds,
                nanoseconds: 0,
            }),
            extras: BTreeMap::new(),
        })
    }

    /// Puts files into the root, in place of those of the same name.
    pub fn add(&mut self, extras: BTreeMap<String, Extra>) {
        self.extras = extras;
    }

    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }
}

impl IntoIterator for Tree {
    type Item = Result<Found, TreeError>;
    type IntoIter = WithExtras;

    fn into_iter(mut self) -> WithExtras {
        let extras = std::mem::take(&mut self.extras).into_iter();
        let prefix = self.prefix.clone();
        let modified = self.modified;
        let found = |(name, extra): (String, Extra)| Found {
            path: match &prefix {
                Some(prefix) => format!("{prefix}/{name}"),
                None => name,
            },
            metadata: Metadata {
                kind: Kind::Regular,
                mode: 0o600,
                size: extra.size,
                modified: modified.unwrap_or(Time::EPOCH),
                ..Metadata::EMPTY_ROOT
            },
            target: String::new(),
            link: None,
            xattrs: Vec::new(),
            disk: extra.disk,
        };
        let extras: Vec<Found> = extras.map(found).collect();
        WithExtras {
            extras: extras.into_iter().peekable(),
            walk: Walk {
                folders: Vec::new(),
                links: HashMap::new(),
                started: false,
                tree: self,
            }
            .peekable(),
        }
    }
}

/// The files of a result and those that go with it, in order.
pub(super) struct WithExtras {
    walk: Peekable<Walk>,
    extras: Peekable<std::vec::IntoIter<Found>>,
}

impl Iterator for WithExtras {
    type Item = Result<Found, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(extra) = self.extras.peek() else {
            return self.walk.next();
        };
        let order = match self.walk.peek() {
            Some(Ok(next)) => next.path.split('/').cmp(extra.path.split('/')),
            Some(Err(_)) => Ordering::Less,
            None => Ordering::Greater,
        };
        match order {
            Ordering::Less => self.walk.next(),
            Ordering::Equal => {
                self.walk.next();
                self.extras.next().map(Ok)
            }
            Ordering::Greater => self.extras.next().map(Ok),
        }
    }
}

pub(super) struct Walk {
    tree: Tree,
    started: bool,
    /// Open folders, outermost first, and what of each is still to come.
    folders: Vec<(Arc<Directory>, std::vec::IntoIter<Entry>)>,
    /// First names of files that have several.
    links: HashMap<(u64, u64), String>,
}

impl Iterator for Walk {
    type Item = Result<Found, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.started {
            self.started = true;
            match self.start() {
                Ok(None) => {}
                Ok(Some(folder)) => return Some(Ok(folder)),
                Err(error) => return Some(Err(error)),
            }
        }
        loop {
            let (folder, entries) = self.folders.last_mut()?;
            let Some(entry) = entries.next() else {
                self.folders.pop();
                continue;
            };
            let folder = Arc::clone(folder);
            return Some(self.visit(&folder, &entry));
        }
    }
}

impl Walk {
    /// Opens the root; it is an entry itself if it has a name.
    fn start(&mut self) -> Result<Option<Found>, TreeError> {
        let root = Arc::clone(self.tree.view.root());
        self.folders
            .push((Arc::clone(&root), root.entries()?.into_iter()));
        let Some(prefix) = self.tree.prefix.clone() else {
            return Ok(None);
        };
        Ok(Some(Found {
            path: prefix,
            metadata: self.dated(*root.metadata()),
            target: String::new(),
            link: None,
            xattrs: Vec::new(),
            disk: PathBuf::new(),
        }))
    }

    fn visit(&mut self, folder: &Directory, entry: &Entry) -> Result<Found, TreeError> {
        let path = self.path(entry.path())?;
        let metadata = self.dated(*entry.metadata());
        if metadata.is_dir() {
            let opened = Arc::new(folder.open(entry)?);
            let entries = opened.entries()?.into_iter();
            self.folders.push((opened, entries));
        }
        let target = match metadata.kind {
            Kind::Symlink => text(entry.read_link()?.as_bytes(), entry.path())?,
            _ => String::new(),
        };
        let mut link = None;
        if metadata.kind == Kind::Regular && metadata.links > 1 {
            // Layers share files with others on the disk: only a second name in this tree makes a link.
            match self.links.get(&metadata.inode) {
                Some(first) => link = Some(first.clone()),
                None => drop(self.links.insert(metadata.inode, path.clone())),
            }
        }
        let xattrs = entry.attributes()?.into_iter();
        let disk = self
            .tree
            .view
            .folders()
            .get(entry.layer())
            .map(|layer| layer.join(entry.path().strip_prefix("/").unwrap_or(entry.path())));
        Ok(Found {
            path,
            metadata,
            target,
            link,
            xattrs: xattrs.map(|(name, value)| (name.into_vec(), value)).collect(),
            disk: disk.unwrap_or_default(),
        })
    }

    fn path(&self, path: &Path) -> Result<String, TreeError> {
        let inside = text(path.as_os_str().as_bytes(), path)?;
        let inside = inside.trim_start_matches('/');
        Ok(match &self.tree.prefix {
            Some(prefix) => format!("{prefix}/{inside}"),
            None => inside.to_owned(),
        })
    }

    fn dated(&self, metadata: Metadata) -> Metadata {
        Metadata {
            modified: self.tree.modified.unwrap_or(metadata.modified),
            ..metadata
        }
    }
}

fn text(bytes: &[u8], path: &Path) -> Result<String, TreeError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| TreeError::Name {
        path: path.to_owned(),
    })
}

/// Several trees as one, in order, each folder once. That no two have the same file was checked.
pub(super) fn merged(trees: Vec<Tree>) -> Result<Vec<Found>, TreeError> {
    let mut all: Vec<Found> = trees.into_iter().flatten().collect::<Result<_, _>>()?;
    all.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    all.dedup_by(|second, first| second.path == first.path);
    Ok(all)
}

/// As the file transfer protocol wants it.
pub(super) fn listed(found: Result<Found, TreeError>) -> Result<Listed, WalkError> {
    let found = found.map_err(|error| WalkError::Read {
        path: PathBuf::from("the result"),
        source: std::io::Error::other(error),
    })?;
    let metadata = &found.metadata;
    let has_content = metadata.kind == Kind::Regular && found.link.is_none();
    let kind = match metadata.kind {
        // Receivers have no use for sockets: they become empty files.
        Kind::Socket => Kind::Regular,
        kind => kind,
    };
    let size = if has_content { metadata.size } else { 0 };
    Ok(Listed {
        content: has_content.then(|| found.disk.clone()),
        stat: Stat {
            path: found.path.clone(),
            mode: transfer::mode::from_stat(kind.mode_bits() | metadata.mode),
            uid: metadata.uid,
            gid: metadata.gid,
            size: i64::try_from(size).unwrap_or(i64::MAX),
            mod_time: metadata.modified.unix_nanos(),
            linkname: found.link.unwrap_or(found.target),
            devmajor: metadata.device.0.into(),
            devminor: metadata.device.1.into(),
            xattrs: found
                .xattrs
                .into_iter()
                .map(|(name, value)| (String::from_utf8_lossy(&name).into_owned(), value.into()))
                .collect(),
        },
    })
}
