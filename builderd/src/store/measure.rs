//! How much of the disk a folder takes.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::{Errno, Result};

/// Folders that lie deeper are not looked into: each level costs an open file.
const DEPTH: usize = 512;
/// What `st_blocks` counts in.
const BLOCK: u64 = 512;

/// Bytes of the blocks that `folder` and everything in it take; what has several names counts once.
pub(super) fn disk_size(folder: &Path) -> Result<u64> {
    let mut links = HashSet::new();
    let mut size = blocks(&statat(CWD, folder, AtFlags::SYMLINK_NOFOLLOW)?);
    let mut stack = vec![Level::open(CWD, folder)?];
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.names.pop() else {
            stack.pop();
            continue;
        };
        let stat = match statat(&level.folder, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Layers never change, but one may be removed while it is measured.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_folder || stat.st_nlink <= 1 || links.insert((stat.st_dev, stat.st_ino)) {
            size += blocks(&stat);
        }
        if is_folder && stack.len() < DEPTH {
            let Some(level) = stack.last() else { break };
            let below = Level::open(&level.folder, &*name)?;
            stack.push(below);
        }
    }
    Ok(size)
}

fn blocks(stat: &rustix::fs::Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK
}

struct Level {
    folder: OwnedFd,
    names: Vec<CString>,
}

impl Level {
    fn open(parent: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(parent, name, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        Ok(Self { folder, names })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn blocks_count_once_and_links_lead_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let empty = disk_size(temp.path()).unwrap();
        fs::write(temp.path().join("file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(temp.path().join("file"), temp.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", temp.path().join("link")).unwrap();
        let sparse = fs::File::create(temp.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let size = disk_size(temp.path()).unwrap() - empty;
        assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&size), "{size}");
    }

    #[test]
    fn a_deep_folder_is_measured_without_as_many_open_files() {
        let temp = tempfile::tempdir().unwrap();
        let mut path = temp.path().to_path_buf();
        for _ in 0..1000 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        disk_size(temp.path()).unwrap();
    }
}
