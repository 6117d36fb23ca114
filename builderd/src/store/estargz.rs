//! eStargz: gzip layers whose files can be read one by one.
//!
//! The content of every file begins a gzip member of its own (large files have several), so that it can be found and
//! unpacked alone. Behind the files comes a table of contents, the tar entry `stargz.index.json`, and at the very end
//! a footer of fixed size that says where the table begins. Whoever knows nothing of this reads a tar like any other.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use base64::Engine as _;
use libdeflater::Compressor;
use registry::digest::{Algorithm, Digest, Hasher};
use serde::Serialize;

use super::compress::{compressor, member};
use super::tar::{Archive, ArchiveError, Entry, Kind, Time, end_of_archive, padding, push_header};

/// Names the table in a descriptor, by which readers check it.
pub(super) const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Bytes of the tar, which readers of a lazy layer cannot count.
pub(super) const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";
const TOC: &str = "stargz.index.json";
/// Files are cut into pieces of this size.
const CHUNK: u64 = 4 << 20;
/// A member that only holds headers ends here: its size is memory.
const HEADERS: usize = 1 << 20;
/// The size of the footer that the format prescribes.
const FOOTER: usize = 51;

/// What was written.
pub(super) struct Written {
    /// Of the tar, the table included.
    pub diff_id: Digest,
    pub size: u64,
    pub toc: Digest,
}

#[derive(Serialize)]
struct Toc {
    version: u32,
    entries: Vec<TocEntry>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct TocEntry {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    modified: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    chunk_digest: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference to the field"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Writes a layer's tar as eStargz; no time in it is after `latest`, in seconds. A table that the tar has already is
/// left out.
pub(super) fn write(tar: impl Read, latest: i64, level: i32, out: &mut impl Write) -> io::Result<Written> {
    let failed = |error: ArchiveError| io::Error::other(error);
    let mut archive = Archive::new(tar);
    let mut blob = Blob {
        out,
        compressor: compressor(level)?,
        pending: Vec::new(),
        offset: 0,
        hasher: Hasher::new(Algorithm::Sha256),
    };
    let mut entries = Vec::new();
    while let Some(mut entry) = archive.next_entry().map_err(failed)? {
        if entry.path == TOC.as_bytes() {
            continue;
        }
        if entry.mtime.seconds >= latest {
            entry.mtime = Time {
                seconds: latest,
                nanoseconds: 0,
            };
        }
        push_header(&mut blob.pending, &entry);
        let told = TocEntry::of(&entry);
        match entry.kind {
            Kind::File { size } if size > 0 => blob.file(told, size, &mut archive, &mut entries)?,
            _ => entries.push(told),
        }
        if blob.pending.len() >= HEADERS {
            blob.flush()?;
        }
    }
    blob.flush()?;
    let toc_offset = blob.offset;
    let json = serde_json::to_vec_pretty(&Toc { version: 1, entries })?;
    let header = Entry {
        path: TOC.as_bytes().to_vec(),
        kind: Kind::File {
            size: json.len() as u64,
        },
        mode: 0o444,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
    };
    push_header(&mut blob.pending, &header);
    blob.pending.extend_from_slice(&json);
    blob.pad(json.len() as u64);
    blob.pending.extend_from_slice(end_of_archive());
    blob.flush()?;
    blob.out.write_all(&footer(toc_offset))?;
    Ok(Written {
        size: blob.hasher.bytes(),
        diff_id: blob.hasher.finish(),
        toc: Digest::of(&json),
    })
}

struct Blob<'a, W> {
    out: &'a mut W,
    compressor: Compressor,
    /// What the next member will hold.
    pending: Vec<u8>,
    /// Bytes that were written.
    offset: u64,
    hasher: Hasher,
}

impl<W: Write> Blob<'_, W> {
    /// Ends the member that is pending, if anything is.
    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.hasher.update(&self.pending);
        let member = member(&mut self.compressor, &self.pending)?;
        self.out.write_all(&member)?;
        self.offset += member.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn pad(&mut self, size: u64) {
        let zeros = end_of_archive().get(..padding(size)).unwrap_or_default();
        self.pending.extend_from_slice(zeros);
    }

    /// The content of a file, in members of its own; what follows it stays pending in the last one.
    fn file(
        &mut self,
        mut entry: TocEntry,
        size: u64,
        archive: &mut Archive<impl Read>,
        entries: &mut Vec<TocEntry>,
    ) -> io::Result<()> {
        let first = entries.len();
        let mut whole = Hasher::new(Algorithm::Sha256);
        let mut written = 0;
        while written < size {
            self.flush()?;
            let length = CHUNK.min(size - written);
            if length < size - written {
                entry.chunk_size = length;
            }
            entry.offset = self.offset;
            entry.chunk_offset = written;
            let read = archive.by_ref().take(length).read_to_end(&mut self.pending)?;
            if read as u64 != length {
                return Err(io::Error::other(ArchiveError::Truncated));
            }
            whole.update(&self.pending);
            entry.chunk_digest = Digest::of(&self.pending).to_string();
            written += length;
            let next = TocEntry {
                name: entry.name.clone(),
                kind: "chunk",
                ..TocEntry::default()
            };
            entries.push(std::mem::replace(&mut entry, next));
        }
        if let Some(entry) = entries.get_mut(first) {
            entry.digest = whole.finish().to_string();
        }
        self.pad(size);
        Ok(())
    }
}

impl TocEntry {
    fn of(entry: &Entry) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let time = i32::try_from(entry.mtime.nanoseconds)
            .ok()
            .and_then(|nanoseconds| jiff::Timestamp::new(entry.mtime.seconds, nanoseconds).ok());
        let encode = |value: &[u8]| base64::engine::general_purpose::STANDARD.encode(value);
        let mut told = Self {
            name: text(&entry.path),
            mode: entry.mode.into(),
            uid: entry.uid.into(),
            gid: entry.gid.into(),
            modified: match time {
                Some(time) if time.as_second() != 0 => time.to_string(),
                _ => String::new(),
            },
            xattrs: entry
                .xattrs
                .iter()
                .map(|(name, value)| (text(name), encode(value)))
                .collect(),
            ..Self::default()
        };
        told.kind = match &entry.kind {
            Kind::File { size } => {
                told.size = *size;
                if *size == 0 {
                    told.digest = Digest::of(b"").to_string();
                }
                "reg"
            }
            Kind::Folder => "dir",
            Kind::Symlink { target } => {
                told.link_name = text(target);
                "symlink"
            }
            Kind::HardLink { target } => {
                told.link_name = text(target);
                "hardlink"
            }
            Kind::Character { major, minor } | Kind::Block { major, minor } => {
                (told.dev_major, told.dev_minor) = ((*major).into(), (*minor).into());
                match entry.kind {
                    Kind::Block { .. } => "block",
                    _ => "char",
                }
            }
            Kind::Fifo => "fifo",
        };
        told
    }
}

/// An empty gzip member whose extra field holds the offset of the table.
fn footer(offset: u64) -> Vec<u8> {
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255];
    let value = format!("{offset:016x}STARGZ");
    footer.extend_from_slice(&[26, 0, b'S', b'G', 22, 0]);
    footer.extend_from_slice(value.as_bytes());
    // One stored block without bytes, and the checks of nothing.
    footer.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    footer.extend_from_slice(&[0; 8]);
    debug_assert_eq!(footer.len(), FOOTER);
    footer
}

#[cfg(test)]
mod tests {
    use flate2::bufread::GzDecoder;

    use super::*;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, content) in files {
            let size = content.len() as u64;
            let entry = Entry {
                path: name.as_bytes().to_vec(),
                kind: Kind::File { size },
                mode: 0o644,
                uid: 1,
                gid: 0,
                mtime: Time {
                    seconds: 2_000_000_000,
                    nanoseconds: 0,
                },
                xattrs: vec![(b"user.k".to_vec(), b"v".to_vec())],
            };
            push_header(&mut tar, &entry);
            tar.extend_from_slice(content);
            tar.extend_from_slice(&end_of_archive()[..padding(size)]);
        }
        tar.extend_from_slice(end_of_archive());
        tar
    }

    fn inflate(member: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        GzDecoder::new(member).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_piece_of_a_file_is_found_through_the_table_and_unpacked_alone() {
        let large: Vec<u8> = (0..CHUNK + 10).map(|at| (at % 251) as u8).collect();
        let tar = tar(&[("a", b"first"), ("empty", b""), ("large", &large), ("z", b"last")]);
        let mut blob = Vec::new();
        let written = write(tar.as_slice(), 1_000_000_000, 4, &mut blob).unwrap();

        let footer = &blob[blob.len() - FOOTER..];
        assert_eq!(inflate(footer), b"");
        let header = GzDecoder::new(footer).header().unwrap().extra().unwrap().to_vec();
        let offset = std::str::from_utf8(&header[4..20]).unwrap();
        assert_eq!(&header[20..], b"STARGZ");
        let offset = usize::from_str_radix(offset, 16).unwrap();
        let mut table = Archive::new(io::Cursor::new(inflate(&blob[offset..])));
        assert_eq!(table.next_entry().unwrap().unwrap().path, TOC.as_bytes());
        let mut json = Vec::new();
        table.read_to_end(&mut json).unwrap();
        assert!(table.next_entry().unwrap().is_none());
        assert_eq!(Digest::of(&json), written.toc);

        let toc: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let entries = toc["entries"].as_array().unwrap();
        let names: Vec<&str> = entries
            .iter()
            .map(|entry| entry["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "empty", "large", "large", "z"]);
        assert_eq!(entries[0]["modtime"], "2001-09-09T01:46:40Z");
        assert_eq!(entries[0]["xattrs"]["user.k"], "dg==");
        let piece = |entry: &serde_json::Value, length: usize| {
            let start = usize::try_from(entry["offset"].as_u64().unwrap()).unwrap();
            let mut bytes = inflate(&blob[start..]);
            bytes.truncate(length);
            assert_eq!(entry["chunkDigest"], Digest::of(&bytes).to_string());
            bytes
        };
        assert_eq!(piece(&entries[0], 5), b"first");
        assert_eq!(entries[2]["digest"], Digest::of(&large).to_string());
        let first = piece(&entries[2], usize::try_from(CHUNK).unwrap());
        assert_eq!([first, piece(&entries[3], 10)].concat(), large);
        assert_eq!(entries[3]["chunkOffset"], CHUNK);
        assert_eq!(piece(&entries[4], 4), b"last");

        let mut whole = Vec::new();
        flate2::bufread::MultiGzDecoder::new(blob.as_slice())
            .read_to_end(&mut whole)
            .unwrap();
        assert_eq!(Digest::of(&whole), written.diff_id);
        assert_eq!(whole.len() as u64, written.size);
    }

    #[test]
    fn a_table_is_replaced_and_a_cut_archive_refused() {
        let old = tar(&[("a", b"x"), (TOC, b"{}")]);
        let (mut blob, mut again) = (Vec::new(), Vec::new());
        let once = write(old.as_slice(), i64::MAX, 4, &mut blob).unwrap();
        let decoder = flate2::bufread::MultiGzDecoder::new(blob.as_slice());
        let twice = write(decoder, i64::MAX, 4, &mut again).unwrap();
        assert_eq!((once.toc, blob), (twice.toc, again));
        assert!(write(&old[..1100], i64::MAX, 4, &mut Vec::new()).is_err());
    }
}
