//! Blobs whose tars are not those of their layers: an export may want no time in them after a moment that it names, or
//! a table of contents.
//!
//! Such a blob has a diff id of its own, and the layer remembers it beside the blobs that are its own.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write as _};
use std::path::Path;

use super::compress::{Blocks, Compression, CompressionKind, compress, decompress};
use super::estargz;
use super::layer_blob::{Source, blob_failed};
use super::layer_record::{Converted, LayerRecord};
use super::pack::{PackError, pack};
use super::pool::cores;
use super::tar::{Archive, ArchiveError, Kind, Time, end_of_archive, padding, push_header};
use super::{Descriptor, LayerBlob, LayerBlobError, LayerId, RemoteBlob, Store};

/// So many converted blobs of one layer are remembered: a moment that every build names anew would gather them.
const REMEMBERED: usize = 8;
/// Tells readers of a manifest to which moment the times of a layer were cut, as in BuildKit.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// How the blob of a layer shall differ from the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    pub compression: Compression,
    /// No time is after this one, in seconds.
    pub latest: Option<i64>,
}

impl Conversion {
    fn form(&self) -> String {
        let compression = self.compression.name();
        match self.latest {
            Some(latest) => format!("{compression} until {latest}"),
            None => compression,
        }
    }
}

impl Store {
    /// The blob of `layer` with a conversion. Made like [`Store::layer_blob`]'s: once, by whoever asks first.
    pub async fn converted_blob(
        &self,
        layer: &LayerId,
        conversion: Conversion,
        came_as: Option<&RemoteBlob>,
    ) -> Result<LayerBlob, LayerBlobError> {
        if let Some(blob) = self.known_conversion(layer, conversion)? {
            return Ok(blob);
        }
        let _alone = self.lock_layer(layer).await;
        if let Some(blob) = self.known_conversion(layer, conversion)? {
            return Ok(blob);
        }
        let source = self.source_of(layer, came_as)?;
        let (store, layer) = (self.clone(), layer.clone());
        self.inner()
            .compressors
            .run(move || store.convert(&layer, conversion, &source))
            .await?
    }

    fn known_conversion(
        &self,
        layer: &LayerId,
        conversion: Conversion,
    ) -> Result<Option<LayerBlob>, LayerBlobError> {
        let form = conversion.form();
        let mut made = self.layer_record(layer)?.converted.into_iter();
        let Some(made) = made.find(|made| made.form == form) else {
            return Ok(None);
        };
        self.blobs().hold(&made.descriptor.digest);
        Ok(self.blobs().has(&made.descriptor.digest).then_some(LayerBlob {
            diff_id: made.diff_id,
            descriptor: made.descriptor,
            remote: None,
        }))
    }

    fn convert(
        &self,
        layer: &LayerId,
        conversion: Conversion,
        source: &Source,
    ) -> Result<LayerBlob, LayerBlobError> {
        let blob_failed = |source| blob_failed(layer, source);
        let Conversion { compression, latest } = conversion;
        let mut writer = self.blobs().writer(None).map_err(blob_failed)?;
        let mut annotations = BTreeMap::new();
        let packing_failed = |source| LayerBlobError::Pack {
            layer: layer.clone(),
            source,
        };
        let reading_failed = |source| LayerBlobError::Recompress {
            layer: layer.clone(),
            source,
        };
        let until = latest.unwrap_or(i64::MAX);
        let (diff_id, _) = match source {
            _ if compression.kind == CompressionKind::Estargz => {
                let level = compression.effective_level();
                let written = match source {
                    Source::Folder(folder) => {
                        packed_for(folder, |tar| estargz::write(tar, until, level, &mut writer))
                            .map_err(packing_failed)?
                    }
                    Source::Blob(digest) => {
                        let blob = self.blobs().open(digest).map_err(blob_failed)?;
                        decompress(blob)
                            .and_then(|tar| estargz::write(tar, until, level, &mut writer))
                            .map_err(reading_failed)?
                    }
                };
                annotations.insert(estargz::TOC_DIGEST.to_owned(), written.toc.to_string());
                annotations.insert(estargz::UNCOMPRESSED_SIZE.to_owned(), written.size.to_string());
                (written.diff_id, written.size)
            }
            Source::Folder(folder) => {
                compress(compression, cores(), &mut writer, |out| pack(folder, latest, out))
                    .map_err(packing_failed)?
            }
            Source::Blob(digest) => {
                let blob = self.blobs().open(digest).map_err(blob_failed)?;
                compress(compression, cores(), &mut writer, |out| {
                    rewrite(decompress(blob)?, until, out)
                })
                .map_err(reading_failed)?
            }
        };
        let (digest, size) = writer.commit().map_err(blob_failed)?;
        let mut descriptor = Descriptor::new(compression.kind.media_type(), digest, size);
        descriptor.annotations = annotations;
        if let Some(latest) = latest {
            descriptor
                .annotations
                .insert(REWRITTEN.to_owned(), latest.to_string());
        }
        let made = Converted {
            form: conversion.form(),
            diff_id,
            descriptor,
        };
        let noted = made.clone();
        self.update_layer(layer, |known| {
            let mut record = known.unwrap_or_else(|| LayerRecord::new(std::time::SystemTime::now()));
            record.converted.retain(|other| other.form != noted.form);
            let over = (record.converted.len() + 1).saturating_sub(REMEMBERED);
            record.converted.drain(..over);
            record.converted.push(noted);
            record
        })
        .map_err(|source| LayerBlobError::Record {
            layer: layer.clone(),
            source,
        })?;
        Ok(LayerBlob {
            diff_id: made.diff_id,
            descriptor: made.descriptor,
            remote: None,
        })
    }
}

/// Hands the tar of a layer folder on while it is packed.
fn packed_for<T>(
    folder: &Path,
    consume: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> Result<T, PackError> {
    let plain = Compression {
        kind: CompressionKind::Uncompressed,
        ..Compression::default()
    };
    let (tar, mut pipe) = io::pipe()?;
    std::thread::scope(|scope| {
        let packing =
            scope.spawn(move || compress::<PackError>(plain, 1, &mut pipe, |out| pack(folder, None, out)));
        let mut tar = BufReader::with_capacity(1 << 17, tar);
        let consumed = consume(&mut tar).and_then(|consumed| {
            // What follows the end of the archive.
            io::copy(&mut tar, &mut io::sink())?;
            Ok(consumed)
        });
        drop(tar);
        let packed = packing
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the packing thread panicked").into()));
        match packed {
            // Nobody listens any more: the other end tells why.
            Err(PackError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(consumed?),
            Err(error) => Err(error),
            Ok(_) => Ok(consumed?),
        }
    })
}

/// Writes the tar of a layer anew, without times after `latest`: with the bytes that `pack` writes, if it wrote it.
fn rewrite(tar: impl Read, latest: i64, out: &mut Blocks<'_>) -> io::Result<()> {
    let failed = |error: ArchiveError| io::Error::other(error);
    let mut archive = Archive::new(tar);
    let mut header = Vec::new();
    while let Some(mut entry) = archive.next_entry().map_err(failed)? {
        if entry.mtime.seconds >= latest {
            entry.mtime = Time {
                seconds: latest,
                nanoseconds: 0,
            };
        }
        header.clear();
        push_header(&mut header, &entry);
        out.write_all(&header)?;
        if let Kind::File { size } = entry.kind {
            if out.take_from(&mut archive, size)? != size {
                return Err(failed(ArchiveError::Truncated));
            }
            out.write_all(end_of_archive().get(..padding(size)).unwrap_or_default())?;
        }
    }
    out.write_all(end_of_archive())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::store::NewLayer;

    const EPOCH: i64 = 1_500_000_000;

    fn conversion(latest: i64) -> Conversion {
        Conversion {
            compression: Compression {
                kind: CompressionKind::Uncompressed,
                ..Compression::default()
            },
            latest: Some(latest),
        }
    }

    fn layer(store: &Store) -> LayerId {
        let draft = store.draft().unwrap();
        for (name, seconds) in [("early", 1_000_000_000), ("late", 1_900_000_000)] {
            let path = draft.upper().join(name);
            fs::write(&path, name).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
        store.commit(draft, NewLayer::default()).unwrap()
    }

    #[tokio::test]
    async fn no_time_is_after_the_epoch_and_the_layer_itself_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("state")).unwrap();
        let layer = layer(&store);
        let blob = store
            .converted_blob(&layer, conversion(EPOCH), None)
            .await
            .unwrap();
        let file = store.blobs().open(&blob.descriptor.digest).unwrap();
        let mut archive = Archive::new(file);
        let mut times = Vec::new();
        while let Some(entry) = archive.next_entry().unwrap() {
            times.push(entry.mtime.seconds);
        }
        assert_eq!(times, [1_000_000_000, EPOCH]);
        assert_eq!(
            blob.descriptor.annotations.get(REWRITTEN).map(String::as_str),
            Some("1500000000")
        );
        let own = store
            .layer_blob(&layer, Compression::default(), None)
            .await
            .unwrap();
        assert_ne!(own.diff_id, blob.diff_id);
        assert!(own.descriptor.annotations.is_empty());
    }

    #[tokio::test]
    async fn a_tar_and_a_folder_are_rewritten_to_the_same_bytes() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("state")).unwrap();
        let layer = layer(&store);
        let of_folder = store
            .converted_blob(&layer, conversion(EPOCH), None)
            .await
            .unwrap();
        let own = store
            .layer_blob(&layer, conversion(0).compression, None)
            .await
            .unwrap();
        let tar = store.blobs().open(&own.descriptor.digest).unwrap();
        let mut out = Vec::new();
        let uncompressed = conversion(0).compression;
        let (diff_id, _) =
            compress::<io::Error>(uncompressed, 1, &mut out, |out| rewrite(tar, EPOCH, out)).unwrap();
        assert_eq!(diff_id, of_folder.diff_id);
    }

    #[tokio::test]
    async fn conversions_are_made_once_and_old_ones_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("state")).unwrap();
        let layer = layer(&store);
        for epoch in 0..12 {
            let made = store
                .converted_blob(&layer, conversion(epoch), None)
                .await
                .unwrap();
            let again = store
                .converted_blob(&layer, conversion(epoch), None)
                .await
                .unwrap();
            assert_eq!(made, again);
        }
        let record = store.layer(&layer).unwrap();
        assert_eq!(record.converted.len(), REMEMBERED);
        assert_eq!(record.converted[0].form, "uncompressed until 4");
    }
}
