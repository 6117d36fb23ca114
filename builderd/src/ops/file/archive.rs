//! ADD of a local tar archive: it is extracted instead of copied.
//!
//! What counts is the content, not the name: tars that are plain or compressed with gzip, zstd, bzip2 or xz are
//! recognised by their first bytes. Names and
//! links in the archive are resolved with the destination folder as root, so nothing in it can reach elsewhere; what
//! it holds is counted against generous limits.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use lzma_rust2::XzReader;

use super::Problem;
use super::copy::{Changes, make_folders};
use super::owner::Owner;
use crate::store::tar::{self, Archive, ArchiveError};
use crate::store::view::{
    Attributes, Folder, Found, Kind, LastLink, Metadata, Overlay, Time, View, ViewError, copy_contents,
    display,
};

/// Mode of folders that the archive names only in the paths of other things.
const PARENT_MODE: u32 = 0o755;
/// What the kernel takes as a path; a longer one could not be used in the image.
const MAX_PATH: usize = 4096;
/// More entries than this are an attack.
const ENTRY_LIMIT: u64 = 1 << 23;
/// More bytes than this are an attack.
const SIZE_LIMIT: u64 = 1 << 40;
/// KiB that the window of an xz archive may take: `xz -9` makes 64 MiB, its format allows 4 GiB.
const XZ_MEMORY: u32 = 256 << 10;

/// Extracts `path` into the folder `destination`. `false`, with nothing done, if it is no archive.
pub fn extract(
    source: &View,
    path: &str,
    overlay: &Overlay,
    destination: &str,
    changes: &Changes,
) -> Result<bool, Problem> {
    let Found::Other(entry) = source.lookup(path, LastLink::Follow)?.found else {
        return Ok(false);
    };
    if entry.metadata().kind != Kind::Regular {
        return Ok(false);
    }
    let archive = PathBuf::from(path);
    let failed = |source| Problem::Extract {
        archive: archive.clone(),
        source,
    };
    let mut file = entry.open_file()?;
    let open = opener(&mut file).map_err(failed)?;
    if !starts_with_entry(open(file.try_clone().map_err(failed)?).map_err(failed)?) {
        return Ok(false);
    }
    file.rewind().map_err(failed)?;
    let extraction = Extraction::new(&archive, overlay, destination, changes)?;
    extraction.run(open(file).map_err(failed)?)?;
    Ok(true)
}

/// The time of the newest regular file in an archive; nothing for what is no archive or cannot be read.
pub fn newest_in_archive(mut file: File) -> Option<i64> {
    let open = opener(&mut file).ok()?;
    let mut archive = Archive::new(open(file).ok()?);
    let mut newest = None;
    while let Some(entry) = archive.next_entry().ok()? {
        if matches!(entry.kind, tar::Kind::File { .. }) {
            newest = newest.max(Some(entry.mtime.seconds));
        }
    }
    newest
}

type Open = fn(File) -> io::Result<Box<dyn Read>>;

/// How compressed files begin, and how each kind is read.
const COMPRESSIONS: [(&[u8], Open); 4] = [
    (&[0x1f, 0x8b, 0x08], |file| {
        Ok(Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))))
    }),
    (&[0x28, 0xb5, 0x2f, 0xfd], |file| {
        Ok(Box::new(zstd::stream::read::Decoder::new(file)?))
    }),
    (b"BZh", |file| {
        let file = BufReader::new(file);
        Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(file)))
    }),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], |file| {
        let file = BufReader::new(file);
        Ok(Box::new(XzReader::new_mem_limit(file, true, XZ_MEMORY)))
    }),
];

fn compression(head: &[u8]) -> Option<Open> {
    COMPRESSIONS
        .into_iter()
        .find_map(|(magic, open)| head.starts_with(magic).then_some(open))
}

/// Whether a file that begins like this may be a compressed archive.
pub fn is_compressed(head: &[u8]) -> bool {
    compression(head).is_some()
}

/// How to read the archive that a file is, if it is one, from its beginning.
fn opener(file: &mut File) -> io::Result<Open> {
    let mut head = Vec::new();
    let longest = COMPRESSIONS.iter().map(|(magic, _)| magic.len() as u64).max();
    file.by_ref()
        .take(longest.unwrap_or_default())
        .read_to_end(&mut head)?;
    file.rewind()?;
    Ok(compression(&head).unwrap_or(|file| Ok(Box::new(BufReader::new(file)))))
}

/// Also if that entry will be refused: it is an archive nevertheless.
fn starts_with_entry(bytes: Box<dyn Read>) -> bool {
    matches!(
        Archive::new(bytes).next_entry(),
        Ok(Some(_)) | Err(ArchiveError::Sparse { .. } | ArchiveError::Type { .. })
    )
}

struct Extraction<'a> {
    archive: &'a Path,
    overlay: &'a Overlay,
    /// The view with the destination folder as its root.
    inside: View,
    owner: Option<Owner>,
}

impl<'a> Extraction<'a> {
    fn new(
        archive: &'a Path,
        overlay: &'a Overlay,
        destination: &str,
        changes: &Changes,
    ) -> Result<Self, Problem> {
        let path = overlay.view().resolve(destination, LastLink::Follow)?.path;
        let folder = make_folders(overlay, &path, PARENT_MODE, changes.owner, changes.time)?;
        // The view below is opened once and must see what is extracted.
        folder.bring_up()?;
        let root = overlay.view().directory(&path)?;
        Ok(Self {
            archive,
            overlay,
            inside: overlay.view().rooted_at(root),
            owner: changes.owner,
        })
    }

    fn run(&self, bytes: Box<dyn Read>) -> Result<(), Problem> {
        let mut archive = Archive::new(bytes);
        let (mut entries, mut size) = (0_u64, 0_u64);
        while let Some(entry) = archive.next_entry().map_err(|error| self.unreadable(error))? {
            entries += 1;
            if let tar::Kind::File { size: more } = entry.kind {
                size = size.saturating_add(more);
            }
            for (what, number, limit) in [("entries", entries, ENTRY_LIMIT), ("bytes", size, SIZE_LIMIT)] {
                if number > limit {
                    return Err(self.unreadable(format!("it has more than {limit} {what}")));
                }
            }
            self.extract(&entry, &mut archive)?;
        }
        Ok(())
    }

    fn unreadable(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Problem {
        Problem::Extract {
            archive: self.archive.to_owned(),
            source: io::Error::other(error),
        }
    }

    fn extract(&self, entry: &tar::Entry, data: &mut Archive<impl Read>) -> Result<(), Problem> {
        let name = Path::new(OsStr::from_bytes(&entry.path));
        let bad = |reason| Problem::ArchiveEntry {
            archive: self.archive.to_owned(),
            entry: name.to_owned(),
            reason,
        };
        if name.as_os_str().len() > MAX_PATH {
            return Err(self.unreadable("it has an entry with too long a name"));
        }
        if leads_out(name) {
            return Err(bad("leads out of the folder it is extracted into"));
        }
        let clean = display(name);
        let Some(file_name) = clean.file_name() else {
            // The entry of the top folder itself: it is there already, and keeps what it is.
            return Ok(());
        };
        let parent = self.parent(&clean)?;
        let existing = parent.lookup(file_name)?;
        let is_folder = entry.kind == tar::Kind::Folder;
        let merges = is_folder && existing.is_some_and(|metadata| metadata.is_dir());
        if existing.is_some() && !merges {
            parent.clear(file_name)?;
        }
        let owner = self.owner.unwrap_or(Owner {
            uid: entry.uid,
            gid: entry.gid,
        });
        let time = Time {
            seconds: entry.mtime.seconds,
            nanoseconds: entry.mtime.nanoseconds,
        };
        let attributes = attributes_of(entry);
        match &entry.kind {
            tar::Kind::Folder => {
                let folder = if merges {
                    parent.open(file_name)?
                } else {
                    parent.create_folder(file_name)?
                };
                folder.set_own_owner(owner.uid, owner.gid)?;
                folder.set_own_mode(entry.mode)?;
                folder.set_own_attributes(&attributes)?;
                folder.set_own_time(time)?;
                return Ok(());
            }
            tar::Kind::File { size } => {
                let mut file = parent.create_file(file_name)?;
                let copied = io::copy(data, &mut file).map_err(|error| self.unreadable(error))?;
                if copied != *size {
                    return Err(self.unreadable(ArchiveError::Truncated));
                }
            }
            tar::Kind::HardLink { target } => {
                let link = link_to(target).ok_or_else(|| bad("is a link to nothing"))?;
                if leads_out(link) {
                    return Err(bad("is a link that leads out of the folder it is extracted into"));
                }
                let target = display(link);
                let target_name = target.file_name().ok_or_else(|| bad("is a link to a folder"))?;
                let target_parent = self.parent(&target)?;
                match target_parent.lookup(target_name)? {
                    Some(metadata) if metadata.is_dir() => return Err(bad("is a link to a folder")),
                    Some(_) => {}
                    None => return Err(bad("is a link to something that is not there")),
                }
                self.bring_file_up(&target_parent, target_name)?;
                parent.create_link(file_name, &target_parent, target_name)?;
                // The file is what its first name made it, and it may be a symbolic link.
                return Ok(());
            }
            tar::Kind::Symlink { target } => {
                let link = link_to(target).ok_or_else(|| bad("is a link to nothing"))?;
                parent.create_symlink(file_name, link.as_os_str())?;
            }
            tar::Kind::Character { major: 0, minor: 0 } => {
                return Err(bad(
                    "is a character device 0:0, which layers use as the mark of a removed file",
                ));
            }
            tar::Kind::Character { major, minor } => {
                create_node(&parent, file_name, Kind::CharDevice, (*major, *minor))?;
            }
            tar::Kind::Block { major, minor } => {
                create_node(&parent, file_name, Kind::BlockDevice, (*major, *minor))?;
            }
            tar::Kind::Fifo => create_node(&parent, file_name, Kind::Fifo, (0, 0))?,
        }
        parent.set_owner(file_name, owner.uid, owner.gid)?;
        if !matches!(entry.kind, tar::Kind::Symlink { .. }) {
            parent.set_mode(file_name, entry.mode)?;
        }
        parent.set_attributes(file_name, &attributes)?;
        Ok(parent.set_time(file_name, time)?)
    }

    /// The folder that a cleaned path of the archive is in; it need not have an entry of its own.
    fn parent(&self, path: &Path) -> Result<Rc<Folder>, ViewError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let resolved = self.inside.resolve(parent, LastLink::Follow)?;
        make_folders(self.overlay, &resolved.path, PARENT_MODE, None, None)
    }

    /// A file that only the base has cannot get a further name in the new layer: it is copied up first.
    fn bring_file_up(&self, folder: &Folder, name: &OsStr) -> Result<(), Problem> {
        if folder.has_in_layer(name)? {
            return Ok(());
        }
        let path = folder.path().join(name);
        let Found::Other(entry) = self.overlay.view().lookup(&path, LastLink::Keep)?.found else {
            return Ok(());
        };
        let metadata = *entry.metadata();
        match metadata.kind {
            Kind::Regular => {
                let mut to = folder.create_file(name)?;
                copy_contents(&mut entry.open_file()?, &mut to, metadata.size)
                    .map_err(|source| Problem::CopyData { path, source })?;
            }
            Kind::Symlink => folder.create_symlink(name, &entry.read_link()?)?,
            _ => folder.create_node(name, &metadata)?,
        }
        folder.set_owner(name, metadata.uid, metadata.gid)?;
        if metadata.kind != Kind::Symlink {
            folder.set_mode(name, metadata.mode)?;
        }
        folder.set_attributes(name, &entry.attributes()?)?;
        Ok(folder.set_time(name, metadata.modified)?)
    }
}

/// Whether a path climbs above where it starts.
fn leads_out(path: &Path) -> bool {
    let mut depth = 0_usize;
    for component in path.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return true,
            },
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    false
}

fn link_to(target: &[u8]) -> Option<&Path> {
    (!target.is_empty() && target.len() <= MAX_PATH).then(|| Path::new(OsStr::from_bytes(target)))
}

fn create_node(parent: &Folder, name: &OsStr, kind: Kind, device: (u32, u32)) -> Result<(), ViewError> {
    let node = Metadata {
        kind,
        device,
        ..Metadata::EMPTY_ROOT
    };
    parent.create_node(name, &node)
}

/// A layer's own marks are not for archives to set.
fn attributes_of(entry: &tar::Entry) -> Attributes {
    let is_mark = |name: &[u8]| name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    entry
        .xattrs
        .iter()
        .filter(|(name, _)| !is_mark(name))
        .map(|(name, value)| (OsStr::from_bytes(name).to_owned(), value.clone()))
        .collect()
}
