//! What `imagetools create` is given: names, digests and descriptors, and what they stand for.

use futures::future::try_join_all;
use registry::manifest::{Annotations, Document};
use registry::reference::ReferenceError;
use registry::{Client, Descriptor, Digest, Platform, Reference, Repository};
use serde::Deserialize;
use serde_json::Value;

use super::combine::Source;
use super::load::{InspectError, platform_of};

const LARGEST_CONFIG: u64 = 8 << 20;

/// A source as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    Name(Reference),
    Digest(Digest),
    Descriptor(Box<Partial>),
}

/// A descriptor of which only the digest is needed; what it says overrides what the registry says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partial {
    digest: Digest,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    annotations: Annotations,
    platform: Option<Platform>,
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("failed to parse source {text:?}, valid sources are digests, references and descriptors")]
    Name {
        text: String,
        #[source]
        source: ReferenceError,
    },
    #[error("failed to parse source {text:?}, valid sources are digests, references and descriptors")]
    Digest {
        text: String,
        #[source]
        source: registry::digest::DigestError,
    },
    #[error("failed to parse the descriptor at {place}")]
    Descriptor {
        place: String,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "expected an OCI content descriptor, got a manifest or index (schemaVersion {version}): name it by its reference or digest"
    )]
    IsManifest { version: u64 },
    #[error("multiple repositories specified, cannot infer repository for {text:?}: write it as NAME@DIGEST")]
    WhichRepository { text: String },
    #[error("no repositories specified, please set a reference in tag or source")]
    NoRepository,
    #[error("invalid size mismatch for {digest}, {given} != {found}")]
    Size { digest: Digest, given: u64, found: u64 },
    #[error(
        "{text}: OCI layouts in folders are not supported here: push it to a registry first, for example with skopeo copy"
    )]
    Layout { text: String },
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Inspect(#[from] InspectError),
}

/// The name of something in a registry, with the tag "latest" if it has none.
pub fn reference(text: &str) -> Result<Reference, SourceError> {
    if text.starts_with("oci-layout:") {
        return Err(SourceError::Layout {
            text: text.to_owned(),
        });
    }
    Ok(text.parse::<Reference>()?.or_latest())
}

impl Given {
    /// Reads an argument or the content of a file.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        match text.parse::<Digest>() {
            Ok(digest) => return Ok(Self::Digest(digest)),
            Err(source) if text.starts_with("sha256") => {
                return Err(SourceError::Digest {
                    text: text.to_owned(),
                    source,
                });
            }
            Err(_) => {}
        }
        if !text.starts_with('{') {
            return match reference(text) {
                Ok(reference) => Ok(Self::Name(reference)),
                Err(SourceError::Reference(source)) => Err(SourceError::Name {
                    text: text.to_owned(),
                    source,
                }),
                Err(error) => Err(error),
            };
        }
        let failed = |source: serde_json::Error| SourceError::Descriptor {
            place: format!("line {} column {}", source.line(), source.column()),
            source,
        };
        let value: Value = serde_json::from_str(text).map_err(failed)?;
        if let Some(version) = value
            .get("schemaVersion")
            .and_then(Value::as_u64)
            .filter(|v| *v != 0)
        {
            return Err(SourceError::IsManifest { version });
        }
        let partial = serde_json::from_str(text).map_err(failed)?;
        Ok(Self::Descriptor(Box::new(partial)))
    }

    fn name(&self) -> Option<&Reference> {
        match self {
            Self::Name(reference) => Some(reference),
            Self::Digest(_) | Self::Descriptor(_) => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Name(reference) => reference.to_string(),
            Self::Digest(digest) => digest.to_string(),
            Self::Descriptor(partial) => partial.digest.to_string(),
        }
    }
}

/// Where each source is. What has no name of its own is in the one repository that names and tags speak of.
pub fn locate(given: &[Given], tags: &[Reference]) -> Result<Vec<Reference>, SourceError> {
    let mut repositories: Vec<&Repository> = given
        .iter()
        .filter_map(Given::name)
        .chain(tags)
        .map(Reference::repository)
        .collect();
    repositories.sort_unstable();
    repositories.dedup();
    let locate = |source: &Given| {
        let digest = match source {
            Given::Name(reference) => return Ok(reference.clone()),
            Given::Digest(digest) => digest,
            Given::Descriptor(partial) => &partial.digest,
        };
        match repositories.as_slice() {
            [repository] => Ok(repository.with_digest(digest.clone())),
            _ => Err(SourceError::WhichRepository { text: source.shown() }),
        }
    };
    if repositories.is_empty() {
        return Err(SourceError::NoRepository);
    }
    given.iter().map(locate).collect()
}

/// Fetches all sources at the same time.
pub async fn fetch(
    client: &Client,
    given: &[Given],
    places: &[Reference],
) -> Result<Vec<Source>, SourceError> {
    let sources = given.iter().zip(places);
    try_join_all(sources.map(|(given, place)| fetch_one(client, given, place))).await
}

async fn fetch_one(client: &Client, given: &Given, place: &Reference) -> Result<Source, SourceError> {
    let raw = match client.manifest(place).await {
        Err(error) if error.is_not_found() => {
            return Err(InspectError::NotFound {
                reference: place.clone(),
            }
            .into());
        }
        other => other.map_err(InspectError::from)?,
    };
    let document = raw.parse().map_err(InspectError::from)?;
    let mut descriptor = raw.descriptor();
    if let Given::Descriptor(partial) = given {
        apply(&mut descriptor, partial)?;
    }
    if let Document::Manifest(manifest) = &document {
        let mut platform = descriptor.platform.take().unwrap_or_default();
        if platform.os.is_empty() || platform.architecture.is_empty() {
            let bytes = client
                .blob_bytes(place.repository(), &manifest.config, LARGEST_CONFIG)
                .await
                .map_err(InspectError::from)?;
            let config: Value = serde_json::from_slice(&bytes).map_err(|source| InspectError::Config {
                digest: manifest.config.digest.clone(),
                source,
            })?;
            complete(&mut platform, platform_of(&config).normalised());
        }
        descriptor.platform = Some(platform);
    }
    Ok(Source {
        reference: place.clone(),
        descriptor,
        raw,
        document,
    })
}

fn apply(descriptor: &mut Descriptor, partial: &Partial) -> Result<(), SourceError> {
    if partial.size != 0 && partial.size != descriptor.size {
        return Err(SourceError::Size {
            digest: descriptor.digest.clone(),
            given: partial.size,
            found: descriptor.size,
        });
    }
    if !partial.media_type.is_empty() {
        descriptor.media_type.clone_from(&partial.media_type);
    }
    if !partial.annotations.is_empty() {
        descriptor.annotations = Some(partial.annotations.clone());
    }
    descriptor.platform.clone_from(&partial.platform);
    Ok(())
}

/// What a given platform does not say is taken from the configuration.
fn complete(platform: &mut Platform, found: Platform) {
    if platform.architecture.is_empty() {
        platform.architecture = found.architecture;
        if platform.variant.is_empty() {
            platform.variant = found.variant;
        }
    }
    if platform.os.is_empty() {
        platform.os = found.os;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_names_digests_and_descriptors() {
        let digest = Digest::of(b"x");
        assert_eq!(
            Given::parse(&format!("{digest}\n")).unwrap(),
            Given::Digest(digest.clone())
        );
        assert_eq!(
            Given::parse("localhost:5000/a").unwrap(),
            Given::Name("localhost:5000/a:latest".parse().unwrap())
        );
        let descriptor =
            format!(r#"{{"digest":"{digest}","platform":{{"os":"linux","architecture":"arm64"}}}}"#);
        assert!(matches!(Given::parse(&descriptor).unwrap(), Given::Descriptor(_)));
        for (text, message) in [
            (
                "sha256:short",
                "failed to parse source \"sha256:short\", valid sources are digests, references and descriptors",
            ),
            (
                "UPPER",
                "failed to parse source \"UPPER\", valid sources are digests, references and descriptors",
            ),
            (
                "{\n  \"digest\": }",
                "failed to parse the descriptor at line 2 column 13",
            ),
            (
                "{\"size\": 1}",
                "failed to parse the descriptor at line 1 column 11",
            ),
            (
                "{\"schemaVersion\": 2}",
                "expected an OCI content descriptor, got a manifest or index (schemaVersion 2): name it by its reference or digest",
            ),
        ] {
            assert_eq!(Given::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn what_has_no_name_is_in_the_only_repository() {
        let digest = Digest::of(b"x");
        let by_digest = Given::Digest(digest.clone());
        let named = |text: &str| Given::parse(text).unwrap();
        let tag = |text: &str| text.parse::<Reference>().unwrap();
        let expected = tag("localhost:5000/a").repository().with_digest(digest);
        assert_eq!(
            locate(
                std::slice::from_ref(&by_digest),
                &[tag("localhost:5000/a:1"), tag("localhost:5000/a:2")]
            )
            .unwrap(),
            vec![expected.clone()]
        );
        assert_eq!(
            locate(&[by_digest.clone(), named("localhost:5000/a:1")], &[]).unwrap()[0],
            expected
        );
        assert!(matches!(
            locate(
                &[by_digest.clone(), named("localhost:5000/b")],
                &[tag("localhost:5000/a")]
            ),
            Err(SourceError::WhichRepository { .. })
        ));
        assert!(matches!(
            locate(&[by_digest], &[]),
            Err(SourceError::NoRepository)
        ));
    }
}
