//! The blocking half: writes the tree into a draft, in the order of the listing, and names the layer by its content.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use proto::fsutil::Stat;
use proto::transfer::mode::{self, Kind};
use tokio::sync::mpsc;

use super::LocalError;
use super::index::{Index, Place, Record};
use crate::store::checksum::{self, FileDigest};
use crate::store::view::{
    Attributes, Directory, Folder, Kind as FileKind, Metadata, Overlay, Time, View, copy_contents,
};
use crate::store::{Content, LayerDraft, LayerId, NewLayer, Store};

/// Files that may be half received at a time. Senders interleave four.
const MAX_AT_ONCE: usize = 64;
/// A file may grow while it is being sent. What grows by more than this, and by more than it was, is not a file.
const MAX_GROWTH: u64 = 64 << 20;

/// The size that stays in the index for a file that changed while it was sent: no entry is ever equal to it.
const UNKNOWN_SIZE: i64 = -1;

#[derive(Debug)]
pub enum Instruction {
    Entry { how: How, kind: Kind, stat: Stat },
    Data { id: u32, data: Bytes },
    EndOfFile { id: u32 },
    Finish,
}

/// Where what an entry stands for comes from.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// From the layer of last time, where it is the same.
    Take(Option<FileDigest>),
    /// From the client, under this id.
    Fetch(u32),
    /// From the entry itself.
    Make,
}

/// Follows instructions until there are no more. `None` if there was nothing to do, or if the transfer ended without
/// being finished: then nothing stays behind.
pub fn write(
    mut instructions: mpsc::Receiver<Instruction>,
    last: Option<LayerId>,
    place: &Place,
    store: &Store,
) -> Result<Option<LayerId>, LocalError> {
    let Some(first) = instructions.blocking_recv() else {
        return Ok(None);
    };
    let draft = store.draft()?;
    let scratch = View::open(&[]).map_err(LocalError::Write)?;
    let overlay = Overlay::new(&scratch, &draft.upper()).map_err(LocalError::Write)?;
    let root = overlay.folder(Path::new("/")).map_err(LocalError::Write)?;
    let last = last
        .map(|layer| View::open(&[store.layer_folder(&layer)]))
        .transpose()
        .map_err(LocalError::Write)?
        .map(|view| Arc::clone(view.root()));
    let mut tree = Tree {
        overlay,
        levels: vec![Level {
            path: String::new(),
            folder: root,
            last,
        }],
        records: Vec::new(),
        fetched: HashMap::new(),
        arriving: HashMap::new(),
        links: Vec::new(),
    };
    let mut next = Some(first);
    while let Some(instruction) = next {
        match instruction {
            Instruction::Entry { how, kind, stat } => tree.entry(how, kind, stat)?,
            Instruction::Data { id, data } => tree.data(id, &data)?,
            Instruction::EndOfFile { id } => tree.end_of_file(id)?,
            Instruction::Finish => return tree.finish(draft, place, store).map(Some),
        }
        next = instructions.blocking_recv();
    }
    Ok(None)
}

/// A folder that the listing is in.
struct Level {
    path: String,
    folder: Rc<Folder>,
    /// The same folder in the layer of last time.
    last: Option<Arc<Directory>>,
}

/// A file whose content is coming in.
struct Arriving {
    file: File,
    folder: Rc<Folder>,
    hasher: blake3::Hasher,
    size: u64,
}

struct Tree {
    overlay: Overlay,
    levels: Vec<Level>,
    records: Vec<Record>,
    /// The records of the files that were asked for, by id.
    fetched: HashMap<u32, usize>,
    arriving: HashMap<u32, Arriving>,
    /// Records of hard links: made at the end, when all they lead to is there.
    links: Vec<usize>,
}

impl Tree {
    fn entry(&mut self, how: How, kind: Kind, stat: Stat) -> Result<(), LocalError> {
        let (parent, name) = split(&stat.path);
        while self.levels.len() > 1 && self.levels.last().is_some_and(|level| level.path != parent) {
            self.levels.pop();
        }
        let level = self.levels.last().expect("the root stays");
        let metadata = metadata_of(kind, &stat)?;
        let mut digest = None;
        match kind {
            Kind::Directory => {
                let folder = level.folder.create_folder(name).map_err(LocalError::Write)?;
                stamp_folder(&folder, &metadata, &attributes_of(&stat)).map_err(LocalError::Write)?;
                let last = match &level.last {
                    Some(last) => open_folder(last, name).map_err(LocalError::Write)?,
                    None => None,
                };
                let path = stat.path.clone();
                self.levels.push(Level { path, folder, last });
            }
            Kind::File if !stat.linkname.is_empty() => self.links.push(self.records.len()),
            Kind::File => match how {
                How::Fetch(id) => {
                    self.fetched.insert(id, self.records.len());
                }
                How::Take(known) => {
                    take(level, name, &stat, &metadata)?;
                    digest = known;
                }
                How::Make => {
                    level.folder.create_file(name).map_err(LocalError::Write)?;
                    stamp(&level.folder, name, &metadata, &attributes_of(&stat))
                        .map_err(LocalError::Write)?;
                }
            },
            Kind::Symlink => {
                let folder = &level.folder;
                folder
                    .create_symlink(name, OsStr::new(&stat.linkname))
                    .map_err(LocalError::Write)?;
                stamp(folder, name, &metadata, &attributes_of(&stat)).map_err(LocalError::Write)?;
            }
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice | Kind::Socket => {
                level
                    .folder
                    .create_node(name, &metadata)
                    .map_err(LocalError::Write)?;
                stamp(&level.folder, name, &metadata, &attributes_of(&stat)).map_err(LocalError::Write)?;
            }
        }
        self.records.push(Record { stat, digest });
        Ok(())
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), LocalError> {
        let Some(record) = self.fetched.get(&id).and_then(|index| self.records.get(*index)) else {
            return Ok(());
        };
        let stat = &record.stat;
        if !self.arriving.contains_key(&id) && self.arriving.len() >= MAX_AT_ONCE {
            return Err(LocalError::TooManyAtOnce { limit: MAX_AT_ONCE });
        }
        let arriving = match self.arriving.entry(id) {
            std::collections::hash_map::Entry::Occupied(occupied) => occupied.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => vacant.insert(begin(&self.overlay, stat)?),
        };
        arriving.size += data.len() as u64;
        let announced = size_of_content(stat);
        if arriving.size
            > announced
                .saturating_mul(2)
                .max(announced.saturating_add(MAX_GROWTH))
        {
            let received = arriving.size;
            return Err(LocalError::TooMuchContent {
                path: stat.path.clone(),
                announced,
                received,
            });
        }
        arriving.hasher.update(data);
        arriving
            .file
            .write_all(data)
            .map_err(|source| LocalError::Content {
                path: stat.path.clone(),
                source,
            })
    }

    fn end_of_file(&mut self, id: u32) -> Result<(), LocalError> {
        let Some(index) = self.fetched.remove(&id) else {
            return Ok(());
        };
        let Some(record) = self.records.get_mut(index) else {
            return Ok(());
        };
        let arrived = match self.arriving.remove(&id) {
            Some(arriving) => arriving,
            None => begin(&self.overlay, &record.stat)?,
        };
        drop(arrived.file);
        // A file that changed while it was sent is taken as it came, and asked for again next time.
        let as_announced = arrived.size == size_of_content(&record.stat);
        let digest = *arrived.hasher.finalize().as_bytes();
        record.digest = Some(digest);
        let metadata = metadata_of(Kind::File, &record.stat)?;
        let (_, name) = split(&record.stat.path);
        stamp(&arrived.folder, name, &metadata, &attributes_of(&record.stat)).map_err(LocalError::Write)?;
        if !as_announced {
            record.stat.size = UNKNOWN_SIZE;
        }
        Ok(())
    }

    fn finish(mut self, draft: LayerDraft, place: &Place, store: &Store) -> Result<LayerId, LocalError> {
        for index in std::mem::take(&mut self.links) {
            if let Some(record) = self.records.get(index) {
                self.link(&record.stat)?;
            }
        }
        // The client says nothing about the top folder itself. Its newest entry makes a time that the listing determines.
        let top = self
            .records
            .iter()
            .filter(|record| !record.stat.path.contains('/'));
        if let Some(newest) = top.map(|record| record.stat.mod_time).max() {
            let root = self.overlay.folder(Path::new("/")).map_err(LocalError::Write)?;
            root.set_own_time(Time::from_unix_nanos(newest))
                .map_err(LocalError::Write)?;
        }
        let layer = self.name()?;
        self.overlay.finish().map_err(LocalError::Write)?;
        if !store.use_layer(&layer) {
            let new = NewLayer {
                content: Content::Local,
                ..NewLayer::default()
            };
            store.commit_as(draft, &layer, new)?;
        }
        let paths: Vec<_> = self
            .records
            .iter()
            .filter_map(|record| Some((format!("/{}", record.stat.path), record.digest.as_ref()?)))
            .collect();
        checksum::record(
            store,
            &layer,
            paths.iter().map(|(path, digest)| (Path::new(path), *digest)),
        );
        let index = Index {
            layer,
            records: self.records,
        };
        place.write(&index, store);
        Ok(index.layer)
    }

    fn link(&self, stat: &Stat) -> Result<(), LocalError> {
        let folder = |path: &str| self.overlay.folder(Path::new(path)).map_err(LocalError::Write);
        let (parent, name) = split(&stat.path);
        let (first_parent, first_name) = split(&stat.linkname);
        folder(parent)?
            .create_link(name, &*folder(first_parent)?, first_name)
            .map_err(LocalError::Write)
    }

    /// The name of the layer: a digest of all that is in it, times apart.
    fn name(&self) -> Result<LayerId, LocalError> {
        let mut hasher = blake3::Hasher::new_derive_key("trimaran local layer 1");
        for Record { stat, digest } in &self.records {
            let kind = Kind::of(stat.mode).unwrap_or(Kind::File);
            let metadata = metadata_of(kind, stat)?;
            let path = Path::new(&stat.path);
            let link = Some(stat.linkname.as_bytes());
            hasher.update(&checksum::header(path, &metadata, &attributes_of(stat), link));
            hasher.update(digest.as_ref().unwrap_or(&[0; 32]));
        }
        Ok(LayerId::new(format!("local-{}", hasher.finalize().to_hex())))
    }
}

/// Takes over a file of the layer of last time.
fn take(level: &Level, name: &OsStr, stat: &Stat, metadata: &Metadata) -> Result<(), LocalError> {
    let gone = || {
        LocalError::Write(crate::store::view::ViewError::NotFound {
            path: stat.path.clone().into(),
        })
    };
    let last = level.last.as_ref().ok_or_else(gone)?;
    let entry = last.lookup(name).map_err(LocalError::Write)?.ok_or_else(gone)?;
    // The layer may be older than the listing, if only times have changed in between.
    if entry.metadata().modified == metadata.modified
        && level.folder.adopt(name, &entry).map_err(LocalError::Write)?
    {
        return Ok(());
    }
    let mut from = entry.open_file().map_err(LocalError::Write)?;
    let mut to = level.folder.create_file(name).map_err(LocalError::Write)?;
    copy_contents(&mut from, &mut to, entry.metadata().size).map_err(|source| LocalError::Content {
        path: stat.path.clone(),
        source,
    })?;
    stamp(&level.folder, name, metadata, &attributes_of(stat)).map_err(LocalError::Write)
}

fn begin(overlay: &Overlay, stat: &Stat) -> Result<Arriving, LocalError> {
    let (parent, name) = split(&stat.path);
    let folder = overlay.folder(Path::new(parent)).map_err(LocalError::Write)?;
    let file = folder.create_file(name).map_err(LocalError::Write)?;
    Ok(Arriving {
        file,
        folder,
        hasher: blake3::Hasher::new(),
        size: 0,
    })
}

fn open_folder(
    last: &Directory,
    name: &OsStr,
) -> Result<Option<Arc<Directory>>, crate::store::view::ViewError> {
    match last.lookup(name)? {
        Some(entry) if entry.metadata().is_dir() => Ok(Some(Arc::new(last.open(&entry)?))),
        _ => Ok(None),
    }
}

fn stamp_folder(
    folder: &Folder,
    metadata: &Metadata,
    attributes: &Attributes,
) -> Result<(), crate::store::view::ViewError> {
    folder.set_own_owner(metadata.uid, metadata.gid)?;
    folder.set_own_mode(metadata.mode)?;
    folder.set_own_attributes(attributes)?;
    folder.set_own_time(metadata.modified)
}

fn stamp(
    folder: &Folder,
    name: &OsStr,
    metadata: &Metadata,
    attributes: &Attributes,
) -> Result<(), crate::store::view::ViewError> {
    folder.set_owner(name, metadata.uid, metadata.gid)?;
    if metadata.kind != FileKind::Symlink {
        folder.set_mode(name, metadata.mode)?;
    }
    folder.set_attributes(name, attributes)?;
    folder.set_time(name, metadata.modified)
}

fn split(path: &str) -> (&str, &OsStr) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    (parent, OsStr::new(name))
}

fn size_of_content(stat: &Stat) -> u64 {
    u64::try_from(stat.size).unwrap_or(0)
}

/// The client does not get to set overlayfs' own marks.
fn attributes_of(stat: &Stat) -> Attributes {
    let all: BTreeMap<_, _> = stat.xattrs.iter().collect();
    all.into_iter()
        .filter(|(name, _)| !name.starts_with("trusted.overlay."))
        .map(|(name, value)| (OsString::from(name), value.to_vec()))
        .collect()
}

fn metadata_of(kind: Kind, stat: &Stat) -> Result<Metadata, LocalError> {
    let device = match kind {
        Kind::CharDevice | Kind::BlockDevice => {
            let number = |number: i64| u32::try_from(number).ok();
            let (major, minor) = (stat.devmajor, stat.devminor);
            let device = number(major).zip(number(minor));
            device.ok_or_else(|| LocalError::DeviceNumber {
                path: stat.path.clone(),
                major,
                minor,
            })?
        }
        _ => (0, 0),
    };
    if kind == Kind::CharDevice && device == (0, 0) {
        return Err(LocalError::Whiteout {
            path: stat.path.clone(),
        });
    }
    Ok(Metadata {
        kind: match kind {
            Kind::File => FileKind::Regular,
            Kind::Directory => FileKind::Directory,
            Kind::Symlink => FileKind::Symlink,
            Kind::Fifo => FileKind::Fifo,
            Kind::CharDevice => FileKind::CharDevice,
            Kind::BlockDevice => FileKind::BlockDevice,
            Kind::Socket => FileKind::Socket,
        },
        mode: mode::permissions(stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        size: size_of_content(stat),
        modified: Time::from_unix_nanos(stat.mod_time),
        device,
        links: 1,
        inode: (0, 0),
    })
}
