//! A layer folder to the tar of an image layer.
//!
//! Entries come in the order of a walk that sorts the names of each folder, a folder before what is in it, so the
//! bytes depend on the folder alone. overlayfs' marks become those of image layers: a character device 0/0 is
//! `.wh.name`, an opaque folder holds `.wh..wh..opq`. Times are cut to whole seconds, as BuildKit does. Files are
//! hard links of each other only if both names are in this layer: elsewhere their inodes may be shared at will.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, openat, statat};
use rustix::io::Errno;

use super::compress::Blocks;
use super::tar::{Entry, Kind, Time, Xattrs, end_of_archive, padding, push_header};

pub(super) const WHITEOUT: &str = ".wh.";
pub(super) const OPAQUE: &str = ".wh..wh..opq";
/// overlayfs' own limit for paths, and more than any reader of archives takes.
const PATH_LIMIT: usize = 4096;
/// Marks of overlayfs: ours are made by privileged mounts, `user.` ones by those within user namespaces.
const OVERLAY: [&str; 2] = ["trusted.overlay.", "user.overlay."];

#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("cannot {doing} {} of a layer", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("path {} is too long for a layer", path.display())]
    Path { path: PathBuf },
    #[error("{} refers to a lower layer through overlayfs attribute {attribute}, which no image layer can hold", path.display())]
    Redirect { path: PathBuf, attribute: String },
    #[error("{} changed while its layer was packed", path.display())]
    Changed { path: PathBuf },
    #[error("cannot write the layer blob")]
    Write(#[from] io::Error),
}

struct Folder {
    fd: OwnedFd,
    /// Within the layer, with a slash at the end; empty for the root.
    path: Vec<u8>,
    /// In reverse order.
    names: Vec<CString>,
}

/// Writes the tar of the layer in `folder`; no time in it is after `latest`, in seconds.
pub(super) fn pack(folder: &Path, latest: Option<i64>, out: &mut Blocks<'_>) -> Result<(), PackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, folder, flags, Mode::empty()).map_err(failed("open", b"the folder"))?;
    // The root's own entry is left out, as in BuildKit's layers; a mark on it cannot be.
    let mut pack = Pack {
        out,
        latest: latest.unwrap_or(i64::MAX),
        header: Vec::new(),
        links: HashMap::new(),
    };
    let (_, opaque) = attributes(root.as_fd(), b"/")?;
    if opaque {
        pack.mark(OPAQUE.as_bytes().to_vec())?;
    }
    // A stack of its own: layers may hold folders as deep as the path limit allows.
    let mut stack = vec![Folder {
        names: names(root.as_fd(), b"/")?,
        fd: root,
        path: Vec::new(),
    }];
    while let Some(top) = stack.last_mut() {
        let Some(name) = top.names.pop() else {
            stack.pop();
            continue;
        };
        let path = [&top.path, name.to_bytes()].concat();
        if let Some(folder) = pack.add(top.fd.as_fd(), &name, path)? {
            stack.push(folder);
        }
    }
    Ok(pack.out.write_all(end_of_archive())?)
}

struct Pack<'a, 'b> {
    out: &'a mut Blocks<'b>,
    latest: i64,
    header: Vec<u8>,
    /// The first name of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Pack<'_, '_> {
    /// Adds what `path` is; returns it if it is a folder to walk.
    fn add(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        mut path: Vec<u8>,
    ) -> Result<Option<Folder>, PackError> {
        if path.len() > PATH_LIMIT {
            return Err(PackError::Path {
                path: printable(&path),
            });
        }
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("read", &path))?;
        let open = |flags, path: &[u8]| {
            let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            openat(parent, name, flags, Mode::empty()).map_err(failed("open", path))
        };
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if device == (0, 0) => {
                let (folder, name) = path.split_at(path.len() - name.to_bytes().len());
                self.mark([folder, WHITEOUT.as_bytes(), name].concat())?;
                return Ok(None);
            }
            // Nobody can connect to a socket from an image.
            FileType::Socket => return Ok(None),
            FileType::Directory => {
                let fd = open(OFlags::DIRECTORY, &path)?;
                let (xattrs, opaque) = attributes(fd.as_fd(), &path)?;
                let names = names(fd.as_fd(), &path)?;
                path.push(b'/');
                self.entry(&path, Kind::Folder, &stat, xattrs)?;
                if opaque {
                    self.mark([&path, OPAQUE.as_bytes()].concat())?;
                }
                return Ok(Some(Folder { fd, path, names }));
            }
            FileType::RegularFile => {
                if let Some(target) = self.earlier_name(&stat, &path) {
                    self.entry(&path, Kind::HardLink { target }, &stat, Vec::new())?;
                } else {
                    self.file(File::from(open(OFlags::empty(), &path)?), &path, &stat)?;
                }
                return Ok(None);
            }
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed("read", &path))?;
                Kind::Symlink {
                    target: target.into_bytes(),
                }
            }
            FileType::CharacterDevice => Kind::Character {
                major: device.0,
                minor: device.1,
            },
            FileType::BlockDevice => Kind::Block {
                major: device.0,
                minor: device.1,
            },
            FileType::Fifo => Kind::Fifo,
            FileType::Unknown => {
                let source = io::Error::other("unknown file type");
                return Err(PackError::File {
                    doing: "pack",
                    path: printable(&path),
                    source,
                });
            }
        };
        let kind = match self.earlier_name(&stat, &path) {
            Some(target) => Kind::HardLink { target },
            None => kind,
        };
        self.entry(&path, kind, &stat, Vec::new())?;
        Ok(None)
    }

    fn file(&mut self, mut file: File, path: &[u8], stat: &Stat) -> Result<(), PackError> {
        let (xattrs, _) = attributes(file.as_fd(), path)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.entry(path, Kind::File { size }, stat, xattrs)?;
        let taken = self.out.take_from(&mut file, size)?;
        if taken != size {
            return Err(PackError::Changed {
                path: printable(path),
            });
        }
        Ok(self
            .out
            .write_all(end_of_archive().get(..padding(size)).unwrap_or_default())?)
    }

    fn earlier_name(&mut self, stat: &Stat, path: &[u8]) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(earlier) = self.links.get(&inode) {
            return Some(earlier.clone());
        }
        self.links.insert(inode, path.to_vec());
        None
    }

    /// A mark is an empty file whose owner, mode and time say nothing.
    fn mark(&mut self, path: Vec<u8>) -> Result<(), PackError> {
        self.push(&Entry {
            path,
            kind: Kind::File { size: 0 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        })
    }

    fn entry(&mut self, path: &[u8], kind: Kind, stat: &Stat, xattrs: Xattrs) -> Result<(), PackError> {
        self.push(&Entry {
            path: path.to_vec(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time {
                seconds: stat.st_mtime.min(self.latest),
                nanoseconds: 0,
            },
            xattrs,
        })
    }

    fn push(&mut self, entry: &Entry) -> Result<(), PackError> {
        self.header.clear();
        push_header(&mut self.header, entry);
        Ok(self.out.write_all(&self.header)?)
    }
}

/// The names in a folder, sorted backwards.
fn names(folder: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<CString>, PackError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(failed("read", path))? {
        let entry = entry.map_err(failed("read", path))?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// The attributes that go into a layer, sorted, and whether the folder is opaque.
///
/// Only capabilities and what users set: all others belong to the machine the layer was made on.
fn attributes(fd: BorrowedFd<'_>, path: &[u8]) -> Result<(Xattrs, bool), PackError> {
    let mut list = [0_u8; 1024];
    let names = match flistxattr(fd, &mut list[..]) {
        // Nearly every file.
        Ok(0) | Err(Errno::NOTSUP) => return Ok((Vec::new(), false)),
        Ok(size) => list.get(..size).unwrap_or_default().to_vec(),
        Err(Errno::RANGE) => {
            let mut list = vec![0; 1 << 16];
            let size = flistxattr(fd, &mut list[..]).map_err(failed("list the attributes of", path))?;
            list.truncate(size);
            list
        }
        Err(error) => return Err(failed("list the attributes of", path)(error)),
    };
    let mut attributes = Vec::new();
    let mut opaque = false;
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let mut read = || match fgetxattr(fd, name, &mut value[..]) {
            Ok(size) => Ok(value.get(..size).unwrap_or_default().to_vec()),
            Err(error) => Err(failed("read an attribute of", path)(error)),
        };
        let text = String::from_utf8_lossy(name);
        if let Some(mark) = OVERLAY.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            match mark {
                "opaque" => opaque |= read()? == b"y",
                "redirect" | "metacopy" => {
                    let attribute = text.into_owned();
                    return Err(PackError::Redirect {
                        path: printable(path),
                        attribute,
                    });
                }
                _ => {}
            }
        } else if name == b"security.capability" || name.starts_with(b"user.") {
            attributes.push((name.to_vec(), read()?));
        }
    }
    attributes.sort();
    Ok((attributes, opaque))
}

fn failed(doing: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> PackError {
    move |error| PackError::File {
        doing,
        path: printable(path),
        source: error.into(),
    }
}

fn printable(path: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(path)).to_path_buf()
}
