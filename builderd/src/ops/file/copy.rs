//! The copy action: what a Dockerfile's COPY and ADD of local files become.
//!
//! Where a source goes depends on what is at the destination already; the rules are those of BuildKit's copier. A file
//! of which nothing changes is not copied at all: layers never change, so it gets a further name in the new one.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use proto::pb;

use super::mode::ModeChange;
use super::owner::Owner;
use super::{Problem, archive};
use crate::store::view::{
    Attributes, Directory, Entry, Folder, Kind, LastLink, Metadata, Overlay, Reason, Selection, Time, View,
    ViewError, Visit, copy_contents, display, expand_wildcards,
};

/// Mode of folders that a copy has to make on its way.
const PARENT_MODE: u32 = 0o755;

/// What a copy changes about the files it takes.
#[derive(Debug)]
pub struct Changes {
    pub owner: Option<Owner>,
    pub mode: Mode,
    pub time: Option<Time>,
}

#[derive(Debug)]
pub enum Mode {
    Keep,
    Set(u32),
    Change(ModeChange),
}

impl Changes {
    fn of(copy: &pb::FileActionCopy, owner: Option<Owner>) -> Result<Self, Problem> {
        let mode = match (copy.mode_str.as_str(), u32::try_from(copy.mode)) {
            ("", Ok(mode)) => Mode::Set(mode & 0o7777),
            ("", Err(_)) => Mode::Keep,
            (text, _) => Mode::Change(ModeChange::parse(text)?),
        };
        Ok(Self {
            owner,
            mode,
            time: time(copy.timestamp),
        })
    }

    fn owner_of(&self, source: &Metadata) -> Owner {
        self.owner.unwrap_or(Owner {
            uid: source.uid,
            gid: source.gid,
        })
    }

    fn mode_of(&self, source: &Metadata) -> u32 {
        match &self.mode {
            Mode::Keep => source.mode,
            Mode::Set(mode) => *mode,
            Mode::Change(change) => change.apply(source.mode, source.is_dir()),
        }
    }

    fn time_of(&self, source: &Metadata) -> Time {
        self.time.unwrap_or(source.modified)
    }

    fn keep_all_of(&self, source: &Metadata) -> bool {
        self.owner_of(source)
            == Owner {
                uid: source.uid,
                gid: source.gid,
            }
            && self.mode_of(source) == source.mode
            && self.time_of(source) == source.modified
    }

    fn parent_mode(&self) -> u32 {
        if let Mode::Set(mode) = self.mode {
            mode
        } else {
            PARENT_MODE
        }
    }
}

/// The time that an action sets, if it sets any: −1 stands for none.
pub fn time(timestamp: i64) -> Option<Time> {
    (timestamp != -1).then(|| Time::from_unix_nanos(timestamp))
}

/// Whether a link in the last place of the source is followed.
pub fn last_link(copy: &pb::FileActionCopy) -> LastLink {
    if copy.follow_symlink {
        LastLink::Follow
    } else {
        LastLink::Keep
    }
}

/// The paths that the action takes, wildcards expanded.
pub fn sources(copy: &pb::FileActionCopy, view: &View) -> Result<Vec<String>, Problem> {
    let source = clean(&copy.src);
    if !copy.allow_wildcard {
        return Ok(vec![source]);
    }
    let found = expand_wildcards(view, &source, last_link(copy))?;
    if found.is_empty() && !copy.allow_empty_wildcard {
        return Err(ViewError::NotFound { path: source.into() }.into());
    }
    // Wildcards are matched against text, so a name that is not text was spelt with replacement characters anyway.
    Ok(found
        .into_iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect())
}

pub fn run(
    copy: &pb::FileActionCopy,
    source: &View,
    overlay: &Overlay,
    owner: Option<Owner>,
) -> Result<(), Problem> {
    let destination = clean(&copy.dest);
    if !copy.create_dest_path {
        let resolved = overlay.view().resolve(&destination, LastLink::Follow)?;
        let parent = resolved.path.parent().unwrap_or(Path::new("/"));
        overlay.view().lookup(parent, LastLink::Keep)?;
    }
    let changes = Changes::of(copy, owner)?;
    let selection = Selection::new(&copy.include_patterns, &copy.exclude_patterns)?;
    for path in sources(copy, source)? {
        if copy.attempt_unpack_docker_compatibility
            && archive::extract(source, &path, overlay, &destination, &changes)?
        {
            continue;
        }
        copy_one(copy, source, &path, overlay, &destination, &changes, &selection)?;
    }
    Ok(())
}

fn copy_one(
    copy: &pb::FileActionCopy,
    source: &View,
    path: &str,
    overlay: &Overlay,
    destination: &str,
    changes: &Changes,
    selection: &Selection,
) -> Result<(), Problem> {
    let make = |path: &Path| make_folders(overlay, path, changes.parent_mode(), changes.owner, changes.time);
    // A destination that is spelt as a folder is one; else what is before the last name is.
    let as_folder = destination.ends_with('/') || destination.ends_with("/.");
    let ensured = if as_folder {
        Some(Path::new(destination))
    } else {
        Path::new(destination).parent()
    };
    if let Some(ensured) = ensured {
        make(&overlay.view().resolve(ensured, LastLink::Follow)?.path)?;
    }
    let from = source.lookup(path, last_link(copy))?;
    let is_dir = from.metadata().is_some_and(Metadata::is_dir);
    let to = overlay.view().resolve(destination, LastLink::Follow)?;
    let existing = to.metadata();
    let goes_inside = if is_dir {
        !copy.dir_copy_contents && existing.is_some()
    } else {
        existing.is_some_and(Metadata::is_dir)
    };
    let target = match base_name(path) {
        Some(name) if goes_inside => to.path.join(name),
        _ => to.path.clone(),
    };
    if copy.dir_copy_contents && is_dir && existing.is_none() {
        make(&target)?;
    } else if let Some(parent) = target.parent() {
        make(parent)?;
    }
    let mut copier = Copier {
        overlay,
        changes,
        replace: copy.always_replace_existing_dest_paths,
        target,
        folders: Vec::new(),
        links: HashMap::new(),
    };
    selection.walk(&from, &mut copier)
}

/// The folder at `path`, which holds no links; missing ones are made.
pub fn make_folders(
    overlay: &Overlay,
    path: &Path,
    mode: u32,
    owner: Option<Owner>,
    time: Option<Time>,
) -> Result<Rc<Folder>, ViewError> {
    overlay.folder_or_make(path, |parent, name| {
        let folder = parent.create_folder(name)?;
        if let Some(owner) = owner {
            folder.set_own_owner(owner.uid, owner.gid)?;
        }
        folder.set_own_mode(mode)?;
        if let Some(time) = time {
            folder.set_own_time(time)?;
        }
        Ok(folder)
    })
}

/// Cleans a path, but keeps a final `/` or `/.`: they mean something in a copy.
fn clean(path: &str) -> String {
    let mut clean = display(Path::new(path)).to_string_lossy().into_owned();
    let is_root = clean == "/";
    if path.ends_with("/.") {
        clean.push_str(if is_root { "." } else { "/." });
    } else if path.ends_with('/') && !is_root {
        clean.push('/');
    }
    clean
}

/// The name that a source has inside a destination folder. The root and `dir/.` have none.
fn base_name(path: &str) -> Option<&str> {
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | ".") => None,
        name => name,
    }
}

struct Copier<'a> {
    overlay: &'a Overlay,
    changes: &'a Changes,
    replace: bool,
    /// Where the root of the walk goes.
    target: PathBuf,
    /// The folders that the folders entered go to.
    folders: Vec<Rc<Folder>>,
    /// Where a file that has several names in the source was copied to first.
    links: HashMap<(usize, (u64, u64)), PathBuf>,
}

impl Copier<'_> {
    /// The folder and name that something in the walk goes to; no name is the root of the file system.
    fn place<'b>(&self, relative: &'b Path) -> Result<(Rc<Folder>, Option<OsString>), ViewError> {
        let name = |path: &'b Path| path.file_name().map(OsStr::to_owned);
        if let (Some(folder), Some(name)) = (self.folders.last(), name(relative)) {
            return Ok((Rc::clone(folder), Some(name)));
        }
        let parent = self.target.parent().unwrap_or(Path::new("/"));
        Ok((
            self.overlay.folder(parent)?,
            self.target.file_name().map(OsStr::to_owned),
        ))
    }

    fn stamp_folder(
        &self,
        folder: &Folder,
        source: &Metadata,
        attributes: &Attributes,
    ) -> Result<(), ViewError> {
        let owner = self.changes.owner_of(source);
        folder.set_own_owner(owner.uid, owner.gid)?;
        folder.set_own_mode(self.changes.mode_of(source))?;
        folder.set_own_attributes(attributes)?;
        folder.set_own_time(self.changes.time_of(source))
    }

    fn stamp(
        &self,
        folder: &Folder,
        name: &OsStr,
        source: &Metadata,
        attributes: &Attributes,
    ) -> Result<(), ViewError> {
        let owner = self.changes.owner_of(source);
        folder.set_owner(name, owner.uid, owner.gid)?;
        if source.kind != Kind::Symlink {
            folder.set_mode(name, self.changes.mode_of(source))?;
        }
        folder.set_attributes(name, attributes)?;
        folder.set_time(name, self.changes.time_of(source))
    }

    /// Gives the file a further name if it was copied before. `true` if that is all there was to do.
    fn link(&mut self, entry: &Entry, folder: &Folder, name: &OsStr) -> Result<bool, ViewError> {
        let metadata = entry.metadata();
        if metadata.links < 2 {
            return Ok(false);
        }
        let key = (entry.layer(), metadata.inode);
        let Some(first) = self.links.get(&key) else {
            self.links.insert(key, folder.path().join(name));
            return Ok(false);
        };
        let (Some(parent), Some(first_name)) = (first.parent(), first.file_name()) else {
            return Ok(false);
        };
        folder.create_link(name, &*self.overlay.folder(parent)?, first_name)?;
        Ok(true)
    }
}

impl Visit for Copier<'_> {
    type Error = Problem;

    fn enter(&mut self, relative: &Path, directory: &Directory, reason: Reason) -> Result<(), Problem> {
        let is_root = relative.as_os_str().is_empty();
        let (parent, name) = self.place(relative)?;
        let Some(name) = name else {
            parent.set_own_time(self.changes.time_of(directory.metadata()))?;
            self.folders.push(parent);
            return Ok(());
        };
        let mut existing = parent.lookup(&name)?;
        if self.replace && existing.is_some_and(|metadata| !metadata.is_dir()) {
            parent.clear(&name)?;
            existing = None;
        }
        let source = directory.metadata();
        let folder = match existing {
            None => {
                let folder = parent.create_folder(&name)?;
                self.stamp_folder(&folder, source, &directory.attributes()?)?;
                folder
            }
            Some(metadata) if !metadata.is_dir() => {
                return Err(Problem::CopyToNonDirectory(parent.path().join(&name)));
            }
            Some(_) => {
                let folder = parent.open(&name)?;
                // The folder that is copied to keeps what it is; those in it become what they are in the source.
                match (is_root, reason) {
                    (true, _) => folder.set_own_time(self.changes.time_of(source))?,
                    (false, Reason::Selected) => {
                        self.stamp_folder(&folder, source, &directory.attributes()?)?;
                    }
                    (false, Reason::OnTheWay) => folder.set_own_mode(source.mode)?,
                }
                folder
            }
        };
        self.folders.push(folder);
        Ok(())
    }

    fn leaf(&mut self, relative: &Path, entry: &Entry) -> Result<(), Problem> {
        let (folder, name) = self.place(relative)?;
        let Some(name) = name else {
            return Err(Problem::ReplaceDirectory(self.target.clone()));
        };
        if let Some(existing) = folder.lookup(&name)? {
            if existing.is_dir() && !self.replace {
                return Err(Problem::ReplaceDirectory(folder.path().join(&name)));
            }
            folder.clear(&name)?;
        }
        let metadata = entry.metadata();
        match metadata.kind {
            Kind::Regular => {
                if self.link(entry, &folder, &name)? {
                    return Ok(());
                }
                if self.changes.keep_all_of(metadata) && folder.adopt(&name, entry)? {
                    return Ok(());
                }
                let mut to = folder.create_file(&name)?;
                copy_contents(&mut entry.open_file()?, &mut to, metadata.size).map_err(|source| {
                    Problem::CopyData {
                        path: entry.path().to_owned(),
                        source,
                    }
                })?;
            }
            Kind::Symlink => folder.create_symlink(&name, &entry.read_link()?)?,
            _ => folder.create_node(&name, metadata)?,
        }
        Ok(self.stamp(&folder, &name, metadata, &entry.attributes()?)?)
    }

    fn leave(&mut self) -> Result<(), Problem> {
        self.folders.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaned_paths_keep_what_says_folder() {
        for (path, cleaned, base) in [
            ("a/b", "/a/b", Some("b")),
            ("/a/../b/", "/b/", Some("b")),
            ("/a/.", "/a/.", None),
            ("", "/", None),
            (".", "/", None),
            ("/", "/", None),
            ("../../x", "/x", Some("x")),
            ("/.", "/.", None),
        ] {
            assert_eq!(clean(path), cleaned, "{path:?}");
            assert_eq!(base_name(cleaned), base, "{path:?}");
        }
    }
}
