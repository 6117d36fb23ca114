//! Images go to registries: blobs, then manifests, then the index, tags last.
//!
//! A reader never sees a half-pushed image, since nothing has a name before everything below it is there. For the same
//! reason a tag that already names the same digest means that there is nothing to do, and an image whose manifest the
//! repository has already has all its blobs there.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt};
use registry::client::{BlobSource, HostConfig, OnProgress, UploadOptions};
use registry::manifest::RawManifest;
use registry::media_type::is_foreign_layer;
use registry::{Client, Descriptor, Digest, Reference, Repository};

use super::assemble::{Assembled, AssembledImage};
use super::attributes::ImageOptions;
use super::layers::Layer;
use super::{Context, ExportError};
use crate::progress::VertexProgress;
use crate::sources::image::repositories;
use crate::store::{RemoteBlob, Store};

const UPLOADS_AT_ONCE: usize = 4;
/// Of requests without a body worth mentioning.
const REQUESTS_AT_ONCE: usize = 8;
/// Smaller blobs are on their way too shortly to be shown one by one.
const WORTH_A_LINE: u64 = 4 << 20;

/// A blob to push, and where its bytes come from.
struct Blob {
    descriptor: Descriptor,
    source: BlobSource,
    mount_from: Vec<Repository>,
}

pub(super) async fn push(
    options: &ImageOptions,
    assembled: &Assembled,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<(), ExportError> {
    let mut by_repository: BTreeMap<&Repository, Vec<&Reference>> = BTreeMap::new();
    for name in &options.names {
        by_repository.entry(name.repository()).or_default().push(name);
    }
    for (repository, names) in by_repository {
        let client = client_for(repository, options, context.images.client());
        let mut outdated = Vec::new();
        for name in names {
            let name = match options.push_by_digest {
                true => repository.with_digest(assembled.root().digest.clone()),
                false => name.clone(),
            };
            if !is_current(&client, &name, assembled.root()).await? {
                outdated.push(name);
            }
        }
        if outdated.is_empty() {
            let text = format!("{repository} is up to date");
            vertex.status(&text, &text).complete();
            continue;
        }
        let status = vertex.status("pushing layers", "pushing layers");
        let missing = missing(&client, repository, assembled).await?;
        let blobs = blobs(&missing, context.images.client(), context.images.store());
        // Boxed: else the compiler cannot see that the uploads may move between threads.
        let uploads = blobs
            .iter()
            .map(|blob| push_blob(&client, repository, blob, vertex).boxed());
        futures::stream::iter(uploads.collect::<Vec<_>>())
            .buffer_unordered(UPLOADS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        status.complete();
        if assembled.index.is_some() {
            push_images(&client, repository, &missing).await?;
        }
        push_root(&client, assembled.root(), &outdated, vertex).await?;
    }
    Ok(())
}

fn failed(name: &dyn std::fmt::Display) -> impl FnOnce(registry::Error) -> ExportError {
    let name = name.to_string();
    move |source| ExportError::Push { name, source }
}

fn client_for(repository: &Repository, options: &ImageOptions, client: &Client) -> Client {
    if !options.insecure {
        return client.clone();
    }
    let known = client.config().hosts.get(repository.registry()).cloned();
    client.with_host(
        repository.registry(),
        HostConfig {
            insecure: true,
            ..known.unwrap_or_default()
        },
    )
}

async fn is_current(client: &Client, name: &Reference, root: &RawManifest) -> Result<bool, ExportError> {
    let found = client.head_before_writing(name).await.map_err(failed(name))?;
    Ok(found.is_some_and(|found| found.digest == root.digest))
}

/// The images that a repository does not have. Those without an index are only asked for by name.
async fn missing<'a>(
    client: &Client,
    repository: &Repository,
    assembled: &'a Assembled,
) -> Result<Vec<&'a AssembledImage>, ExportError> {
    if assembled.index.is_none() {
        return Ok(assembled.all().collect());
    }
    let looks = assembled.all().map(|image| async move {
        let name = repository.with_digest(image.manifest.digest.clone());
        let is_there = is_current(client, &name, &image.manifest).await?;
        Ok::<_, ExportError>((image, is_there))
    });
    // Boxed: else the compiler cannot see that the requests may move between threads.
    let looks: Vec<_> = looks.map(FutureExt::boxed).collect();
    let found: Vec<_> = futures::stream::iter(looks)
        .buffered(REQUESTS_AT_ONCE)
        .try_collect()
        .await?;
    let missing = found.into_iter().filter(|(_, is_there)| !is_there);
    Ok(missing.map(|(image, _)| image).collect())
}

/// Every blob once: platforms often share them.
fn blobs(images: &[&AssembledImage], client: &Client, store: &Store) -> Vec<Blob> {
    let mut blobs: BTreeMap<Digest, Blob> = BTreeMap::new();
    for image in images {
        // Whoever reads the image gets those where their descriptors say.
        let own = |layer: &&Layer| !is_foreign_layer(&layer.descriptor.media_type);
        for layer in image.layers.iter().filter(own) {
            blobs
                .entry(layer.descriptor.digest.clone())
                .or_insert_with(|| layer_blob(&layer.descriptor, layer.remote.as_ref(), client, store));
        }
        blobs.insert(
            image.config_descriptor.digest.clone(),
            Blob {
                descriptor: image.config_descriptor.clone(),
                source: BlobSource::Bytes(image.config.clone()),
                mount_from: Vec::new(),
            },
        );
    }
    blobs.into_values().collect()
}

fn layer_blob(descriptor: &Descriptor, remote: Option<&RemoteBlob>, client: &Client, store: &Store) -> Blob {
    let mount_from: Vec<Repository> =
        remote.map_or_else(Vec::new, |remote| repositories(&remote.repositories).collect());
    let source = if mount_from.is_empty() || store.blobs().has(&descriptor.digest) {
        BlobSource::File(store.blobs().path(&descriptor.digest))
    } else {
        // Copied from registry to registry, without being unpacked or kept.
        BlobSource::remote(client.clone(), mount_from.clone(), descriptor.clone())
    };
    Blob {
        descriptor: descriptor.clone(),
        source,
        mount_from,
    }
}

async fn push_blob(
    client: &Client,
    repository: &Repository,
    blob: &Blob,
    vertex: &VertexProgress,
) -> Result<(), ExportError> {
    let size = blob.descriptor.size;
    let status = (size >= WORTH_A_LINE).then(|| {
        let text = format!("pushing {} to {repository}", blob.descriptor.digest);
        vertex.status(&text, "pushing")
    });
    let options = UploadOptions {
        mount_from: blob.mount_from.clone(),
        progress: status
            .clone()
            .map(|status| -> OnProgress { Arc::new(move |sent| status.update(sent, size)) }),
    };
    let pushed = client
        .push_blob(repository, &blob.descriptor, &blob.source, &options)
        .await
        .map_err(failed(repository))?;
    tracing::debug!(digest = %blob.descriptor.digest, %repository, ?pushed, "blob pushed");
    if let Some(status) = status {
        status.complete();
    }
    Ok(())
}

async fn push_images(
    client: &Client,
    repository: &Repository,
    images: &[&AssembledImage],
) -> Result<(), ExportError> {
    let puts = images.iter().map(|image| {
        let reference = repository.with_digest(image.manifest.digest.clone());
        async move {
            let put = client.put_manifest(&reference, &image.manifest).await;
            put.map_err(failed(&reference))
        }
        .boxed()
    });
    futures::stream::iter(puts.collect::<Vec<_>>())
        .buffer_unordered(REQUESTS_AT_ONCE)
        .try_collect()
        .await
}

async fn push_root(
    client: &Client,
    root: &RawManifest,
    names: &[Reference],
    vertex: &VertexProgress,
) -> Result<(), ExportError> {
    for name in names {
        let text = format!(
            "pushing manifest for {}",
            name.clone().pinned(root.digest.clone())
        );
        let status = vertex.status(&text, &text);
        client.put_manifest(name, root).await.map_err(failed(name))?;
        status.complete();
    }
    Ok(())
}
