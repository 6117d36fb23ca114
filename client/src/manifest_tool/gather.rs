//! What the images of a spec are: manifests with platforms, in the order in which the index will have them.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use registry::manifest::{Document, ManifestError};
use registry::reference::ReferenceError;
use registry::{Client, Descriptor, Digest, Platform, RawManifest, Reference, Repository};

use super::spec::{Source, Spec};
use crate::manifest::{LARGEST_CONFIG, manifest_tool_knows};

const AT_ONCE: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    #[error("error parsing name for manifest list ({name})")]
    Target {
        name: String,
        #[source]
        source: ReferenceError,
    },
    #[error("unable to parse image reference: {name}")]
    Name {
        name: String,
        #[source]
        source: ReferenceError,
    },
    #[error("the spec names no images")]
    Nothing,
    #[error("source image ({image}) registry does not match target image ({target}) registry")]
    OtherRegistry { image: String, target: String },
    #[error("image {image} has neither tag nor digest, and manifest-tool does not default to 'latest'")]
    NoTag { image: String },
    #[error("inspect of image {image:?} failed with error: {image}: not found")]
    NotFound { image: String },
    #[error("inspect of image {image:?} failed with error")]
    Registry {
        image: String,
        #[source]
        source: registry::Error,
    },
    #[error("could not unmarshal manifest object from descriptor for image '{image}'")]
    Manifest {
        image: String,
        #[source]
        source: ManifestError,
    },
    #[error("could not unmarshal config object from descriptor for image '{image}'")]
    Config {
        image: String,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "unable to create platform object for manifest {digest}: manifest entry for image {image} has unsupported \
         os/arch or os/arch/variant combination: {platform}"
    )]
    Platform {
        digest: Digest,
        image: String,
        platform: String,
    },
    #[error("the index {image} has an entry without a platform: {digest}")]
    NoPlatform { image: String, digest: Digest },
    #[error(
        "cannot include two manifests with the same platform; digest {first} already provides platform {platform} \
         (this digest: {second})"
    )]
    Twice {
        first: Digest,
        second: Digest,
        platform: String,
    },
}

/// What becomes of images that do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Fails,
    Ignored,
}

/// Everything a push needs.
#[derive(Debug)]
pub struct Gathered {
    pub target: Reference,
    /// None if all images are missing.
    pub entries: Vec<Entry>,
    /// Images that do not exist, by the names that the spec has for them.
    pub missing: Vec<String>,
}

/// A manifest of the index, and where it is now.
#[derive(Clone, Debug)]
pub struct Entry {
    pub descriptor: Descriptor,
    pub repository: Repository,
    pub raw: RawManifest,
}

/// Looks all images up at the same time. Images come first in the index, attestations behind them.
pub async fn gather(client: &Client, spec: &Spec, missing: Missing) -> Result<Gathered, GatherError> {
    let target: Reference = spec.image.parse().map_err(|source| GatherError::Target {
        name: spec.image.clone(),
        source,
    })?;
    let mut images = Vec::new();
    for source in &spec.manifests {
        images.push((source, name(source, &target)?));
    }
    if images.is_empty() {
        return Err(GatherError::Nothing);
    }
    let lookups = images
        .iter()
        .map(|(source, image)| async move { (source, of_source(client, source, image).await) });
    let mut found = futures::stream::iter(lookups).buffered(AT_ONCE);
    let mut gathered = Gathered {
        target,
        entries: Vec::new(),
        missing: Vec::new(),
    };
    while let Some((source, result)) = found.next().await {
        match result {
            Ok(entries) => gathered.entries.extend(entries),
            Err(error) if missing == Missing::Ignored && error.is_missing() => {
                gathered.missing.push(source.image.clone());
            }
            Err(error) => return Err(error),
        }
    }
    gathered
        .entries
        .sort_by_key(|entry| entry.descriptor.is_attestation());
    each_platform_once(&gathered.entries)?;
    Ok(gathered)
}

impl GatherError {
    /// Registries that do not tell strangers what they have say "denied" for "not found". A registry that does not
    /// answer is another matter: an index without an image that exists is not what was asked for.
    fn is_missing(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::Registry { source, .. } => source.is_denied(),
            _ => false,
        }
    }
}

fn name(source: &Source, target: &Reference) -> Result<Reference, GatherError> {
    let image: Reference = source.image.parse().map_err(|error| GatherError::Name {
        name: source.image.clone(),
        source: error,
    })?;
    if image.repository().registry() != target.repository().registry() {
        return Err(GatherError::OtherRegistry {
            image: image.to_string(),
            target: target.to_string(),
        });
    }
    if image.tag().is_none() && image.digest().is_none() {
        return Err(GatherError::NoTag {
            image: image.to_string(),
        });
    }
    Ok(image)
}

async fn of_source(client: &Client, source: &Source, image: &Reference) -> Result<Vec<Entry>, GatherError> {
    let raw = fetch(client, source, image).await?;
    let repository = image.repository();
    let index = match parse(source, &raw)? {
        Document::Index(index) => index,
        Document::Manifest(manifest) => {
            let config = client
                .blob_bytes(repository, &manifest.config, LARGEST_CONFIG)
                .await
                .map_err(|error| failed(source, error))?;
            let config: Platform = serde_json::from_slice(&config).map_err(|error| GatherError::Config {
                image: source.image.clone(),
                source: error,
            })?;
            let platform = platform(source, config, &raw.digest)?;
            return Ok(vec![Entry {
                descriptor: raw.descriptor().with_platform(platform),
                repository: repository.clone(),
                raw,
            }]);
        }
    };
    let entries = index.manifests.into_iter().map(|descriptor| async move {
        let child = repository.with_digest(descriptor.digest.clone());
        let raw = fetch(client, source, &child).await?;
        if descriptor.platform.is_none() {
            return Err(GatherError::NoPlatform {
                image: source.image.clone(),
                digest: descriptor.digest,
            });
        }
        Ok(Entry {
            descriptor,
            repository: repository.clone(),
            raw,
        })
    });
    futures::stream::iter(entries)
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

async fn fetch(client: &Client, source: &Source, image: &Reference) -> Result<RawManifest, GatherError> {
    client
        .manifest(image)
        .await
        .map_err(|error| failed(source, error))
}

fn failed(source: &Source, error: registry::Error) -> GatherError {
    let image = source.image.clone();
    if error.is_not_found() {
        return GatherError::NotFound { image };
    }
    GatherError::Registry { image, source: error }
}

fn parse(source: &Source, raw: &RawManifest) -> Result<Document, GatherError> {
    raw.parse().map_err(|error| GatherError::Manifest {
        image: source.image.clone(),
        source: error,
    })
}

/// What the spec says; its gaps are filled from the config of the image.
fn platform(source: &Source, config: Platform, digest: &Digest) -> Result<Platform, GatherError> {
    let mut platform = source.platform.clone();
    if platform.os.is_empty() && platform.architecture.is_empty() {
        platform.os = config.os;
        platform.architecture = config.architecture;
    }
    if platform.variant.is_empty() {
        platform.variant = config.variant;
    }
    if platform.os_version.is_empty() {
        platform.os_version = config.os_version;
    }
    if platform.os_features.is_empty() {
        platform.os_features = config.os_features;
    }
    if !manifest_tool_knows(&platform.os, &platform.architecture, &platform.variant) {
        return Err(GatherError::Platform {
            digest: digest.clone(),
            image: source.image.clone(),
            platform: format!("{}/{}/{}", platform.os, platform.architecture, platform.variant),
        });
    }
    Ok(platform)
}

fn each_platform_once(entries: &[Entry]) -> Result<(), GatherError> {
    let mut seen = BTreeMap::new();
    for descriptor in entries.iter().map(|entry| &entry.descriptor) {
        let platform = descriptor
            .platform
            .as_ref()
            .filter(|_| !descriptor.is_attestation());
        let Some(platform) = platform else {
            continue;
        };
        let text = format!(
            "{}-{}-{}-{}-{}",
            platform.architecture,
            platform.os,
            platform.variant,
            platform.os_version,
            platform.os_features.join(".")
        );
        if let Some(first) = seen.insert(text.clone(), &descriptor.digest) {
            return Err(GatherError::Twice {
                first: first.clone(),
                second: descriptor.digest.clone(),
                platform: text,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_from_the_config() {
        let digest = Digest::of(b"");
        let config = || Platform {
            os_version: "10.0".to_owned(),
            ..Platform::new("windows", "amd64", "")
        };
        let source = |platform| Source {
            image: "a:1".to_owned(),
            platform,
        };
        let of = |platform, config| super::platform(&source(platform), config, &digest);
        assert_eq!(of(Platform::default(), config()).unwrap(), config());
        let arm = of(
            Platform::new("linux", "arm64", ""),
            Platform::new("linux", "amd64", "v8"),
        )
        .unwrap();
        assert_eq!(arm, Platform::new("linux", "arm64", "v8"));
        let half = of(Platform::new("linux", "", ""), config());
        assert!(matches!(half, Err(GatherError::Platform { .. })));
    }
}
