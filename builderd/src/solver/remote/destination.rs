//! Where caches are written to: repositories of registries, and folders of the client.

use std::io::Read as _;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use registry::client::{BlobSource, UploadOptions};
use registry::manifest::RawManifest;
use registry::{Client, Descriptor, Digest, Reference};

use super::CacheError;
use super::format::CONFIG;
use crate::progress::VertexProgress;
use crate::session::ContentStore;
use crate::solver::Job;
use crate::sources::image::repositories;
use crate::store::{BlobStore, LayerBlob, Pool};

const UPLOADS_AT_ONCE: usize = 4;
const CHUNK: u64 = 1 << 20;

/// Where a cache goes.
pub(super) enum Destination {
    Registry(Client, Reference),
    Folder(ContentStore),
}

impl Destination {
    pub(super) async fn write(
        &self,
        job: &Job,
        layers: Vec<(Descriptor, LayerBlob)>,
        config: &Bytes,
        manifest: &RawManifest,
        is_image: bool,
        vertex: &VertexProgress,
    ) -> Result<(), CacheError> {
        // Boxed: else the compiler cannot see that the copies may move between threads.
        let writes = layers.iter().map(|(descriptor, blob)| {
            async move {
                let text = format!("writing layer {}", descriptor.digest);
                let status = vertex.status(&text, &text);
                self.write_layer(job, descriptor, blob).await?;
                status.complete();
                Ok::<_, CacheError>(())
            }
            .boxed()
        });
        futures::stream::iter(writes.collect::<Vec<_>>())
            .buffer_unordered(UPLOADS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let descriptor = Descriptor::of(CONFIG, config);
        let text = format!("writing config {}", descriptor.digest);
        let status = vertex.status(&text, &text);
        self.write_bytes(&descriptor, config).await?;
        status.complete();
        let kind = if is_image { "image manifest" } else { "manifest" };
        let text = format!("writing cache {kind} {}", manifest.digest);
        let status = vertex.status(&text, &text);
        match self {
            Self::Registry(client, reference) => client
                .put_manifest(reference, manifest)
                .await
                .map_err(|source| failed(reference, source))?,
            Self::Folder(_) => self.write_bytes(&manifest.descriptor(), &manifest.bytes).await?,
        }
        status.complete();
        Ok(())
    }

    async fn write_layer(
        &self,
        job: &Job,
        descriptor: &Descriptor,
        blob: &LayerBlob,
    ) -> Result<(), CacheError> {
        let blobs = job.store().blobs();
        match self {
            Self::Registry(client, reference) => {
                let remote = blob.remote.as_ref();
                let mount_from: Vec<_> =
                    remote.map_or_else(Vec::new, |remote| repositories(&remote.repositories).collect());
                let source = if mount_from.is_empty() || blobs.has(&descriptor.digest) {
                    BlobSource::File(blobs.path(&descriptor.digest))
                } else {
                    let origin = job.images().client().clone();
                    BlobSource::remote(origin, mount_from.clone(), descriptor.clone())
                };
                let options = UploadOptions {
                    mount_from,
                    progress: None,
                };
                client
                    .push_blob(reference.repository(), descriptor, &source, &options)
                    .await
                    .map_err(|source| failed(reference, source))?;
                Ok(())
            }
            Self::Folder(store) => {
                let bytes = file(&blobs, &descriptor.digest, job.store().pool().clone())?;
                store.write(&descriptor.digest, descriptor.size, bytes).await?;
                Ok(())
            }
        }
    }

    async fn write_bytes(&self, descriptor: &Descriptor, bytes: &Bytes) -> Result<(), CacheError> {
        match self {
            Self::Registry(client, reference) => {
                let source = BlobSource::Bytes(bytes.clone());
                client
                    .push_blob(
                        reference.repository(),
                        descriptor,
                        &source,
                        &UploadOptions::default(),
                    )
                    .await
                    .map_err(|source| failed(reference, source))?;
            }
            Self::Folder(store) => {
                let chunks = futures::stream::iter([Ok(bytes.clone())]);
                store.write(&descriptor.digest, descriptor.size, chunks).await?;
            }
        }
        Ok(())
    }
}

fn failed(reference: &Reference, source: registry::Error) -> CacheError {
    CacheError::Registry {
        name: reference.to_string(),
        source: Box::new(source),
    }
}

/// The bytes of a blob that is here.
fn file(
    blobs: &BlobStore,
    digest: &Digest,
    pool: Pool,
) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>, CacheError> {
    let file = blobs
        .open(digest)
        .map_err(|error| CacheError::Read(std::io::Error::other(error)))?;
    Ok(
        futures::stream::try_unfold((file, pool), |(mut file, pool)| async move {
            let read = pool.run(move || {
                let mut chunk = Vec::new();
                let read = file.by_ref().take(CHUNK).read_to_end(&mut chunk);
                read.map(|_| (file, Bytes::from(chunk)))
            });
            let (file, chunk) = read.await.map_err(std::io::Error::other)??;
            Ok((!chunk.is_empty()).then_some((chunk, (file, pool))))
        })
        .boxed(),
    )
}
