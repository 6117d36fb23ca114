//! Fetches what an image consists of, all platforms at the same time.

use std::collections::BTreeMap;

use base64::Engine as _;
use binfmt::Platform;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use registry::manifest::Document;
use registry::{Client, Descriptor, RawManifest, Reference};
use serde_json::Value;

/// Configurations are small; anything larger is not one.
const LARGEST_CONFIG: u64 = 8 << 20;
/// An index may hold indexes, but nobody needs many storeys.
const DEEPEST: usize = 4;
const BUILD_INFO: &str = "moby.buildkit.buildinfo.v1";

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Manifest(#[from] registry::manifest::ManifestError),
    #[error("{reference}: not found")]
    NotFound { reference: Reference },
    #[error("reading the image configuration {digest}")]
    Config {
        digest: String,
        source: serde_json::Error,
    },
    #[error("indexes are nested too deeply")]
    TooDeep,
}

/// An image or an index, as received, and what is in it.
#[derive(Clone, Debug)]
pub struct Image {
    pub reference: Reference,
    pub raw: RawManifest,
    pub document: Document,
}

pub async fn inspect(client: &Client, reference: Reference) -> Result<Image, InspectError> {
    let raw = match client.manifest(&reference).await {
        Err(error) if error.is_not_found() => return Err(InspectError::NotFound { reference }),
        other => other?,
    };
    let document = raw.parse()?;
    Ok(Image {
        reference,
        raw,
        document,
    })
}

/// Configurations and build information by platform.
#[derive(Debug, Default)]
pub struct Configs {
    pub images: BTreeMap<String, Value>,
    pub build_infos: BTreeMap<String, Value>,
}

pub async fn configs(client: &Client, image: &Image) -> Result<Configs, InspectError> {
    let found = of_document(client, &image.reference, image.document.clone(), None, 0).await?;
    let mut configs = Configs::default();
    for (platform, bytes, digest) in found {
        let config: Value =
            serde_json::from_slice(&bytes).map_err(|source| InspectError::Config { digest, source })?;
        let platform = platform.unwrap_or_else(|| platform_of(&config)).to_string();
        if let Some(info) = config.get(BUILD_INFO).and_then(Value::as_str).and_then(decode) {
            configs.build_infos.insert(platform.clone(), info);
        }
        configs.images.insert(platform, config);
    }
    Ok(configs)
}

/// Build information is JSON in base64 inside of JSON. What cannot be decoded is not there.
fn decode(text: &str) -> Option<Value> {
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()
}

fn platform_of(config: &Value) -> Platform {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    Platform::new(text("os"), text("architecture"), text("variant"))
}

type Found = Vec<(Option<Platform>, Bytes, String)>;

fn of_document<'a>(
    client: &'a Client,
    reference: &'a Reference,
    document: Document,
    platform: Option<Platform>,
    depth: usize,
) -> BoxFuture<'a, Result<Found, InspectError>> {
    async move {
        match document {
            Document::Manifest(manifest) => {
                let bytes = client
                    .blob_bytes(reference.repository(), &manifest.config, LARGEST_CONFIG)
                    .await?;
                Ok(vec![(platform, bytes, manifest.config.digest.to_string())])
            }
            Document::Index(_) if depth == DEEPEST => Err(InspectError::TooDeep),
            Document::Index(index) => {
                let images = index
                    .images()
                    .cloned()
                    .map(|entry| of_entry(client, reference, entry, depth + 1));
                let found = futures::future::try_join_all(images).await?;
                Ok(found.into_iter().flatten().collect())
            }
        }
    }
    .boxed()
}

async fn of_entry(
    client: &Client,
    reference: &Reference,
    entry: Descriptor,
    depth: usize,
) -> Result<Found, InspectError> {
    let platform = entry
        .platform
        .as_ref()
        .map(|platform| Platform::new(&platform.os, &platform.architecture, &platform.variant));
    let reference = reference.repository().with_digest(entry.digest);
    let document = client.manifest(&reference).await?.parse()?;
    of_document(client, &reference, document, platform, depth).await
}
