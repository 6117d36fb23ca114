//! Extended attributes, without those that overlayfs keeps for itself.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

/// Names and values, sorted by name.
pub type Attributes = Vec<(OsString, Vec<u8>)>;

const OPAQUE: &str = "trusted.overlay.opaque";
const COPIED_UP: &str = "trusted.overlay.origin";
const OVERLAY: &[u8] = b"trusted.overlay.";

pub(super) fn is_opaque(folder: impl AsFd) -> Result<bool> {
    let mut value = [0_u8; 1];
    match rustix::fs::fgetxattr(folder, OPAQUE, &mut value) {
        Ok(1) => Ok(value[0] == b'y'),
        Ok(_) | Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

pub(super) fn set_opaque(folder: impl AsFd) -> Result<()> {
    rustix::fs::fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())
}

/// Marks a folder as one that may hold whiteouts. The kernel looks for them in merged folders only, or in those that
/// were copied up from below, which an attribute says that may be empty.
pub(crate) fn set_has_whiteouts(folder: impl AsFd) -> Result<()> {
    match rustix::fs::fsetxattr(folder, COPIED_UP, b"", XattrFlags::CREATE) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// The calls for attributes take no folder descriptor, and a symbolic link or device cannot be opened for them: so
/// the descriptor's own name in /proc is the start of the path. Its last part is never followed.
fn path_of(folder: impl AsFd, name: &OsStr) -> Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    CString::new(path).map_err(|_| Errno::INVAL)
}

pub(super) fn read(folder: impl AsFd, name: &OsStr) -> Result<Attributes> {
    let path = path_of(folder, name)?;
    // Few files have any: a small buffer first, a second try with the size asked for.
    let mut names = vec![0_u8; 256];
    loop {
        match rustix::fs::llistxattr(&path, &mut names[..]) {
            Ok(length) => {
                names.truncate(length);
                break;
            }
            Err(Errno::RANGE) => names.resize(rustix::fs::llistxattr_query(&path)?.max(names.len() * 2), 0),
            Err(Errno::OPNOTSUPP) => return Ok(Attributes::new()),
            Err(errno) => return Err(errno),
        }
    }
    let mut attributes = Attributes::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(OVERLAY) {
            continue;
        }
        let mut value = vec![0_u8; 256];
        loop {
            match rustix::fs::lgetxattr(&path, name, &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    break;
                }
                Err(Errno::RANGE) => {
                    value.resize(rustix::fs::lgetxattr_query(&path, name)?.max(value.len() * 2), 0);
                }
                Err(errno) => return Err(errno),
            }
        }
        attributes.push((OsString::from_vec(name.to_vec()), value));
    }
    attributes.sort();
    Ok(attributes)
}

/// Sets what can be set: an attribute that this file system or this kind of file cannot have is no reason to fail a
/// build, as in BuildKit.
pub(super) fn write(folder: impl AsFd, name: &OsStr, attributes: &Attributes) -> Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let path = path_of(folder, name)?;
    for (key, value) in attributes {
        match rustix::fs::lsetxattr(&path, key.as_os_str(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
