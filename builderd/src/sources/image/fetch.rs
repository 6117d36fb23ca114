//! Brings the layers of images here when somebody needs their files, or their blobs.

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use registry::client::BlobReader;
use registry::{Descriptor, Digest};

use super::{Images, repositories};
use crate::progress::{StatusProgress, VertexProgress};
use crate::session::{ContentStore, SessionError};
use crate::store::{self, BlobError, Expected, KeepBlob, LayerId, RemoteBlob, Snapshot, UnpackError};

/// Layers of one snapshot that are on their way at a time.
const AT_ONCE: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("layer {layer} is neither here nor known to be anywhere else")]
    Lost { layer: LayerId },
    #[error("cannot fetch layer {digest}")]
    Pull {
        digest: Digest,
        #[source]
        source: registry::Error,
    },
    #[error("cannot get layer {digest} from the client")]
    Transfer {
        digest: Digest,
        #[source]
        source: Box<SessionError>,
    },
    #[error("cannot unpack layer {digest}")]
    Unpack {
        digest: Digest,
        #[source]
        source: UnpackError,
    },
    #[error("cannot keep blob {digest}")]
    Keep {
        digest: Digest,
        #[source]
        source: BlobError,
    },
    #[error("cannot keep blob {digest}")]
    Write {
        digest: Digest,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    LostWork(#[from] store::WorkLost),
}

impl Images {
    /// Makes sure that the files of all layers are here. Costs one look for each layer if they are.
    pub async fn fetch(&self, snapshot: &Snapshot, progress: &VertexProgress) -> Result<(), FetchError> {
        let missing: Vec<LayerId> = snapshot
            .layers()
            .iter()
            .filter(|layer| !self.store.has_folder(layer))
            .cloned()
            .collect();
        futures::stream::iter(missing)
            .map(|layer| async move { self.fetch_layer(&layer, progress).await })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn fetch_layer(&self, layer: &LayerId, progress: &VertexProgress) -> Result<(), FetchError> {
        // Other builds may be fetching the same layer: the second one finds it there.
        let _alone = self.store.lock_layer(layer).await;
        if self.store.has_folder(layer) {
            return Ok(());
        }
        let lost = || FetchError::Lost { layer: layer.clone() };
        let record = self.store.layer(layer).ok_or_else(lost)?;
        let diff_id = record.diff_id.ok_or_else(lost)?;
        let mut failure = None;
        for blob in self.blobs_of(layer) {
            match self.unpack(&diff_id, &blob, progress).await {
                Ok(()) => {
                    if let Err(error) = self.store.record_unpacked_from(layer, &blob) {
                        tracing::warn!(%layer, %error, "the origin of a layer was not noted");
                    }
                    return Ok(());
                }
                Err(error) => {
                    tracing::debug!(%layer, blob = %blob.descriptor.digest, %error, "not to be had as this blob");
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.unwrap_or_else(lost))
    }

    async fn unpack(
        &self,
        diff_id: &Digest,
        remote: &RemoteBlob,
        progress: &VertexProgress,
    ) -> Result<(), FetchError> {
        let digest = &remote.descriptor.digest;
        let unpack_failed = |source| FetchError::Unpack {
            digest: digest.clone(),
            source,
        };
        if self.store.blobs().has(digest) {
            let status = progress.status(&format!("extracting {digest}"), "extract");
            self.store
                .unpack_stored_layer(diff_id, digest)
                .await
                .map_err(unpack_failed)?;
            status.complete();
            return Ok(());
        }
        let status = progress.status(digest.as_str(), "downloading");
        let reader = self.open(remote).await?;
        let counted = counted(reader, remote.descriptor.size, status.clone()).map_err(std::io::Error::other);
        self.store
            .unpack_layer(diff_id, &remote.descriptor, counted, KeepBlob::No)
            .await
            .map_err(unpack_failed)?;
        status.complete();
        Ok(())
    }

    /// Brings a blob into the blob store.
    pub async fn fetch_blob(&self, remote: &RemoteBlob, progress: &VertexProgress) -> Result<(), FetchError> {
        let digest = remote.descriptor.digest.clone();
        if self.store.blobs().has(&digest) {
            return Ok(());
        }
        let status = progress.status(digest.as_str(), "downloading");
        let reader = self.open(remote).await?;
        let pull_failed = |source| FetchError::Pull {
            digest: digest.clone(),
            source,
        };
        let bytes = counted(reader, remote.descriptor.size, status.clone()).map_err(pull_failed);
        self.keep_blob(remote, bytes).await?;
        status.complete();
        Ok(())
    }

    /// Brings a blob of a client's content store into the blob store.
    pub async fn bring_blob(
        &self,
        remote: &RemoteBlob,
        store: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), FetchError> {
        let digest = remote.descriptor.digest.clone();
        self.store.blobs().hold(&digest);
        if self.store.blobs().has(&digest) {
            return Ok(());
        }
        let status = progress.status(digest.as_str(), "transferring");
        let failed = |source| FetchError::Transfer {
            digest: digest.clone(),
            source: Box::new(source),
        };
        let bytes = store.read(&digest).await.map_err(failed)?;
        let (mut received, total, shown) = (0, remote.descriptor.size, status.clone());
        let bytes = bytes
            .inspect_ok(move |chunk| {
                received += chunk.len() as u64;
                shown.update(received, total);
            })
            .map_err(|source| failed(SessionError::Content(source)));
        self.keep_blob(remote, bytes).await?;
        status.complete();
        Ok(())
    }

    async fn keep_blob(
        &self,
        remote: &RemoteBlob,
        bytes: impl Stream<Item = Result<Bytes, FetchError>> + Send,
    ) -> Result<(), FetchError> {
        let digest = remote.descriptor.digest.clone();
        let keep_failed = |source| FetchError::Keep {
            digest: digest.clone(),
            source,
        };
        let expected = Expected {
            digest: digest.clone(),
            size: Some(remote.descriptor.size),
        };
        let mut bytes = std::pin::pin!(bytes);
        let mut writer = self.store.blobs().writer(Some(expected)).map_err(keep_failed)?;
        while let Some(chunk) = bytes.try_next().await? {
            writer = self
                .store
                .pool()
                .run(move || std::io::Write::write_all(&mut writer, &chunk).map(|()| writer))
                .await?
                .map_err(|source| FetchError::Write {
                    digest: digest.clone(),
                    source,
                })?;
        }
        writer.commit().map_err(keep_failed)?;
        Ok(())
    }

    /// Opens a blob at the first repository that has it.
    pub async fn open(&self, remote: &RemoteBlob) -> Result<BlobReader, FetchError> {
        let descriptor = Descriptor::new(
            &remote.descriptor.media_type,
            remote.descriptor.digest.clone(),
            remote.descriptor.size,
        );
        let mut failure = None;
        for repository in repositories(&remote.repositories) {
            match self.client.blob(&repository, &descriptor).await {
                Ok(reader) => return Ok(reader),
                Err(error) => {
                    tracing::debug!(%repository, %error, "blob not to be had here");
                    failure.get_or_insert(error);
                }
            }
        }
        Err(match failure {
            Some(source) => FetchError::Pull {
                digest: descriptor.digest,
                source,
            },
            None => FetchError::Lost {
                layer: LayerId::new(descriptor.digest.as_str()),
            },
        })
    }
}

fn counted(
    reader: BlobReader,
    total: u64,
    status: StatusProgress,
) -> impl futures::Stream<Item = Result<Bytes, registry::Error>> + Send {
    let mut received = 0;
    reader.inspect_ok(move |chunk| {
        received += chunk.len() as u64;
        status.update(received, total);
    })
}
