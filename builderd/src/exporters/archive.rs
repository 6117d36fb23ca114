//! Images go to the client as one tar: an OCI layout, for `docker load` with Docker's own list of contents.
//!
//! The archive is written while it is sent. Layers of base images that are not here pass through from their registry.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use registry::manifest::RawManifest;
use registry::{Descriptor, Digest, Index, media_type};
use serde::Serialize;
use tokio_util::io::ReaderStream;

use super::assemble::Assembled;
use super::attributes::ImageOptions;
use super::layers::Layer;
use super::{Context, ExportError, Response};
use crate::progress::VertexProgress;
use crate::sources::image::Images;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const READ: usize = 256 * 1024;

/// A file of the archive.
pub(super) enum Content {
    Bytes(Bytes),
    Layer(Box<Layer>),
}

pub(super) async fn send(
    kind: &str,
    options: &ImageOptions,
    assembled: &Assembled,
    response: &Response,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<(), ExportError> {
    let files = files(kind, options, assembled)?;
    let receiver = context.sessions.receiver().await.map_err(ExportError::Send)?;
    let status = vertex.status("sending tarball", "sending tarball");
    let stream = stream(files, context.images);
    // What is told beside the file travels in headers, whose names cannot hold a platform.
    let told = response
        .iter()
        .filter(|(key, _)| !key.contains('/'))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    receiver
        .send_file(context.number, &told, stream)
        .await
        .map_err(ExportError::Send)?;
    status.complete();
    Ok(())
}

/// All files, by path.
pub(super) fn files(
    kind: &str,
    options: &ImageOptions,
    assembled: &Assembled,
) -> Result<BTreeMap<String, Content>, ExportError> {
    let mut files = BTreeMap::new();
    let document = |raw: &RawManifest| (path(&raw.digest), Content::Bytes(raw.bytes.clone()));
    for image in assembled.all() {
        files.extend([document(&image.manifest)]);
        files.insert(
            path(&image.config_descriptor.digest),
            Content::Bytes(image.config.clone()),
        );
        for layer in &image.layers {
            files.insert(
                path(&layer.descriptor.digest),
                Content::Layer(Box::new(layer.clone())),
            );
        }
    }
    files.extend(assembled.index.iter().map(document));
    files.insert(
        "oci-layout".to_owned(),
        Content::Bytes(Bytes::from_static(LAYOUT)),
    );
    let index = Index::new(media_type::OCI_INDEX, entries(options, assembled));
    let index = registry::json::compact(&index).map_err(ExportError::Write)?;
    files.insert("index.json".to_owned(), Content::Bytes(index.into()));
    if kind == "docker" {
        let list = registry::json::compact(&docker_list(options, assembled)).map_err(ExportError::Write)?;
        files.insert("manifest.json".to_owned(), Content::Bytes(list.into()));
    }
    Ok(files)
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// The root once for each name, as containerd's importer wants it.
fn entries(options: &ImageOptions, assembled: &Assembled) -> Vec<Descriptor> {
    let mut root = assembled.root_descriptor().clone();
    if let Some(epoch) = options.epoch {
        let created = super::history::from_seconds(epoch);
        root.set_annotation("org.opencontainers.image.created", created);
    }
    if options.names.is_empty() {
        return vec![root];
    }
    options
        .names
        .iter()
        .map(|name| {
            let mut entry = root.clone();
            entry.set_annotation("io.containerd.image.name", name.to_string());
            if let Some(tag) = name.tag() {
                entry.set_annotation("org.opencontainers.image.ref.name", tag);
            }
            entry
        })
        .collect()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn docker_list(options: &ImageOptions, assembled: &Assembled) -> Vec<DockerImage> {
    let tags: Vec<String> = options.names.iter().map(registry::Reference::familiar).collect();
    assembled
        .images
        .iter()
        .map(|image| DockerImage {
            config: path(&image.config_descriptor.digest),
            repo_tags: Some(tags.clone()).filter(|tags| !tags.is_empty()),
            layers: image
                .layers
                .iter()
                .map(|layer| path(&layer.descriptor.digest))
                .collect(),
        })
        .collect()
}

pub(super) fn stream<'a>(
    files: BTreeMap<String, Content>,
    images: &'a Images,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'a {
    async_stream::try_stream! {
        for folder in ["blobs/", "blobs/sha256/"] {
            yield header(folder, 0, tar::EntryType::Directory)?;
        }
        for (path, content) in files {
            match content {
                Content::Bytes(bytes) => {
                    let size = bytes.len() as u64;
                    yield header(&path, size, tar::EntryType::Regular)?;
                    yield bytes;
                    yield padding(size);
                }
                Content::Layer(layer) => {
                    let size = layer.descriptor.size;
                    yield header(&path, size, tar::EntryType::Regular)?;
                    let mut bytes = open(&layer, images).await?;
                    let mut sent = 0;
                    while let Some(chunk) = bytes.try_next().await? {
                        sent += chunk.len() as u64;
                        yield chunk;
                    }
                    if sent != size {
                        Err(std::io::Error::other(format!(
                            "blob {} has {sent} bytes instead of {size}", layer.descriptor.digest
                        )))?;
                    }
                    yield padding(size);
                }
            }
        }
        yield Bytes::from_static(&[0; 1024]);
    }
}

pub(super) async fn open(
    layer: &Layer,
    images: &Images,
) -> std::io::Result<futures::stream::BoxStream<'static, std::io::Result<Bytes>>> {
    let blobs = images.store().blobs();
    if let Some(remote) = &layer.remote
        && !blobs.has(&layer.descriptor.digest)
    {
        let reader = images.open(remote).await.map_err(std::io::Error::other)?;
        return Ok(reader.map_err(std::io::Error::other).boxed());
    }
    let file = tokio::fs::File::open(blobs.path(&layer.descriptor.digest)).await?;
    Ok(ReaderStream::with_capacity(file, READ).boxed())
}

fn header(path: &str, size: u64, kind: tar::EntryType) -> std::io::Result<Bytes> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    // The same image is the same archive, whenever it is made.
    header.set_mtime(0);
    header.set_entry_type(kind);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

fn padding(size: u64) -> Bytes {
    static ZEROES: [u8; 512] = [0; 512];
    let missing = (512 - size % 512) % 512;
    Bytes::from_static(
        ZEROES
            .get(..usize::try_from(missing).unwrap_or(0))
            .unwrap_or_default(),
    )
}
