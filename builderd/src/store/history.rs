//! Records of builds that ended: one record each, and blobs for their logs, errors and manifests.
//!
//! Blobs are written first, the record last, so a record always has its blobs; blobs that no record names are removed
//! with the manifests of images. What a record says is the business of those who write it.

use std::collections::HashSet;
use std::time::SystemTime;

use registry::digest::Digest;
use serde::{Deserialize, Serialize};

use super::Store;
use super::layer_record::LayerRecord;
use super::metadata::{ReadError, Table};
use super::times::unix_seconds;
use super::usage::blobs_of;

/// A build that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRecord {
    pub about: AboutBuild,
    /// The record as its writer encoded it.
    pub bytes: Vec<u8>,
}

/// What decides how long a record stays, and what stays with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutBuild {
    pub reference: String,
    #[serde(with = "unix_seconds")]
    pub ended: SystemTime,
    pub pinned: bool,
    pub blobs: Vec<Digest>,
}

impl BuildRecord {
    fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let about = serde_json::to_vec(&self.about)?;
        let length = u32::try_from(about.len()).unwrap_or(u32::MAX).to_le_bytes();
        Ok([&length[..], &about, &self.bytes].concat())
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (about, bytes) = rest.split_at_checked(length)?;
        Some(Self {
            about: serde_json::from_slice(about).ok()?,
            bytes: bytes.to_vec(),
        })
    }
}

impl Store {
    /// Its blobs must be held by the lease of this handle.
    pub fn put_build(&self, record: &BuildRecord) {
        let key = record.about.reference.as_bytes();
        match record.encode() {
            Ok(bytes) => self.inner().metadata.put(Table::Builds, key, bytes),
            Err(error) => tracing::error!(build = record.about.reference, %error, "build not recorded"),
        }
    }

    pub fn build(&self, reference: &str) -> Result<Option<BuildRecord>, ReadError> {
        let bytes = self.inner().metadata.get(Table::Builds, reference.as_bytes())?;
        Ok(bytes.and_then(|bytes| BuildRecord::decode(&bytes)))
    }

    /// All records; damaged ones count as none.
    pub fn builds(&self) -> Result<Vec<BuildRecord>, ReadError> {
        let mut records = Vec::new();
        self.inner().metadata.each(Table::Builds, |_, value| {
            records.extend(BuildRecord::decode(value))
        })?;
        Ok(records)
    }

    /// Removes records, and the blobs that no other record names. Returns those that were there.
    pub fn remove_builds(&self, references: &[String]) -> Result<Vec<String>, ReadError> {
        let doomed: HashSet<&str> = references.iter().map(String::as_str).collect();
        let mut gone = self.builds()?;
        gone.retain(|record| doomed.contains(record.about.reference.as_str()));
        for record in &gone {
            let key = record.about.reference.as_bytes();
            self.inner().metadata.remove(Table::Builds, key);
        }
        self.discard_unnamed(gone.iter().flat_map(|record| &record.about.blobs))?;
        Ok(gone.into_iter().map(|record| record.about.reference).collect())
    }

    /// Discards those blobs that no record names and nobody uses.
    pub(super) fn discard_unnamed<'a>(
        &self,
        blobs: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<(), ReadError> {
        // Whoever writes a record holds its blobs until the record is there.
        let holds = self.inner().holds.lock();
        let named = self.named_blobs()?;
        for blob in blobs {
            if !named.contains(blob) && !holds.holds_blob(blob) {
                self.inner().folder.discard(&self.blobs().path(blob));
            }
        }
        Ok(())
    }

    /// The blobs that records of layers and builds name.
    fn named_blobs(&self) -> Result<HashSet<Digest>, ReadError> {
        let mut named = self.blobs_of_builds()?;
        self.inner().metadata.each(Table::Layers, |_, value| {
            if let Ok(record) = serde_json::from_slice::<LayerRecord>(value) {
                named.extend(blobs_of(&record).cloned());
            }
        })?;
        Ok(named)
    }

    pub(super) fn blobs_of_builds(&self) -> Result<HashSet<Digest>, ReadError> {
        let records = self.builds()?.into_iter();
        Ok(records.flat_map(|record| record.about.blobs).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(store: &Store, reference: &str, blobs: &[&str]) -> BuildRecord {
        let blobs = blobs
            .iter()
            .map(|text| store.blobs().put(text.as_bytes()).unwrap());
        let record = BuildRecord {
            about: AboutBuild {
                reference: reference.to_owned(),
                ended: SystemTime::UNIX_EPOCH,
                pinned: false,
                blobs: blobs.collect(),
            },
            bytes: reference.as_bytes().to_vec(),
        };
        store.put_build(&record);
        record
    }

    #[test]
    fn a_blob_goes_with_the_last_record_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("state")).unwrap();
        let one = record(&store, "one", &["log 1", "manifest"]);
        let other = record(&store, "other", &["log 2", "manifest"]);
        assert_eq!(store.build("one").unwrap(), Some(one.clone()));
        assert_eq!(store.builds().unwrap(), [one.clone(), other.clone()]);
        let has = |record: &BuildRecord| -> Vec<bool> {
            let blobs = record.about.blobs.iter();
            blobs.map(|blob| store.blobs().has(blob)).collect()
        };
        let doomed = ["one".to_owned(), "unknown".to_owned()];
        assert_eq!(store.remove_builds(&doomed).unwrap(), ["one"]);
        assert_eq!((has(&one), has(&other)), (vec![false, true], vec![true, true]));
        assert_eq!(store.build("one").unwrap(), None);
        // A writer that is about to name the blob keeps it.
        let writer = store.leased();
        writer.blobs().put(b"manifest").unwrap();
        store.remove_builds(&["other".to_owned()]).unwrap();
        assert_eq!(has(&other), [false, true]);
    }

    #[test]
    fn damaged_records_count_as_none() {
        for bytes in [
            &b""[..],
            b"\x01",
            b"\xff\xff\xff\xffx",
            b"\x02\0\0\0{}",
            b"\x01\0\0\0{",
        ] {
            assert_eq!(BuildRecord::decode(bytes), None);
        }
    }
}
