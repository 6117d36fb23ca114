//! The actions that need no source: make files, folders and links, and remove things.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use proto::pb;

use super::Problem;
use super::copy::{make_folders, time};
use super::owner::Owner;
use crate::store::view::{Folder, LastLink, Overlay, ViewError, display, expand_wildcards};

pub fn folder(mkdir: &pb::FileActionMkDir, overlay: &Overlay, owner: Option<Owner>) -> Result<(), Problem> {
    let resolved = overlay.view().resolve(&mkdir.path, LastLink::Follow)?;
    let mode = permissions(mkdir.mode);
    if !mkdir.make_parents {
        if resolved.metadata().is_some() {
            return Ok(());
        }
        parent_of(&resolved.path, overlay)?;
    }
    make_folders(overlay, &resolved.path, mode, owner, time(mkdir.timestamp))?;
    Ok(())
}

/// Writes a file. One that is there already keeps its mode, and its owner unless one is given.
pub fn file(mkfile: &pb::FileActionMkFile, overlay: &Overlay, owner: Option<Owner>) -> Result<(), Problem> {
    let resolved = overlay.view().resolve(&mkfile.path, LastLink::Follow)?;
    let existing = resolved.metadata().copied();
    if existing.is_some_and(|metadata| metadata.is_dir()) {
        return Err(ViewError::IsADirectory { path: resolved.path }.into());
    }
    let kept = match &resolved.found {
        crate::store::view::Found::Other(entry) => entry.attributes()?,
        _ => Vec::new(),
    };
    let (parent, name) = parent_of(&resolved.path, overlay)?;
    parent.clear(name)?;
    let mut file = parent.create_file(name)?;
    file.write_all(&mkfile.data)
        .map_err(|source| Problem::WriteData {
            path: resolved.path.clone(),
            source,
        })?;
    let owner = owner.or(existing.map(|metadata| Owner {
        uid: metadata.uid,
        gid: metadata.gid,
    }));
    if let Some(owner) = owner {
        parent.set_owner(name, owner.uid, owner.gid)?;
    }
    parent.set_mode(
        name,
        existing.map_or(permissions(mkfile.mode), |metadata| metadata.mode),
    )?;
    parent.set_attributes(name, &kept)?;
    drop(file);
    if let Some(time) = time(mkfile.timestamp) {
        parent.set_time(name, time)?;
    }
    Ok(())
}

pub fn symlink(
    symlink: &pb::FileActionSymlink,
    overlay: &Overlay,
    owner: Option<Owner>,
) -> Result<(), Problem> {
    let resolved = overlay.view().resolve(&symlink.newpath, LastLink::Follow)?;
    if resolved.metadata().is_some() {
        return Err(Problem::Exists { path: resolved.path });
    }
    let (parent, name) = parent_of(&resolved.path, overlay)?;
    parent.create_symlink(name, OsStr::new(&symlink.oldpath))?;
    if let Some(owner) = owner {
        parent.set_owner(name, owner.uid, owner.gid)?;
    }
    if let Some(time) = time(symlink.timestamp) {
        parent.set_time(name, time)?;
    }
    Ok(())
}

pub fn removed(rm: &pb::FileActionRm, overlay: &Overlay) -> Result<(), Problem> {
    let paths = if rm.allow_wildcard {
        match expand_wildcards(overlay.view(), &rm.path, LastLink::Keep) {
            Err(ViewError::NotFound { .. }) if rm.allow_not_found => Vec::new(),
            other => other?,
        }
    } else {
        vec![PathBuf::from(&rm.path)]
    };
    paths
        .iter()
        .try_for_each(|path| remove(path, rm.allow_not_found, overlay))
}

/// Removes what is at `path`; if that is a link, the link.
fn remove(path: &Path, allow_not_found: bool, overlay: &Overlay) -> Result<(), Problem> {
    let resolved = overlay.view().resolve(path, LastLink::Keep)?;
    if resolved.metadata().is_none() {
        if allow_not_found {
            return Ok(());
        }
        return Err(ViewError::NotFound { path: display(path) }.into());
    }
    if resolved.path.file_name().is_none() {
        return Err(Problem::RemoveRoot);
    }
    let (parent, name) = parent_of(&resolved.path, overlay)?;
    Ok(parent.remove(name)?)
}

/// The folder, which must exist, and name of a path without links.
fn parent_of<'a>(path: &'a Path, overlay: &Overlay) -> Result<(Rc<Folder>, &'a OsStr), Problem> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((overlay.folder(parent)?, name)),
        _ => Err(Problem::Exists {
            path: path.to_owned(),
        }),
    }
}

fn permissions(mode: i32) -> u32 {
    // Go's FileMode: only the permission bits are taken of it. The bit pattern is what counts, not the sign.
    mode.cast_unsigned() & 0o777
}
