//! The certificate of a step's outlet among those that the step trusts.
//!
//! Nothing is written into the step's root for it: changed copies of the root's bundles lie in a layer between the
//! root's own and what the step writes. So the step can replace a bundle like any other file, and what it leaves alone is
//! not in its result. A bundle that it changed in place was copied with the certificate, which is taken out again.

use std::collections::BTreeSet;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, futimens, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::housing::Housing;
use super::volumes::Targets;
use super::{mounting, overlay};
use crate::executor::step::FileSystem;

/// Where programs on Linux look for the certificates that they trust.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Bytes of a bundle; those of distributions have a few hundred KiB. A larger one stays as it is.
const LARGEST: u64 = 10 << 20;

/// As many links as the kernel follows.
const LONGEST_CHAIN: usize = 40;

/// The layer with the changed bundles, to be put on top of the root's layers.
pub(super) fn folder(housing: &Housing) -> PathBuf {
    housing.memory.join("trust")
}

/// Fills that layer, and returns the bundles in it as paths below the root.
pub(super) fn place(
    files: &FileSystem,
    stubs: &Path,
    authority: &str,
    housing: &Housing,
    spare: &Path,
) -> io::Result<Vec<PathBuf>> {
    let seen = FileSystem {
        lowers: files.lowers.clone(),
        writable: None,
    };
    overlay::mount_over(&seen, Some(stubs), &housing.root, spare)?;
    let placed = copy_bundles(&housing.root, &folder(housing), authority);
    unmount(&housing.root, UnmountFlags::DETACH)?;
    placed
}

fn copy_bundles(root: &Path, layer: &Path, authority: &str) -> io::Result<Vec<PathBuf>> {
    let opened = mounting::refer(root)?;
    let found: BTreeSet<PathBuf> = BUNDLES
        .iter()
        .filter_map(|bundle| locate(opened.as_fd(), bundle))
        .collect();
    let mut placed = Vec::new();
    let mut folders = BTreeSet::new();
    for bundle in found {
        let mut file = open(&root.join(&bundle))?;
        let like = file.metadata()?;
        if like.len() > LARGEST {
            continue;
        }
        let mut contents = Vec::new();
        io::Read::by_ref(&mut file)
            .take(LARGEST)
            .read_to_end(&mut contents)?;
        contents.extend_from_slice(block(authority).as_bytes());
        let target = layer.join(&bundle);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut copy = OpenOptions::new().write(true).create_new(true).open(&target)?;
        copy.write_all(&contents)?;
        copy_attributes(&root.join(&bundle), &like, &copy, &target)?;
        folders.extend(bundle.ancestors().skip(1).map(Path::to_owned));
        placed.push(bundle);
    }
    // A folder looks as it does in the uppermost layer that has it. The inner ones first: making them changed the outer.
    for folder in folders.into_iter().rev() {
        let (from, to) = (root.join(&folder), layer.join(&folder));
        copy_attributes(&from, &fs::metadata(&from)?, &fs::File::open(&to)?, &to)?;
    }
    Ok(placed)
}

/// Where a bundle really is, as a path without links below the root; nothing if there is no such file.
fn locate(root: BorrowedFd<'_>, bundle: &str) -> Option<PathBuf> {
    let mut path = bundle.to_owned();
    for _ in 0..LONGEST_CHAIN {
        let (parent, name) = path.rsplit_once('/')?;
        let folder = mounting::resolve(root, parent).ok()?;
        let found = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {
                let folder = Targets::new(root).true_path(folder.as_fd()).ok()?;
                return Some(folder.join(name));
            }
            FileType::Symlink => {
                let link = readlinkat(&folder, name, Vec::new()).ok()?.into_string().ok()?;
                path = match link.starts_with('/') {
                    true => link,
                    false => format!("{parent}/{link}"),
                };
            }
            _ => return None,
        }
    }
    None
}

fn open(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

fn copy_attributes(from: &Path, like: &Metadata, file: &fs::File, path: &Path) -> io::Result<()> {
    fchown(file, Some(like.uid()), Some(like.gid()))?;
    file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
    for name in xattr::list(from).into_iter().flatten() {
        if let Ok(Some(value)) = xattr::get(from, &name) {
            // Not every file system holds every kind.
            xattr::set(path, &name, &value).ok();
        }
    }
    set_times(file, like)
}

fn set_times(file: &fs::File, like: &Metadata) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: like.atime(),
            tv_nsec: like.atime_nsec() as _,
        },
        last_modification: Timespec {
            tv_sec: like.mtime(),
            tv_nsec: like.mtime_nsec() as _,
        },
    };
    Ok(futimens(file, &times)?)
}

/// What is added to a bundle; BuildKit's own words, which scripts may look for.
fn block(authority: &str) -> String {
    format!(
        "\n# buildkit proxy CA begin\n{}\n# buildkit proxy CA end\n",
        authority.trim_end()
    )
}

/// Takes the certificate out of bundles that the step has copied by changing them, or by replacing a link to one.
pub(super) fn forget(upper: &Path, bundles: &[PathBuf], authority: &str) -> io::Result<()> {
    let spellings = BUNDLES
        .iter()
        .filter_map(|bundle| Path::new(bundle).strip_prefix("/").ok());
    let bundles: BTreeSet<&Path> = bundles.iter().map(PathBuf::as_path).chain(spellings).collect();
    let upper = mounting::refer(upper)?;
    for bundle in bundles {
        forget_in(upper.as_fd(), bundle, &block(authority))?;
    }
    Ok(())
}

fn forget_in(upper: BorrowedFd<'_>, bundle: &Path, block: &str) -> io::Result<()> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let open = |flags: OFlags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(upper, bundle, flags, Mode::empty(), beneath).map(fs::File::from)
    };
    // The step may have put anything into its place, or nothing. What it is, is seen without opening it.
    let like = match open(OFlags::PATH) {
        Ok(found) => found.metadata()?,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !like.is_file() || like.len() > 2 * LARGEST {
        return Ok(());
    }
    let mut file = open(OFlags::RDWR)?;
    let mut contents = Vec::new();
    io::Read::by_ref(&mut file)
        .take(2 * LARGEST)
        .read_to_end(&mut contents)?;
    let Some(at) = contents
        .windows(block.len())
        .position(|window| window == block.as_bytes())
    else {
        return Ok(());
    };
    // What follows moves to the front, in place: that needs no room on the disk, and keeps owner, mode and other names.
    let rest = &contents[at + block.len()..];
    file.write_all_at(rest, at as u64)?;
    file.set_len((at + rest.len()) as u64)?;
    set_times(&file, &like)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn root_with(bundle: &str, contents: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(bundle);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        root
    }

    #[test]
    fn bundles_are_found_behind_links_and_each_is_copied_once() {
        let root = root_with("etc/ca-trust/bundle.pem", "one\n");
        fs::create_dir_all(root.path().join("etc/ssl/certs")).unwrap();
        fs::create_dir_all(root.path().join("etc/pki/tls")).unwrap();
        let certs = root.path().join("etc/ssl/certs/ca-certificates.crt");
        symlink("../../ca-trust/bundle.pem", certs).unwrap();
        symlink("certs/ca-certificates.crt", root.path().join("etc/ssl/cert.pem")).unwrap();
        // One that leads out of the root, and one that leads nowhere.
        symlink("/../../../../bundle", root.path().join("etc/ssl/ca-bundle.pem")).unwrap();
        symlink("cacert.pem", root.path().join("etc/pki/tls/cacert.pem")).unwrap();
        let layer = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path().join("etc"), fs::Permissions::from_mode(0o751)).unwrap();
        let placed = copy_bundles(root.path(), layer.path(), AUTHORITY).unwrap();
        assert_eq!(placed, [PathBuf::from("etc/ca-trust/bundle.pem")]);
        let copy = fs::read_to_string(layer.path().join(&placed[0])).unwrap();
        assert!(copy.starts_with("one\n") && copy.contains(AUTHORITY), "{copy}");
        let alike = |path: &str| {
            let [from, to] = [&root, &layer].map(|at| fs::metadata(at.path().join(path)).unwrap());
            assert_eq!((from.mode(), from.mtime()), (to.mode(), to.mtime()), "{path}");
        };
        alike("etc");
        alike("etc/ca-trust/bundle.pem");
    }

    #[test]
    fn what_was_added_is_taken_out_of_a_copy_and_nothing_else() {
        let bundle = "etc/ssl/cert.pem";
        for (before, after) in [("one", ""), ("one\n", "two\n"), ("", "two")] {
            let upper = root_with(bundle, &format!("{before}{}{after}", block(AUTHORITY)));
            forget(
                upper.path(),
                &["absent".into(), "etc/ssl/cert.pem/x".into()],
                AUTHORITY,
            )
            .unwrap();
            let left = fs::read_to_string(upper.path().join(bundle)).unwrap();
            assert_eq!(left, format!("{before}{after}"));
        }
        // Things that are no files.
        let upper = root_with("etc/ssl/certs/other", "");
        symlink("/dev/null", upper.path().join(bundle)).unwrap();
        fs::create_dir_all(upper.path().join("etc/ssl/ca-bundle.pem")).unwrap();
        let _socket =
            std::os::unix::net::UnixListener::bind(upper.path().join("etc/ssl/certs/ca-certificates.crt"));
        forget(upper.path(), &[], AUTHORITY).unwrap();
        // Another build's certificate is the step's own matter.
        let upper = root_with(bundle, &block("other"));
        forget(upper.path(), &[bundle.into()], AUTHORITY).unwrap();
        assert_eq!(
            fs::read_to_string(upper.path().join(bundle)).unwrap(),
            block("other")
        );
    }
}
