//! Reads a bundle into a folder, one record after the other.
//!
//! The archive is foreign: only files that are named by a digest, and have it, are taken, under names made of the
//! digest.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use registry::digest::Hasher;
use registry::{Descriptor, Digest, Index, Manifest};

use super::{Kept, RECORD};

/// Indexes, manifests and records are small.
const LARGEST_JSON: u64 = 64 * 1024 * 1024;
const DEEPEST: usize = 4;
const PIECE: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("reading the bundle: is it a .dockerbuild file?")]
    Archive(#[source] io::Error),
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{name} in the bundle has another content than its name says")]
    Digest { name: String },
    #[error("{what} is missing in the bundle")]
    Missing { what: String },
    #[error("{what} in the bundle cannot be read")]
    Json { what: String, source: serde_json::Error },
    #[error("{what} in the bundle is too large")]
    TooLarge { what: String },
    #[error("no build records found in the bundle")]
    Nothing,
    #[error("\"{id}\" in the bundle is no id of a build")]
    Id { id: String },
}

/// A record of a bundle: its id, its JSON and the files it names.
#[derive(Debug)]
pub struct Unpacked {
    pub id: String,
    pub json: Vec<u8>,
    pub files: Vec<PathBuf>,
}

/// Unpacks a bundle's files into `folder`, which must be empty, and lists the records.
pub fn unpack(bundle: impl Read, folder: &Path) -> Result<Vec<Unpacked>, ImportError> {
    let mut index = None;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(bundle));
    for entry in archive.entries().map_err(ImportError::Archive)? {
        let mut entry = entry.map_err(ImportError::Archive)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.trim_start_matches("./");
        if name == "index.json" {
            let mut bytes = Vec::new();
            entry
                .by_ref()
                .take(LARGEST_JSON)
                .read_to_end(&mut bytes)
                .map_err(ImportError::Archive)?;
            index = Some(bytes);
        } else if let Some(digest) = blob(name) {
            take(&mut entry, &digest, name, folder)?;
        }
    }
    let index = index.ok_or_else(|| ImportError::Missing {
        what: "index.json".to_owned(),
    })?;
    let index: Index = parse("index.json", &index)?;
    let mut records = Vec::new();
    for descriptor in index.manifests {
        collect(folder, &descriptor, 0, &mut records)?;
    }
    if records.is_empty() {
        return Err(ImportError::Nothing);
    }
    Ok(records)
}

/// The digest in `blobs/sha256/…`.
fn blob(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Where a file lies in the folder.
pub fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

fn take(content: &mut impl Read, digest: &Digest, name: &str, folder: &Path) -> Result<(), ImportError> {
    let path = folder.join(file_name(digest));
    let failed = |source| ImportError::Write {
        path: path.clone(),
        source,
    };
    let mut file = File::create(&path).map_err(failed)?;
    let mut hash = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; PIECE];
    loop {
        let count = content.read(&mut buffer).map_err(ImportError::Archive)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(failed)?;
    }
    if hash.finish() != *digest {
        return Err(ImportError::Digest {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn collect(
    folder: &Path,
    descriptor: &Descriptor,
    depth: usize,
    into: &mut Vec<Unpacked>,
) -> Result<(), ImportError> {
    let is_index = descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list");
    let what = format!("manifest {}", descriptor.digest);
    let bytes = read(folder, &descriptor.digest, &what)?;
    if is_index {
        if depth >= DEEPEST {
            return Ok(());
        }
        let index: Index = parse(&what, &bytes)?;
        return index
            .manifests
            .iter()
            .try_for_each(|descriptor| collect(folder, descriptor, depth + 1, into));
    }
    let manifest: Manifest = parse(&what, &bytes)?;
    if manifest.config.media_type != RECORD {
        return Ok(());
    }
    let what = format!("build record {}", manifest.config.digest);
    let json = read(folder, &manifest.config.digest, &what)?;
    let kept = Kept::from_json(&json).map_err(|source| ImportError::Json { what, source })?;
    let id = kept.record.r#ref;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if id.is_empty() || id.len() > 128 || !id.chars().all(is_plain) {
        return Err(ImportError::Id { id });
    }
    into.push(Unpacked {
        id,
        json,
        files: manifest
            .layers
            .iter()
            .map(|layer| folder.join(file_name(&layer.digest)))
            .filter(|path| path.is_file())
            .collect(),
    });
    Ok(())
}

fn read(folder: &Path, digest: &Digest, what: &str) -> Result<Vec<u8>, ImportError> {
    let path = folder.join(file_name(digest));
    let size = path.metadata().map_err(|_| ImportError::Missing {
        what: what.to_owned(),
    })?;
    if size.len() > LARGEST_JSON {
        return Err(ImportError::TooLarge {
            what: what.to_owned(),
        });
    }
    std::fs::read(&path).map_err(|source| ImportError::Write { path, source })
}

fn parse<T: for<'a> serde::Deserialize<'a>>(what: &str, bytes: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|source| ImportError::Json {
        what: what.to_owned(),
        source,
    })
}
