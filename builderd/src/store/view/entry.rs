//! One name in a view: its metadata, and the ways to read it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::attributes::{self, Attributes};
use super::directory::Part;
use super::{Kind::Regular, ViewError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Regular,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl Kind {
    /// The file type as `stat` has it in the mode.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
        }
    }
}

/// A moment, in Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Time {
    pub const EPOCH: Self = Self {
        seconds: 0,
        nanoseconds: 0,
    };

    pub fn from_unix_nanos(nanos: i64) -> Self {
        let nanoseconds = u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0);
        Self {
            seconds: nanos.div_euclid(1_000_000_000),
            nanoseconds,
        }
    }

    pub fn unix_nanos(self) -> i64 {
        self.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(self.nanoseconds))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub kind: Kind,
    /// Permissions with set-user-id, set-group-id and sticky: the low twelve bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub modified: Time,
    /// Major and minor number of a device, else zero.
    pub device: (u32, u32),
    pub links: u64,
    /// Which file this is on the disk: equal for two names of one file.
    pub inode: (u64, u64),
}

impl Metadata {
    /// The root of `scratch`, which no layer folder holds.
    pub const EMPTY_ROOT: Self = Self {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        modified: Time::EPOCH,
        device: (0, 0),
        links: 1,
        inode: (0, 0),
    };

    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }

    pub(super) fn of(stat: &Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::RegularFile | FileType::Unknown => Kind::Regular,
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            }
            _ => (0, 0),
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: Time {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            device,
            links: stat.st_nlink,
            inode: (stat.st_dev, stat.st_ino),
        }
    }

    pub(super) fn is_whiteout(&self) -> bool {
        self.kind == Kind::CharDevice && self.device == (0, 0)
    }
}

/// One name of a directory, in the layer that wins.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(super) part: Arc<Part>,
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
}

impl Entry {
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// Absolute inside the view.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Which of [`super::View::folders`] holds it.
    pub fn layer(&self) -> usize {
        self.part.layer
    }

    pub fn open_file(&self) -> Result<File, ViewError> {
        if self.metadata.kind != Regular {
            return Err(ViewError::NotAFile {
                path: self.path.clone(),
            });
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(&self.part.fd, self.name(), flags, Mode::empty())
            .map(File::from)
            .map_err(ViewError::read(&self.path))
    }

    pub fn read_link(&self) -> Result<OsString, ViewError> {
        rustix::fs::readlinkat(&self.part.fd, self.name(), Vec::new())
            .map(|target| OsString::from_vec(target.into_bytes()))
            .map_err(ViewError::read(&self.path))
    }

    pub fn attributes(&self) -> Result<Attributes, ViewError> {
        attributes::read(&self.part.fd, self.name()).map_err(ViewError::read(&self.path))
    }

    /// Gives the file a further name, `name` in the folder `into`: for files that never change again.
    pub fn link_into(&self, into: impl std::os::fd::AsFd, name: &OsStr) -> rustix::io::Result<()> {
        rustix::fs::linkat(
            &self.part.fd,
            self.name(),
            into,
            name,
            rustix::fs::AtFlags::empty(),
        )
    }
}
