//! `docker-image+blob://` and `oci-layout+blob://` sources: one blob of a repository, or of a client's OCI layout, as
//! a file. Blobs are named by their digest, so one that is here is not asked for again.

use std::collections::BTreeMap;
use std::io;

use proto::pb;
use registry::reference::ReferenceError;
use registry::{Digest, Reference};

use super::http::{Attributes, HttpError, safe_name};
use super::image::FetchError;
use super::one_file::{self, Appearance};
use crate::session::SessionError;
use crate::store::view::ViewError;
use crate::store::{BlobError, CacheKey, LayerError, LayerId, NewLayer, Snapshot, Store, WorkLost};

/// Schemes of blobs in registries and in layouts.
pub const REGISTRY: &str = "docker-image+blob";
pub const LAYOUT: &str = "oci-layout+blob";
/// Raised when the layer of an equal blob changes.
const VERSION: &str = "1";

#[derive(Debug, thiserror::Error)]
pub enum BlobSourceError {
    #[error("{0:?} names no blob: use {REGISTRY}://NAME@DIGEST or {LAYOUT}://NAME@DIGEST")]
    Scheme(String),
    #[error("invalid reference of blob {reference:?}")]
    Reference {
        reference: String,
        #[source]
        source: ReferenceError,
    },
    #[error("checksum required in blob reference {0:?}: use NAME@DIGEST, without a tag")]
    NoDigest(String),
    #[error(transparent)]
    Attribute(Box<HttpError>),
    #[error("{repository} has no blob {digest}")]
    Missing { repository: String, digest: Digest },
    #[error("cannot look up blob {digest}")]
    Registry {
        digest: Digest,
        #[source]
        source: Box<registry::Error>,
    },
    #[error("cannot look up blob {digest} of the client")]
    Session {
        digest: Digest,
        #[source]
        source: Box<SessionError>,
    },
    #[error(transparent)]
    Fetch(Box<FetchError>),
    #[error("cannot read the blob")]
    Read(#[source] BlobError),
    #[error("cannot write the file")]
    Write(#[source] ViewError),
    #[error("cannot write the content of the file")]
    Content(#[source] io::Error),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Lost(#[from] WorkLost),
}

/// Where a blob lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobPlace {
    /// With a digest and without a tag.
    pub reference: Reference,
    pub digest: Digest,
    /// Unless it is in a registry.
    pub layout: Option<BlobLayout>,
}

/// The layout of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobLayout {
    pub store: String,
    pub session: Option<String>,
}

impl BlobPlace {
    /// Reads an address, to which attributes of a source add whose layout is meant.
    pub fn parse(address: &str, attributes: &BTreeMap<String, String>) -> Result<Self, BlobSourceError> {
        let (scheme, text) = address
            .split_once("://")
            .filter(|(scheme, _)| [REGISTRY, LAYOUT].contains(scheme))
            .ok_or_else(|| BlobSourceError::Scheme(address.to_owned()))?;
        let reference: Reference = text.parse().map_err(|source| BlobSourceError::Reference {
            reference: text.to_owned(),
            source,
        })?;
        let digest = reference.digest().filter(|_| reference.tag().is_none()).cloned();
        let digest = digest.ok_or_else(|| BlobSourceError::NoDigest(text.to_owned()))?;
        let attribute = |key: &str| attributes.get(key).filter(|value| !value.is_empty()).cloned();
        let layout = (scheme == LAYOUT).then(|| BlobLayout {
            // Without a name of its own, a store has that of the blob.
            store: attribute("oci.store").unwrap_or_else(|| {
                let name = text.rsplit_once('@').map_or(text, |(name, _)| name);
                name.to_owned()
            }),
            session: attribute("oci.session"),
        });
        Ok(Self {
            reference,
            digest,
            layout,
        })
    }
}

/// What a blob source asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobSource {
    pub place: BlobPlace,
    name: String,
    appearance: Appearance,
}

impl BlobSource {
    pub fn parse(source: &pb::SourceOp) -> Result<Self, BlobSourceError> {
        let place = BlobPlace::parse(&source.identifier, &source.attrs)?;
        let attributes = Attributes::of(&source.attrs);
        let appearance = attributes.appearance();
        Ok(Self {
            name: match attributes.text("http.filename") {
                Some(name) => safe_name(name),
                None => place.digest.hex().to_owned(),
            },
            appearance: appearance.map_err(|error| BlobSourceError::Attribute(Box::new(error)))?,
            place,
        })
    }

    /// Under what the layer is known.
    pub fn cache_key(&self) -> CacheKey {
        let parts = [VERSION, self.place.digest.as_str(), &self.name].map(str::to_owned);
        CacheKey::new("blob", parts.into_iter().chain(self.appearance.parts()))
    }

    /// Makes a layer of the blob, which has to be here.
    pub async fn layer(self, store: &Store) -> Result<Snapshot, BlobSourceError> {
        let pool = store.pool().clone();
        let store = store.clone();
        let make = move || {
            let mut blob = store
                .blobs()
                .open(&self.place.digest)
                .map_err(BlobSourceError::Read)?;
            let draft = store.draft()?;
            let mut file = one_file::create(&draft, &self.name).map_err(BlobSourceError::Write)?;
            io::copy(&mut blob, &mut file).map_err(BlobSourceError::Content)?;
            // Nobody knows how old it is: it is as old as it gets, so that it is the same every time.
            one_file::finish(&draft, &self.name, self.appearance, 0).map_err(BlobSourceError::Write)?;
            let layer = LayerId::new(format!("blob-{}", self.cache_key()));
            let new = NewLayer {
                description: format!("blob {}", self.place.reference),
                ..NewLayer::default()
            };
            store.commit_as(draft, &layer, new)?;
            Ok(Snapshot::new([layer]))
        };
        pool.run(make).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_named_by_digest_alone() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let layout = BlobPlace::parse(&format!("{LAYOUT}://not/real@{digest}"), &BTreeMap::new()).unwrap();
        assert_eq!(layout.layout.unwrap().store, "not/real");
        let attributes = BTreeMap::from([("oci.store".to_owned(), "x".to_owned())]);
        let named = BlobPlace::parse(&format!("{LAYOUT}://not/real@{digest}"), &attributes).unwrap();
        assert_eq!(named.layout.unwrap().store, "x");
        for (address, problem) in [
            ("docker-image+blob://a/b:1".to_owned(), "checksum required"),
            (format!("docker-image+blob://a/b:1@{digest}"), "checksum required"),
            ("docker-image+blob://A b".to_owned(), "invalid reference"),
            (format!("docker-image://a/b@{digest}"), "names no blob"),
        ] {
            let error = BlobPlace::parse(&address, &BTreeMap::new()).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }
}
