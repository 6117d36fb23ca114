//! Layers as blobs: the blob a layer came as, or one made of it when somebody needs it.
//!
//! Whoever asks first makes it, everybody else who asks meanwhile waits for the same one. A layer that came from an
//! image keeps its diff id: another compression of it is made of its original tar, never of its unpacked folder.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, Weak};

use registry::digest::Digest;
use tokio::sync::OwnedMutexGuard;

use super::compress::{Blocks, Compression, CompressionKind, compress, decompress};
use super::estargz::TOC_DIGEST;
use super::layer_record::LayerRecord;
use super::pack::{PackError, pack};
use super::pool::cores;
use super::{BlobError, Conversion, Descriptor, LayerError, LayerId, RemoteBlob, Store, WorkLost};

/// A layer as an image names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    pub diff_id: Digest,
    pub descriptor: Descriptor,
    /// Where the blob can be had or mounted from, if it came from a registry. Without, it is in the blob store.
    pub remote: Option<RemoteBlob>,
}

#[derive(Debug, thiserror::Error)]
pub enum LayerBlobError {
    #[error("layer {layer} is not known")]
    Unknown { layer: LayerId },
    #[error("cannot look up layer {layer}")]
    Record {
        layer: LayerId,
        #[source]
        source: LayerError,
    },
    #[error("layer {layer} must be fetched before it can be compressed anew")]
    Absent { layer: LayerId, remote: Box<RemoteBlob> },
    #[error("cannot pack layer {layer}")]
    Pack {
        layer: LayerId,
        #[source]
        source: PackError,
    },
    #[error("cannot compress layer {layer} anew")]
    Recompress {
        layer: LayerId,
        #[source]
        source: io::Error,
    },
    #[error("layer {layer} has diff id {found} now, but had {expected}: its files were changed from outside")]
    Changed {
        layer: LayerId,
        expected: Digest,
        found: Digest,
    },
    #[error("cannot store the blob of layer {layer}")]
    Blob {
        layer: LayerId,
        #[source]
        source: BlobError,
    },
    #[error(transparent)]
    Lost(#[from] WorkLost),
}

/// What a blob is made of.
pub(super) enum Source {
    Folder(PathBuf),
    Blob(Digest),
}

pub(super) fn blob_failed(layer: &LayerId, source: BlobError) -> LayerBlobError {
    LayerBlobError::Blob {
        layer: layer.clone(),
        source,
    }
}

impl Store {
    /// The blob of `layer`. Unless `compression.force` is set, a layer of an image is given as it came, whatever its
    /// compression, without being fetched: as `came_as` if the build itself found it in an image, else as noted.
    pub async fn layer_blob(
        &self,
        layer: &LayerId,
        compression: Compression,
        came_as: Option<&RemoteBlob>,
    ) -> Result<LayerBlob, LayerBlobError> {
        if let Some(blob) = self.known_blob(layer, compression, came_as)? {
            return Ok(blob);
        }
        if compression.kind == CompressionKind::Estargz {
            let conversion = Conversion {
                compression,
                latest: None,
            };
            return self.converted_blob(layer, conversion, came_as).await;
        }
        let _alone = self.lock_layer(layer).await;
        if let Some(blob) = self.known_blob(layer, compression, came_as)? {
            return Ok(blob);
        }
        let source = self.source_of(layer, came_as)?;
        let expected = self.layer_record(layer)?.diff_id;
        let (store, layer) = (self.clone(), layer.clone());
        // The work records its result itself, so that it is not lost if nobody waits any more.
        self.inner()
            .compressors
            .run(move || store.make_blob(&layer, compression, &source, expected))
            .await?
    }

    /// What a blob of this layer is made of.
    pub(super) fn source_of(
        &self,
        layer: &LayerId,
        came_as: Option<&RemoteBlob>,
    ) -> Result<Source, LayerBlobError> {
        match came_as.cloned().or(self.layer_record(layer)?.remote) {
            None => Ok(Source::Folder(self.layer_folder(layer))),
            Some(remote) if self.blobs().has(&remote.descriptor.digest) => {
                Ok(Source::Blob(remote.descriptor.digest))
            }
            Some(remote) => Err(LayerBlobError::Absent {
                layer: layer.clone(),
                remote: Box::new(remote),
            }),
        }
    }

    /// Waits until nobody else fetches or compresses this layer, and keeps others from it.
    pub async fn lock_layer(&self, layer: &LayerId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self
                .inner()
                .layer_locks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let known = locks.get(layer).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                locks.retain(|_, lock| lock.strong_count() > 0);
                let lock = Arc::default();
                locks.insert(layer.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }

    pub(super) fn layer_record(&self, layer: &LayerId) -> Result<LayerRecord, LayerBlobError> {
        self.read_layer(layer)
            .map_err(|source| LayerBlobError::Record {
                layer: layer.clone(),
                source,
            })?
            .ok_or_else(|| LayerBlobError::Unknown { layer: layer.clone() })
    }

    /// The blob of a layer, if it is known without making one.
    pub fn known_blob(
        &self,
        layer: &LayerId,
        compression: Compression,
        came_as: Option<&RemoteBlob>,
    ) -> Result<Option<LayerBlob>, LayerBlobError> {
        let record = self.layer_record(layer)?;
        let Some(diff_id) = record.diff_id else {
            return Ok(None);
        };
        if let Some(remote) = came_as.cloned().or(record.remote) {
            let as_wanted = match compression.kind {
                CompressionKind::Estargz => remote.descriptor.annotations.contains_key(TOC_DIGEST),
                kind => CompressionKind::of_media_type(&remote.descriptor.media_type) == Some(kind),
            };
            if as_wanted || !compression.force {
                self.blobs().hold(&remote.descriptor.digest);
                return Ok(Some(LayerBlob {
                    diff_id,
                    descriptor: remote.descriptor.clone(),
                    remote: Some(remote),
                }));
            }
        }
        let made = record.blobs.get(&compression.name()).cloned();
        if let Some(made) = &made {
            self.blobs().hold(&made.digest);
        }
        Ok(made
            .filter(|descriptor| self.blobs().has(&descriptor.digest))
            .map(|descriptor| LayerBlob {
                diff_id,
                descriptor,
                remote: None,
            }))
    }

    fn make_blob(
        &self,
        layer: &LayerId,
        compression: Compression,
        source: &Source,
        expected: Option<Digest>,
    ) -> Result<LayerBlob, LayerBlobError> {
        let blob_failed = |source| blob_failed(layer, source);
        let mut writer = self.blobs().writer(None).map_err(blob_failed)?;
        let (diff_id, size) = match source {
            Source::Folder(folder) => {
                compress(compression, cores(), &mut writer, |out| pack(folder, None, out)).map_err(
                    |source| LayerBlobError::Pack {
                        layer: layer.clone(),
                        source,
                    },
                )?
            }
            Source::Blob(digest) => {
                let blob = self.blobs().open(digest).map_err(blob_failed)?;
                compress(compression, cores(), &mut writer, |out: &mut Blocks<'_>| {
                    out.take_from(&mut decompress(blob)?, u64::MAX)?;
                    out.flush()
                })
                .map_err(|source| LayerBlobError::Recompress {
                    layer: layer.clone(),
                    source,
                })?
            }
        };
        if let Some(expected) = expected.filter(|expected| *expected != diff_id) {
            return Err(LayerBlobError::Changed {
                layer: layer.clone(),
                expected,
                found: diff_id,
            });
        }
        let (digest, blob_size) = writer.commit().map_err(blob_failed)?;
        let descriptor = Descriptor::new(compression.kind.media_type(), digest, blob_size);
        self.update_layer(layer, |known| {
            let mut record = known.unwrap_or_else(|| LayerRecord::new(std::time::SystemTime::now()));
            record.diff_id = Some(diff_id.clone());
            // The size of an image layer tells that its folder was finished.
            if matches!(source, Source::Folder(_)) {
                record.size = Some(size);
            }
            record.blobs.insert(compression.name(), descriptor.clone());
            record
        })
        .map_err(|source| LayerBlobError::Record {
            layer: layer.clone(),
            source,
        })?;
        Ok(LayerBlob {
            diff_id,
            descriptor,
            remote: None,
        })
    }
}

#[cfg(test)]
mod tests;
