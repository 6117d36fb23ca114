//! What registries know about an image: its manifest, and the platform in its config.

use futures::{StreamExt as _, TryStreamExt as _};
use registry::manifest::{Document, ManifestError};
use registry::{Client, Digest, Manifest, Platform, RawManifest, Reference, Repository};

use super::member::{Member, MemberError};

/// Configs are small; anything larger is not one.
pub const LARGEST_CONFIG: u64 = 8 << 20;
/// Enough for a round trip of all platforms, not enough to annoy a registry.
const AT_ONCE: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("no such manifest: {reference}")]
    NotFound { reference: Reference },
    /// Registries answer so for what does not exist, too.
    #[error("no such manifest: {reference}")]
    Denied {
        reference: Reference,
        #[source]
        source: Box<registry::Error>,
    },
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error("{reference} is not a manifest")]
    Manifest {
        reference: Reference,
        #[source]
        source: Box<ManifestError>,
    },
    #[error("{reference} is a manifest list")]
    IsList { reference: Reference },
    #[error("the image config {digest} of {repository} is not readable")]
    Config {
        repository: Repository,
        digest: Digest,
        #[source]
        source: serde_json::Error,
    },
    #[error(transparent)]
    Member(#[from] MemberError),
}

/// What a name stands for in a registry.
#[derive(Debug)]
pub enum Remote {
    Image(Box<Member>, RawManifest),
    List(Vec<Member>),
}

/// An image, or the images of a list, whose platforms are those that the list names.
pub async fn lookup(client: &Client, reference: &Reference) -> Result<Remote, LookupError> {
    let raw = fetch(client, reference).await?;
    let index = match parse(reference, &raw)? {
        Document::Manifest(manifest) => {
            let member = member(client, reference.clone(), &raw, &manifest).await?;
            return Ok(Remote::Image(Box::new(member), raw));
        }
        Document::Index(index) => index,
    };
    let members = index.manifests.iter().map(|entry| async {
        let reference = reference.clone().pinned(entry.digest.clone());
        let raw = fetch(client, &reference).await?;
        let Document::Manifest(_) = parse(&reference, &raw)? else {
            return Err(LookupError::IsList { reference });
        };
        let platform = entry.platform.clone().unwrap_or_default();
        Ok(Member::new(reference, &raw, platform)?)
    });
    let members = futures::stream::iter(members).buffered(AT_ONCE);
    Ok(Remote::List(members.try_collect().await?))
}

/// An image that may become part of a list.
pub async fn image(client: &Client, reference: &Reference) -> Result<Member, LookupError> {
    let raw = fetch(client, reference).await?;
    match parse(reference, &raw)? {
        Document::Manifest(manifest) => member(client, reference.clone(), &raw, &manifest).await,
        Document::Index(_) => Err(LookupError::IsList {
            reference: reference.clone(),
        }),
    }
}

async fn fetch(client: &Client, reference: &Reference) -> Result<RawManifest, LookupError> {
    let reference = || reference.clone();
    client
        .manifest(&reference())
        .await
        .map_err(|source| match source {
            error if error.is_not_found() => LookupError::NotFound {
                reference: reference(),
            },
            error if error.is_denied() => LookupError::Denied {
                reference: reference(),
                source: Box::new(error),
            },
            other => LookupError::Registry(other),
        })
}

fn parse(reference: &Reference, raw: &RawManifest) -> Result<Document, LookupError> {
    raw.parse().map_err(|source| LookupError::Manifest {
        reference: reference.clone(),
        source: Box::new(source),
    })
}

async fn member(
    client: &Client,
    reference: Reference,
    raw: &RawManifest,
    manifest: &Manifest,
) -> Result<Member, LookupError> {
    let repository = reference.repository();
    let config = client
        .blob_bytes(repository, &manifest.config, LARGEST_CONFIG)
        .await?;
    let platform: Platform = serde_json::from_slice(&config).map_err(|source| LookupError::Config {
        repository: repository.clone(),
        digest: manifest.config.digest.clone(),
        source,
    })?;
    Ok(Member::new(reference, raw, platform)?)
}
