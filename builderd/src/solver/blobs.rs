//! Blobs that a build takes by their digest: as files, or as bundles of git commits.

use registry::Digest;

use super::Job;
use super::job::Done;
use super::provenance::Material;
use crate::progress::VertexProgress;
use crate::sources::blob::{BlobLayout, BlobPlace, BlobSource, BlobSourceError};
use crate::store::{CachedResult, Descriptor, RemoteBlob};

impl Job {
    /// A blob as a file.
    pub(super) async fn blob(
        &self,
        source: BlobSource,
        progress: &VertexProgress,
    ) -> Result<(Done, Material), BlobSourceError> {
        let material = Material::Blob {
            reference: source.place.reference.to_string(),
            digest: source.place.digest.clone(),
            local: source.place.layout.is_some(),
        };
        let key = source.cache_key();
        let _flight = self.solver().flights().lock(key).await;
        if let Some(hit) = self.store().lookup(&key) {
            let done = Done {
                outputs: hit.outputs,
                cached: true,
            };
            return Ok((done, material));
        }
        self.bring_blob(&source.place, progress).await?;
        let outputs = vec![source.layer(self.store()).await?];
        self.store().remember(&key, &CachedResult::now(outputs.clone()));
        let done = Done {
            outputs,
            cached: false,
        };
        Ok((done, material))
    }

    /// Brings a blob into the store. Whoever has it is asked even if it is here, as what others brought may be none of
    /// this client's business.
    pub(super) async fn bring_blob(
        &self,
        place: &BlobPlace,
        progress: &VertexProgress,
    ) -> Result<(), BlobSourceError> {
        let failed = |error| BlobSourceError::Fetch(Box::new(error));
        let digest = &place.digest;
        self.store().blobs().hold(digest);
        if let Some(BlobLayout { store, session }) = &place.layout {
            let absent = |source| BlobSourceError::Session {
                digest: digest.clone(),
                source: Box::new(source),
            };
            let store = self.layout_store(session.as_deref(), store).await;
            let store = store.map_err(absent)?;
            let size = store.size(digest).await.map_err(absent)?;
            let blob = remote(digest, size, Vec::new());
            return self
                .images()
                .bring_blob(&blob, &store, progress)
                .await
                .map_err(failed);
        }
        let repository = place.reference.repository();
        let size = self.images().client().blob_size(repository, digest).await;
        let size = size.map_err(|source| BlobSourceError::Registry {
            digest: digest.clone(),
            source: Box::new(source),
        })?;
        let size = size.ok_or_else(|| BlobSourceError::Missing {
            repository: repository.to_string(),
            digest: digest.clone(),
        })?;
        let blob = remote(digest, size, vec![repository.to_string()]);
        self.images().fetch_blob(&blob, progress).await.map_err(failed)
    }
}

fn remote(digest: &Digest, size: u64, repositories: Vec<String>) -> RemoteBlob {
    RemoteBlob {
        descriptor: Descriptor::new("application/octet-stream", digest.clone(), size),
        repositories,
    }
}
