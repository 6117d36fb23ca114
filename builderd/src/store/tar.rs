//! The tar format as image layers use it: POSIX ustar, with PAX records where a value does not fit, and GNU's long
//! names when reading.
//!
//! Pure: bytes in, bytes out; names are bytes and mean nothing here. Written headers depend on the entry alone.

mod decode;
mod encode;

pub use decode::{Archive, ArchiveError};
pub(crate) use encode::{end_of_archive, padding, push_header};

pub(crate) const BLOCK: usize = 512;
/// Prefix of the PAX keys that carry extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File { size: u64 },
    Folder,
    Symlink { target: Vec<u8> },
    HardLink { target: Vec<u8> },
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// Extended attributes and their values, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One member of an archive, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Folders end in a slash.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, set-id bits and the sticky bit.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub xattrs: Xattrs,
}

/// Since the epoch; `nanoseconds` count forward also before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

#[cfg(test)]
mod tests;
