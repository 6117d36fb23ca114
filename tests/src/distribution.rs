//! Pushing to and reading from a registry as the distribution specification has it, without the product's code.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::plain_http::request;

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A repository in a registry that speaks plain HTTP.
#[derive(Debug, Clone)]
pub struct Repository {
    host: String,
    name: String,
}

/// An image for one platform, as it is before it has a place.
#[derive(Debug, Clone)]
pub struct Image {
    pub config: Value,
    /// Compressed layers, lowest first.
    pub layers: Vec<Vec<u8>>,
}

impl Repository {
    pub fn new(host: &str, name: &str) -> Self {
        Self {
            host: host.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Uploads a blob, if it is not there.
    pub fn push_blob(&self, blob: &[u8]) -> anyhow::Result<String> {
        let digest = digest_of(blob);
        let there = request(
            "HEAD",
            &self.host,
            &format!("/v2/{}/blobs/{digest}", self.name),
            &[],
            &[],
        )?;
        if there.status == 200 {
            return Ok(digest);
        }
        let started = request(
            "POST",
            &self.host,
            &format!("/v2/{}/blobs/uploads/", self.name),
            &[],
            &[],
        )?
        .success("starting an upload")?;
        let location = started.header("location").context("the upload has no location")?;
        let path = path_of(location);
        let separator = if path.contains('?') { '&' } else { '?' };
        let kind = [("Content-Type", "application/octet-stream")];
        request(
            "PUT",
            &self.host,
            &format!("{path}{separator}digest={digest}"),
            &kind,
            blob,
        )?
        .success("uploading a blob")?;
        Ok(digest)
    }

    /// Uploads a manifest or index under a tag or its digest.
    pub fn push_manifest(&self, reference: &str, kind: &str, bytes: &[u8]) -> anyhow::Result<String> {
        let path = format!("/v2/{}/manifests/{reference}", self.name);
        request("PUT", &self.host, &path, &[("Content-Type", kind)], bytes)?
            .success("uploading a manifest")?;
        Ok(digest_of(bytes))
    }

    /// Uploads one image by digest; returns its descriptor, with the platform that its config names.
    pub fn push_image(&self, image: &Image) -> anyhow::Result<Value> {
        self.push_image_as(None, image)
    }

    /// Uploads one image under a tag.
    pub fn push_single(&self, tag: &str, image: &Image) -> anyhow::Result<Value> {
        self.push_image_as(Some(tag), image)
    }

    fn push_image_as(&self, tag: Option<&str>, image: &Image) -> anyhow::Result<Value> {
        let mut layers = Vec::new();
        for layer in &image.layers {
            layers.push(json!({"mediaType": LAYER, "digest": self.push_blob(layer)?, "size": layer.len()}));
        }
        let config = serde_json::to_vec(&image.config)?;
        let config = json!({"mediaType": CONFIG, "digest": self.push_blob(&config)?, "size": config.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let manifest = serde_json::to_vec(&manifest)?;
        let digest = digest_of(&manifest);
        self.push_manifest(tag.unwrap_or(&digest), MANIFEST, &manifest)?;
        let mut platform = json!({"architecture": image.config["architecture"], "os": image.config["os"]});
        if let Some(variant) = image.config.get("variant") {
            platform["variant"] = variant.clone();
        }
        Ok(json!({"mediaType": MANIFEST, "digest": digest, "size": manifest.len(), "platform": platform}))
    }

    /// Uploads images and an index over them under `tag`; returns the index's digest.
    pub fn push_index(&self, tag: &str, images: &[Image]) -> anyhow::Result<String> {
        let manifests = images
            .iter()
            .map(|image| self.push_image(image))
            .collect::<Result<Vec<_>, _>>()?;
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.push_manifest(tag, INDEX, &serde_json::to_vec(&index)?)
    }

    /// The manifest or index under a tag or digest, whose bytes are checked if it is a digest.
    pub fn manifest(&self, reference: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.manifest_bytes(reference)?)?)
    }

    /// The same, as the registry keeps it.
    pub fn manifest_bytes(&self, reference: &str) -> anyhow::Result<Vec<u8>> {
        let path = format!("/v2/{}/manifests/{reference}", self.name);
        let answer =
            request("GET", &self.host, &path, &[("Accept", ACCEPTED)], &[])?.success("reading a manifest")?;
        if reference.starts_with("sha256:") && digest_of(&answer.body) != reference {
            bail!("the registry's manifest {reference} has other content");
        }
        Ok(answer.body)
    }

    /// Whether anything is under the tag.
    pub fn has(&self, reference: &str) -> anyhow::Result<bool> {
        let path = format!("/v2/{}/manifests/{reference}", self.name);
        Ok(request("HEAD", &self.host, &path, &[("Accept", ACCEPTED)], &[])?.status == 200)
    }

    pub fn blob(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        let path = format!("/v2/{}/blobs/{digest}", self.name);
        let answer = request("GET", &self.host, &path, &[], &[])?.success("reading a blob")?;
        if digest_of(&answer.body) != digest {
            bail!("the registry's blob {digest} has other content");
        }
        Ok(answer.body)
    }

    /// The manifest for one platform under `tag`, and its config. `platform` is written os/architecture.
    pub fn image(&self, tag: &str, platform: &str) -> anyhow::Result<(Value, Value)> {
        let index = self.manifest(tag)?;
        let manifest = match index["manifests"].as_array() {
            None => index,
            Some(manifests) => {
                let found = manifests.iter().find(|descriptor| {
                    let part = |name: &str| {
                        descriptor["platform"][name]
                            .as_str()
                            .unwrap_or_default()
                            .to_owned()
                    };
                    format!("{}/{}", part("os"), part("architecture")) == platform
                });
                let digest = found.and_then(|descriptor| descriptor["digest"].as_str());
                self.manifest(digest.with_context(|| format!("{tag} has nothing for {platform}: {index}"))?)?
            }
        };
        let config = self.blob(
            manifest["config"]["digest"]
                .as_str()
                .context("the manifest has no config")?,
        )?;
        Ok((manifest, serde_json::from_slice(&config)?))
    }

    /// Where the registry keeps the blob, for tests that damage it.
    pub fn blob_file(storage: &Path, digest: &str) -> anyhow::Result<std::path::PathBuf> {
        let hex = digest.strip_prefix("sha256:").context("not a sha256 digest")?;
        let folder = storage
            .join("docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex);
        Ok(folder.join("data"))
    }
}

/// The path of a location that may have a scheme and a host in front.
fn path_of(location: &str) -> &str {
    match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => location,
    }
}
