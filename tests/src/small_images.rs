//! Images that are the same bytes in every run and on every machine, with whose digests other tools were recorded. They
//! cannot be run: their layers are words.

use serde_json::{Value, json};

use crate::distribution::{Repository, digest_of};

pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Os, architecture and variant, in this order.
pub type Platform = (&'static str, &'static str, &'static str);

pub const PLATFORMS: [Platform; 4] = [
    ("linux", "amd64", ""),
    ("linux", "arm64", "v8"),
    ("linux", "ppc64le", ""),
    ("linux", "s390x", ""),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Docker,
    Oci,
}

impl Format {
    pub const fn manifest(self) -> &'static str {
        match self {
            Self::Docker => DOCKER_MANIFEST,
            Self::Oci => OCI_MANIFEST,
        }
    }

    pub const fn index(self) -> &'static str {
        match self {
            Self::Docker => DOCKER_LIST,
            Self::Oci => OCI_INDEX,
        }
    }

    const fn config(self) -> &'static str {
        match self {
            Self::Docker => "application/vnd.docker.container.image.v1+json",
            Self::Oci => "application/vnd.oci.image.config.v1+json",
        }
    }

    const fn layer(self) -> &'static str {
        match self {
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Self::Oci => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }
}

/// Pushes an image under a tag; returns its descriptor.
pub fn push(repository: &Repository, tag: &str, format: Format, platform: Platform) -> anyhow::Result<Value> {
    push_with(repository, tag, format, platform, &json!({}))
}

/// As `push`, with further fields in the config.
pub fn push_with(
    repository: &Repository,
    tag: &str,
    format: Format,
    (os, architecture, variant): Platform,
    extra: &Value,
) -> anyhow::Result<Value> {
    let mut layers = Vec::new();
    let mut ids = Vec::new();
    for number in 0..2 {
        let blob = format!("{os} {architecture} {variant} layer {number}\n").into_bytes();
        let digest = repository.push_blob(&blob)?;
        ids.push(digest.clone());
        layers.push(json!({"mediaType": format.layer(), "size": blob.len(), "digest": digest}));
    }
    let mut config = json!({
        "created": "2024-01-01T00:00:00.500Z",
        "architecture": architecture,
        "os": os,
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh", "-c", "a && b"], "OnBuild": ["RUN true"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
        "history": [
            {"created": "2024-01-01T00:00:00Z", "created_by": "first"},
            {"created": "2024-01-01T00:00:00.500Z", "created_by": "second", "empty_layer": false},
        ],
    });
    let mut platform = json!({"architecture": architecture, "os": os});
    if !variant.is_empty() {
        config["variant"] = json!(variant);
        platform["variant"] = json!(variant);
    }
    if let (Some(config), Some(extra)) = (config.as_object_mut(), extra.as_object()) {
        config.extend(extra.clone());
    }
    let config = serde_json::to_vec(&config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": format.manifest(),
        "config": {"mediaType": format.config(), "size": config.len(), "digest": repository.push_blob(&config)?},
        "layers": layers,
    });
    let manifest = serde_json::to_string_pretty(&manifest)?;
    push_text(repository, tag, format.manifest(), &manifest)?;
    Ok(json!({
        "mediaType": format.manifest(),
        "digest": digest_of(manifest.as_bytes()),
        "size": manifest.len(),
        "platform": platform,
    }))
}

/// Pushes a manifest or index as it is written here.
pub fn push_text(repository: &Repository, tag: &str, kind: &str, text: &str) -> anyhow::Result<String> {
    repository.push_manifest(tag, kind, text.as_bytes())
}

/// Pushes images for all platforms under their architectures' names, and an index over them as `latest`.
pub fn push_all(repository: &Repository, format: Format) -> anyhow::Result<()> {
    let mut manifests = Vec::new();
    for platform in PLATFORMS {
        manifests.push(push(repository, platform.1, format, platform)?);
    }
    push_index(repository, "latest", format, &manifests)
}

pub fn push_index(
    repository: &Repository,
    tag: &str,
    format: Format,
    manifests: &[Value],
) -> anyhow::Result<()> {
    let index = json!({"schemaVersion": 2, "mediaType": format.index(), "manifests": manifests});
    push_text(
        repository,
        tag,
        format.index(),
        &serde_json::to_string_pretty(&index)?,
    )?;
    Ok(())
}

/// An attestation as BuildKit makes it: a manifest for no platform, which its index entry ties to an image.
pub fn push_attestation(repository: &Repository, subject: &Value) -> anyhow::Result<Value> {
    let statement = br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#;
    let config =
        br#"{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": Format::Oci.config(), "digest": repository.push_blob(config)?, "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.in-toto+json",
            "digest": repository.push_blob(statement)?,
            "size": statement.len(),
            "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"},
        }],
    });
    let manifest = serde_json::to_string_pretty(&manifest)?;
    let digest = digest_of(manifest.as_bytes());
    push_text(repository, &digest, OCI_MANIFEST, &manifest)?;
    Ok(json!({
        "mediaType": OCI_MANIFEST,
        "digest": digest,
        "size": manifest.len(),
        "annotations": {
            "vnd.docker.reference.digest": subject["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        },
        "platform": {"architecture": "unknown", "os": "unknown"},
    }))
}
