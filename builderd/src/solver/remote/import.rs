//! Reads caches: their manifests and configs now, their layers when a result is used.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use registry::manifest::{Document, RawManifest};
use registry::{Client, Descriptor, Digest, ImageConfig, Manifest, Reference, Repository};

use super::format::{CONFIG, CREATED, CacheConfig, CacheRecord, DESCRIPTION, DIFF_ID, INLINE};
use super::{CacheError, CacheOptions, lock};
use crate::progress::VertexProgress;
use crate::session::ContentStore;
use crate::solver::Job;
use crate::store::{self, LayerId, Made, RemoteLayer, Snapshot};

const LARGEST_DOCUMENT: u64 = 32 << 20;
/// Indexes in indexes of an image with an inline cache.
const DEPTH: usize = 3;
/// Manifests of such an image.
const IMAGES: usize = 64;

/// Where a cache is.
#[derive(Debug)]
enum Origin {
    Registry(Client, Repository),
    Folder(ContentStore),
}

/// A layer of a cache.
#[derive(Clone, Debug)]
struct Layer {
    descriptor: store::Descriptor,
    diff_id: Digest,
    made: Option<Made>,
    below: Option<usize>,
}

/// A cache that was read.
#[derive(Debug)]
pub(super) struct Imported {
    origin: Arc<Origin>,
    layers: Vec<Option<Layer>>,
    pub(super) records: Vec<CacheRecord>,
    pub(super) by_digest: HashMap<Digest, Vec<usize>>,
}

impl Job {
    /// Reads caches that this build may use. One that cannot be read is shown and left out.
    pub fn import_caches(&self, wanted: Vec<CacheOptions>) -> BoxFuture<'_, ()> {
        // Boxed, here and at other doors of this room: else the compiler cannot see that it may move between threads.
        self.read_caches(wanted).boxed()
    }

    async fn read_caches(&self, wanted: Vec<CacheOptions>) {
        for options in wanted {
            let known = lock(&self.remote_caches().imported)
                .iter()
                .any(|(known, _)| *known == options);
            if known {
                continue;
            }
            let name = format!("importing cache manifest from {}", options.name());
            let vertex = self.progress().internal_vertex(&name);
            let read = vertex.during(self.read_cache(&options, &vertex)).await;
            let mut imported = lock(&self.remote_caches().imported);
            match read {
                Ok(caches) => {
                    imported.extend(
                        caches
                            .into_iter()
                            .map(|cache| (options.clone(), Some(Arc::new(cache)))),
                    );
                }
                Err(_) => imported.push((options, None)),
            }
        }
    }

    async fn read_cache(
        &self,
        options: &CacheOptions,
        vertex: &VertexProgress,
    ) -> Result<Vec<Imported>, CacheError> {
        let (origin, raw) = match options.kind.as_str() {
            "registry" => {
                let name = options.needed("ref")?;
                let reference = parse(name)?;
                let client = super::export::client(self.images().client(), &reference, options)?;
                let raw = client.manifest(&reference).await;
                let raw = raw.map_err(|source| unreachable_cache(name, source))?;
                (Origin::Registry(client, reference.repository().clone()), raw)
            }
            "local" => {
                let digest = options.needed("digest")?;
                let digest: Digest = digest
                    .parse()
                    .map_err(|_| CacheError::Digest(digest.to_owned()))?;
                let id = format!("local:{}", options.needed("src")?);
                let store = self.sessions().store_named(None, &id).await?;
                let bytes = store.read_all(&digest, LARGEST_DOCUMENT).await?;
                (
                    Origin::Folder(store),
                    RawManifest::with_digest(bytes, None, digest),
                )
            }
            kind => {
                return Err(CacheError::Kind {
                    kind: kind.to_owned(),
                });
            }
        };
        let text = format!("inferred cache manifest type: {}", raw.media_type);
        vertex.status(&text, &text).complete();
        let origin = Arc::new(origin);
        let (config, layers) = match raw.parse()? {
            Document::Manifest(manifest) if manifest.config.media_type == CONFIG => {
                (manifest.config, manifest.layers)
            }
            Document::Manifest(manifest) => return inline(&origin, vec![*manifest]).await,
            Document::Index(index) => {
                let (configs, layers): (Vec<_>, Vec<_>) = index
                    .manifests
                    .into_iter()
                    .partition(|entry| entry.media_type == CONFIG);
                match configs.into_iter().next() {
                    Some(config) => (config, layers),
                    None => {
                        let manifests = manifests(&origin, layers).await?;
                        return inline(&origin, manifests).await;
                    }
                }
            }
        };
        let config: CacheConfig = serde_json::from_slice(&origin.blob(&config).await?)?;
        let by_blob: HashMap<&Digest, &Descriptor> =
            layers.iter().map(|layer| (&layer.digest, layer)).collect();
        let layers = config.layers.iter().enumerate();
        let layers = layers.map(|(index, layer)| {
            let below = match usize::try_from(layer.parent) {
                Ok(parent) if parent == index => return Err(CacheError::Invalid("a layer lies on itself")),
                Ok(parent) => Some(parent),
                Err(_) => None,
            };
            let descriptor = by_blob.get(&layer.blob).copied();
            Ok(descriptor.and_then(|descriptor| Layer::of(descriptor, below)))
        });
        let layers = layers.collect::<Result<_, _>>()?;
        Ok(vec![Imported::new(origin, layers, config.records)])
    }
}

fn parse(name: &str) -> Result<Reference, CacheError> {
    let reference: Result<Reference, _> = name.parse();
    match reference {
        Ok(reference) => Ok(reference.or_latest()),
        Err(source) => Err(CacheError::Reference {
            name: name.to_owned(),
            source,
        }),
    }
}

fn unreachable_cache(name: &str, source: registry::Error) -> CacheError {
    CacheError::Registry {
        name: name.to_owned(),
        source: Box::new(source),
    }
}

/// The manifests of the images in an index.
async fn manifests(origin: &Origin, entries: Vec<Descriptor>) -> Result<Vec<Manifest>, CacheError> {
    let mut found = Vec::new();
    let mut level = entries;
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for entry in level {
            if entry.is_attestation() || found.len() >= IMAGES {
                continue;
            }
            match origin.manifest(&entry).await?.parse()? {
                Document::Manifest(manifest) => found.push(*manifest),
                Document::Index(index) => next.extend(index.manifests),
            }
        }
        level = next;
    }
    Ok(found)
}

/// The caches inside of images.
async fn inline(origin: &Arc<Origin>, manifests: Vec<Manifest>) -> Result<Vec<Imported>, CacheError> {
    let mut caches = Vec::new();
    for manifest in manifests {
        let config = ImageConfig::parse(&origin.blob(&manifest.config).await?)?;
        let Some(text) = config.other.get(INLINE).and_then(|value| value.as_str()) else {
            continue;
        };
        let records = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|_| CacheError::Invalid("the records inside the image are not base64"))?;
        let records: Vec<CacheRecord> = serde_json::from_slice(&records)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(CacheError::Invalid(
                "the image has more or fewer layers than diff ids",
            ));
        }
        let mut history = config.history.iter().filter(|entry| !entry.empty_layer);
        let mut layers = Vec::new();
        for (index, (layer, diff_id)) in manifest.layers.iter().zip(diff_ids).enumerate() {
            let mut layer = layer.clone();
            layer.set_annotation(DIFF_ID, diff_id.as_str());
            if let Some(entry) = history.next() {
                if let Some(created) = &entry.created {
                    layer.set_annotation(CREATED, created);
                }
                layer.set_annotation(DESCRIPTION, &entry.created_by);
            }
            layers.push(Layer::of(&layer, index.checked_sub(1)));
        }
        caches.push(Imported::new(Arc::clone(origin), layers, records));
    }
    Ok(caches)
}

impl Layer {
    /// Nothing for a descriptor that does not say what the layer is.
    fn of(descriptor: &Descriptor, below: Option<usize>) -> Option<Self> {
        store::CompressionKind::of_media_type(&descriptor.media_type)?;
        let created: Option<jiff::Timestamp> =
            descriptor.annotation(CREATED).and_then(|text| text.parse().ok());
        Some(Self {
            descriptor: store::Descriptor::of_layer(descriptor),
            diff_id: descriptor.annotation(DIFF_ID)?.parse().ok()?,
            made: created.map(|at| Made {
                description: descriptor.annotation(DESCRIPTION).unwrap_or_default().to_owned(),
                at: at.into(),
            }),
            below,
        })
    }
}

impl Origin {
    async fn blob(&self, descriptor: &Descriptor) -> Result<Bytes, CacheError> {
        match self {
            Self::Registry(client, repository) => client
                .blob_bytes(repository, descriptor, LARGEST_DOCUMENT)
                .await
                .map_err(|source| unreachable_cache(&repository.to_string(), source)),
            Self::Folder(store) => Ok(store.read_all(&descriptor.digest, LARGEST_DOCUMENT).await?),
        }
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, CacheError> {
        match self {
            Self::Registry(client, repository) => client
                .manifest(&repository.with_digest(descriptor.digest.clone()))
                .await
                .map_err(|source| unreachable_cache(&repository.to_string(), source)),
            Self::Folder(_) => {
                let bytes = self.blob(descriptor).await?;
                Ok(RawManifest::with_digest(bytes, None, descriptor.digest.clone()))
            }
        }
    }
}

impl Imported {
    fn new(origin: Arc<Origin>, layers: Vec<Option<Layer>>, records: Vec<CacheRecord>) -> Self {
        let mut by_digest: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            by_digest.entry(record.digest.clone()).or_default().push(index);
        }
        Self {
            origin,
            layers,
            records,
            by_digest,
        }
    }

    /// The result of a record with its layers recorded, if the cache still has them.
    pub(super) async fn result(&self, job: &Job, record: usize, vertex: &VertexProgress) -> Option<Snapshot> {
        let record = self.records.get(record)?;
        let results = record.results.iter().map(|result| self.chain(result.layer));
        let chains = record.chains.iter().map(|chain| self.listed(&chain.layers));
        let found: Vec<Vec<Layer>> = results.chain(chains).flatten().collect();
        for layers in found.into_iter().filter(|layers| !layers.is_empty()) {
            match self.adopt(job, layers, vertex).await {
                Ok(Some(snapshot)) => return Some(snapshot),
                Ok(None) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "a cached result cannot be used");
                }
            }
        }
        None
    }

    fn chain(&self, top: usize) -> Option<Vec<Layer>> {
        let mut layers = Vec::new();
        let mut next = Some(top);
        while let Some(index) = next {
            let layer = self.layers.get(index)?.as_ref()?;
            layers.push(layer.clone());
            // A chain longer than all layers runs in a circle.
            if layers.len() > self.layers.len() {
                return None;
            }
            next = layer.below;
        }
        layers.reverse();
        Some(layers)
    }

    fn listed(&self, indices: &[usize]) -> Option<Vec<Layer>> {
        let layers = indices.iter();
        layers.map(|index| self.layers.get(*index)?.clone()).collect()
    }

    async fn adopt(
        &self,
        job: &Job,
        layers: Vec<Layer>,
        vertex: &VertexProgress,
    ) -> Result<Option<Snapshot>, CacheError> {
        if let Origin::Registry(client, repository) = self.origin.as_ref() {
            for layer in &layers {
                if job.store().use_layer(&LayerId::of_image(&layer.diff_id)) {
                    continue;
                }
                let found = client.blob_size(repository, &layer.descriptor.digest).await;
                let found = found.map_err(|source| unreachable_cache(&repository.to_string(), source))?;
                if found.is_none() {
                    return Ok(None);
                }
            }
        }
        let repository = match self.origin.as_ref() {
            Origin::Registry(_, repository) => Some(repository.to_string()),
            Origin::Folder(_) => None,
        };
        let remote = layers.iter().map(|layer| RemoteLayer {
            diff_id: layer.diff_id.clone(),
            descriptor: layer.descriptor.clone(),
            repository: repository.clone(),
            made: layer.made.clone(),
        });
        let snapshot = job.images().adopt(remote.collect())?;
        if let Origin::Folder(store) = self.origin.as_ref() {
            job.images().bring_layers(&snapshot, store, vertex).await?;
        }
        Ok(Some(snapshot))
    }
}
