//! Records as a file to hand on: `.dockerbuild`, as buildx writes and Docker Desktop reads it.
//!
//! It is a compressed archive of an OCI layout. Every record is a manifest: its config is the record in JSON, its layers
//! are the trace, the log, and what hangs on the results. Several records are an index over such manifests. Values that
//! look like secrets are taken out of traces and cache options on the way out.

mod record;
mod secrets;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Seek as _, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use proto::control::{BuildHistoryRecord, BuildResultInfo};
use registry::manifest::Descriptor;
use registry::{Digest, Index, Manifest};
use serde::Serialize;

pub use record::Kept;
pub use unpack::{ImportError, unpack};

use super::blobs::{BlobError, Blobs};
use crate::gojson::escape;

pub const RECORD: &str = "application/vnd.buildkit.historyrecord.v0";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of a result, which is hidden so that readers do not take it for an image to follow.
const HIDDEN_TYPE: &str = "vnd.export-build.descriptor.mediatype";
const REFERENCE: &str = "vnd.buildkit.history.reference";
/// A trace of a build with thousands of steps is a few megabytes.
const LARGEST_TRACE: usize = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("\"{digest}\" in the build record is no digest")]
    Digest { digest: String },
    #[error("writing the bundle")]
    Write(#[source] io::Error),
    #[error("describing the build record")]
    Json(#[source] serde_json::Error),
    #[error("the trace of the build cannot be read")]
    Trace(#[source] serde_json::Error),
}

/// A record to export, and where its files are.
#[derive(Debug)]
pub struct Export {
    pub kept: Kept,
    pub blobs: Blobs,
}

/// Writes a bundle and returns which files of the records were gone.
pub async fn write(exports: Vec<Export>, to: impl Write) -> Result<Vec<String>, ExportError> {
    let mut layout = Layout::default();
    let mut manifests = Vec::new();
    let is_single = exports.len() == 1;
    for export in exports {
        let id = export.kept.record.r#ref.clone();
        let mut descriptor = layout.add_record(export).await?;
        if !is_single {
            descriptor.set_annotation(REFERENCE, id);
        }
        manifests.push(descriptor);
    }
    let root = match (is_single, manifests.pop()) {
        (true, Some(descriptor)) => descriptor,
        (_, last) => {
            manifests.extend(last);
            layout.add_json(INDEX, &Index::new(INDEX, manifests))?
        }
    };
    let index = Index::new(INDEX, vec![root]);
    let mut archive = tar::Builder::new(GzEncoder::new(to, Compression::default()));
    layout.write(&mut archive, &index).await?;
    let compressed = archive.into_inner().map_err(ExportError::Write)?;
    compressed
        .finish()
        .and_then(|mut to| to.flush())
        .map_err(ExportError::Write)?;
    Ok(layout.missing)
}

/// What goes into the archive.
#[derive(Default)]
struct Layout {
    made: BTreeMap<Digest, Vec<u8>>,
    /// Files that are only copied, and from where.
    copied: BTreeMap<Digest, (Blobs, u64)>,
    missing: Vec<String>,
}

impl Layout {
    async fn add_record(&mut self, export: Export) -> Result<Descriptor, ExportError> {
        let Export { mut kept, blobs } = export;
        hide_secrets(&mut kept.record);
        let mut layers = Vec::new();
        let mut seen = BTreeSet::new();
        if let Some(trace) = &mut kept.record.trace {
            seen.insert(trace.digest.clone());
            let bytes = blobs.read(&trace.digest, LARGEST_TRACE).await?;
            let bytes = secrets::clean_trace(&bytes).map_err(ExportError::Trace)?;
            let descriptor = self.add(&trace.media_type, bytes);
            trace.digest = descriptor.digest.to_string();
            trace.size = i64::try_from(descriptor.size).unwrap_or(i64::MAX);
            layers.push(descriptor);
        }
        let config = self.add_json(RECORD, &kept.to_json())?;
        let record = &kept.record;
        let mut wanted: Vec<(&proto::control::Descriptor, bool)> = Vec::new();
        wanted.extend(record.logs.iter().map(|logs| (logs, false)));
        wanted.extend(record.result.iter().flat_map(of_result));
        wanted.extend(record.external_error.iter().map(|error| (error, false)));
        wanted.extend(record.results.values().flat_map(of_result));
        for (descriptor, hide_type) in wanted {
            if seen.insert(descriptor.digest.clone())
                && let Some(layer) = self.add_copy(descriptor, hide_type, &blobs).await?
            {
                layers.push(layer);
            }
        }
        self.add_json(MANIFEST, &Manifest::new(MANIFEST, config, layers))
    }

    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.made.insert(descriptor.digest.clone(), bytes);
        descriptor
    }

    fn add_json(&mut self, media_type: &str, value: &impl Serialize) -> Result<Descriptor, ExportError> {
        let text = serde_json::to_string_pretty(value).map_err(ExportError::Json)?;
        Ok(self.add(media_type, escape(&text).into_bytes()))
    }

    /// None if the file is not there any more.
    async fn add_copy(
        &mut self,
        descriptor: &proto::control::Descriptor,
        hide_type: bool,
        blobs: &Blobs,
    ) -> Result<Option<Descriptor>, ExportError> {
        let wrong = || ExportError::Digest {
            digest: descriptor.digest.clone(),
        };
        let digest: Digest = descriptor.digest.parse().map_err(|_| wrong())?;
        let size = u64::try_from(descriptor.size).map_err(|_| wrong())?;
        if !blobs.has(&descriptor.digest).await? {
            self.missing.push(descriptor.digest.clone());
            return Ok(None);
        }
        self.copied.insert(digest.clone(), (blobs.clone(), size));
        let mut layer = Descriptor::new(&descriptor.media_type, digest, size);
        for (key, value) in &descriptor.annotations {
            layer.set_annotation(key, value);
        }
        if hide_type {
            layer.set_annotation(HIDDEN_TYPE, &descriptor.media_type);
            layer.media_type = "application/json".to_owned();
        }
        Ok(Some(layer))
    }

    /// In the order of names, without anything that differs from run to run.
    async fn write<W: Write>(&self, archive: &mut tar::Builder<W>, index: &Index) -> Result<(), ExportError> {
        let folders: BTreeSet<&str> = self
            .made
            .keys()
            .chain(self.copied.keys())
            .map(|digest| digest.algorithm().name())
            .collect();
        add_folder(archive, "blobs/")?;
        for algorithm in folders {
            add_folder(archive, &format!("blobs/{algorithm}/"))?;
            let digests: BTreeSet<&Digest> = self.made.keys().chain(self.copied.keys()).collect();
            for digest in digests
                .into_iter()
                .filter(|digest| digest.algorithm().name() == algorithm)
            {
                let name = format!("blobs/{algorithm}/{}", digest.hex());
                if let Some(bytes) = self.made.get(digest) {
                    add_file(archive, &name, 0o444, bytes.len() as u64, bytes.as_slice())?;
                } else if let Some((blobs, size)) = self.copied.get(digest) {
                    // The whole file is checked before the archive has any of it.
                    let mut file = tempfile::tempfile().map_err(ExportError::Write)?;
                    let copied = blobs.copy(digest.as_str(), &mut file).await?;
                    if copied != *size {
                        return Err(ExportError::Write(io::Error::other(format!(
                            "{digest} has {copied} bytes and not the {size} of its record"
                        ))));
                    }
                    file.rewind().map_err(ExportError::Write)?;
                    add_file(archive, &name, 0o444, *size, file.take(*size))?;
                }
            }
        }
        let index = escape(&serde_json::to_string(index).map_err(ExportError::Json)?);
        add_file(archive, "index.json", 0o644, index.len() as u64, index.as_bytes())?;
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        add_file(
            archive,
            "oci-layout",
            0o444,
            layout.len() as u64,
            layout.as_slice(),
        )
    }
}

fn of_result(result: &BuildResultInfo) -> Vec<(&proto::control::Descriptor, bool)> {
    let attestations = result.attestations.iter().map(|descriptor| (descriptor, false));
    let results = result.results.values().map(|descriptor| (descriptor, true));
    attestations.chain(results).collect()
}

fn add_folder<W: Write>(archive: &mut tar::Builder<W>, name: &str) -> Result<(), ExportError> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    archive
        .append_data(&mut header, name, io::empty())
        .map_err(ExportError::Write)
}

fn add_file<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    mode: u32,
    size: u64,
    content: impl io::Read,
) -> Result<(), ExportError> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(size);
    archive
        .append_data(&mut header, name, content)
        .map_err(ExportError::Write)
}

/// Of where caches came from only what says where stays, not what gave access.
fn hide_secrets(record: &mut BuildHistoryRecord) {
    if let Some(imports) = record.frontend_attrs.get_mut("cache-imports") {
        *imports = secrets::clean_cache_imports(imports).unwrap_or_default();
    }
}
