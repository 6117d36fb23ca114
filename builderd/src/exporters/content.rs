//! Images go into a folder of the client: blob by blob into the content store that its session offers. What is there
//! already is not sent; the client itself writes the index over them.

use bytes::Bytes;
use registry::{Descriptor, Digest};

use super::archive;
use super::assemble::Assembled;
use super::{Context, ExportError};
use crate::progress::VertexProgress;
use crate::session::ContentStore;

pub(super) async fn send(
    assembled: &Assembled,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<(), ExportError> {
    let store = context.sessions.export_store().await.map_err(ExportError::Send)?;
    let status = vertex.status("sending blobs", "sending blobs");
    // What refers to others goes last, so that a folder never has half an image.
    for image in assembled.all() {
        for layer in &image.layers {
            let stream = archive::open(layer, context.images).await;
            let stream = stream.map_err(|source| ExportError::Open {
                digest: layer.descriptor.digest.clone(),
                source,
            })?;
            let descriptor = &layer.descriptor;
            store
                .write(&descriptor.digest, descriptor.size, stream)
                .await
                .map_err(ExportError::Send)?;
        }
        document(&store, &image.config_descriptor, &image.config).await?;
        let manifest = &image.manifest;
        document(&store, &manifest.descriptor(), &manifest.bytes).await?;
    }
    if let Some(index) = &assembled.index {
        document(&store, &index.descriptor(), &index.bytes).await?;
    }
    status.complete();
    Ok(())
}

async fn document(store: &ContentStore, descriptor: &Descriptor, bytes: &Bytes) -> Result<(), ExportError> {
    let digest: &Digest = &descriptor.digest;
    let stream = futures::stream::iter([Ok(bytes.clone())]);
    store
        .write(digest, descriptor.size, stream)
        .await
        .map_err(ExportError::Send)
}
