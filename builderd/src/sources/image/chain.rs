//! What vouches for an image: the attestations in its index, and the signatures that refer to them. Whoever asks
//! verifies it; here it is only collected, each document checked against its digest.

use bytes::Bytes;
use registry::manifest::Document;
use registry::{Descriptor, Digest, Manifest, Platform, Reference};

use super::layout::Origin;
use super::{ImageError, Images, LARGEST_MANIFEST, resolve_failed};

/// The image that an attestation is about.
const SUBJECT: &str = "vnd.docker.reference.digest";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Kinds of signatures, the preferred one first.
const SIGNATURES: [&str; 2] = [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.cosign.artifact.sig.v1+json",
];
/// Of a statement or a signature.
const LARGEST_BLOB: u64 = 16 << 20;
/// Of all of them together: they travel in one message.
const LARGEST_CHAIN: u64 = 64 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The index.
    pub root: Digest,
    pub image: Digest,
    pub attestation: Option<Digest>,
    pub signatures: Vec<Digest>,
    /// All of these but the image, the signatures' content, and the statements that were asked for.
    pub blobs: Vec<(Descriptor, Bytes)>,
}

impl Chain {
    fn add(&mut self, descriptor: &Descriptor, bytes: Bytes) {
        if !self
            .blobs
            .iter()
            .any(|(known, _)| known.digest == descriptor.digest)
        {
            self.blobs.push((descriptor.clone(), bytes));
        }
    }

    fn size(&self) -> u64 {
        self.blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

impl Images {
    /// The chain of the image that a pinned reference names for a platform, with the statements of these types;
    /// nothing for an image without an index.
    pub async fn chain(
        &self,
        pinned: &Reference,
        platform: &Platform,
        statements: &[String],
    ) -> Result<Option<Chain>, ImageError> {
        let top = self.manifest(pinned, &Origin::Registry).await?;
        let Ok(Document::Index(index)) = top.parse() else {
            return Ok(None);
        };
        let no_match = || ImageError::NoMatch {
            reference: pinned.to_string(),
            platform: platform.to_string(),
            available: index.platforms(),
        };
        let image = index
            .best_match(&platform.normalised())
            .ok_or_else(no_match)?
            .digest
            .clone();
        let mut chain = Chain {
            root: top.digest.clone(),
            attestation: None,
            signatures: Vec::new(),
            blobs: vec![(top.descriptor(), top.bytes.clone())],
            image,
        };
        let about = |entry: &&Descriptor| {
            entry.is_attestation() && entry.annotation(SUBJECT) == Some(chain.image.as_str())
        };
        let Some(entry) = index.manifests.iter().find(about) else {
            return Ok(Some(chain));
        };
        let attestation = self.document(pinned, entry, &mut chain).await?;
        chain.attestation = Some(entry.digest.clone());
        let referrers = self.client.referrers(pinned.repository(), &entry.digest).await;
        let referrers = referrers.map_err(|source| resolve_failed(pinned, source))?;
        let of_kind = |kind: &&str| {
            referrers
                .iter()
                .find(|referrer| referrer.artifact_type.as_deref() == Some(*kind))
        };
        if let Some(signature) = SIGNATURES.iter().find_map(of_kind) {
            let manifest = self.document(pinned, signature, &mut chain).await?;
            chain.signatures.push(signature.digest.clone());
            for layer in &manifest.layers {
                self.blob(pinned, layer, &mut chain).await?;
            }
        }
        for layer in &attestation.layers {
            let kind = layer.annotation(PREDICATE_TYPE).unwrap_or_default();
            if statements.iter().any(|wanted| wanted == kind) {
                self.blob(pinned, layer, &mut chain).await?;
            }
        }
        Ok(Some(chain))
    }

    async fn document(
        &self,
        pinned: &Reference,
        descriptor: &Descriptor,
        chain: &mut Chain,
    ) -> Result<Manifest, ImageError> {
        let reference = pinned.repository().with_digest(descriptor.digest.clone());
        let raw = self.manifest(&reference, &Origin::Registry).await?;
        match raw.parse() {
            Ok(Document::Manifest(manifest)) => {
                chain.add(descriptor, raw.bytes.clone());
                Ok(*manifest)
            }
            Ok(Document::Index(_)) => Err(ImageError::Nested {
                reference: reference.to_string(),
            }),
            Err(source) => Err(ImageError::NotAnImage {
                reference: reference.to_string(),
                source,
            }),
        }
    }

    async fn blob(
        &self,
        pinned: &Reference,
        descriptor: &Descriptor,
        chain: &mut Chain,
    ) -> Result<(), ImageError> {
        if chain.size().saturating_add(descriptor.size) > LARGEST_CHAIN {
            return Err(ImageError::Chain {
                reference: pinned.to_string(),
                limit: LARGEST_CHAIN,
            });
        }
        let bytes = match self.small_blob(&descriptor.digest, LARGEST_MANIFEST) {
            Some(bytes) => bytes,
            None => self
                .client
                .blob_bytes(pinned.repository(), descriptor, LARGEST_BLOB)
                .await
                .map_err(|source| resolve_failed(pinned, source))?,
        };
        chain.add(descriptor, bytes);
        Ok(())
    }
}
