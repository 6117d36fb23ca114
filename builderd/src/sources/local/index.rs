//! What was listed last time, and the layer that was made of it.

use std::collections::VecDeque;

use prost::Message as _;
use proto::fsutil::Stat;
use proto::transfer::mode::Kind;
use proto::transfer::order;

use super::LocalSource;
use crate::store::checksum::{self, FileDigest};
use crate::store::{CacheKey, LayerId, PruneError, RecordKind, Store};

/// Bytes of the key of a listing.
const KEY: usize = 32;

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub stat: Stat,
    /// Of the content, if it has any and arrived as announced. Without one the file is asked for again.
    pub digest: Option<FileDigest>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    pub layer: LayerId,
    pub records: Vec<Record>,
}

/// Where the index of a client's folder is kept: by what is asked of it, and by the folder alone.
#[derive(Clone, Debug)]
pub struct Place {
    exact: Vec<u8>,
    folder: Vec<u8>,
}

impl Place {
    pub fn of(source: &LocalSource, shared_key: &str) -> Self {
        let files = &source.files;
        let folder = [files.name.as_str(), &source.shared_key_hint, shared_key];
        let mut exact: Vec<String> = folder.map(str::to_owned).to_vec();
        for patterns in [&files.include, &files.exclude, &files.follow] {
            exact.push(patterns.len().to_string());
            exact.extend(patterns.iter().cloned());
        }
        let folder = match &source.listing {
            // What is left of a folder is no place to begin from for the rest of it.
            Some(wanted) => {
                exact.push("listing".to_owned());
                exact.extend(wanted.iter().cloned());
                return Self::named(exact.clone(), exact);
            }
            None => folder.map(str::to_owned).to_vec(),
        };
        Self::named(exact, folder)
    }

    fn named(exact: Vec<String>, folder: Vec<String>) -> Self {
        Self {
            exact: CacheKey::new("local listing", exact).as_bytes().to_vec(),
            folder: CacheKey::new("local folder", folder).as_bytes().to_vec(),
        }
    }

    /// The last index; if other patterns were asked for last time, the one of that time: most files will be the same.
    ///
    /// Damaged and outdated ones count as none: all files are transferred then.
    pub fn read(&self, store: &Store) -> Option<Index> {
        let get = |key: &[u8]| store.get_record(RecordKind::Contexts, key).ok().flatten();
        let bytes = get(&self.exact).or_else(|| get(&get(&self.folder)?))?;
        let index = Index::decode(&bytes)?;
        store.use_layer(&index.layer).then_some(index)
    }

    pub fn write(&self, index: &Index, store: &Store) {
        store.put_record(RecordKind::Contexts, &self.exact, index.encode());
        store.put_record(RecordKind::Contexts, &self.folder, self.exact.clone());
    }
}

/// Forgets the listings of folders whose layers are gone, and what was noted about the files of such layers.
pub async fn forget_lost(store: &Store) -> Result<(), PruneError> {
    let known = store.clone();
    let lost = move |key: &[u8], value: &[u8]| {
        let layer = checksum::layer_of(key).or_else(|| Some(Index::layer(value)?.0));
        layer.is_some_and(|layer| known.layer(&layer).is_none())
    };
    store.forget_records(RecordKind::Contexts, lost).await?;
    // A folder alone leads to one of those listings.
    let known = store.clone();
    let lost = move |_: &[u8], value: &[u8]| {
        value.len() == KEY && matches!(known.get_record(RecordKind::Contexts, value), Ok(None))
    };
    store.forget_records(RecordKind::Contexts, lost).await?;
    Ok(())
}

impl Index {
    /// The layer of an encoded index, and the rest.
    fn layer(bytes: &[u8]) -> Option<(LayerId, &[u8])> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (layer, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        Some((LayerId::new(std::str::from_utf8(layer).ok()?), rest))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let layer = self.layer.as_str().as_bytes();
        bytes.extend_from_slice(&u32::try_from(layer.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(layer);
        for record in &self.records {
            bytes.push(u8::from(record.digest.is_some()));
            bytes.extend_from_slice(record.digest.as_ref().map_or(&[][..], |digest| digest));
            bytes.extend_from_slice(&record.stat.encode_length_delimited_to_vec());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (layer, mut bytes) = Self::layer(bytes)?;
        let mut records = Vec::new();
        while let Some((has_digest, rest)) = bytes.split_first() {
            bytes = rest;
            let digest = match has_digest {
                0 => None,
                _ => {
                    let (digest, rest) = bytes.split_first_chunk()?;
                    bytes = rest;
                    Some(*digest)
                }
            };
            let stat = Stat::decode_length_delimited(&mut bytes).ok()?;
            records.push(Record { stat, digest });
        }
        Some(Self { layer, records })
    }
}

/// Walks along the last listing while the new one comes in.
#[derive(Debug)]
pub struct Comparison {
    old: VecDeque<Record>,
    /// Whether something is in the old listing that the new one has not.
    pub missing: bool,
}

impl Comparison {
    pub fn new(records: Vec<Record>) -> Self {
        Self {
            old: records.into(),
            missing: false,
        }
    }

    /// The record of last time that is the same as the next entry.
    pub fn unchanged(&mut self, stat: &Stat) -> Option<Record> {
        while let Some(record) = self.old.front() {
            match order::compare(&record.stat.path, &stat.path) {
                std::cmp::Ordering::Less => {
                    self.missing = true;
                    self.old.pop_front();
                }
                std::cmp::Ordering::Equal => {
                    return self.old.pop_front().filter(|record| is_same(record, stat));
                }
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    }

    /// Whether the old listing goes on where the new one ended.
    pub fn has_rest(&self) -> bool {
        !self.old.is_empty()
    }
}

fn is_same(record: &Record, stat: &Stat) -> bool {
    let kind = Kind::of(stat.mode);
    if kind == Some(Kind::Directory) {
        // Its size says nothing, its time only that its entries changed, which is seen by looking at them.
        return Stat {
            size: stat.size,
            mod_time: stat.mod_time,
            ..record.stat.clone()
        } == *stat;
    }
    let has_content = kind == Some(Kind::File) && stat.linkname.is_empty();
    record.stat == *stat && (record.digest.is_some() || !has_content)
}
