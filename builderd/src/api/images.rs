//! Looks up images and repositories for a client: `ResolveImageConfig`, `ResolveSourceMeta`.

use std::sync::Arc;

use binfmt::Platform;
use proto::gateway::{
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceGitRequest, ResolveSourceGitResponse,
    ResolveSourceImageResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use proto::pb;
use tonic::Status;

use super::build::Build;
use super::status;
use crate::frontend::{ResolveMode, ResolvedImage, WantedImage};
use crate::solver::WantedObjects;

const IMAGE_SCHEME: &str = "docker-image://";
const GIT_SCHEME: &str = "git://";

pub(super) async fn config(
    build: &Arc<Build>,
    request: ResolveImageConfigRequest,
) -> Result<ResolveImageConfigResponse, Status> {
    if request.resolver_type != 0 {
        return Err(Status::unimplemented(
            "images in OCI layouts of the client are not supported yet",
        ));
    }
    let image = resolve(
        build,
        &request.r#ref,
        request.platform.as_ref(),
        &request.resolve_mode,
        request.log_name,
    )
    .await?;
    Ok(ResolveImageConfigResponse {
        digest: image.digest.to_string(),
        config: image.config,
        r#ref: image.reference.to_string(),
    })
}

pub(super) async fn source_meta(
    build: &Arc<Build>,
    request: ResolveSourceMetaRequest,
) -> Result<ResolveSourceMetaResponse, Status> {
    let mut source = request
        .source
        .ok_or_else(|| Status::invalid_argument("no source is named"))?;
    if source.identifier.starts_with(GIT_SCHEME) {
        return repository(build, source, request.git.unwrap_or_default(), request.log_name).await;
    }
    let Some(reference) = source.identifier.strip_prefix(IMAGE_SCHEME) else {
        let text = format!(
            "the metadata of {} cannot be resolved; only images and git repositories are supported",
            source.identifier
        );
        return Err(Status::unimplemented(text));
    };
    let options = request.image.unwrap_or_default();
    if options.attestation_chain || !options.resolve_attestations.is_empty() {
        return Err(Status::unimplemented("attestations of images are not resolved"));
    }
    let image = resolve(
        build,
        reference,
        request.platform.as_ref(),
        &request.resolve_mode,
        request.log_name,
    )
    .await?;
    source.identifier = format!("{IMAGE_SCHEME}{}", image.reference);
    Ok(ResolveSourceMetaResponse {
        source: Some(source),
        image: Some(ResolveSourceImageResponse {
            digest: image.digest.to_string(),
            config: if options.no_config {
                Default::default()
            } else {
                image.config
            },
            ..ResolveSourceImageResponse::default()
        }),
        ..ResolveSourceMetaResponse::default()
    })
}

async fn repository(
    build: &Arc<Build>,
    source: pb::SourceOp,
    options: ResolveSourceGitRequest,
    log_name: String,
) -> Result<ResolveSourceMetaResponse, Status> {
    let name = if log_name.is_empty() {
        format!("resolve {}", source.identifier)
    } else {
        log_name
    };
    let wanted = if options.return_object {
        WantedObjects::All
    } else {
        WantedObjects::None
    };
    let (resolved, objects) = build
        .job()
        .resolve_repository(&source, &name, wanted)
        .await
        .map_err(|error| status::of_failure(&error))?;
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

async fn resolve(
    build: &Arc<Build>,
    reference: &str,
    platform: Option<&pb::Platform>,
    mode: &str,
    log_name: String,
) -> Result<ResolvedImage, Status> {
    let reference: registry::Reference = reference
        .parse()
        .map_err(|error| Status::invalid_argument(format!("{error}")))?;
    let mode = match mode {
        "" | "default" => ResolveMode::Default,
        "pull" => ResolveMode::ForcePull,
        "local" => ResolveMode::PreferLocal,
        _ => return Err(Status::invalid_argument(format!("unknown resolve mode {mode:?}"))),
    };
    let platform = platform.map_or_else(Platform::host, |platform| {
        Platform::new(&platform.os, &platform.architecture, &platform.variant)
    });
    let name = if log_name.is_empty() {
        format!("resolve image config for {reference}")
    } else {
        log_name
    };
    let wanted = WantedImage {
        reference,
        platform,
        mode,
        name,
    };
    build
        .job()
        .resolve_image(wanted)
        .await
        .map_err(|error| status::of_failure(&error))
}
