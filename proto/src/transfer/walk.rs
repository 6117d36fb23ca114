//! Lists a folder in path order.
//!
//! A filter decides about each entry; folders above an included entry are listed even if the filter skipped them.
//! The further names of a file with several links are listed as hard links to the first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::mode::{self, Kind};
use crate::fsutil::Stat;

/// What a filter says about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// List it. Of a folder, each entry inside is asked about in turn.
    Include,
    /// Leave it out, but look into it: something inside may be included.
    Skip,
    /// Leave it and all that is inside out.
    SkipAll,
}

/// An entry, and where its content is to be read if it has any.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub stat: Stat,
    pub content: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    #[error("failed to read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the name of {} is not valid UTF-8", path.display())]
    Name { path: PathBuf },
}

struct Folder {
    /// Path on the wire; empty for the root.
    path: String,
    /// Names still to visit, last one first.
    names: Vec<OsString>,
    /// Its own entry, while it waits for something inside to be included.
    skipped: Option<Stat>,
}

/// The entries of a folder, in path order.
pub struct Walk<F> {
    root: PathBuf,
    filter: F,
    folders: Vec<Folder>,
    ready: VecDeque<Listed>,
    links: HashMap<(u64, u64), String>,
}

impl<F> std::fmt::Debug for Walk<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl<F> Walk<F>
where
    F: FnMut(&str, Kind) -> Verdict,
{
    /// Lists what is inside `root`, not `root` itself. The filter gets paths relative to it.
    pub fn new(root: impl Into<PathBuf>, filter: F) -> Result<Self, WalkError> {
        let root = root.into();
        let names = sorted_names(&root).map_err(|source| WalkError::Read {
            path: root.clone(),
            source,
        })?;
        Ok(Self {
            root,
            filter,
            folders: vec![Folder {
                path: String::new(),
                names,
                skipped: None,
            }],
            ready: VecDeque::new(),
            links: HashMap::new(),
        })
    }

    fn visit(&mut self, folder: &str, name: OsString) -> Result<(), WalkError> {
        let name = name.into_string().map_err(|name| WalkError::Name {
            path: self.root.join(folder).join(name),
        })?;
        let path = if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        };
        let place = self.root.join(&path);
        let read = |source| WalkError::Read {
            path: place.clone(),
            source,
        };
        let metadata = match fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            // It vanished since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(read(error)),
        };
        let Some(kind) = Kind::of(mode::from_stat(metadata.mode())) else {
            return Ok(());
        };
        let verdict = (self.filter)(&path, kind);
        if verdict == Verdict::SkipAll || (verdict == Verdict::Skip && kind != Kind::Directory) {
            return Ok(());
        }
        let stat = self.stat(&path, &place, &metadata, kind).map_err(read)?;
        if verdict == Verdict::Include {
            for folder in &mut self.folders {
                if let Some(stat) = folder.skipped.take() {
                    self.ready.push_back(Listed { stat, content: None });
                }
            }
            let has_content = kind == Kind::File && stat.linkname.is_empty();
            self.ready.push_back(Listed {
                stat: stat.clone(),
                content: has_content.then(|| place.clone()),
            });
        }
        if kind == Kind::Directory {
            let names = match sorted_names(&place) {
                Ok(names) => names,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(read(error)),
            };
            self.folders.push(Folder {
                path,
                names,
                skipped: (verdict == Verdict::Skip).then_some(stat),
            });
        }
        Ok(())
    }

    fn stat(&mut self, path: &str, place: &Path, metadata: &Metadata, kind: Kind) -> io::Result<Stat> {
        let mut stat = stat(path, place, metadata, kind)?;
        if kind == Kind::File && metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            match self.links.get(&inode) {
                Some(first) => {
                    stat.linkname.clone_from(first);
                    stat.size = 0;
                }
                None => {
                    self.links.insert(inode, path.to_owned());
                }
            }
        }
        Ok(stat)
    }
}

impl<F> Iterator for Walk<F>
where
    F: FnMut(&str, Kind) -> Verdict,
{
    type Item = Result<Listed, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(listed) = self.ready.pop_front() {
                return Some(Ok(listed));
            }
            let folder = self.folders.last_mut()?;
            let Some(name) = folder.names.pop() else {
                self.folders.pop();
                continue;
            };
            let path = folder.path.clone();
            if let Err(error) = self.visit(&path, name) {
                self.folders.clear();
                return Some(Err(error));
            }
        }
    }
}

/// The entry of one file as it goes over the wire, without regard to hard links.
pub fn stat(path: &str, place: &Path, metadata: &Metadata, kind: Kind) -> io::Result<Stat> {
    let wire = mode::from_stat(metadata.mode());
    let mut stat = Stat {
        path: path.to_owned(),
        // Receivers have no use for sockets: they become empty files.
        mode: if kind == Kind::Socket {
            mode::permissions(wire) & 0o777
        } else {
            wire
        },
        uid: metadata.uid(),
        gid: metadata.gid(),
        mod_time: metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec()),
        ..Stat::default()
    };
    match kind {
        Kind::Directory => {}
        Kind::Symlink => {
            let target = fs::read_link(place)?;
            stat.linkname = String::from_utf8_lossy(target.as_os_str().as_bytes()).into_owned();
            stat.size = i64::try_from(metadata.size()).unwrap_or(i64::MAX);
        }
        Kind::CharDevice | Kind::BlockDevice => {
            stat.devmajor = i64::from(rustix::fs::major(metadata.rdev()));
            stat.devminor = i64::from(rustix::fs::minor(metadata.rdev()));
        }
        _ => stat.size = i64::try_from(metadata.size()).unwrap_or(i64::MAX),
    }
    stat.xattrs = xattrs(place)?;
    Ok(stat)
}

fn sorted_names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable_by(|left, right| right.cmp(left));
    Ok(names)
}

/// Extended attributes that belong to the file rather than to this machine.
fn xattrs(place: &Path) -> io::Result<BTreeMap<String, Bytes>> {
    use rustix::io::Errno;
    let mut names = vec![0; 0];
    loop {
        let length = match rustix::fs::llistxattr(place, &mut names) {
            Ok(0) => return Ok(BTreeMap::new()),
            Ok(length) if !names.is_empty() => {
                names.truncate(length);
                break;
            }
            Ok(length) => length,
            // The list grew between two calls.
            Err(Errno::RANGE) => names.len() * 2,
            Err(Errno::NOTSUP | Errno::NOENT) => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.into()),
        };
        names.resize(length, 0);
    }
    let mut found = BTreeMap::new();
    for name in names.split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if name.is_empty()
            || name == "security.selinux"
            || name.starts_with("trusted.overlay.")
            || name.starts_with("com.apple.")
        {
            continue;
        }
        if let Some(value) = xattr(place, name) {
            found.insert(name.to_owned(), value);
        }
    }
    Ok(found)
}

/// An attribute that cannot be read is left out, as the reference sender does.
fn xattr(place: &Path, name: &str) -> Option<Bytes> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::lgetxattr(place, name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                return Some(value.into());
            }
            Err(rustix::io::Errno::RANGE) if value.len() < 1 << 16 => value.resize(1 << 16, 0),
            Err(_) => return None,
        }
    }
}
