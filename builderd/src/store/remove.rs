//! Removing folders that anybody may have filled: nothing is followed, and however deep they are, neither the stack nor
//! the number of open files grows beyond a bound.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::{Errno, Result};

use super::folder::random_name;

/// What is deeper is first moved up.
const DEPTH: usize = 32;

/// Removes the folder `name` of `parent` and all that is in it.
pub(super) fn remove_tree(parent: impl AsFd, name: &OsStr) -> Result<()> {
    let top = open(&parent, name)?;
    // What was moved up is there in the next round, and lies that much less deep.
    while empty(&top, &top, DEPTH)? == Emptied::MovedUp {}
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Emptied {
    Wholly,
    /// The folder is empty, but folders that were in it are in the top folder now.
    MovedUp,
}

fn empty(folder: &OwnedFd, top: &OwnedFd, depth: usize) -> Result<Emptied> {
    let mut emptied = Emptied::Wholly;
    for name in names(folder)? {
        match unlinkat(folder, &*name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) if depth == 0 => {
                renameat(folder, &*name, top, random_name())?;
                emptied = Emptied::MovedUp;
            }
            Err(Errno::ISDIR) => {
                if empty(&open(folder, &name)?, top, depth - 1)? == Emptied::MovedUp {
                    emptied = Emptied::MovedUp;
                }
                unlinkat(folder, &*name, AtFlags::REMOVEDIR)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(emptied)
}

fn open(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn names(folder: &OwnedFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for item in Dir::read_from(folder)? {
        let item = item?;
        let bytes = item.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            names.push(OsStr::from_bytes(bytes).to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, mkdirat};

    use super::*;

    /// Folders in folders, each with a file; deeper than any path can be long.
    fn make_deep(root: &std::path::Path, depth: usize) {
        let mut folder = open(CWD, root.as_os_str()).unwrap();
        for _ in 0..depth {
            let file = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&folder, "file", file, Mode::RUSR).unwrap();
            mkdirat(&folder, "d", Mode::RWXU).unwrap();
            folder = open(&folder, OsStr::new("d")).unwrap();
        }
    }

    #[test]
    fn a_folder_of_any_depth_goes_and_what_links_lead_to_stays() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("d/many")).unwrap();
        fs::create_dir(temp.path().join("kept")).unwrap();
        fs::write(temp.path().join("kept/file"), "").unwrap();
        std::os::unix::fs::symlink("../kept", tree.join("link")).unwrap();
        for number in 0..50 {
            fs::create_dir(tree.join("d/many").join(number.to_string())).unwrap();
        }
        make_deep(&tree.join("d/many/7"), 5000);
        let parent = open(CWD, temp.path().as_os_str()).unwrap();
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || remove_tree(&parent, OsStr::new("tree")).unwrap())
            .unwrap()
            .join()
            .unwrap();
        assert!(!tree.exists());
        assert!(temp.path().join("kept/file").exists());
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("kept")).unwrap();
        std::os::unix::fs::symlink("kept", temp.path().join("link")).unwrap();
        let parent = open(CWD, temp.path().as_os_str()).unwrap();
        remove_tree(&parent, OsStr::new("link")).unwrap_err();
        assert!(temp.path().join("kept").exists());
    }
}
