//! Looks up images and other sources for a client: `ResolveImageConfig`, `ResolveSourceMeta`.

use std::sync::Arc;

use proto::errdefs::{self, Detail};
use proto::gateway::{
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceMetaRequest,
    ResolveSourceMetaResponse,
};
use tonic::{Code, Status};

use super::build::Build;
use super::status;
use crate::frontend::Layout;
use crate::solver::{Rules, SourceMetaError, wanted_image};

pub(super) async fn config(
    build: &Arc<Build>,
    request: ResolveImageConfigRequest,
) -> Result<ResolveImageConfigResponse, Status> {
    let mut wanted = wanted_image(
        &request.r#ref,
        request.platform.as_ref(),
        &request.resolve_mode,
        request.log_name,
    )
    .map_err(|error| refused(&error))?;
    if request.resolver_type != 0 {
        wanted.layout = Some(Layout {
            name: request.store_id,
            session: Some(request.session_id),
        });
    }
    let rules = Rules::new(&request.source_policies)
        .map_err(|error| Status::invalid_argument(proto::chain(&error)))?;
    let looked_up = build.job().looked_up(wanted, &rules).await;
    let (image, material) = looked_up.map_err(|error| refused(&error))?;
    build.job().notes().scope().looked_up(material);
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
    let resolved = build
        .job()
        .allowed_source_meta(build.job().notes().scope(), request)
        .await;
    resolved.map_err(|error| refused(&error))
}

fn refused(error: &SourceMetaError) -> Status {
    let text = proto::chain(error);
    match error {
        SourceMetaError::NoSource
        | SourceMetaError::Reference(_)
        | SourceMetaError::ResolveMode(_)
        | SourceMetaError::Algorithm(_) => Status::invalid_argument(text),
        SourceMetaError::Elsewhere(_) => Status::failed_precondition(text),
        SourceMetaError::Scheme(_) | SourceMetaError::Attestations => Status::unimplemented(text),
        SourceMetaError::Policy(error) => {
            let details: Vec<_> = error.decision().map(Detail::Decision).into_iter().collect();
            errdefs::status(Code::Unknown, text, &details)
        }
        SourceMetaError::Image(_) | SourceMetaError::Git(_) | SourceMetaError::Http(_) => {
            status::of_failure(error)
        }
    }
}
