//! Writing a layer folder under a view, as a mounted overlay would, without the mount.
//!
//! Folders of the base appear in the new layer only when something in them changes, with the owner, mode, attributes
//! and time they have below. A removed name of the base becomes a whiteout, a new folder in place of one becomes opaque.
//! The times of such folders are set at the very end: what is written into a folder would change them again.
//!
//! One thread writes one layer.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::attributes::{self, Attributes};
use super::directory::OPEN_FOLDER;
use super::{Directory, Entry, Kind, Metadata, Time, View, ViewError};
use crate::store::remove::remove_tree;

#[derive(Debug)]
pub struct Overlay {
    view: View,
    root: Rc<Folder>,
    notes: Rc<Notes>,
}

/// What must be known about the layer as a whole.
#[derive(Debug, Default)]
struct Notes {
    /// Times of folders, set when all is written.
    times: RefCell<BTreeMap<PathBuf, Time>>,
    /// Files of other layers that already have a name in this one. A second name would make the two one file.
    linked: RefCell<HashSet<(u64, u64)>>,
}

impl Overlay {
    /// `upper` is an existing, empty folder; the layer folders of `base` lie below it.
    pub fn new(base: &View, upper: &Path) -> Result<Self, ViewError> {
        let fd =
            rustix::fs::open(upper, OPEN_FOLDER, Mode::empty()).map_err(|errno| ViewError::OpenLayer {
                folder: upper.to_owned(),
                source: errno.into(),
            })?;
        let notes = Rc::new(Notes::default());
        let root = Rc::new(Folder {
            path: PathBuf::from("/"),
            parent: None,
            below: Some(View::open(base.folders())?.into_root()),
            upper: OnceCell::from(fd),
            notes: Rc::clone(&notes),
        });
        root.copy_metadata_up(root.upper()?)?;
        let mut folders = base.folders().to_vec();
        folders.push(upper.to_owned());
        Ok(Self {
            view: View::open(&folders)?,
            root,
            notes,
        })
    }

    /// The base with what has been written so far.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The existing folder at `path`, which holds no links.
    pub fn folder(&self, path: &Path) -> Result<Rc<Folder>, ViewError> {
        names(path).try_fold(Rc::clone(&self.root), |folder, name| folder.open(name))
    }

    /// The folder at `path`, which holds no links; `make` is called to create each one that is missing.
    pub fn folder_or_make(
        &self,
        path: &Path,
        mut make: impl FnMut(&Rc<Folder>, &OsStr) -> Result<Rc<Folder>, ViewError>,
    ) -> Result<Rc<Folder>, ViewError> {
        names(path).try_fold(Rc::clone(&self.root), |folder, name| {
            match folder.lookup(name)? {
                Some(_) => folder.open(name),
                None => make(&folder, name),
            }
        })
    }

    /// Sets the times of folders. The layer is complete afterwards.
    pub fn finish(self) -> Result<(), ViewError> {
        let root = self.root.upper()?;
        for (path, time) in self.notes.times.borrow().iter() {
            let inside = path.strip_prefix("/").unwrap_or(path);
            let inside = if inside.as_os_str().is_empty() {
                Path::new(".")
            } else {
                inside
            };
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let folder = rustix::fs::openat2(root, inside, OPEN_FOLDER, Mode::empty(), resolve)
                .map_err(ViewError::write(path))?;
            rustix::fs::futimens(&folder, &timestamps(*time)).map_err(ViewError::write(path))?;
        }
        Ok(())
    }
}

fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        std::path::Component::Normal(name) => Some(name),
        _ => None,
    })
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: i64::from(time.nanoseconds),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// A folder of the overlay. It is in the new layer from the first change on.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    parent: Option<Rc<Self>>,
    /// What the base shows here; nothing if the base has no such folder or the new layer hides it.
    below: Option<Directory>,
    upper: OnceCell<OwnedFd>,
    notes: Rc<Notes>,
}

impl Folder {
    /// Absolute inside the view.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn lookup(&self, name: &OsStr) -> Result<Option<Metadata>, ViewError> {
        if let Some(metadata) = self.lookup_upper(name)? {
            return Ok((!metadata.is_whiteout()).then_some(metadata));
        }
        Ok(self.lookup_below(name)?.map(|entry| *entry.metadata()))
    }

    pub fn open(self: &Rc<Self>, name: &OsStr) -> Result<Rc<Self>, ViewError> {
        let path = self.path.join(name);
        let upper = OnceCell::new();
        let mut below_is_visible = true;
        if let Some(metadata) = self.lookup_upper(name)? {
            if metadata.is_whiteout() {
                return Err(ViewError::NotFound { path });
            }
            let fd = self.open_upper(name)?;
            below_is_visible = !attributes::is_opaque(&fd).map_err(ViewError::read(&path))?;
            upper.set(fd).expect("the cell was made in this function");
        }
        let below = match &self.below {
            Some(below) if below_is_visible => match below.lookup(name)? {
                Some(entry) if entry.metadata().is_dir() => Some(below.open(&entry)?),
                Some(_) if upper.get().is_none() => return Err(ViewError::NotADirectory { path }),
                _ => None,
            },
            _ => None,
        };
        if below.is_none() && upper.get().is_none() {
            return Err(ViewError::NotFound { path });
        }
        Ok(Rc::new(Self {
            path,
            parent: Some(Rc::clone(self)),
            below,
            upper,
            notes: Rc::clone(&self.notes),
        }))
    }

    /// Makes a folder where nothing is, or where [`Folder::clear`] made room. It belongs to root, mode 0700, until told otherwise.
    pub fn create_folder(self: &Rc<Self>, name: &OsStr) -> Result<Rc<Self>, ViewError> {
        let path = self.path.join(name);
        let here = self.upper()?;
        self.drop_whiteout(name)?;
        rustix::fs::mkdirat(here, name, Mode::RWXU).map_err(ViewError::write(&path))?;
        let fd = self.open_upper(name)?;
        if self
            .lookup_below(name)?
            .is_some_and(|entry| entry.metadata().is_dir())
        {
            attributes::set_opaque(&fd).map_err(ViewError::write(&path))?;
        }
        Ok(Rc::new(Self {
            path,
            parent: Some(Rc::clone(self)),
            below: None,
            upper: OnceCell::from(fd),
            notes: Rc::clone(&self.notes),
        }))
    }

    /// Makes an empty file where nothing is, or where [`Folder::clear`] made room. Mode 0600 until told otherwise.
    pub fn create_file(&self, name: &OsStr) -> Result<File, ViewError> {
        let here = self.upper()?;
        self.drop_whiteout(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(here, name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(ViewError::write(self.path.join(name)))
    }

    pub fn create_symlink(&self, name: &OsStr, target: &OsStr) -> Result<(), ViewError> {
        let here = self.upper()?;
        self.drop_whiteout(name)?;
        rustix::fs::symlinkat(target, here, name).map_err(ViewError::write(self.path.join(name)))
    }

    /// A device or fifo like the one described.
    pub fn create_node(&self, name: &OsStr, like: &Metadata) -> Result<(), ViewError> {
        let kind = match like.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            // A socket means nothing without the process behind it: what stays is an empty file.
            Kind::Socket => FileType::RegularFile,
            _ => {
                return Err(ViewError::NotAFile {
                    path: self.path.join(name),
                });
            }
        };
        let here = self.upper()?;
        self.drop_whiteout(name)?;
        let device = rustix::fs::makedev(like.device.0, like.device.1);
        rustix::fs::mknodat(here, name, kind, Mode::RUSR | Mode::WUSR, device)
            .map_err(ViewError::write(self.path.join(name)))
    }

    /// A further name for a file that this layer already has at `existing_name` in `existing`.
    pub fn create_link(&self, name: &OsStr, existing: &Self, existing_name: &OsStr) -> Result<(), ViewError> {
        let here = self.upper()?;
        self.drop_whiteout(name)?;
        rustix::fs::linkat(existing.upper()?, existing_name, here, name, AtFlags::empty())
            .map_err(ViewError::write(self.path.join(name)))
    }

    /// Takes over a file of an immutable layer as it is, metadata and all, by giving it a name here.
    ///
    /// `false` if that cannot be: the file already has a name in this layer, or the file system does not allow it.
    pub fn adopt(&self, name: &OsStr, file: &Entry) -> Result<bool, ViewError> {
        if !self.notes.linked.borrow_mut().insert(file.metadata().inode) {
            return Ok(false);
        }
        let here = self.upper()?;
        self.drop_whiteout(name)?;
        match file.link_into(here, name) {
            Ok(()) => Ok(true),
            Err(Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(ViewError::write(self.path.join(name))(errno)),
        }
    }

    /// Makes room for something new: takes away what the new layer has under this name. What the base has is hidden by
    /// what comes instead, so this is to be followed by one of the `create` functions.
    pub fn clear(&self, name: &OsStr) -> Result<(), ViewError> {
        let Some(metadata) = self.lookup_upper(name)? else {
            return Ok(());
        };
        let path = self.path.join(name);
        let here = self.upper()?;
        if metadata.is_dir() {
            self.notes
                .times
                .borrow_mut()
                .retain(|known, _| !known.starts_with(&path));
            remove_tree(here, name).map_err(ViewError::write(&path))
        } else {
            rustix::fs::unlinkat(here, name, AtFlags::empty()).map_err(ViewError::write(&path))
        }
    }

    /// Removes whatever has this name, with all that is in it.
    pub fn remove(&self, name: &OsStr) -> Result<(), ViewError> {
        self.clear(name)?;
        if self.lookup_below(name)?.is_some() {
            self.hide(name)?;
        }
        Ok(())
    }

    /// Hides a name, which the new layer has not, of whatever the layer will lie on.
    pub fn hide(&self, name: &OsStr) -> Result<(), ViewError> {
        let here = self.upper()?;
        attributes::set_has_whiteouts(here).map_err(ViewError::write(&self.path))?;
        rustix::fs::mknodat(here, name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(ViewError::write(self.path.join(name)))
    }

    /// Extended attributes of a name that is in the new layer.
    pub fn set_attributes(&self, name: &OsStr, attributes: &Attributes) -> Result<(), ViewError> {
        self.check_own(name)?;
        attributes::write(self.upper()?, name, attributes).map_err(ViewError::write(self.path.join(name)))
    }

    /// Owner of a name that is in the new layer. To be set before the mode: it takes away set-user-id.
    pub fn set_owner(&self, name: &OsStr, uid: u32, gid: u32) -> Result<(), ViewError> {
        self.check_own(name)?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(self.upper()?, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(ViewError::write(self.path.join(name)))
    }

    /// Mode of a name that is in the new layer. A symbolic link, which has none, is refused and never followed: it
    /// would lead through the daemon's own root.
    pub fn set_mode(&self, name: &OsStr, mode: u32) -> Result<(), ViewError> {
        let failed = |errno| ViewError::write(self.path.join(name))(errno);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.upper()?, name, flags, Mode::empty()).map_err(failed)?;
        let metadata = Metadata::of(&rustix::fs::fstat(&file).map_err(failed)?);
        if metadata.kind == Kind::Symlink {
            return Err(failed(Errno::LOOP));
        }
        self.check_unshared(name, &metadata)?;
        // Such a descriptor takes no `fchmod`, and the call by name follows links; this name is of the file itself.
        let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::chmod(itself, Mode::from_raw_mode(mode)).map_err(failed)
    }

    /// Time of a name that is in the new layer and is no folder.
    pub fn set_time(&self, name: &OsStr, time: Time) -> Result<(), ViewError> {
        self.check_own(name)?;
        rustix::fs::utimensat(self.upper()?, name, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(ViewError::write(self.path.join(name)))
    }

    /// Guards the files of other layers: what was adopted is shared with them, and is taken as it is.
    fn check_own(&self, name: &OsStr) -> Result<(), ViewError> {
        if self.notes.linked.borrow().is_empty() {
            return Ok(());
        }
        match self.lookup_upper(name)? {
            Some(metadata) => self.check_unshared(name, &metadata),
            None => Ok(()),
        }
    }

    fn check_unshared(&self, name: &OsStr, metadata: &Metadata) -> Result<(), ViewError> {
        if self.notes.linked.borrow().contains(&metadata.inode) {
            return Err(ViewError::Shared {
                path: self.path.join(name),
            });
        }
        Ok(())
    }

    /// The time that this folder shall have when the layer is complete.
    pub fn set_own_time(&self, time: Time) -> Result<(), ViewError> {
        self.upper()?;
        self.notes.times.borrow_mut().insert(self.path.clone(), time);
        Ok(())
    }

    pub fn set_own_owner(&self, uid: u32, gid: u32) -> Result<(), ViewError> {
        rustix::fs::fchown(self.upper()?, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(ViewError::write(&self.path))
    }

    pub fn set_own_mode(&self, mode: u32) -> Result<(), ViewError> {
        rustix::fs::fchmod(self.upper()?, Mode::from_raw_mode(mode)).map_err(ViewError::write(&self.path))
    }

    pub fn set_own_attributes(&self, attributes: &Attributes) -> Result<(), ViewError> {
        attributes::write(self.upper()?, OsStr::new("."), attributes).map_err(ViewError::write(&self.path))
    }

    /// Whether the new layer itself holds this name.
    pub fn has_in_layer(&self, name: &OsStr) -> Result<bool, ViewError> {
        Ok(self
            .lookup_upper(name)?
            .is_some_and(|metadata| !metadata.is_whiteout()))
    }

    /// Makes sure that the folder is in the new layer, unchanged.
    pub fn bring_up(&self) -> Result<(), ViewError> {
        self.upper().map(drop)
    }

    /// The folder in the new layer, brought there if need be.
    fn upper(&self) -> Result<&OwnedFd, ViewError> {
        if let Some(fd) = self.present()? {
            return Ok(fd);
        }
        let parent = self
            .parent
            .as_ref()
            .expect("the root is in the new layer from the start");
        let name = self.path.file_name().expect("all but the root have a name");
        rustix::fs::mkdirat(parent.upper()?, name, Mode::RWXU).map_err(ViewError::write(&self.path))?;
        let fd = parent.open_upper(name)?;
        self.copy_metadata_up(&fd)?;
        Ok(self.upper.get_or_init(|| fd))
    }

    /// The folder in the new layer, if it is there: another handle may have brought it.
    fn present(&self) -> Result<Option<&OwnedFd>, ViewError> {
        if let Some(fd) = self.upper.get() {
            return Ok(Some(fd));
        }
        let (Some(parent), Some(name)) = (&self.parent, self.path.file_name()) else {
            return Ok(None);
        };
        let Some(above) = parent.present()? else {
            return Ok(None);
        };
        match rustix::fs::openat(above, name, OPEN_FOLDER, Mode::empty()) {
            Ok(fd) => Ok(Some(self.upper.get_or_init(|| fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(ViewError::read(&self.path)(errno)),
        }
    }

    fn copy_metadata_up(&self, fd: &OwnedFd) -> Result<(), ViewError> {
        let Some(below) = &self.below else { return Ok(()) };
        let metadata = below.metadata();
        rustix::fs::fchown(
            fd,
            Some(Uid::from_raw(metadata.uid)),
            Some(Gid::from_raw(metadata.gid)),
        )
        .map_err(ViewError::write(&self.path))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(metadata.mode)).map_err(ViewError::write(&self.path))?;
        attributes::write(fd, OsStr::new("."), &below.attributes()?).map_err(ViewError::write(&self.path))?;
        self.notes
            .times
            .borrow_mut()
            .insert(self.path.clone(), metadata.modified);
        Ok(())
    }

    fn open_upper(&self, name: &OsStr) -> Result<OwnedFd, ViewError> {
        match rustix::fs::openat(self.upper()?, name, OPEN_FOLDER, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => Err(ViewError::NotADirectory {
                path: self.path.join(name),
            }),
            other => other.map_err(ViewError::read(self.path.join(name))),
        }
    }

    fn lookup_upper(&self, name: &OsStr) -> Result<Option<Metadata>, ViewError> {
        let Some(here) = self.present()? else {
            return Ok(None);
        };
        match rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Metadata::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(ViewError::read(self.path.join(name))(errno)),
        }
    }

    fn lookup_below(&self, name: &OsStr) -> Result<Option<Entry>, ViewError> {
        match &self.below {
            Some(below) => below.lookup(name),
            None => Ok(None),
        }
    }

    fn drop_whiteout(&self, name: &OsStr) -> Result<(), ViewError> {
        // Only a base that has the name can have been given a whiteout.
        if self.below.is_some()
            && self
                .lookup_upper(name)?
                .is_some_and(|metadata| metadata.is_whiteout())
        {
            rustix::fs::unlinkat(self.upper()?, name, AtFlags::empty())
                .map_err(ViewError::write(self.path.join(name)))?;
        }
        Ok(())
    }
}
