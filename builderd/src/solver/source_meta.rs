//! What is known of a source before it is used: the answer to `ResolveSourceMeta`, which policies may ask for as well.

use binfmt::Platform;
use bytes::Bytes;
use dockerfile::address::without_credentials;
use proto::gateway::checksum_request::ChecksumAlgo;
use proto::gateway::{
    AttestationChain, Blob, ChecksumResponse, ResolveSourceGitRequest, ResolveSourceGitResponse,
    ResolveSourceHttpRequest, ResolveSourceHttpResponse, ResolveSourceImageResponse,
    ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use proto::pb;
use registry::digest::Algorithm;
use registry::reference::ReferenceError;
use registry::{Descriptor, Digest, Reference};

use super::Job;
use super::inputs::{self, WantedObjects};
use super::policy::PolicyError;
use super::provenance::{ImageMaterial, Scope};
use super::rules::Rules;
use crate::frontend::{Layout, ResolveMode, WantedImage};
use crate::sources::blob;
use crate::sources::git::GitError;
use crate::sources::http::HttpError;
use crate::sources::image::{Chain, ImageError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceMetaError {
    #[error("no source is named")]
    NoSource,
    #[error(transparent)]
    Reference(ReferenceError),
    #[error("unknown resolve mode {0:?}")]
    ResolveMode(String),
    #[error("unsupported checksum algorithm {0}")]
    Algorithm(i32),
    #[error(
        "the metadata of {0} cannot be resolved; use an image, an OCI layout, a git repository or an http address"
    )]
    Scheme(String),
    #[error(
        "a policy puts {} in the place of the image, which is none of a registry",
        without_credentials(&.0.identifier)
    )]
    Elsewhere(Box<pb::SourceOp>),
    #[error("could not resolve image due to policy")]
    Policy(#[source] Box<PolicyError>),
    #[error("the attestations of images in OCI layouts are not resolved: push the image to a registry")]
    Attestations,
    #[error(transparent)]
    Image(Box<ImageError>),
    #[error(transparent)]
    Git(GitError),
    #[error(transparent)]
    Http(HttpError),
}

/// The image that a request means.
pub(crate) fn wanted_image(
    reference: &str,
    platform: Option<&pb::Platform>,
    mode: &str,
    log_name: String,
) -> Result<WantedImage, SourceMetaError> {
    let reference: Reference = reference.parse().map_err(SourceMetaError::Reference)?;
    let mode = match mode {
        "" | "default" => ResolveMode::Default,
        "pull" => ResolveMode::ForcePull,
        "local" => ResolveMode::PreferLocal,
        _ => return Err(SourceMetaError::ResolveMode(mode.to_owned())),
    };
    let platform = platform.map_or_else(Platform::host, |platform| {
        Platform::new(&platform.os, &platform.architecture, &platform.variant)
            .with_os_version(&platform.os_version)
    });
    let name = named(log_name, || format!("resolve image config for {reference}"));
    Ok(WantedImage {
        reference,
        platform,
        mode,
        name,
        layout: None,
    })
}

fn chain_message(chain: Chain) -> AttestationChain {
    let text = |digest: Digest| digest.to_string();
    let blob = |(descriptor, data): (Descriptor, Bytes)| {
        let message = proto::control::Descriptor {
            media_type: descriptor.media_type,
            digest: descriptor.digest.to_string(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            annotations: descriptor.annotations.into_iter().flatten().collect(),
        };
        let blob = Blob {
            descriptor: Some(message),
            data,
        };
        (descriptor.digest.to_string(), blob)
    };
    AttestationChain {
        root: text(chain.root),
        image_manifest: text(chain.image),
        attestation_manifest: chain.attestation.map(text).unwrap_or_default(),
        signature_manifests: chain.signatures.into_iter().map(text).collect(),
        blobs: chain.blobs.into_iter().map(blob).collect(),
    }
}

fn named(log_name: String, default: impl FnOnce() -> String) -> String {
    if log_name.is_empty() { default() } else { log_name }
}

impl From<PolicyError> for SourceMetaError {
    fn from(error: PolicyError) -> Self {
        Self::Policy(Box::new(error))
    }
}

impl Job {
    /// What is known of the source that policies make of one.
    pub(crate) async fn allowed_source_meta(
        &self,
        scope: &Scope,
        mut request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, SourceMetaError> {
        let rules = Rules::new(&request.source_policies).map_err(PolicyError::from)?;
        let source = request.source.take().ok_or(SourceMetaError::NoSource)?;
        let allowed = self.allowed(&source, request.platform.as_ref(), &rules).await?;
        request.source = Some(allowed);
        self.source_meta(scope, request).await
    }

    pub(super) async fn source_meta(
        &self,
        scope: &Scope,
        request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, SourceMetaError> {
        let source = request.source.clone().ok_or(SourceMetaError::NoSource)?;
        let name = || format!("resolve {}", without_credentials(&source.identifier));
        match source.identifier.split_once("://") {
            Some((scheme @ ("docker-image" | "oci-layout"), reference)) => {
                let (scheme, reference) = (scheme.to_owned(), reference.to_owned());
                self.image_meta(scope, request, source, &scheme, &reference).await
            }
            Some(("git", _)) => {
                let name = named(request.log_name, name);
                self.repository_meta(source, request.git.unwrap_or_default(), &name)
                    .await
            }
            Some(("http" | "https", _)) => {
                let name = named(request.log_name, name);
                self.file_meta(source, request.http.unwrap_or_default(), &name)
                    .await
            }
            // Nothing is known of these before they are used; but a policy may have put one in the place of an image.
            Some(("local", _) | (blob::REGISTRY | blob::LAYOUT, _)) => Ok(ResolveSourceMetaResponse {
                source: Some(source),
                ..ResolveSourceMetaResponse::default()
            }),
            _ => Err(SourceMetaError::Scheme(source.identifier)),
        }
    }

    async fn image_meta(
        &self,
        scope: &Scope,
        request: ResolveSourceMetaRequest,
        mut source: pb::SourceOp,
        scheme: &str,
        reference: &str,
    ) -> Result<ResolveSourceMetaResponse, SourceMetaError> {
        let options = request.image.unwrap_or_default();
        let chained = options.attestation_chain || !options.resolve_attestations.is_empty();
        let platform = request.platform.as_ref();
        let mut wanted = wanted_image(reference, platform, &request.resolve_mode, request.log_name)?;
        if scheme == "oci-layout" {
            let attribute = |key: &str| source.attrs.get(key).filter(|value| !value.is_empty()).cloned();
            wanted.layout = Some(Layout {
                name: attribute("oci.store").unwrap_or_else(|| wanted.reference.repository().familiar()),
                session: attribute("oci.session"),
            });
        }
        let local = wanted.layout.is_some();
        if chained && local {
            return Err(SourceMetaError::Attestations);
        }
        let registry_platform = inputs::to_registry(&wanted.platform);
        let image = self
            .look_up_image(wanted)
            .await
            .map_err(|error| SourceMetaError::Image(Box::new(error)))?;
        scope.looked_up(ImageMaterial {
            reference: image.reference.to_string(),
            platform: Some(registry_platform.clone()),
            digest: image.digest.clone(),
            local,
        });
        let chain = if chained {
            let pinned = image.reference.clone().pinned(image.digest.clone());
            self.images()
                .chain(&pinned, &registry_platform, &options.resolve_attestations)
                .await
                .map_err(|error| SourceMetaError::Image(Box::new(error)))?
        } else {
            None
        };
        source.identifier = format!("{scheme}://{}", image.reference);
        let config = if options.no_config {
            Default::default()
        } else {
            image.config
        };
        Ok(ResolveSourceMetaResponse {
            source: Some(source),
            image: Some(ResolveSourceImageResponse {
                digest: image.digest.to_string(),
                config,
                attestation_chain: chain.map(chain_message),
            }),
            ..ResolveSourceMetaResponse::default()
        })
    }

    async fn repository_meta(
        &self,
        source: pb::SourceOp,
        options: ResolveSourceGitRequest,
        name: &str,
    ) -> Result<ResolveSourceMetaResponse, SourceMetaError> {
        let wanted = if options.return_object {
            WantedObjects::All
        } else {
            WantedObjects::None
        };
        let (resolved, objects) = self
            .resolve_repository(&source, name, wanted)
            .await
            .map_err(SourceMetaError::Git)?;
        Ok(ResolveSourceMetaResponse {
            source: Some(source),
            git: Some(ResolveSourceGitResponse {
                checksum: resolved.object,
                r#ref: resolved.reference,
                commit_checksum: resolved.commit.unwrap_or_default(),
                commit_object: objects.commit.into(),
                tag_object: objects.tag.into(),
            }),
            ..ResolveSourceMetaResponse::default()
        })
    }

    async fn file_meta(
        &self,
        source: pb::SourceOp,
        options: ResolveSourceHttpRequest,
        name: &str,
    ) -> Result<ResolveSourceMetaResponse, SourceMetaError> {
        let wanted = options.checksum_request.map(|wanted| {
            let algorithm = match ChecksumAlgo::try_from(wanted.algo) {
                Ok(ChecksumAlgo::Sha256) => Algorithm::Sha256,
                Ok(ChecksumAlgo::Sha384) => Algorithm::Sha384,
                Ok(ChecksumAlgo::Sha512) => Algorithm::Sha512,
                Err(_) => return Err(SourceMetaError::Algorithm(wanted.algo)),
            };
            Ok((algorithm, wanted.suffix))
        });
        let wanted = wanted.transpose()?;
        let suffix = wanted
            .as_ref()
            .map(|(_, suffix)| suffix.clone())
            .unwrap_or_default();
        let checksum = wanted.map(|(algorithm, suffix)| (algorithm, suffix.to_vec()));
        let (file, digest) = self
            .resolve_file(&source, name, checksum)
            .await
            .map_err(SourceMetaError::Http)?;
        Ok(ResolveSourceMetaResponse {
            source: Some(source),
            http: Some(ResolveSourceHttpResponse {
                checksum: file.digest.to_string(),
                filename: file.name,
                last_modified: file.modified.map(Into::into),
                checksum_response: digest.map(|digest| ChecksumResponse {
                    digest: digest.to_string(),
                    suffix,
                }),
            }),
            ..ResolveSourceMetaResponse::default()
        })
    }
}
