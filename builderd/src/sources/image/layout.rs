//! Images in a client's OCI layout, which its session serves. They are named by digest, and what is used of them is
//! brought here at once: a session does not last.

use bytes::Bytes;
use registry::manifest::RawManifest;
use registry::{Manifest, Platform, Reference};

use super::{Image, ImageError, Images, LARGEST_CONFIG, LARGEST_MANIFEST};
use crate::progress::VertexProgress;
use crate::session::{ContentStore, SessionError};
use crate::sources::image::FetchError;
use crate::store::{LayerId, Snapshot};

/// Where the documents of an image come from.
#[derive(Debug)]
pub(super) enum Origin {
    Registry,
    Layout(ContentStore),
}

impl Origin {
    /// What a layer of the image can be fetched from later.
    pub(super) fn repository(&self, reference: &Reference) -> Option<String> {
        match self {
            Self::Registry => Some(reference.repository().to_string()),
            Self::Layout(_) => None,
        }
    }
}

impl Images {
    /// The image that `reference` names by its digest in a layout.
    pub async fn resolve_layout(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &ContentStore,
    ) -> Result<Image, ImageError> {
        if reference.digest().is_none() {
            return Err(ImageError::NoDigest {
                reference: reference.to_string(),
            });
        }
        let origin = Origin::Layout(store.clone());
        self.load(reference.clone(), &platform.normalised(), &origin)
            .await
    }

    /// Brings the blobs of layers here that no registry is known to have.
    pub async fn bring_layers(
        &self,
        layers: &Snapshot,
        store: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), FetchError> {
        for layer in layers.layers() {
            let lost = || FetchError::Lost { layer: layer.clone() };
            let blob = self.blobs_of(layer).into_iter().next().ok_or_else(lost)?;
            if blob.repositories.is_empty() {
                self.bring_blob(&blob, store, progress).await?;
            }
        }
        Ok(())
    }
}

/// The lowest layers of an image; all of them without a limit.
pub(crate) fn lowest(snapshot: &Snapshot, limit: Option<usize>) -> Snapshot {
    match limit {
        Some(limit) => snapshot
            .layers()
            .iter()
            .take(limit)
            .cloned()
            .collect::<Vec<LayerId>>()
            .into(),
        None => snapshot.clone(),
    }
}

pub(super) async fn manifest(store: &ContentStore, pinned: &Reference) -> Result<RawManifest, ImageError> {
    let Some(digest) = pinned.digest() else {
        return Err(ImageError::NoDigest {
            reference: pinned.to_string(),
        });
    };
    let bytes = store.read_all(digest, LARGEST_MANIFEST).await;
    let bytes = bytes.map_err(|source| failed(pinned, source))?;
    Ok(RawManifest::with_digest(bytes, None, digest.clone()))
}

pub(super) async fn config(
    store: &ContentStore,
    pinned: &Reference,
    manifest: &Manifest,
) -> Result<Bytes, ImageError> {
    let bytes = store.read_all(&manifest.config.digest, LARGEST_CONFIG).await;
    bytes.map_err(|source| failed(pinned, source))
}

fn failed(reference: &Reference, source: SessionError) -> ImageError {
    ImageError::Layout {
        reference: reference.to_string(),
        source: Box::new(source),
    }
}
