//! What hangs on a record: attestations, and the index, manifests and configs of the result.

use proto::control::Descriptor;
use serde::Deserialize;

use super::blobs::{BlobError, Blobs};
use super::library::Found;

/// An index of a result is a few kilobytes.
const LARGEST: usize = 16 * 1024 * 1024;
/// An index in an index in an index has no meaning.
const DEEPEST: usize = 4;
const PREDICATE: &str = "in-toto.io/predicate-type";
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    /// As it is written: `linux/arm64/v8`.
    pub platform: Option<String>,
    pub descriptor: Descriptor,
}

impl Attachment {
    /// What it is: the type of its statement, else of its content.
    pub fn kind(&self) -> &str {
        self.descriptor
            .annotations
            .get(PREDICATE)
            .unwrap_or(&self.descriptor.media_type)
    }

    /// Whether `--type` means it.
    pub fn is(&self, kind: &str) -> bool {
        let kinds: &[&str] = match kind {
            "index" => &["application/vnd.oci.image.index.v1+json"],
            "manifest" => &["application/vnd.oci.image.manifest.v1+json"],
            "image" => &["application/vnd.oci.image.config.v1+json"],
            "provenance" => &[
                "https://slsa.dev/provenance/v1",
                "https://slsa.dev/provenance/v0.2",
            ],
            "sbom" => &["https://spdx.dev/Document"],
            other => &[other],
        };
        kinds.contains(&self.kind())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    platform: Option<registry::platform::Platform>,
}

/// All attachments, those of no platform first, each platform's sorted by kind.
pub async fn all(found: &Found) -> Result<Vec<Attachment>, BlobError> {
    let blobs = found.blobs();
    let mut attachments = Vec::new();
    let results = found.record.results.iter();
    let parts = found
        .record
        .result
        .iter()
        .map(|result| (None, result))
        .chain(results.map(|(platform, result)| (Some(platform.clone()), result)));
    for (platform, result) in parts {
        attachments.extend(result.attestations.iter().map(|descriptor| Attachment {
            platform: platform.clone(),
            descriptor: descriptor.clone(),
        }));
        for descriptor in result.results.values() {
            walk(&blobs, descriptor.clone(), platform.clone(), &mut attachments).await?;
        }
    }
    attachments.sort_by(|a, b| (&a.platform, a.kind()).cmp(&(&b.platform, b.kind())));
    Ok(attachments)
}

/// A descriptor and, if it is an index, all that is below it and still there.
async fn walk(
    blobs: &Blobs,
    descriptor: Descriptor,
    platform: Option<String>,
    into: &mut Vec<Attachment>,
) -> Result<(), BlobError> {
    let mut waiting = vec![(descriptor, platform, 0)];
    while let Some((descriptor, platform, depth)) = waiting.pop() {
        if !blobs.has(&descriptor.digest).await? {
            continue;
        }
        let is_index = INDEXES.contains(&descriptor.media_type.as_str());
        if is_index && depth < DEEPEST {
            let bytes = blobs.read(&descriptor.digest, LARGEST).await?;
            // One that cannot be read is shown without what is below it.
            let index: Index = serde_json::from_slice(&bytes).unwrap_or_default();
            for entry in index.manifests.into_iter().rev() {
                let own = entry.platform.map(|platform| platform.to_string());
                let descriptor = Descriptor {
                    media_type: entry.media_type,
                    digest: entry.digest,
                    size: entry.size,
                    annotations: entry.annotations,
                };
                waiting.push((descriptor, own.or_else(|| platform.clone()), depth + 1));
            }
        }
        let reference = descriptor.annotations.get("vnd.docker.reference.type");
        if reference.is_none_or(|kind| kind != "attestation-manifest") {
            into.push(Attachment { platform, descriptor });
        }
    }
    Ok(())
}
