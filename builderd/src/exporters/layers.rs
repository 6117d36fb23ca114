//! The layers of a result as blobs: as they came, as they were made, or rewritten for this export.

use futures::{FutureExt, StreamExt, TryStreamExt};
use registry::Descriptor;
use registry::image::ImageConfig;
use registry::media_type;

use super::attributes::ImageOptions;
use super::{Context, ExportError, Target};
use crate::progress::VertexProgress;
use crate::store::{Conversion, LayerBlob, LayerBlobError, LayerId, RemoteBlob};

/// Layers that are made into blobs at a time; each is compressed on several threads.
const AT_ONCE: usize = 4;

/// A layer blob and where it is.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub descriptor: Descriptor,
    /// The registries that have it; without, it is in the blob store.
    pub remote: Option<RemoteBlob>,
}

impl Layer {
    /// Layers speak the dialect of the export, also those of a base image that spoke another one. A layer that its
    /// image does not carry becomes one like any other, unless that is to stay so and there is a place to have it from.
    pub(super) fn of(blob: LayerBlob, options: &ImageOptions) -> Self {
        let LayerBlob {
            descriptor, remote, ..
        } = blob;
        let foreign = options.keep_foreign && !descriptor.urls.is_empty();
        let media_type = match media_type::Compression::of_layer(&descriptor.media_type) {
            Some(compression) if foreign => options.dialect.foreign_layer(compression),
            Some(compression) => options.dialect.layer(compression),
            None => &descriptor.media_type,
        };
        let mut named = Descriptor::new(media_type, descriptor.digest, descriptor.size);
        if foreign {
            named.urls = descriptor.urls;
        }
        if options.dialect == media_type::Dialect::Oci {
            named.annotations = Some(descriptor.annotations).filter(|annotations| !annotations.is_empty());
        }
        Self {
            descriptor: named,
            remote,
        }
    }
}

/// The blobs of the layers of a result, lowest first.
pub(super) async fn blobs(
    target: &Target,
    options: &ImageOptions,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<Vec<LayerBlob>, ExportError> {
    let layers = target.snapshot.layers();
    let latest = options.epoch_of(target).filter(|_| options.rewrite_times);
    let base = match latest {
        Some(latest) => {
            let text = format!("rewriting layers with source-date-epoch {latest}");
            vertex.status(&text, &text).complete();
            of_base(target, layers, context)?
        }
        None => layers.len(),
    };
    if options.rewrite_times && latest.is_none() {
        let text = "layers are not rewritten: there is no SOURCE_DATE_EPOCH";
        vertex.status(text, text).complete();
    }
    let blobs = layers.iter().enumerate().map(|(at, layer)| {
        let latest = latest.filter(|_| at >= base);
        blob(layer, latest, options, context, vertex).boxed()
    });
    futures::stream::iter(blobs.collect::<Vec<_>>())
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// How many of the layers are those of the base image, which stay as they are.
fn of_base(target: &Target, layers: &[LayerId], context: &Context<'_>) -> Result<usize, ExportError> {
    let Some(config) = &target.base_config else {
        return Ok(0);
    };
    let config = ImageConfig::parse(config).map_err(|source| ExportError::Config {
        target: target.id.clone(),
        source,
    })?;
    let diff_id = |layer| context.images.store().layer(layer)?.diff_id;
    let pairs = layers.iter().zip(&config.rootfs.diff_ids);
    Ok(pairs
        .take_while(|(layer, base)| diff_id(layer).as_ref() == Some(*base))
        .count())
}

async fn blob(
    layer: &LayerId,
    latest: Option<i64>,
    options: &ImageOptions,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<LayerBlob, ExportError> {
    let store = context.images.store();
    let came_as = context.images.blobs_of(layer).into_iter().next();
    let compression = options.compression;
    let make = || async {
        match latest {
            Some(_) => {
                let conversion = Conversion { compression, latest };
                store.converted_blob(layer, conversion, came_as.as_ref()).await
            }
            None => store.layer_blob(layer, compression, came_as.as_ref()).await,
        }
    };
    let failed = |source| ExportError::Layer {
        layer: layer.clone(),
        source,
    };
    match make().await {
        // To be written otherwise, a layer of an image has to be here.
        Err(LayerBlobError::Absent { remote, .. }) => {
            context.images.fetch_blob(&remote, vertex).await?;
            make().await.map_err(failed)
        }
        other => other.map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use registry::Digest;

    use super::*;
    use crate::exporters::Results;
    use crate::store;

    fn named(attributes: &[(&str, &str)], media_type: &str, urls: &[&str]) -> Descriptor {
        let attributes = attributes.iter();
        let attributes = attributes.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let results = Results {
            targets: Vec::new(),
            multi_platform: false,
            build_info: None,
            metadata: BTreeMap::new(),
        };
        let options = ImageOptions::parse(&attributes.collect(), &results).unwrap();
        let mut descriptor = store::Descriptor::new(media_type, Digest::of(b"blob"), 4);
        descriptor.urls = urls.iter().map(|url| (*url).to_owned()).collect();
        descriptor.annotations.insert("k".to_owned(), "v".to_owned());
        let blob = LayerBlob {
            diff_id: Digest::of(b"tar"),
            descriptor,
            remote: None,
        };
        Layer::of(blob, &options).descriptor
    }

    #[test]
    fn layers_speak_the_dialect_of_the_export() {
        let docker = named(&[], media_type::DOCKER_LAYER_GZIP, &[]);
        assert_eq!(docker.media_type, media_type::OCI_LAYER_GZIP);
        assert_eq!(docker.annotation("k"), Some("v"));
        let oci = named(&[("oci-mediatypes", "false")], media_type::OCI_LAYER, &[]);
        assert_eq!(oci.media_type, media_type::DOCKER_LAYER);
        assert_eq!(oci.annotations, None);
    }

    #[test]
    fn a_foreign_layer_stays_one_only_if_asked_and_if_it_can_be_had() {
        let foreign = media_type::DOCKER_LAYER_FOREIGN_GZIP;
        let kept = [("prefer-nondist-layers", "true")];
        let own = named(&[], foreign, &["https://e.example/l"]);
        assert_eq!(
            (own.media_type.as_str(), own.urls.len()),
            (media_type::OCI_LAYER_GZIP, 0)
        );
        let stays = named(&kept, foreign, &["https://e.example/l"]);
        assert_eq!(stays.media_type, media_type::OCI_LAYER_FOREIGN_GZIP);
        assert_eq!(stays.urls, ["https://e.example/l"]);
        let nowhere = named(&kept, foreign, &[]);
        assert_eq!(nowhere.media_type, media_type::OCI_LAYER_GZIP);
    }
}
