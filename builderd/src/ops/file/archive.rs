//! ADD of a local tar archive: it is extracted instead of copied.
//!
//! What counts is the content, not the name: plain, gzip and zstd tars are recognised by their first bytes. Names and
//! links in the archive are resolved with the destination folder as root, so nothing in it can reach elsewhere.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use tar::{Archive, EntryType};

use super::Problem;
use super::copy::{Changes, make_folders};
use super::owner::Owner;
use crate::store::view::{
    Attributes, Folder, Found, Kind, LastLink, Metadata, Overlay, Time, View, ViewError, copy_contents,
    display,
};

/// Mode of folders that the archive names only in the paths of other things.
const PARENT_MODE: u32 = 0o755;
/// What the kernel takes as a path; a longer one could not be used in the image.
const MAX_PATH: usize = 4096;
const XATTR: &str = "SCHILY.xattr.";

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
    match compression(&mut file).map_err(failed)? {
        Compression::Unsupported(compression) if named_like_archive(path) => {
            return Err(Problem::ArchiveCompression { archive, compression });
        }
        Compression::Unsupported(_) => return Ok(false),
        Compression::Known(open) => {
            if !starts_with_entry(open(file.try_clone().map_err(failed)?).map_err(failed)?) {
                return Ok(false);
            }
            file.rewind().map_err(failed)?;
            let extraction = Extraction::new(&archive, overlay, destination, changes)?;
            extraction.run(open(file).map_err(failed)?)?;
        }
    }
    Ok(true)
}

type Open = fn(File) -> io::Result<Box<dyn Read>>;

enum Compression {
    Known(Open),
    Unsupported(&'static str),
}

fn compression(file: &mut File) -> io::Result<Compression> {
    let mut magic = Vec::with_capacity(6);
    file.by_ref().take(6).read_to_end(&mut magic)?;
    file.rewind()?;
    let known = |open: Open| Ok(Compression::Known(open));
    if magic.starts_with(&[0x1f, 0x8b, 0x08]) {
        known(|file| Ok(Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file)))))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        known(|file| Ok(Box::new(zstd::stream::read::Decoder::new(file)?)))
    } else if magic.starts_with(b"BZh") {
        Ok(Compression::Unsupported("bzip2"))
    } else if magic.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Ok(Compression::Unsupported("xz"))
    } else {
        known(|file| Ok(Box::new(BufReader::new(file))))
    }
}

fn named_like_archive(path: &str) -> bool {
    [".tar.bz2", ".tar.xz", ".tbz", ".tbz2", ".txz"]
        .iter()
        .any(|end| path.ends_with(end))
}

fn starts_with_entry(bytes: Box<dyn Read>) -> bool {
    Archive::new(bytes)
        .entries()
        .is_ok_and(|mut entries| matches!(entries.next(), Some(Ok(_))))
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
        let failed = |source| Problem::Extract {
            archive: self.archive.to_owned(),
            source,
        };
        let mut archive = Archive::new(bytes);
        for entry in archive.entries().map_err(failed)? {
            self.extract(&mut entry.map_err(failed)?)?;
        }
        Ok(())
    }

    fn extract(&self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), Problem> {
        let failed = |source| Problem::Extract {
            archive: self.archive.to_owned(),
            source,
        };
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
        let bad = |reason| Problem::ArchiveEntry {
            archive: self.archive.to_owned(),
            entry: name.clone(),
            reason,
        };
        if leads_out(&name) {
            return Err(bad("leads out of the folder it is extracted into"));
        }
        if name.as_os_str().len() > MAX_PATH {
            return Err(bad("has too long a name"));
        }
        let described = Described::of(entry).map_err(failed)?;
        let clean = display(&name);
        let Some(file_name) = clean.file_name() else {
            // The entry of the top folder itself: it is there already, and keeps what it is.
            return Ok(());
        };
        let parent = self.parent(&clean)?;
        let existing = parent.lookup(file_name)?;
        let merges = kind == EntryType::Directory && existing.is_some_and(|metadata| metadata.is_dir());
        if existing.is_some() && !merges {
            parent.clear(file_name)?;
        }
        let owner = self.owner.unwrap_or(described.owner);
        match kind {
            EntryType::Directory => {
                let folder = if merges {
                    parent.open(file_name)?
                } else {
                    parent.create_folder(file_name)?
                };
                folder.set_own_owner(owner.uid, owner.gid)?;
                folder.set_own_mode(described.mode)?;
                folder.set_own_attributes(&described.attributes)?;
                folder.set_own_time(described.time)?;
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = parent.create_file(file_name)?;
                io::copy(entry, &mut file).map_err(failed)?;
            }
            EntryType::Link => {
                let link = link_name(entry).ok_or_else(|| bad("is a link to nothing"))?;
                if leads_out(&link) {
                    return Err(bad("is a link that leads out of the folder it is extracted into"));
                }
                let target = display(&link);
                let target_name = target.file_name().ok_or_else(|| bad("is a link to a folder"))?;
                let target_parent = self.parent(&target)?;
                match target_parent.lookup(target_name)? {
                    Some(metadata) if metadata.is_dir() => return Err(bad("is a link to a folder")),
                    Some(_) => {}
                    None => return Err(bad("is a link to something that is not there")),
                }
                self.bring_file_up(&target_parent, target_name)?;
                parent.create_link(file_name, &target_parent, target_name)?;
            }
            EntryType::Symlink => {
                let link = link_name(entry).ok_or_else(|| bad("is a link to nothing"))?;
                parent.create_symlink(file_name, link.as_os_str())?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let kind = match kind {
                    EntryType::Char => Kind::CharDevice,
                    EntryType::Block => Kind::BlockDevice,
                    _ => Kind::Fifo,
                };
                // A number left blank stands for zero.
                let number = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
                let header = entry.header();
                let device = match kind {
                    Kind::Fifo => (0, 0),
                    _ => (number(header.device_major()), number(header.device_minor())),
                };
                if kind == Kind::CharDevice && device == (0, 0) {
                    return Err(bad(
                        "is a character device 0:0, which layers use as the mark of a removed file",
                    ));
                }
                parent.create_node(
                    file_name,
                    &Metadata {
                        kind,
                        device,
                        ..Metadata::EMPTY_ROOT
                    },
                )?;
            }
            _ => return Err(bad("is of a kind that cannot be extracted")),
        }
        parent.set_owner(file_name, owner.uid, owner.gid)?;
        if kind != EntryType::Symlink {
            parent.set_mode(file_name, described.mode)?;
        }
        parent.set_attributes(file_name, &described.attributes)?;
        Ok(parent.set_time(file_name, described.time)?)
    }

    /// The folder that a cleaned path of the archive is in; it need not have an entry of its own.
    fn parent(&self, path: &Path) -> Result<Rc<Folder>, ViewError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let resolved = self.inside.resolve(parent, LastLink::Follow)?;
        make_folders(self.overlay, &resolved.path, PARENT_MODE, None, None)
    }

    /// A file that only the base has cannot get a further name in the new layer: it is copied up first.
    fn bring_file_up(&self, folder: &Folder, name: &std::ffi::OsStr) -> Result<(), Problem> {
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

fn link_name(entry: &tar::Entry<'_, impl Read>) -> Option<PathBuf> {
    let bytes = entry.link_name_bytes()?.into_owned();
    (!bytes.is_empty() && !bytes.contains(&0) && bytes.len() <= MAX_PATH)
        .then(|| PathBuf::from(OsString::from_vec(bytes)))
}

/// What the header of an entry says about it.
struct Described {
    owner: Owner,
    mode: u32,
    time: Time,
    attributes: Attributes,
}

impl Described {
    fn of(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Self> {
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::other("owner id out of range"));
        let owner = Owner {
            uid: id(header.uid()?)?,
            gid: id(header.gid()?)?,
        };
        let mode = header.mode()? & 0o7777;
        let seconds = i64::try_from(header.mtime()?).unwrap_or(0);
        let mut time = Time {
            seconds,
            nanoseconds: 0,
        };
        let mut attributes = Attributes::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let Ok(key) = extension.key() else { continue };
                if let Some(name) = key.strip_prefix(XATTR) {
                    // A layer's own marks are not for archives to set.
                    if !name.starts_with("trusted.overlay.") {
                        attributes.push((name.into(), extension.value_bytes().to_vec()));
                    }
                } else if key == "mtime"
                    && let Some(exact) = extension.value().ok().and_then(parse_time)
                {
                    time = exact;
                }
            }
        }
        attributes.sort();
        Ok(Self {
            owner,
            mode,
            time,
            attributes,
        })
    }
}

/// A decimal number of seconds, as pax headers have it.
fn parse_time(text: &str) -> Option<Time> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    let nanos = whole.checked_mul(1_000_000_000)?;
    Some(Time::from_unix_nanos(if text.starts_with('-') {
        nanos - nanoseconds
    } else {
        nanos + nanoseconds
    }))
}
