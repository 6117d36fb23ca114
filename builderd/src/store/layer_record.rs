//! What is known about a layer, as it is kept in the state folder.

use std::collections::BTreeMap;
use std::time::SystemTime;

use registry::digest::Digest;
use serde::{Deserialize, Serialize};

use super::LayerId;
use super::estargz::{TOC_DIGEST, UNCOMPRESSED_SIZE};
use super::times::{unix_seconds, unix_time};
use super::usage::Content;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    /// Where else the blob can be had, if its image is not to carry it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What readers of the image are to know of the blob.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// A layer as the manifest of an image describes it.
    pub fn of_layer(layer: &registry::Descriptor) -> Self {
        let kept = [TOC_DIGEST, UNCOMPRESSED_SIZE].into_iter();
        let kept = kept.filter_map(|key| Some((key.to_owned(), layer.annotation(key)?.to_owned())));
        Self {
            urls: layer.urls.clone(),
            annotations: kept.collect(),
            ..Self::new(&layer.media_type, layer.digest.clone(), layer.size)
        }
    }
}

/// A blob whose tar is not that of its layer: it was changed on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Converted {
    /// What was changed and how it is compressed, as a name.
    pub form: String,
    pub diff_id: Digest,
    pub descriptor: Descriptor,
}

/// Where the blob of an image layer can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteBlob {
    pub descriptor: Descriptor,
    /// Full names (`registry/path`), in the order in which they were seen.
    pub repositories: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Digest of the uncompressed tar, once somebody made or read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// Blobs made of this layer, by the name of their compression and level.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub blobs: BTreeMap<String, Descriptor>,
    /// Blobs that were made of this layer for some exports only, the last one made at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub converted: Vec<Converted>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteBlob>,
    /// Bytes of the uncompressed tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(with = "unix_time")]
    pub created_at: SystemTime,
    #[serde(with = "unix_seconds")]
    pub last_used: SystemTime,
    /// How many builds have used it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uses: u64,
    /// Bytes that the folder takes on the disk, once somebody has measured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Content::is_regular")]
    pub content: Content,
    /// The layer that this one was made on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<LayerId>,
    /// The step that made it, as displays name it. Unlike the description it never gets into an image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference to the field"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl LayerRecord {
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            description: String::new(),
            diff_id: None,
            blobs: BTreeMap::new(),
            converted: Vec::new(),
            remote: None,
            size: None,
            created_at: now,
            last_used: now,
            uses: 0,
            disk_size: None,
            content: Content::Regular,
            parent: None,
            step: String::new(),
        }
    }
}
