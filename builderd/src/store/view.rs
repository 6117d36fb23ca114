//! A merged, read-only look at the layer folders of a snapshot, without mounting anything.
//!
//! The rules are those of overlayfs: the highest layer that has a name wins, folders merge downwards until an opaque
//! one, a character device 0/0 hides whatever is below it. Every access goes one name at a time through folder
//! descriptors and follows no link in the kernel, so nothing inside a layer can lead outside of it; links are
//! resolved here, against the root of the view.
//!
//! A view keeps no contents in memory. One that has a layer still being written on top therefore always shows the
//! present state of that layer.

mod attributes;
mod contents;
mod difference;
mod directory;
mod entry;
mod overlay;
mod selection;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub use attributes::Attributes;
pub(super) use attributes::set_has_whiteouts;
pub use contents::copy_contents;
pub use difference::{is_difference, write_copy, write_difference};
pub use directory::Directory;
pub use entry::{Entry, Kind, Metadata, Time};
pub use overlay::{Folder, Overlay};
pub use selection::{Reason, Selection, Visit, contains_wildcard, expand_wildcards};

/// As many links as BuildKit follows before it takes a path for a loop.
const MAX_LINKS: usize = 255;

#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    #[error("open layer folder {}", folder.display())]
    OpenLayer { folder: PathBuf, source: io::Error },
    /// The text is the one that build definitions and their users know from BuildKit.
    #[error("{path:?}: not found")]
    NotFound { path: PathBuf },
    #[error("{path:?}: not a directory")]
    NotADirectory { path: PathBuf },
    #[error("{path:?}: is a directory")]
    IsADirectory { path: PathBuf },
    #[error("{path:?}: not a regular file")]
    NotAFile { path: PathBuf },
    #[error("{path:?}: too many symbolic links")]
    TooManyLinks { path: PathBuf },
    #[error("{path:?}: invalid pattern")]
    Pattern { path: PathBuf },
    #[error("{path:?} is shared with another layer and cannot be changed in place")]
    Shared { path: PathBuf },
    #[error("read {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write {path:?}")]
    Write { path: PathBuf, source: io::Error },
}

impl ViewError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    fn read(path: impl Into<PathBuf>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Read {
            path,
            source: errno.into(),
        }
    }

    fn write(path: impl Into<PathBuf>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Write {
            path,
            source: errno.into(),
        }
    }
}

/// What to do with a symbolic link in the last place of a path. Links before it are always followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    Follow,
    Keep,
}

/// Where a path leads: its spelling without links, absolute inside the view, and what is there.
#[derive(Debug)]
pub struct Resolved {
    pub path: PathBuf,
    pub found: Found,
}

#[derive(Debug)]
pub enum Found {
    Directory(Arc<Directory>),
    /// Anything but a directory.
    Other(Entry),
    Nothing,
}

impl Resolved {
    pub fn metadata(&self) -> Option<&Metadata> {
        match &self.found {
            Found::Directory(directory) => Some(directory.metadata()),
            Found::Other(entry) => Some(entry.metadata()),
            Found::Nothing => None,
        }
    }

    fn existing(self) -> Result<Self, ViewError> {
        match self.found {
            Found::Nothing => Err(ViewError::NotFound { path: self.path }),
            _ => Ok(self),
        }
    }
}

#[derive(Clone, Debug)]
pub struct View {
    folders: Arc<[PathBuf]>,
    root: Arc<Directory>,
}

impl View {
    /// The view of these layer folders, lowest first. None at all is `scratch`: an empty root.
    pub fn open(folders: &[PathBuf]) -> Result<Self, ViewError> {
        Ok(Self {
            folders: folders.into(),
            root: Arc::new(Directory::root(folders)?),
        })
    }

    pub fn root(&self) -> &Arc<Directory> {
        &self.root
    }

    /// This view with another root: for links and `..`, nothing outside of `directory` exists. Paths that come out are
    /// still those of the whole view.
    pub fn rooted_at(&self, directory: Arc<Directory>) -> Self {
        Self {
            folders: Arc::clone(&self.folders),
            root: directory,
        }
    }

    fn into_root(self) -> Directory {
        Arc::into_inner(self.root).expect("a view that was just opened is not shared")
    }

    /// The layer folders, lowest first. [`Entry::layer`] is an index into this.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Walks `path` from the root of the view. `..` stops at the root, an absolute link starts there again.
    ///
    /// What does not exist is taken as written, so that the result says where it would have to be made.
    pub fn resolve(&self, path: impl AsRef<Path>, last: LastLink) -> Result<Resolved, ViewError> {
        let asked = path.as_ref();
        let mut walk = Walk::new(&self.root);
        let mut links = 0;
        let mut pending = steps(asked);
        while let Some(step) = pending.pop() {
            let name = match step {
                Step::Up => {
                    walk.up();
                    continue;
                }
                Step::Root => {
                    walk = Walk::new(&self.root);
                    continue;
                }
                Step::Name(name) => name,
            };
            let Some(entry) = walk.lookup(&name)? else {
                walk.missing.push(name);
                continue;
            };
            let is_last = pending.is_empty();
            match entry.metadata().kind {
                Kind::Directory => walk.enter(&entry)?,
                Kind::Symlink if !is_last || last == LastLink::Follow => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ViewError::TooManyLinks { path: display(asked) });
                    }
                    pending.extend(steps(Path::new(&entry.read_link()?)));
                }
                _ if is_last => {
                    return Ok(Resolved {
                        path: entry.path().to_owned(),
                        found: Found::Other(entry),
                    });
                }
                _ => {
                    return Err(ViewError::NotADirectory {
                        path: entry.path().to_owned(),
                    });
                }
            }
        }
        Ok(walk.finish())
    }

    /// What is at `path`; an error if nothing is.
    pub fn lookup(&self, path: impl AsRef<Path>, last: LastLink) -> Result<Resolved, ViewError> {
        // The error names the path that was asked for: links on the way to it are nothing the asker knows of.
        let asked = display(path.as_ref());
        match self.resolve(path, last)?.existing() {
            Err(ViewError::NotFound { .. }) => Err(ViewError::NotFound { path: asked }),
            other => other,
        }
    }

    pub fn metadata(&self, path: impl AsRef<Path>, last: LastLink) -> Result<Metadata, ViewError> {
        Ok(match self.lookup(path, last)?.found {
            Found::Directory(directory) => *directory.metadata(),
            Found::Other(entry) => *entry.metadata(),
            Found::Nothing => unreachable!("lookup returns what exists"),
        })
    }

    pub fn directory(&self, path: impl AsRef<Path>) -> Result<Arc<Directory>, ViewError> {
        let resolved = self.lookup(path, LastLink::Follow)?;
        match resolved.found {
            Found::Directory(directory) => Ok(directory),
            _ => Err(ViewError::NotADirectory { path: resolved.path }),
        }
    }

    /// The entries of a folder, merged, sorted by name.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<Entry>, ViewError> {
        self.directory(path)?.entries()
    }

    /// Opens a regular file for reading; links are followed.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File, ViewError> {
        let resolved = self.lookup(path, LastLink::Follow)?;
        match resolved.found {
            Found::Other(entry) => entry.open_file(),
            _ => Err(ViewError::IsADirectory { path: resolved.path }),
        }
    }

    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<OsString, ViewError> {
        let resolved = self.lookup(path, LastLink::Keep)?;
        match resolved.found {
            Found::Other(entry) => entry.read_link(),
            _ => Err(ViewError::IsADirectory { path: resolved.path }),
        }
    }

    pub fn attributes(&self, path: impl AsRef<Path>, last: LastLink) -> Result<Attributes, ViewError> {
        match self.lookup(path, last)?.found {
            Found::Directory(directory) => directory.attributes(),
            Found::Other(entry) => entry.attributes(),
            Found::Nothing => unreachable!("lookup returns what exists"),
        }
    }
}

/// One piece of a path still to be walked.
enum Step {
    Root,
    Up,
    Name(OsString),
}

/// The pieces of `path`, last first, so that the next one can be popped and a link's target pushed in its place.
fn steps(path: &Path) -> Vec<Step> {
    let mut steps: Vec<Step> = path
        .components()
        .filter_map(|component| match component {
            Component::RootDir => Some(Step::Root),
            Component::ParentDir => Some(Step::Up),
            Component::Normal(name) => Some(Step::Name(name.to_owned())),
            Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    steps.reverse();
    steps
}

/// The way from the root to where a walk is: folders that exist, then names that do not.
struct Walk {
    stack: Vec<Arc<Directory>>,
    missing: Vec<OsString>,
    root: Arc<Directory>,
}

impl Walk {
    fn new(root: &Arc<Directory>) -> Self {
        Self {
            stack: Vec::new(),
            missing: Vec::new(),
            root: Arc::clone(root),
        }
    }

    fn here(&self) -> &Arc<Directory> {
        self.stack.last().unwrap_or(&self.root)
    }

    fn up(&mut self) {
        if self.missing.pop().is_none() {
            self.stack.pop();
        }
    }

    fn lookup(&self, name: &OsStr) -> Result<Option<Entry>, ViewError> {
        if self.missing.is_empty() {
            self.here().lookup(name)
        } else {
            Ok(None)
        }
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), ViewError> {
        let directory = Arc::new(self.here().open(entry)?);
        self.stack.push(directory);
        Ok(())
    }

    fn finish(self) -> Resolved {
        let here = Arc::clone(self.here());
        if self.missing.is_empty() {
            return Resolved {
                path: here.path().to_owned(),
                found: Found::Directory(here),
            };
        }
        let path = self
            .missing
            .iter()
            .fold(here.path().to_owned(), |path, name| path.join(name));
        Resolved {
            path,
            found: Found::Nothing,
        }
    }
}

/// `path` cleaned of `.` and `..` without looking at links, absolute: how it is spelt in messages and patterns.
pub fn display(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// A name that may be handed to the kernel as one path component.
pub(crate) fn is_plain_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/') && !bytes.contains(&0)
}
