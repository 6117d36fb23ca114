//! Images from one repository to another, of the same registry or of two.
//!
//! What is there is left alone; blobs are mounted where the registry allows it and streamed through otherwise, each
//! once however many manifests name it. A manifest is stored after all it names, so that nothing is ever seen half.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::Client;
use super::error::Error;
use super::upload::{BlobSource, Pushed, UploadOptions};
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, RawManifest};
use crate::media_type;
use crate::reference::Repository;

/// Manifests and blobs that are looked at, mounted or moved at the same time.
const AT_ONCE: usize = 16;
/// Indexes in indexes.
const DEEPEST: usize = 8;

/// Brings images into one repository. Clones share their work.
#[derive(Clone, Debug)]
pub struct Copier {
    client: Client,
    to: Repository,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    blobs: Mutex<HashMap<Digest, Arc<OnceCell<()>>>>,
    slots: Semaphore,
    copied: Mutex<Copied>,
}

/// What a [`Copier`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Manifests and indexes that were stored.
    pub manifests: usize,
    /// Blobs that were mounted.
    pub mounted: usize,
    /// Blobs that went through our hands.
    pub uploaded: usize,
}

impl Copier {
    pub fn new(client: Client, to: Repository) -> Self {
        Self {
            client,
            to,
            shared: Arc::new(Shared {
                blobs: Mutex::default(),
                slots: Semaphore::new(AT_ONCE),
                copied: Mutex::default(),
            }),
        }
    }

    pub fn copied(&self) -> Copied {
        *self.shared.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, count: impl FnOnce(&mut Copied)) {
        count(&mut self.shared.copied.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes sure that the repository has the manifest or index, and everything below it, under its digest.
    pub async fn copy(&self, from: &Repository, descriptor: &Descriptor) -> Result<(), Error> {
        self.copy_tree(from, &descriptor.digest, 0).await
    }

    /// As `copy`, for a manifest whose bytes are at hand: what it names is looked for in `from`.
    pub async fn copy_known(&self, from: &Repository, raw: &RawManifest) -> Result<(), Error> {
        if !self.has(raw.digest.clone()).await? {
            self.store(from, raw, 0).await?;
        }
        Ok(())
    }

    fn copy_tree<'a>(
        &'a self,
        from: &'a Repository,
        digest: &'a Digest,
        depth: usize,
    ) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let raw = {
                let _slot = self.slot().await;
                if self.has(digest.clone()).await? {
                    return Ok(());
                }
                self.client.manifest(&from.with_digest(digest.clone())).await?
            };
            self.store(from, &raw, depth).await
        }
        .boxed()
    }

    /// The turn of one request or transfer. Nobody waits for another turn while holding one.
    async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed; without a permit there would only be more at once.
        self.shared.slots.acquire().await.ok()
    }

    /// Whether the manifest is there already; what it names is there then, too.
    async fn has(&self, digest: Digest) -> Result<bool, Error> {
        let reference = self.to.with_digest(digest);
        Ok(self.client.head_before_writing(&reference).await?.is_some())
    }

    async fn store(&self, from: &Repository, raw: &RawManifest, depth: usize) -> Result<(), Error> {
        let document = raw.parse().map_err(|source| Error::Manifest {
            repository: from.to_string(),
            source,
        })?;
        match &document {
            Document::Manifest(manifest) => {
                let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
                try_join_all(blobs.map(|blob| self.copy_blob(from, blob))).await?;
            }
            Document::Index(_) if depth == DEEPEST => {
                return Err(Error::Nested {
                    repository: from.to_string(),
                    digest: raw.digest.clone(),
                });
            }
            Document::Index(index) => {
                try_join_all(
                    index
                        .manifests
                        .iter()
                        .map(|entry| self.copy_entry(from, entry, depth + 1)),
                )
                .await?;
            }
        }
        let target = self.to.with_digest(raw.digest.clone());
        let _slot = self.slot().await;
        self.client.put_manifest(&target, raw).await?;
        self.count(|copied| copied.manifests += 1);
        Ok(())
    }

    /// An index may name anything; what is no manifest is a blob.
    fn copy_entry<'a>(
        &'a self,
        from: &'a Repository,
        entry: &'a Descriptor,
        depth: usize,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let media_type = entry.media_type.as_str();
        if media_type.is_empty() || media_type::is_index(media_type) || media_type::is_manifest(media_type) {
            self.copy_tree(from, &entry.digest, depth)
        } else {
            self.copy_blob(from, entry).boxed()
        }
    }

    async fn copy_blob(&self, from: &Repository, descriptor: &Descriptor) -> Result<(), Error> {
        let once = self
            .shared
            .blobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(descriptor.digest.clone())
            .or_default()
            .clone();
        once.get_or_try_init(|| self.push(from, descriptor)).await?;
        Ok(())
    }

    async fn push(&self, from: &Repository, descriptor: &Descriptor) -> Result<(), Error> {
        let _slot = self.slot().await;
        let options = UploadOptions {
            mount_from: vec![from.clone()],
            progress: None,
        };
        let source = BlobSource::remote(self.client.clone(), vec![from.clone()], descriptor.clone());
        match self
            .client
            .push_blob(&self.to, descriptor, &source, &options)
            .await
        {
            Ok(Pushed::Existed) => {}
            Ok(Pushed::Mounted) => self.count(|copied| copied.mounted += 1),
            Ok(Pushed::Uploaded) => self.count(|copied| copied.uploaded += 1),
            // Registries need not have the layers of old Windows bases, and manifests may name them all the same.
            Err(error) if media_type::is_foreign_layer(&descriptor.media_type) => {
                tracing::debug!(digest = %descriptor.digest, %error, "foreign layer left where it is");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
