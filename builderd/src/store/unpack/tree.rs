//! Puts entries into a layer folder.
//!
//! Paths are cleaned as text first; the folders they name are then opened with `openat2` and `RESOLVE_IN_ROOT`, so
//! that links inside the layer are followed within it, as in a container. The last name is never followed. All
//! further calls take a folder's descriptor and one name.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::super::remove::remove_tree;
use super::super::tar::{Archive, Entry, Kind, Time};
use super::super::view::set_has_whiteouts;
use super::{UnpackError, feed};

const PATH_LIMIT: usize = 4096;
const NAME_LIMIT: usize = 255;
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

pub(super) struct Tree {
    root: Arc<OwnedFd>,
    /// The folder that was used last: entries of one folder come together.
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
    /// Set at the end: whatever is put into a folder changes its time.
    folder_times: BTreeMap<Vec<u8>, Time>,
    buffer: Vec<u8>,
}

/// Resolves `.` and `..` as text. Empty is the root.
pub(super) fn clean(path: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop().ok_or_else(|| UnpackError::Escape {
                path: printable(path),
            })?),
            part if part.len() > NAME_LIMIT || part.contains(&0) => {
                return Err(UnpackError::Name {
                    path: printable(path),
                });
            }
            part => parts.push(part),
        }
    }
    let clean = parts.join(&b'/');
    if clean.len() > PATH_LIMIT {
        return Err(UnpackError::Name {
            path: printable(path),
        });
    }
    Ok(clean)
}

pub(super) fn printable(path: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(path).into_owned();
    if text.chars().count() > PATH_LIMIT {
        text = text.chars().take(64).chain("…".chars()).collect();
    }
    text
}

impl Tree {
    pub(super) fn open(folder: &Path) -> Result<Self, UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, folder, flags, Mode::empty()).map_err(failed("open", b"the folder"))?;
        Ok(Self {
            root: Arc::new(root),
            last: None,
            folder_times: BTreeMap::new(),
            buffer: vec![0; 1 << 17],
        })
    }

    /// Puts one entry at a clean path; the data of a file are read from `archive`.
    pub(super) fn place(
        &mut self,
        path: &[u8],
        entry: &Entry,
        archive: &mut Archive<feed::Received>,
    ) -> Result<(), UnpackError> {
        if path.is_empty() {
            // The root's own entry; nothing but a folder can be there.
            return match entry.kind {
                Kind::Folder => self.dress_folder(path, entry),
                _ => Err(UnpackError::Name {
                    path: printable(&entry.path),
                }),
            };
        }
        let (parent, name) = self.parent(path)?;
        let parent = parent.as_fd();
        if matches!(entry.kind, Kind::Folder) {
            match self.present(parent, &name, path)? {
                Some(Present::Folder) => {}
                present => {
                    self.remove(parent, &name, path, present)?;
                    mkdirat(parent, &*name, Mode::RWXU).map_err(failed("create folder", path))?;
                    if present == Some(Present::Whiteout) {
                        // What the whiteout hid must not shine through the new folder.
                        self.hide_lower(path)?;
                    }
                }
            }
            return self.dress_folder(path, entry);
        }
        // Names are rarely there already: look only when the kernel says so.
        match self.create(parent, &name, path, entry, archive) {
            Err(UnpackError::File { source, .. })
                if source.raw_os_error() == Some(Errno::EXIST.raw_os_error()) =>
            {
                let present = self.present(parent, &name, path)?;
                self.remove(parent, &name, path, present)?;
                self.create(parent, &name, path, entry, archive)
            }
            other => other,
        }
    }

    /// Hides what lower layers have at `path`; what this layer has there stays.
    pub(super) fn hide(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let (parent, name) = self.parent(path)?;
        match self.present(parent.as_fd(), &name, path)? {
            None => {
                let folder = reopen(parent.as_fd(), path)?;
                set_has_whiteouts(&folder).map_err(failed("create whiteout", path))?;
                mknodat(
                    &parent,
                    &*name,
                    FileType::CharacterDevice,
                    Mode::empty(),
                    makedev(0, 0),
                )
                .map_err(failed("create whiteout", path))
            }
            Some(Present::Folder) => self.hide_lower(path),
            // Hides it already.
            Some(Present::Whiteout | Present::Other) => Ok(()),
        }
    }

    /// Hides what lower layers have in the folder `path`.
    pub(super) fn hide_lower(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let folder = self.folder(path)?;
        let folder = reopen(folder.as_fd(), path)?;
        fsetxattr(&folder, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
            .map_err(failed("hide what is below", path))
    }

    pub(super) fn finish(self) -> Result<(), UnpackError> {
        for (path, time) in &self.folder_times {
            match open_in(self.root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(folder) => {
                    futimens(&folder, &timestamps(*time)).map_err(failed("set the time of", path))?;
                }
                // A later entry took its place.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(failed("open", path)(error)),
            }
        }
        Ok(())
    }

    fn create(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        entry: &Entry,
        archive: &mut Archive<feed::Received>,
    ) -> Result<(), UnpackError> {
        let mode = Mode::from_raw_mode(entry.mode);
        let (kind, device) = match &entry.kind {
            Kind::File { size } => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file =
                    openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed("create", path))?;
                let mut file = File::from(file);
                self.copy(archive, &mut file, *size, path)?;
                return dress(&file, path, entry, Some(entry.mtime));
            }
            Kind::HardLink { target } => return self.link(parent, name, path, target),
            Kind::Symlink { target } => {
                symlinkat(OsStr::from_bytes(target), parent, name).map_err(failed("create link", path))?;
                own(parent, name, path, entry)?;
                return utimensat(parent, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed("set the time of", path));
            }
            Kind::Character { major, minor } => (FileType::CharacterDevice, makedev(*major, *minor)),
            Kind::Block { major, minor } => (FileType::BlockDevice, makedev(*major, *minor)),
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::Folder => unreachable!("folders are made by `place`"),
        };
        mknodat(parent, name, kind, mode, device).map_err(failed("create device", path))?;
        own(parent, name, path, entry)?;
        // Just made here, so no link: following is harmless, and there is no call that does not.
        chmodat(parent, name, mode, AtFlags::empty()).map_err(failed("set the mode of", path))?;
        utimensat(parent, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the time of", path))
    }

    fn copy(
        &mut self,
        archive: &mut Archive<feed::Received>,
        file: &mut File,
        size: u64,
        path: &[u8],
    ) -> Result<(), UnpackError> {
        let mut left = size;
        while left > 0 {
            let read = archive.read(&mut self.buffer).map_err(UnpackError::Decompress)?;
            if read == 0 {
                return Err(super::archive_failed(super::ArchiveError::Truncated));
            }
            file.write_all(self.buffer.get(..read).unwrap_or_default())
                .map_err(|source| UnpackError::File {
                    doing: "write",
                    path: to_path(path),
                    source,
                })?;
            left -= read as u64;
        }
        Ok(())
    }

    fn link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        target: &[u8],
    ) -> Result<(), UnpackError> {
        let absent = || UnpackError::HardLink {
            path: printable(path),
            target: printable(target),
        };
        let clean = clean(target)?;
        let (folder, target_name) = split(&clean);
        let folder =
            open_in(self.root.as_fd(), folder, OFlags::PATH | OFlags::DIRECTORY).map_err(|_| absent())?;
        match self.present(folder.as_fd(), target_name, &clean)? {
            Some(Present::Other) => {}
            None | Some(Present::Whiteout | Present::Folder) => return Err(absent()),
        }
        if folder_and_name_are_same(folder.as_fd(), target_name, parent, name) {
            return Err(absent());
        }
        linkat(&folder, target_name, parent, name, AtFlags::empty()).map_err(failed("create hard link", path))
    }

    /// Owner, mode, attributes and time of a folder.
    fn dress_folder(&mut self, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let folder = reopen(self.folder(path)?.as_fd(), path)?;
        dress(&folder, path, entry, None)?;
        self.folder_times.insert(path.to_vec(), entry.mtime);
        Ok(())
    }

    /// The folder in which `path` lies, made if the archive left it out, and the last name of `path`.
    fn parent(&mut self, path: &[u8]) -> Result<(Arc<OwnedFd>, Box<OsStr>), UnpackError> {
        let (folder, name) = split(path);
        Ok((self.folder(folder)?, name.into()))
    }

    fn folder(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, UnpackError> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some((last, folder)) = &self.last
            && last == path
        {
            return Ok(Arc::clone(folder));
        }
        let folder = match open_in(self.root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.make_folder(path)?;
                open_in(self.root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY)
                    .map_err(failed("open", path))?
            }
            Err(error) => return Err(failed("open", path)(error)),
        };
        let folder = Arc::new(folder);
        self.last = Some((path.to_vec(), Arc::clone(&folder)));
        Ok(folder)
    }

    /// Makes a folder that the archive has no entry for, and those above it.
    fn make_folder(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        for end in ends {
            let path = path.get(..end).unwrap_or(path);
            match open_in(self.root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(_) => continue,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(failed("open", path)(error)),
            }
            let (above, name) = split(path);
            let above = open_in(self.root.as_fd(), above, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(failed("open", above))?;
            let present = self.present(above.as_fd(), name, path)?;
            match present {
                None => {}
                Some(Present::Whiteout) => self.remove(above.as_fd(), name, path, present)?,
                // A file, or a link that leads nowhere.
                Some(_) => {
                    return Err(UnpackError::NotAFolder {
                        path: printable(path),
                    });
                }
            }
            mkdirat(&above, name, Mode::RWXU).map_err(failed("create folder", path))?;
            let made = open_in(above.as_fd(), name.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(failed("open", path))?;
            fchmod(&made, Mode::from_raw_mode(0o755)).map_err(failed("set the mode of", path))?;
            if present.is_some() {
                fsetxattr(&made, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
                    .map_err(failed("hide what is below", path))?;
            }
            // Not the time of unpacking: the same archive gives the same folder.
            self.folder_times.insert(path.to_vec(), Time::default());
        }
        Ok(())
    }

    fn present(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
    ) -> Result<Option<Present>, UnpackError> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Present::Folder,
                FileType::CharacterDevice if stat.st_rdev == 0 => Present::Whiteout,
                _ => Present::Other,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("read", path)(error)),
        }
    }

    /// Makes room for a later entry of the same path.
    fn remove(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        present: Option<Present>,
    ) -> Result<(), UnpackError> {
        match present {
            None => Ok(()),
            Some(Present::Whiteout | Present::Other) => {
                unlinkat(parent, name, AtFlags::empty()).map_err(failed("replace", path))?;
                // It may have been a link on the way to the folder used last.
                self.last = None;
                Ok(())
            }
            Some(Present::Folder) => {
                remove_tree(parent, name).map_err(failed("replace", path))?;
                self.last = None;
                self.folder_times.retain(|folder, _| {
                    folder != path
                        && !folder
                            .strip_prefix(path)
                            .is_some_and(|rest| rest.starts_with(b"/"))
                });
                Ok(())
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    Folder,
    Whiteout,
    Other,
}

/// Owner, attributes, mode and time, in the order that keeps them: a change of owner clears set-id bits and
/// capabilities.
fn dress(fd: impl AsFd, path: &[u8], entry: &Entry, time: Option<Time>) -> Result<(), UnpackError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchown(&fd, Some(uid), Some(gid)).map_err(failed("set the owner of", path))?;
    for (name, value) in &entry.xattrs {
        // Marks of overlayfs would hide or redirect files; other names are for the machine the layer was made on.
        if name == b"security.capability"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        {
            match fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) => {}
                // As in Docker: a file system without user attributes is no reason to fail.
                Err(Errno::NOTSUP) if name.starts_with(b"user.") => {
                    tracing::debug!(path = %printable(path), "the state folder's file system has no user attributes");
                }
                Err(error) => return Err(failed("set an attribute of", path)(error)),
            }
        }
    }
    fchmod(&fd, Mode::from_raw_mode(entry.mode)).map_err(failed("set the mode of", path))?;
    if let Some(time) = time {
        futimens(&fd, &timestamps(time)).map_err(failed("set the time of", path))?;
    }
    Ok(())
}

fn own(parent: BorrowedFd<'_>, name: &OsStr, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the owner of", path))
}

/// Opens a path below `root`; empty is `root` itself.
fn open_in(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = OsStr::from_bytes(if path.is_empty() { b"." } else { path });
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Somewhere on this machine something was renamed while `..` was resolved.
            Err(Errno::AGAIN | Errno::INTR) if tries < 100 => tries += 1,
            other => return other,
        }
    }
}

/// A descriptor for attributes: those for paths alone take none.
fn reopen(folder: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, UnpackError> {
    openat(
        folder,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed("open", path))
}

fn folder_and_name_are_same(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    other: BorrowedFd<'_>,
    other_name: &OsStr,
) -> bool {
    let inode = |fd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    name == other_name && inode(folder) == inode(other)
}

fn split(path: &[u8]) -> (&[u8], &OsStr) {
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path.get(..slash), path.get(slash + 1..)),
        None => (None, Some(path)),
    };
    (
        folder.unwrap_or_default(),
        OsStr::from_bytes(name.unwrap_or_default()),
    )
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn failed(doing: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> UnpackError {
    move |error| UnpackError::File {
        doing,
        path: to_path(path),
        source: error.into(),
    }
}

fn to_path(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}
