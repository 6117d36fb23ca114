//! A step's own mounts, and the mount points for them.
//!
//! A missing mount point is first tried as a stub under the lowest layer, which leaves no trace in the upper folder.
//! Where that does not show (a link on the way, a deleted parent, a mount within a mount), it is made in place,
//! reported, and removed after the step if it is still empty.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, unlinkat};
use rustix::mount::MountAttrFlags;

use super::devices::Nodes;
use super::mounting::{self, Doing, SetupError};
use super::overlay;
use crate::executor::step::{Mount, Source};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    File,
}

/// Finds mount points in a root, and makes those that are missing.
pub(super) struct Targets<'a> {
    root: BorrowedFd<'a>,
    made: Vec<PathBuf>,
}

impl<'a> Targets<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self {
            root,
            made: Vec::new(),
        }
    }

    /// What was made in the root's own file system, outermost first.
    pub(super) fn into_made(self) -> Vec<PathBuf> {
        self.made
    }

    pub(super) fn file(&mut self, path: &str) -> io::Result<OwnedFd> {
        self.find(path, Kind::File)
    }

    fn find(&mut self, path: &str, kind: Kind) -> io::Result<OwnedFd> {
        match mounting::resolve(self.root, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(path, kind),
            found => found,
        }
    }

    fn make(&mut self, path: &str, kind: Kind) -> io::Result<OwnedFd> {
        let names = plain_names(path);
        let Some((last, parents)) = names.split_last() else {
            return mounting::resolve(self.root, "/");
        };
        let mut at = String::new();
        for name in parents {
            at.push('/');
            at.push_str(name);
            if let Err(error) = mounting::resolve(self.root, &at) {
                if error.kind() != io::ErrorKind::NotFound {
                    return Err(error);
                }
                self.make_one(&at, name, Kind::Folder)?;
            }
        }
        at.push('/');
        at.push_str(last);
        self.make_one(&at, last, kind)?;
        mounting::resolve(self.root, &at)
    }

    /// Makes the last name of a path whose parent exists.
    fn make_one(&mut self, path: &str, name: &str, kind: Kind) -> io::Result<()> {
        let parent = mounting::resolve(self.root, path.rsplit_once('/').map_or("/", |(parent, _)| parent))?;
        let made = match kind {
            Kind::Folder => mkdirat(&parent, name, Mode::from_raw_mode(0o755)),
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(&parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
            }
        };
        match made {
            Ok(()) => {}
            // A link that leads nowhere is in the way, or somebody else was faster.
            Err(rustix::io::Errno::EXIST) => return self.make_behind_link(&parent, path, name, kind),
            Err(error) => return Err(error.into()),
        }
        let same = rustix::fs::fstat(&parent)?.st_dev == rustix::fs::fstat(self.root)?.st_dev;
        if same {
            self.made.push(self.true_path(parent.as_fd())?.join(name));
        }
        Ok(())
    }

    /// Follows a dangling link one step and makes what it names; a chain or loop of them is refused by depth.
    fn make_behind_link(&mut self, parent: &OwnedFd, path: &str, name: &str, kind: Kind) -> io::Result<()> {
        const LONGEST_CHAIN: usize = 4096;
        let link = match rustix::fs::readlinkat(parent, name, Vec::new()) {
            // No link: another step made it in a cache that both have mounted.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            link => link?.into_string().map_err(io::Error::other)?,
        };
        let target = if link.starts_with('/') {
            link
        } else {
            format!(
                "{}/{link}",
                path.rsplit_once('/').map_or("", |(parent, _)| parent)
            )
        };
        if target.len() > LONGEST_CHAIN || target == path {
            return Err(rustix::io::Errno::LOOP.into());
        }
        self.find(&target, kind).map(drop)
    }

    /// Path of a folder below the root without links, as the kernel knows it.
    pub(super) fn true_path(&self, folder: BorrowedFd<'_>) -> io::Result<PathBuf> {
        let mut names = Vec::new();
        let root = rustix::fs::fstat(self.root)?;
        let mut at = openat(folder, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        loop {
            let here = rustix::fs::fstat(&at)?;
            if (here.st_dev, here.st_ino) == (root.st_dev, root.st_ino) {
                names.reverse();
                return Ok(names.into_iter().collect());
            }
            let above = openat(
                &at,
                "..",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            names.push(name_in(&above, here.st_ino)?);
            at = above;
        }
    }
}

fn name_in(folder: &OwnedFd, inode: u64) -> io::Result<std::ffi::OsString> {
    use std::os::unix::ffi::OsStringExt;
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if found.st_ino == inode {
                return Ok(std::ffi::OsString::from_vec(name.to_bytes().to_vec()));
            }
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The names of a path inside the root; `..` cannot climb above it.
fn plain_names(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.extend(name.to_str()),
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    names
}

/// A copy of the sandbox's stubs with the mount points of this step added.
pub(super) fn own_stubs(common: &Path, own: &Path, mounts: &[Mount]) -> io::Result<PathBuf> {
    for folder in ["proc", "sys", "dev", "etc"] {
        fs::create_dir_all(own.join(folder))?;
    }
    for file in fs::read_dir(common.join("etc"))? {
        fs::File::create(own.join("etc").join(file?.file_name()))?;
    }
    for mount in mounts {
        let names = plain_names(&mount.destination);
        let Some((_, parents)) = names.split_last() else {
            continue;
        };
        // Mount points below /proc, /sys and /dev are those file systems' own matter.
        if matches!(names.first(), Some(&("proc" | "sys" | "dev"))) {
            continue;
        }
        let path = own.join(names.join("/"));
        let made = match kind_of(&mount.source) {
            Some(Kind::Folder) => fs::create_dir_all(&path),
            Some(Kind::File) => fs::create_dir_all(own.join(parents.join("/"))).and_then(|()| {
                fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&path)
                    .map(drop)
            }),
            // A snapshot's selector may name either: known only when it is mounted.
            None => continue,
        };
        match made {
            Ok(()) => {}
            // Two mounts disagree about a name: the second is a mount within the first and finds its own place.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(own.to_owned())
}

fn kind_of(source: &Source) -> Option<Kind> {
    match source {
        Source::Snapshot { selector, .. } | Source::Folder { selector, .. } => {
            plain_names(selector).is_empty().then_some(Kind::Folder)
        }
        Source::Tmpfs { .. } => Some(Kind::Folder),
        Source::Secret { .. } | Source::Socket { .. } => Some(Kind::File),
    }
}

/// Outer mounts first, whatever their order in the request.
pub(super) fn mount_all(
    mounts: &[Mount],
    targets: &mut Targets<'_>,
    memory: &Path,
    spare: &Path,
    usable: Nodes,
) -> Result<(), SetupError> {
    let mut order: Vec<(usize, &Mount)> = mounts.iter().enumerate().collect();
    order.sort_by_key(|(_, mount)| plain_names(&mount.destination).len());
    for (index, mount) in order {
        let own = memory.join(index.to_string());
        mount_one(mount, targets, &own, spare, usable).doing(|| format!("mounting {}", mount.destination))?;
    }
    Ok(())
}

fn mount_one(
    mount: &Mount,
    targets: &mut Targets<'_>,
    own: &Path,
    spare: &Path,
    usable: Nodes,
) -> io::Result<()> {
    let (copy, kind) = match &mount.source {
        Source::Snapshot { files, selector } => {
            fs::create_dir(own)?;
            overlay::mount_over(files, None, own, spare)?;
            selected(own, selector)?
        }
        Source::Folder { path, selector } => selected(path, selector)?,
        Source::Tmpfs { size } => {
            let size = size.map(|bytes| bytes.to_string());
            let mut options = vec![("source", "tmpfs"), ("mode", "1777")];
            options.extend(size.as_deref().map(|size| ("size", size)));
            (
                mounting::new_mount("tmpfs", &options, mounting::NOSUID_NODEV_NOEXEC)?,
                Kind::Folder,
            )
        }
        Source::Secret {
            contents,
            uid,
            gid,
            mode,
        } => {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(own)?;
            io::Write::write_all(&mut file, &contents.0)?;
            chown(own, Some(*uid), Some(*gid))?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode))?;
            (
                mounting::copy_mount(mounting::refer(own)?.as_fd(), false)?,
                Kind::File,
            )
        }
        Source::Socket { path } => (
            mounting::copy_mount(mounting::refer(path)?.as_fd(), false)?,
            Kind::File,
        ),
    };
    let mut attributes = usable.attributes();
    if mount.read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    if !attributes.is_empty() {
        mounting::set_attributes(copy.as_fd(), attributes, false)?;
    }
    mounting::attach(copy.as_fd(), targets.find(&mount.destination, kind)?.as_fd())
}

fn selected(folder: &Path, selector: &str) -> io::Result<(OwnedFd, Kind)> {
    let chosen = mounting::resolve(mounting::refer(folder)?.as_fd(), selector)?;
    let is_folder = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&chosen)?.st_mode).is_dir();
    Ok((
        mounting::copy_mount(chosen.as_fd(), false)?,
        if is_folder { Kind::Folder } else { Kind::File },
    ))
}

/// Removes what `Targets` made, from the inside out, if the step left it empty.
pub(super) fn remove_made(upper: &Path, made: &[PathBuf]) {
    for path in made.iter().rev() {
        // The step may have put anything into its place: then it stays.
        let _kept = remove_empty(upper, path);
    }
}

fn remove_empty(upper: &Path, path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let upper = mounting::refer(upper)?;
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let parent = openat2(
        &upper,
        parent,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        flags,
    )?;
    let found = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match rustix::fs::FileType::from_raw_mode(found.st_mode) {
        rustix::fs::FileType::Directory => unlinkat(&parent, name, AtFlags::REMOVEDIR)?,
        rustix::fs::FileType::RegularFile if found.st_size == 0 => unlinkat(&parent, name, AtFlags::empty())?,
        _ => {}
    }
    Ok(())
}
