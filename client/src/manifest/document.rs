//! Indexes in the field order of Docker's own encoder, which puts sizes before digests.

use registry::manifest::Annotations;
use registry::{Descriptor, Digest, Platform};
use serde::Serialize;

/// A Docker manifest list, or an OCI index as the Docker command line writes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerList<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Entry<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    media_type: &'a str,
    size: u64,
    digest: &'a Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a Annotations>,
    platform: Platform,
}

impl<'a> DockerList<'a> {
    pub fn new(media_type: &'a str, manifests: impl IntoIterator<Item = &'a Descriptor>) -> Self {
        let entry = |descriptor: &'a Descriptor| Entry {
            media_type: &descriptor.media_type,
            size: descriptor.size,
            digest: &descriptor.digest,
            annotations: descriptor
                .annotations
                .as_ref()
                .filter(|annotations| !annotations.is_empty()),
            platform: descriptor.platform.clone().unwrap_or_default(),
        };
        Self {
            schema_version: 2,
            media_type,
            manifests: manifests.into_iter().map(entry).collect(),
        }
    }

    /// Each level `unit` deeper.
    pub fn text(&self, unit: &str) -> serde_json::Result<String> {
        let compact = registry::json::compact(self)?;
        Ok(super::indent(&String::from_utf8_lossy(&compact), unit))
    }
}
