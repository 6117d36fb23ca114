//! Images go into a folder of the client: blob by blob into the content store that its session offers. What is there
//! already is not sent; the client itself writes the index over them.

use bytes::Bytes;
use futures::StreamExt;
use registry::{Descriptor, Digest};

use super::archive;
use super::assemble::Assembled;
use super::{Context, ExportError};
use crate::progress::VertexProgress;
use crate::session::Session;

pub(super) async fn send(
    assembled: &Assembled,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<(), ExportError> {
    let session = context
        .sessions
        .content_store()
        .await
        .map_err(ExportError::Send)?;
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
            session
                .write_blob(&descriptor.digest, descriptor.size, stream)
                .await
                .map_err(ExportError::Send)?;
        }
        document(&session, &image.config_descriptor, &image.config).await?;
        let manifest = &image.manifest;
        document(&session, &manifest.descriptor(), &manifest.bytes).await?;
    }
    if let Some(index) = &assembled.index {
        document(&session, &index.descriptor(), &index.bytes).await?;
    }
    status.complete();
    Ok(())
}

async fn document(session: &Session, descriptor: &Descriptor, bytes: &Bytes) -> Result<(), ExportError> {
    let digest: &Digest = &descriptor.digest;
    let stream = futures::stream::iter([Ok(bytes.clone())]).boxed();
    session
        .write_blob(digest, descriptor.size, stream)
        .await
        .map_err(ExportError::Send)
}
