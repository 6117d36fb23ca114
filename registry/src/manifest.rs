//! Descriptors, manifests and indexes: what ties blobs together to images.
//!
//! What came from a registry is kept as the bytes received (`RawManifest`) and only looked at through these types;
//! nothing is ever hashed after being written anew. What we write has its fields in the order in which BuildKit's
//! encoder has them, and ordered maps only.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Digest, Hasher};
use crate::media_type;
use crate::platform::Platform;

pub type Annotations = BTreeMap<String, String>;

/// A reference to a blob or manifest by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "nothing")]
    pub annotations: Option<Annotations>,
    /// The blob itself in base64, if it travels inside the descriptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

#[expect(
    clippy::ref_option,
    reason = "serde's skip_serializing_if passes a reference to the field"
)]
fn nothing(annotations: &Option<Annotations>) -> bool {
    annotations.as_ref().is_none_or(BTreeMap::is_empty)
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: None,
            data: None,
            platform: None,
            artifact_type: None,
        }
    }

    /// The descriptor of `content`.
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self::new(media_type, Digest::of(content), content.len() as u64)
    }

    #[must_use]
    pub fn with_platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub fn set_annotation(&mut self, key: &str, value: impl Into<String>) {
        self.annotations
            .get_or_insert_default()
            .insert(key.to_owned(), value.into());
    }

    /// True for what accompanies an image in its index (provenance, SBOM) and is no image itself.
    pub fn is_attestation(&self) -> bool {
        self.annotation("vnd.docker.reference.type") == Some("attestation-manifest")
    }
}

/// An image for one platform (or an artifact): a config and layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "nothing")]
    pub annotations: Option<Annotations>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Manifest {
    pub fn new(media_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type.to_owned(),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: None,
            other: BTreeMap::new(),
        }
    }
}

/// A list of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "nothing")]
    pub annotations: Option<Annotations>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Index {
    pub fn new(media_type: &str, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type.to_owned(),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: None,
            other: BTreeMap::new(),
        }
    }

    /// The entry that runs best on `platform`; of equals the first.
    pub fn best_match(&self, platform: &Platform) -> Option<&Descriptor> {
        self.images()
            .filter_map(|entry| Some((platform.rank(entry.platform.as_ref()?)?, entry)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
    }

    /// The entries that are images.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| {
            !entry.is_attestation()
                && (entry.media_type.is_empty()
                    || media_type::is_manifest(&entry.media_type)
                    || media_type::is_index(&entry.media_type))
        })
    }

    /// The platforms of the images in it, in order, each once.
    pub fn platforms(&self) -> Vec<Platform> {
        let mut platforms = Vec::new();
        for platform in self.images().filter_map(|entry| entry.platform.as_ref()) {
            let platform = platform.normalised();
            if platform.os != "unknown" && !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        platforms
    }
}

/// A manifest or index as bytes, with the media type it was served with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    pub bytes: Bytes,
    pub media_type: String,
    pub digest: Digest,
}

/// A parsed `RawManifest`.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    Manifest(Box<Manifest>),
    Index(Box<Index>),
}

impl Document {
    /// True for a manifest, which is for one platform.
    pub fn is_image(&self) -> bool {
        matches!(self, Self::Manifest(_))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("parse manifest {digest}")]
    Parse {
        digest: Digest,
        #[source]
        source: serde_json::Error,
    },
    #[error("manifest {digest} says it is {inside:?} but was served as {served:?}")]
    Contradiction {
        digest: Digest,
        served: String,
        inside: String,
    },
    #[error(
        "manifest {digest} has the obsolete Docker schema 1 format ({media_type}); push the image again with a current tool"
    )]
    Schema1 { digest: Digest, media_type: String },
    #[error("manifest {digest} has the unknown media type {media_type:?}")]
    MediaType { digest: Digest, media_type: String },
    #[error("manifest {digest} is {found}, expected {expected}")]
    Kind {
        digest: Digest,
        expected: &'static str,
        found: &'static str,
    },
}

impl RawManifest {
    /// Wraps received bytes. Without a usable media type from outside, the one written inside counts.
    pub fn new(bytes: Bytes, served_as: Option<&str>) -> Self {
        let digest = Digest::of(&bytes);
        Self::with_digest(bytes, served_as, digest)
    }

    /// As `new`, where the digest is known and may have another algorithm than SHA-256. The caller verified it.
    pub fn with_digest(bytes: Bytes, served_as: Option<&str>, digest: Digest) -> Self {
        let known = |media_type: &&str| {
            media_type::MANIFESTS.contains(media_type) || media_type::DOCKER_SCHEMA1.contains(media_type)
        };
        let media_type = match served_as.filter(known) {
            Some(media_type) => media_type.to_owned(),
            None => guess_media_type(&bytes).unwrap_or_else(|| served_as.unwrap_or_default().to_owned()),
        };
        Self {
            bytes,
            media_type,
            digest,
        }
    }

    /// The bytes for a manifest that we write.
    pub fn from_manifest(manifest: &Manifest) -> serde_json::Result<Self> {
        Self::written(&manifest.media_type, crate::json::indented(manifest)?)
    }

    /// The bytes for an index that we write.
    pub fn from_index(index: &Index) -> serde_json::Result<Self> {
        Self::written(&index.media_type, crate::json::indented(index)?)
    }

    fn written(media_type: &str, bytes: Vec<u8>) -> serde_json::Result<Self> {
        Ok(Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(&bytes),
            bytes: bytes.into(),
        })
    }

    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest.clone(), self.bytes.len() as u64)
    }

    /// True if `digest` is the digest of these bytes.
    pub fn matches(&self, digest: &Digest) -> bool {
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&self.bytes);
        hasher.finish() == *digest
    }

    pub fn parse(&self) -> Result<Document, ManifestError> {
        let digest = || self.digest.clone();
        let contradiction = |inside: &str| {
            if inside.is_empty() || inside == self.media_type {
                return Ok(());
            }
            Err(ManifestError::Contradiction {
                digest: digest(),
                served: self.media_type.clone(),
                inside: inside.to_owned(),
            })
        };
        let failed = |source| ManifestError::Parse {
            digest: digest(),
            source,
        };
        if media_type::is_index(&self.media_type) {
            let index: Index = serde_json::from_slice(&self.bytes).map_err(failed)?;
            contradiction(&index.media_type)?;
            Ok(Document::Index(Box::new(index)))
        } else if media_type::is_manifest(&self.media_type) {
            let manifest: Manifest = serde_json::from_slice(&self.bytes).map_err(failed)?;
            contradiction(&manifest.media_type)?;
            Ok(Document::Manifest(Box::new(manifest)))
        } else if media_type::DOCKER_SCHEMA1.contains(&self.media_type.as_str()) {
            Err(ManifestError::Schema1 {
                digest: digest(),
                media_type: self.media_type.clone(),
            })
        } else {
            Err(ManifestError::MediaType {
                digest: digest(),
                media_type: self.media_type.clone(),
            })
        }
    }

    pub fn manifest(&self) -> Result<Manifest, ManifestError> {
        match self.parse()? {
            Document::Manifest(manifest) => Ok(*manifest),
            Document::Index(_) => Err(ManifestError::Kind {
                digest: self.digest.clone(),
                expected: "a manifest",
                found: "an index",
            }),
        }
    }

    pub fn index(&self) -> Result<Index, ManifestError> {
        match self.parse()? {
            Document::Index(index) => Ok(*index),
            Document::Manifest(_) => Err(ManifestError::Kind {
                digest: self.digest.clone(),
                expected: "an index",
                found: "a manifest",
            }),
        }
    }
}

/// `mediaType` is optional in OCI documents; their shape tells them apart.
fn guess_media_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        schema_version: Option<u32>,
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(bytes).ok()?;
    if let Some(media_type) = shape.media_type.filter(|media_type| !media_type.is_empty()) {
        return Some(media_type);
    }
    if shape.schema_version == Some(1) {
        return media_type::DOCKER_SCHEMA1.first().map(|s| (*s).to_owned());
    }
    match (shape.manifests.is_some(), shape.config.is_some()) {
        (true, false) => Some(media_type::OCI_INDEX.to_owned()),
        (false, true) => Some(media_type::OCI_MANIFEST.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
