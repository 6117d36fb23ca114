//! Fetches what an image consists of, all platforms at the same time.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};
use registry::manifest::{Document, ManifestError};
use registry::{Client, Descriptor, Digest, Manifest, Platform, RawManifest, Reference, media_type};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::attestations::{self, Statements, Wanted};

/// Requests under way; what an index may name has no limit.
const AT_ONCE: usize = 64;
/// Configurations are small; anything larger is not one.
const LARGEST_CONFIG: u64 = 8 << 20;
/// An index may hold indexes, but nobody needs many storeys.
const DEEPEST: usize = 4;
/// The subject of what accompanies an image, in the order in which they are looked for.
const SUBJECT: [&str; 2] = ["com.docker.reference.digest", "vnd.docker.reference.digest"];

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{reference}: not found")]
    NotFound { reference: Reference },
    #[error("reading the image configuration {digest}")]
    Config {
        digest: Digest,
        source: serde_json::Error,
    },
    #[error("reading the attestation {digest}")]
    Attestation {
        digest: Digest,
        source: attestations::AttestationError,
    },
    #[error("indexes are nested too deeply")]
    TooDeep,
}

/// An image or an index, as received, and what is in it.
#[derive(Clone, Debug)]
pub struct Image {
    pub reference: Reference,
    pub raw: RawManifest,
    /// `None` if it is neither an image nor an index that is known here.
    pub document: Option<Document>,
}

pub async fn inspect(client: &Client, reference: Reference) -> Result<Image, InspectError> {
    let raw = match client.manifest(&reference).await {
        Err(error) if error.is_not_found() => return Err(InspectError::NotFound { reference }),
        other => other?,
    };
    let document = match raw.parse() {
        Ok(document) => Some(document),
        Err(ManifestError::MediaType { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Image {
        reference,
        raw,
        document,
    })
}

/// What is to be fetched of every platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub configs: bool,
    pub provenance: bool,
    pub sbom: bool,
}

/// What was fetched of one platform.
#[derive(Clone, Debug, Default)]
pub struct Asset {
    pub config: Value,
    pub statements: Statements,
}

/// The images in it by platform, in their normal form.
pub async fn assets(
    client: &Client,
    image: &Image,
    needs: Needs,
) -> Result<BTreeMap<String, Asset>, InspectError> {
    let Some(document) = image.document.clone() else {
        return Ok(BTreeMap::new());
    };
    let loader = Loader {
        client,
        reference: &image.reference,
        needs,
        slots: Semaphore::new(AT_ONCE),
    };
    let found = loader.document(document, image.raw.descriptor(), 0).await?;
    let mut statements: BTreeMap<Digest, Statements> = BTreeMap::new();
    let mut images = Vec::new();
    for found in found {
        match found {
            Found::Image {
                digest,
                platform,
                config,
            } => images.push((digest, platform, config)),
            Found::Attestation { subject, found } => statements.entry(subject).or_default().add(found),
        }
    }
    let assets = images.into_iter().map(|(digest, platform, config)| {
        let statements = statements.get(&digest).cloned().unwrap_or_default();
        (shown(&platform), Asset { config, statements })
    });
    Ok(assets.collect())
}

/// `os/architecture[/variant]` in the normal form.
fn shown(platform: &Platform) -> String {
    if platform.os.is_empty() {
        return "unknown".to_owned();
    }
    platform.normalised().to_string()
}

enum Found {
    Image {
        digest: Digest,
        platform: Platform,
        config: Value,
    },
    Attestation {
        subject: Digest,
        found: Statements,
    },
}

struct Loader<'a> {
    client: &'a Client,
    reference: &'a Reference,
    needs: Needs,
    slots: Semaphore,
}

impl Loader<'_> {
    fn document(
        &self,
        document: Document,
        descriptor: Descriptor,
        depth: usize,
    ) -> BoxFuture<'_, Result<Vec<Found>, InspectError>> {
        async move {
            match document {
                Document::Manifest(manifest) => Ok(vec![self.manifest(&manifest, descriptor).await?]),
                Document::Index(_) if depth == DEEPEST => Err(InspectError::TooDeep),
                Document::Index(index) => {
                    let entries = index
                        .manifests
                        .into_iter()
                        .filter(|entry| {
                            media_type::is_manifest(&entry.media_type)
                                || media_type::is_index(&entry.media_type)
                        })
                        .map(|entry| self.entry(entry, depth + 1));
                    let found = try_join_all(entries).await?;
                    Ok(found.into_iter().flatten().collect())
                }
            }
        }
        .boxed()
    }

    async fn entry(&self, entry: Descriptor, depth: usize) -> Result<Vec<Found>, InspectError> {
        let reference = self.reference.repository().with_digest(entry.digest.clone());
        let answer = {
            let _slot = self.slots.acquire().await;
            self.client.manifest(&reference).await
        };
        let raw = match answer {
            Err(error) if error.is_not_found() => return Err(InspectError::NotFound { reference }),
            other => other?,
        };
        self.document(raw.parse()?, entry, depth).await
    }

    async fn manifest(&self, manifest: &Manifest, descriptor: Descriptor) -> Result<Found, InspectError> {
        let subject = SUBJECT.iter().find_map(|key| descriptor.annotation(key));
        // What does not name its subject properly is taken for an image.
        if let Some(Ok(subject)) = subject.map(str::parse::<Digest>) {
            let found = self.statements(manifest).await?;
            return Ok(Found::Attestation { subject, found });
        }
        let config = if self.needs.configs || descriptor.platform.is_none() {
            self.config(&manifest.config).await?
        } else {
            Value::Null
        };
        let platform = descriptor.platform.unwrap_or_else(|| platform_of(&config));
        Ok(Found::Image {
            digest: descriptor.digest,
            platform,
            config,
        })
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Value, InspectError> {
        let bytes = self.blob(descriptor, LARGEST_CONFIG).await?;
        serde_json::from_slice(&bytes).map_err(|source| InspectError::Config {
            digest: descriptor.digest.clone(),
            source,
        })
    }

    async fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, InspectError> {
        let _slot = self.slots.acquire().await;
        let repository = self.reference.repository();
        Ok(self.client.blob_bytes(repository, descriptor, limit).await?)
    }

    /// All statements of an attestation manifest that somebody wants.
    async fn statements(&self, manifest: &Manifest) -> Result<Statements, InspectError> {
        let wanted = attestations::choose(manifest)
            .into_iter()
            .filter(|(wanted, _)| match wanted {
                Wanted::Sbom => self.needs.sbom,
                Wanted::Provenance => self.needs.provenance,
            });
        let predicates = wanted.map(|(wanted, layer)| async move {
            let bytes = self.blob(layer, attestations::LARGEST).await?;
            let predicate = attestations::predicate(&bytes, &layer.media_type).map_err(|source| {
                InspectError::Attestation {
                    digest: layer.digest.clone(),
                    source,
                }
            })?;
            Ok::<_, InspectError>((wanted, predicate))
        });
        let mut statements = Statements::default();
        for (wanted, predicate) in try_join_all(predicates).await? {
            match wanted {
                Wanted::Sbom => statements.sboms.push(predicate),
                Wanted::Provenance => statements.provenance = Some(predicate),
            }
        }
        Ok(statements)
    }
}

/// The platform that a configuration says it is for.
pub fn platform_of(config: &Value) -> Platform {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    Platform::new(text("os"), text("architecture"), text("variant"))
}
