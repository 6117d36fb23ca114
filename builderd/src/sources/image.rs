//! Images as sources: a reference becomes a manifest, a config and a snapshot whose layers stay where they are.
//!
//! Nothing but manifest and config is pulled to resolve an image; the layers are recorded with the place they can be
//! had from, and come when a step needs their files (`fetch`). What a digest names never changes, so manifests and
//! configs are kept as blobs and asked for once; what a tag names is asked for once in each build.

mod adopt;
mod chain;
mod fetch;
mod layout;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use registry::manifest::{Document, RawManifest};
use registry::media_type;
use registry::{Client, Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference, Repository};
use tokio::sync::OnceCell;

use crate::session::SessionError;
use crate::store::{self, LayerError, LayerId, RecordKind, RemoteBlob, RemoteLayer, Snapshot, Store};

pub use chain::Chain;
pub use fetch::FetchError;
use layout::Origin;
pub(crate) use layout::lowest;

/// Configs are a few kilobytes; more is an attack.
const LARGEST_CONFIG: u64 = 8 << 20;
const LARGEST_MANIFEST: u64 = 4 << 20;

/// Whether what is known locally about a tag may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Ask the registry what a tag names now.
    #[default]
    Ask,
    /// Take what it named when it was asked last, if ever.
    PreferKnown,
}

impl Freshness {
    /// From the attribute `image.resolvemode` of a source operation.
    pub fn from_mode(mode: &str) -> Self {
        match mode {
            "local" => Self::PreferKnown,
            _ => Self::Ask,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{reference}: not found")]
    NotFound {
        reference: String,
        #[source]
        source: registry::Error,
    },
    #[error("failed to resolve {reference}")]
    Resolve {
        reference: String,
        #[source]
        source: registry::Error,
    },
    #[error("no match for platform {platform} in manifest {reference}: it has {}", list(.available))]
    NoMatch {
        reference: String,
        platform: String,
        available: Vec<Platform>,
    },
    #[error("{reference} is not an image")]
    NotAnImage {
        reference: String,
        #[source]
        source: registry::manifest::ManifestError,
    },
    #[error("{reference} is nested too deeply: an index in an index in an index")]
    Nested { reference: String },
    #[error("the config of {reference} cannot be read")]
    Config {
        reference: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{reference} has {layers} layers, but its config has {diff_ids} diff ids")]
    Layers {
        reference: String,
        layers: usize,
        diff_ids: usize,
    },
    #[error("layer {digest} of {reference} has the unsupported media type {media_type:?}")]
    LayerType {
        reference: String,
        digest: Digest,
        media_type: String,
    },
    #[error("cannot read {reference} in the client's OCI layout")]
    Layout {
        reference: String,
        #[source]
        source: Box<SessionError>,
    },
    #[error("the attestations of {reference} have more than {limit} bytes")]
    Chain { reference: String, limit: u64 },
    #[error("{reference} names no digest: an image in an OCI layout needs one")]
    NoDigest { reference: String },
    #[error("cannot record the layers of {reference}")]
    Record {
        reference: String,
        #[source]
        source: LayerError,
    },
}

fn list(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// With the digest of what the reference names: the index, or the manifest if there is none.
    pub reference: Reference,
    pub digest: Digest,
    /// Of the one manifest for the platform.
    pub manifest: Descriptor,
    pub config: Bytes,
    pub snapshot: Snapshot,
}

type ImageCell = Arc<OnceCell<Arc<Image>>>;
type DigestCell = Arc<OnceCell<Digest>>;

/// The images of one build: looked up in the name of its client, each once.
#[derive(Debug)]
pub struct Images {
    client: Client,
    store: Store,
    digests: Mutex<HashMap<(Reference, Freshness), DigestCell>>,
    images: Mutex<HashMap<(Reference, Platform), ImageCell>>,
    /// The blobs that the manifests of this build's images name for each layer.
    blobs: Mutex<HashMap<LayerId, BTreeMap<Digest, RemoteBlob>>>,
}

impl Images {
    pub fn new(client: Client, store: Store) -> Self {
        Self {
            client,
            store,
            digests: Mutex::default(),
            images: Mutex::default(),
            blobs: Mutex::default(),
        }
    }

    /// The client that this build's images are looked up with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The blobs that a layer can be had as, the best first: what this build's own images name comes before what any
    /// build noted, so that an export does not depend on the builds before it. Of several, one that was verified wins.
    pub fn blobs_of(&self, layer: &LayerId) -> Vec<RemoteBlob> {
        let mut blobs: Vec<RemoteBlob> = self
            .blobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(layer)
            .map(|blobs| blobs.values().cloned().collect())
            .unwrap_or_default();
        let Some(record) = self.store.layer(layer) else {
            return blobs;
        };
        let Some(noted) = record.remote else { return blobs };
        let same = blobs
            .iter()
            .position(|blob| blob.descriptor.digest == noted.descriptor.digest);
        match same.and_then(|at| blobs.get_mut(at).map(|blob| (at, blob))) {
            Some((at, blob)) => {
                let more = noted.repositories.into_iter();
                let more: Vec<_> = more.filter(|name| !blob.repositories.contains(name)).collect();
                blob.repositories.extend(more);
                if record.size.is_some() {
                    blobs.swap(0, at);
                }
            }
            None => blobs.push(noted),
        }
        blobs
    }

    /// The image that `reference` names for `platform`.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        freshness: Freshness,
    ) -> Result<Arc<Image>, ImageError> {
        let reference = reference.clone().or_latest();
        let digest = self.digest(&reference, freshness).await?;
        let given = reference.digest().is_some();
        let pinned = reference.pinned(digest);
        let platform = platform.normalised();
        let cell: ImageCell = self
            .images
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((pinned.clone(), platform.clone()))
            .or_default()
            .clone();
        let image = cell
            .get_or_try_init(|| async {
                if given {
                    self.check_place(&pinned).await?;
                }
                let image = self.load(pinned, &platform, &Origin::Registry).await?;
                let (place, digest) = (place_of(&image.reference), image.digest.as_str());
                self.store
                    .put_record(RecordKind::Images, place.as_bytes(), digest.as_bytes());
                Ok(Arc::new(image))
            })
            .await?;
        Ok(image.clone())
    }

    /// Fails unless the repository has what the reference pins. What is here may have come from another one, and a
    /// name must not vouch for what it never had.
    async fn check_place(&self, pinned: &Reference) -> Result<(), ImageError> {
        let here = pinned.digest().and_then(|digest| self.store.blobs().size(digest));
        let place = place_of(pinned);
        let known = || self.store.get_record(RecordKind::Images, place.as_bytes());
        if here.is_none() || matches!(known(), Ok(Some(_))) {
            return Ok(());
        }
        let found = self.client.resolve(pinned).await;
        found.map(drop).map_err(|source| resolve_failed(pinned, source))
    }

    /// What a reference names. The same for the whole build, even if the tag moves meanwhile.
    pub async fn digest(&self, reference: &Reference, freshness: Freshness) -> Result<Digest, ImageError> {
        if let Some(digest) = reference.digest() {
            return Ok(digest.clone());
        }
        let cell: DigestCell = self
            .digests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((reference.clone(), freshness))
            .or_default()
            .clone();
        let digest = cell
            .get_or_try_init(|| async {
                if freshness == Freshness::PreferKnown
                    && let Some(known) = self.known_digest(reference)
                {
                    return Ok(known);
                }
                let found = self
                    .client
                    .resolve(reference)
                    .await
                    .map_err(|source| resolve_failed(reference, source))?;
                let key = reference.to_string();
                self.store.put_record(
                    RecordKind::Images,
                    key.as_bytes(),
                    found.digest.as_str().as_bytes(),
                );
                Ok(found.digest)
            })
            .await?;
        Ok(digest.clone())
    }

    fn known_digest(&self, reference: &Reference) -> Option<Digest> {
        let key = reference.to_string();
        let record = self.store.get_record(RecordKind::Images, key.as_bytes()).ok()??;
        std::str::from_utf8(&record).ok()?.parse().ok()
    }

    async fn load(
        &self,
        pinned: Reference,
        platform: &Platform,
        origin: &Origin,
    ) -> Result<Image, ImageError> {
        let top = self.manifest(&pinned, origin).await?;
        let digest = top.digest.clone();
        let (raw, manifest) = self.choose(&pinned, top, platform, origin).await?;
        let config = self.config(&pinned, &manifest, origin).await?;
        let parsed = ImageConfig::parse(&config).map_err(|source| ImageError::Config {
            reference: pinned.to_string(),
            source,
        })?;
        // A manifest without an index may be for another platform than the one asked for. It is what its author has, and
        // the rules of Dockerfiles warn of it.
        let snapshot = self.record_layers(&pinned, &manifest, &parsed, origin)?;
        Ok(Image {
            reference: pinned,
            digest,
            manifest: raw.descriptor(),
            config,
            snapshot,
        })
    }

    /// Walks from an index to the manifest for the platform.
    async fn choose(
        &self,
        pinned: &Reference,
        mut raw: RawManifest,
        platform: &Platform,
        origin: &Origin,
    ) -> Result<(RawManifest, Manifest), ImageError> {
        for _ in 0..3 {
            let parsed = raw.parse().map_err(|source| ImageError::NotAnImage {
                reference: pinned.to_string(),
                source,
            })?;
            let index: Box<Index> = match parsed {
                Document::Manifest(manifest) => return Ok((raw, *manifest)),
                Document::Index(index) => index,
            };
            let Some(entry) = index.best_match(platform) else {
                return Err(ImageError::NoMatch {
                    reference: pinned.to_string(),
                    platform: platform.to_string(),
                    available: index.platforms(),
                });
            };
            let chosen = pinned.repository().with_digest(entry.digest.clone());
            raw = self.manifest(&chosen, origin).await?;
        }
        Err(ImageError::Nested {
            reference: pinned.to_string(),
        })
    }

    /// A manifest or index by digest: from here if it is here.
    async fn manifest(&self, pinned: &Reference, origin: &Origin) -> Result<RawManifest, ImageError> {
        if let Some(digest) = pinned.digest()
            && let Some(bytes) = self.small_blob(digest, LARGEST_MANIFEST)
        {
            return Ok(RawManifest::with_digest(bytes, None, digest.clone()));
        }
        if let Origin::Layout(store) = origin {
            let raw = layout::manifest(store, pinned).await?;
            self.keep(&raw.bytes);
            return Ok(raw);
        }
        let raw = self
            .client
            .manifest(pinned)
            .await
            .map_err(|source| resolve_failed(pinned, source))?;
        self.keep(&raw.bytes);
        Ok(raw)
    }

    async fn config(
        &self,
        pinned: &Reference,
        manifest: &Manifest,
        origin: &Origin,
    ) -> Result<Bytes, ImageError> {
        if let Some(bytes) = self.small_blob(&manifest.config.digest, LARGEST_CONFIG) {
            return Ok(bytes);
        }
        let bytes = match origin {
            Origin::Registry => self
                .client
                .blob_bytes(pinned.repository(), &manifest.config, LARGEST_CONFIG)
                .await
                .map_err(|source| resolve_failed(pinned, source))?,
            Origin::Layout(store) => layout::config(store, pinned, manifest).await?,
        };
        self.keep(&bytes);
        Ok(bytes)
    }

    fn small_blob(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        let blobs = self.store.blobs();
        blobs.size(digest)?;
        match blobs.read(digest, limit) {
            Ok(bytes) => Some(bytes.into()),
            Err(error) => {
                tracing::debug!(%digest, %error, "kept blob not used");
                None
            }
        }
    }

    /// Keeps a document for the next build. One that cannot be kept is fetched again.
    fn keep(&self, bytes: &[u8]) {
        if let Err(error) = self.store.blobs().put(bytes) {
            tracing::warn!(%error, "a manifest or config was not kept");
        }
    }

    fn record_layers(
        &self,
        pinned: &Reference,
        manifest: &Manifest,
        config: &ImageConfig,
        origin: &Origin,
    ) -> Result<Snapshot, ImageError> {
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::Layers {
                reference: pinned.to_string(),
                layers: manifest.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        let mut remote = Vec::new();
        for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
            if media_type::Compression::of_layer(&layer.media_type).is_none() {
                return Err(ImageError::LayerType {
                    reference: pinned.to_string(),
                    digest: layer.digest.clone(),
                    media_type: layer.media_type.clone(),
                });
            }
            remote.push(RemoteLayer {
                diff_id: diff_id.clone(),
                descriptor: store::Descriptor::of_layer(layer),
                repository: origin.repository(pinned),
                made: None,
            });
        }
        self.note_blobs(&remote);
        self.store
            .record_remote_layers(remote)
            .map_err(|source| ImageError::Record {
                reference: pinned.to_string(),
                source,
            })?;
        Ok(diff_ids.iter().map(LayerId::of_image).collect())
    }
}

impl Images {
    fn note_blobs(&self, layers: &[RemoteLayer]) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            let repositories = &mut blobs
                .entry(LayerId::of_image(&layer.diff_id))
                .or_default()
                .entry(layer.descriptor.digest.clone())
                .or_insert_with(|| RemoteBlob {
                    descriptor: layer.descriptor.clone(),
                    repositories: Vec::new(),
                })
                .repositories;
            if let Some(name) = &layer.repository
                && !repositories.contains(name)
            {
                repositories.push(name.clone());
            }
        }
    }
}

/// Under what it is known that a repository had a manifest.
fn place_of(pinned: &Reference) -> String {
    match pinned.digest() {
        Some(digest) => format!("{}@{digest}", pinned.repository()),
        None => pinned.to_string(),
    }
}

fn resolve_failed(reference: &Reference, source: registry::Error) -> ImageError {
    let reference = reference.to_string();
    if source.is_not_found() {
        ImageError::NotFound { reference, source }
    } else {
        ImageError::Resolve { reference, source }
    }
}

/// Repositories as records keep them; ones that no longer parse are left out.
pub(crate) fn repositories(names: &[String]) -> impl Iterator<Item = Repository> {
    names.iter().filter_map(|name| name.parse().ok())
}

#[cfg(test)]
mod tests;
