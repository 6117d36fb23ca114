//! Results become images: a config and a manifest for each platform, an index over them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine as _;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use registry::image::ImageConfig;
use registry::manifest::{Annotations, RawManifest};
use registry::media_type::Dialect;
use registry::{Descriptor, Digest, Index, Manifest, Platform};

use super::attestations::{self, Artifact, Attestation, Statement};
use super::attributes::{ImageOptions, Place};
use super::history::{self, LayerFacts};
use super::layers::{self, Layer};
use super::{Context, ExportError, Response, Results, Target, build_info, package_url, supplement};
use crate::progress::VertexProgress;
use crate::store::{LayerBlob, LayerId};

const CONFIG_DIGEST: &str = "containerimage.config.digest";
const CREATED: &str = "org.opencontainers.image.created";

/// One image, ready to be written.
#[derive(Clone, Debug)]
pub(super) struct AssembledImage {
    pub manifest: RawManifest,
    pub config: Bytes,
    pub config_descriptor: Descriptor,
    pub layers: Vec<Layer>,
}

/// What an image export comes to.
#[derive(Clone, Debug)]
pub(super) struct Assembled {
    pub images: Vec<AssembledImage>,
    /// Manifests of attestations, which stand in the index after the images.
    pub attestations: Vec<AssembledImage>,
    pub index: Option<RawManifest>,
    /// Describes the index, or the one manifest.
    root: Descriptor,
    build_infos: Response,
}

impl Assembled {
    /// What names the export: the index, or the one manifest.
    pub fn root(&self) -> &RawManifest {
        match (&self.index, self.images.first()) {
            (Some(index), _) => index,
            (None, Some(image)) => &image.manifest,
            (None, None) => unreachable!("an export without an index has one image"),
        }
    }

    pub fn root_descriptor(&self) -> &Descriptor {
        &self.root
    }

    /// Everything with a manifest of its own.
    pub fn all(&self) -> impl Iterator<Item = &AssembledImage> {
        self.images.iter().chain(&self.attestations)
    }

    pub fn documents(&self) -> Vec<Bytes> {
        let images = self.all();
        let of_images = images.flat_map(|image| [image.manifest.bytes.clone(), image.config.clone()]);
        let index = self.index.iter().map(|index| index.bytes.clone());
        index.chain(of_images).collect()
    }

    pub fn response(&self, options: &ImageOptions) -> Result<Response, ExportError> {
        let mut response = self.build_infos.clone();
        response.insert("containerimage.digest".to_owned(), self.root.digest.to_string());
        let mut descriptor = self.root.clone();
        let created = match options.epoch {
            Some(epoch) => history::from_seconds(epoch),
            None => history::rfc3339(SystemTime::now()),
        };
        descriptor.set_annotation(CREATED, created);
        let json = registry::json::compact(&descriptor).map_err(ExportError::Write)?;
        response.insert(
            "containerimage.descriptor".to_owned(),
            base64::engine::general_purpose::STANDARD.encode(json),
        );
        if let (None, [image]) = (&self.index, self.images.as_slice()) {
            response.insert(
                CONFIG_DIGEST.to_owned(),
                image.config_descriptor.digest.to_string(),
            );
        }
        if !options.names.is_empty() {
            let names: Vec<String> = options.names.iter().map(ToString::to_string).collect();
            response.insert("image.name".to_owned(), names.join(","));
        }
        Ok(response)
    }
}

pub(super) async fn assemble(
    options: &ImageOptions,
    results: &Results,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<Assembled, ExportError> {
    if !results.multi_platform && results.targets.len() > 1 {
        return Err(ExportError::SeveralPlatforms);
    }
    let status = vertex.status("exporting layers", "exporting layers");
    // Boxed, as is what `layers_of` does at once: else the compiler cannot see that it may move between threads.
    let all = results
        .targets
        .iter()
        .map(|target| layers::blobs(target, options, context, vertex).boxed());
    let layers = futures::stream::iter(all.collect::<Vec<_>>())
        .buffered(results.targets.len().max(1))
        .try_collect::<Vec<_>>()
        .await?;
    status.complete();
    let mut images = Vec::new();
    let mut build_infos = Response::new();
    for (target, layers) in results.targets.iter().zip(layers) {
        let image = image(target, layers, options, results, context)?;
        announce(vertex, "exporting manifest", &image.manifest.digest);
        announce(vertex, "exporting config", &image.config_descriptor.digest);
        if let Some(info) = &results.build_info {
            let key = match results.multi_platform {
                true => format!("containerimage.buildinfo/{}", target.id),
                false => "containerimage.buildinfo".to_owned(),
            };
            build_infos.insert(key, info.to_base64().map_err(ExportError::Write)?);
        }
        images.push(image);
    }
    let (attestations, statements) = attested(&images, results, options, context, vertex).await?;
    let (index, root) = match results.multi_platform || !attestations.is_empty() {
        true => {
            let index = index(&images, statements, results, options)?;
            announce(vertex, "exporting manifest list", &index.digest);
            let mut root = index.descriptor();
            root.annotations = Some(options.annotations(Place::IndexDescriptor, None));
            (Some(index), root)
        }
        false => {
            let Some((image, target)) = images.first().zip(results.targets.first()) else {
                return Err(ExportError::SeveralPlatforms);
            };
            let mut root = image.manifest.descriptor().with_platform(target.platform.clone());
            root.annotations = Some(options.annotations(Place::ManifestDescriptor, Some(&target.platform)));
            (None, root)
        }
    };
    Ok(Assembled {
        images,
        attestations,
        index,
        root,
        build_infos,
    })
}

/// BuildKit's display has one line for each document that is written.
fn announce(vertex: &VertexProgress, doing: &str, digest: &Digest) {
    let text = format!("{doing} {digest}");
    vertex.status(&text, &text).complete();
}

fn image(
    target: &Target,
    blobs: Vec<LayerBlob>,
    options: &ImageOptions,
    results: &Results,
    context: &Context<'_>,
) -> Result<AssembledImage, ExportError> {
    let config_failed = |source| ExportError::Config {
        target: target.id.clone(),
        source,
    };
    let mut config = match options.config.as_ref().or(target.config.as_ref()) {
        Some(bytes) => ImageConfig::parse(bytes).map_err(config_failed)?,
        None => ImageConfig::for_platform(&target.platform),
    };
    let base = match &target.base_config {
        Some(bytes) => ImageConfig::parse(bytes).map_err(config_failed)?.history,
        None => Vec::new(),
    };
    config.rootfs.diff_ids = blobs.iter().map(|blob| blob.diff_id.clone()).collect();
    let facts: Vec<LayerFacts> = target
        .snapshot
        .layers()
        .iter()
        .map(|layer| facts(layer, context))
        .collect();
    config.history = history::complete(config.history, &facts);
    let epoch = options.epoch_of(target);
    if let Some(epoch) = epoch {
        history::clamp(&mut config.history, &base, epoch);
    }
    config.created = match (&config.created, epoch) {
        (Some(created), Some(epoch)) => Some(history::clamped(Some(created), epoch)),
        (Some(created), None) => Some(created.clone()),
        (None, _) => config
            .history
            .iter()
            .rev()
            .find_map(|entry| entry.created.clone()),
    };
    if let Some(info) = &results.build_info {
        let text = info.to_base64().map_err(ExportError::Write)?;
        config
            .other
            .insert(build_info::CONFIG_KEY.to_owned(), text.into());
    }
    let bytes: Bytes = config.to_stored_bytes().map_err(ExportError::Write)?.into();
    let config_descriptor = Descriptor::of(options.dialect.config(), &bytes);
    let layers: Vec<Layer> = blobs.into_iter().map(|blob| Layer::of(blob, options)).collect();
    let mut manifest = Manifest::new(
        options.dialect.manifest(),
        config_descriptor.clone(),
        layers.iter().map(|layer| layer.descriptor.clone()).collect(),
    );
    manifest.annotations = Some(options.annotations(Place::Manifest, Some(&target.platform)));
    Ok(AssembledImage {
        manifest: RawManifest::from_manifest(&manifest).map_err(ExportError::Write)?,
        config: bytes,
        config_descriptor,
        layers,
    })
}

fn facts(layer: &LayerId, context: &Context<'_>) -> LayerFacts {
    match context.images.store().layer(layer) {
        Some(record) => LayerFacts {
            description: record.description,
            created: record.created_at,
        },
        None => LayerFacts {
            description: String::new(),
            created: SystemTime::UNIX_EPOCH,
        },
    }
}

/// The manifests of attestations and their entries in the index.
async fn attested(
    images: &[AssembledImage],
    results: &Results,
    options: &ImageOptions,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<(Vec<AssembledImage>, Vec<Descriptor>), ExportError> {
    let (mut manifests, mut entries) = (Vec::new(), Vec::new());
    let enough = |attestations: &[Attestation]| match options.inline_attestations || results.multi_platform {
        true => !attestations.is_empty(),
        false => !attestations::without_inline(attestations).is_empty(),
    };
    if !results.targets.iter().any(|target| enough(&target.attestations)) {
        return Ok((manifests, entries));
    }
    if options.dialect == Dialect::Docker {
        return Err(ExportError::AttestationDialect);
    }
    for (image, target) in images.iter().zip(&results.targets) {
        if target.attestations.is_empty() {
            continue;
        }
        let mut unbundled = attestations::unbundled(target.attestations.clone(), context).await?;
        let blobs = image.layers.iter().map(|layer| layer.descriptor.digest.clone());
        supplement::supplement(&mut unbundled, target, &blobs.collect::<Vec<_>>(), context).await?;
        let subjects: Vec<Artifact> = options
            .names
            .iter()
            .map(|name| Artifact {
                name: package_url::of_image("docker", &name.to_string(), Some(&target.platform), None),
                digest: image.manifest.digest.clone(),
            })
            .collect();
        let compression = options.compression;
        let statements = attestations::statements(&unbundled, &subjects, compression, context).await?;
        let manifest = attestation_manifest(&image.manifest, statements, options, context).await?;
        announce(
            vertex,
            "exporting attestation manifest",
            &manifest.manifest.digest,
        );
        let unknown = Platform::new("unknown", "unknown", "");
        let mut entry = manifest.manifest.descriptor().with_platform(unknown);
        entry.set_annotation("vnd.docker.reference.digest", image.manifest.digest.to_string());
        entry.set_annotation("vnd.docker.reference.type", "attestation-manifest");
        entries.push(entry);
        manifests.push(manifest);
    }
    Ok((manifests, entries))
}

async fn attestation_manifest(
    subject: &RawManifest,
    statements: Vec<Statement>,
    options: &ImageOptions,
    context: &Context<'_>,
) -> Result<AssembledImage, ExportError> {
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for statement in statements {
        let mut descriptor = Descriptor::of("application/vnd.in-toto+json", &statement.json);
        descriptor.set_annotation("in-toto.io/predicate-type", statement.predicate_type);
        diff_ids.push(descriptor.digest.clone());
        let blobs = context.images.store().blobs();
        let keep = move || blobs.keep(&statement.json).map(drop);
        let kept = context.images.store().pool().run(keep).await?;
        kept.map_err(ExportError::Blob)?;
        layers.push(Layer {
            descriptor,
            remote: None,
        });
    }
    let (config, config_descriptor) = match options.oci_artifact {
        true => {
            let config = Bytes::from_static(b"{}");
            let mut descriptor = Descriptor::of("application/vnd.oci.empty.v1+json", &config);
            descriptor.data = Some("e30=".to_owned());
            (config, descriptor)
        }
        false => {
            let mut config = ImageConfig::for_platform(&Platform::new("unknown", "unknown", ""));
            config.rootfs.diff_ids = diff_ids;
            let config: Bytes = config.to_stored_bytes().map_err(ExportError::Write)?.into();
            let descriptor = Descriptor::of(options.dialect.config(), &config);
            (config, descriptor)
        }
    };
    let mut manifest = Manifest::new(
        options.dialect.manifest(),
        config_descriptor.clone(),
        layers.iter().map(|layer| layer.descriptor.clone()).collect(),
    );
    if options.oci_artifact {
        manifest.artifact_type = Some("application/vnd.docker.attestation.manifest.v1+json".to_owned());
        manifest.subject = Some(subject.descriptor());
    }
    Ok(AssembledImage {
        manifest: RawManifest::from_manifest(&manifest).map_err(ExportError::Write)?,
        config,
        config_descriptor,
        layers,
    })
}

fn index(
    images: &[AssembledImage],
    attestations: Vec<Descriptor>,
    results: &Results,
    options: &ImageOptions,
) -> Result<RawManifest, ExportError> {
    let mut entries = Vec::new();
    for (image, target) in images.iter().zip(&results.targets) {
        let mut entry = image.manifest.descriptor().with_platform(target.platform.clone());
        entry.annotations = present(options.annotations(Place::ManifestDescriptor, Some(&target.platform)));
        entries.push(entry);
    }
    entries.extend(attestations);
    let mut index = Index::new(options.dialect.index(), entries);
    index.annotations = present(options.annotations(Place::Index, None));
    RawManifest::from_index(&index).map_err(ExportError::Write)
}

fn present(annotations: BTreeMap<String, String>) -> Option<Annotations> {
    Some(annotations).filter(|annotations| !annotations.is_empty())
}
