//! `moby.buildkit.v1.frontend.LLBBridge`: a client drives its build call by call.
//!
//! Every call names its build in the request's metadata and may come before the build is known.

use std::sync::Arc;
use std::time::Duration;

use proto::control::VertexWarning;
use proto::gateway::llb_bridge_server::LlbBridge;
use proto::gateway::{
    EvaluateRequest, EvaluateResponse, ExecMessage, InputsRequest, InputsResponse, NewContainerRequest,
    NewContainerResponse, PingRequest, PongResponse, ReadDirRequest, ReadDirResponse, ReadFileRequest,
    ReadFileResponse, ReleaseContainerRequest, ReleaseContainerResponse, ResolveImageConfigRequest,
    ResolveImageConfigResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse, ReturnRequest,
    ReturnResponse, SolveRequest, SolveResponse, StatFileRequest, StatFileResponse, WarnRequest,
    WarnResponse,
};
use proto::headers;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::build::{self, Build};
use super::{Daemon, capabilities, files, images, status, workers};
use crate::solver::BuildRequest;

/// How long a call waits for its build to appear.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Service(pub(super) Arc<Daemon>);

impl Service {
    async fn build(&self, metadata: &MetadataMap) -> Result<Arc<Build>, Status> {
        let mut references = headers::values(metadata, headers::BUILD_ID).into_iter();
        let (Some(reference), None) = (references.next(), references.next()) else {
            return Err(Status::invalid_argument(format!(
                "a call needs exactly one {}",
                headers::BUILD_ID
            )));
        };
        let build = self.0.builds.wait(&reference, PATIENCE).await;
        build.ok_or_else(|| status::no_such_job(&reference))
    }

    /// The build of a call and the call's message.
    async fn open<T>(&self, request: Request<T>) -> Result<(Arc<Build>, T), Status> {
        let build = self.build(request.metadata()).await?;
        Ok((build, request.into_inner()))
    }
}

#[tonic::async_trait]
impl LlbBridge for Service {
    type ExecProcessStream = futures::stream::Pending<Result<ExecMessage, Status>>;

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        self.build(request.metadata()).await?;
        Ok(Response::new(PongResponse {
            frontend_api_caps: capabilities::list(capabilities::GATEWAY),
            llb_caps: capabilities::list(capabilities::OPERATIONS),
            workers: vec![workers::record(&self.0).await],
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let (build, request) = self.open(request).await?;
        if request
            .source_policies
            .iter()
            .any(|policy| !policy.rules.is_empty())
        {
            return Err(Status::unimplemented("source policies are not supported yet"));
        }
        let wanted = BuildRequest {
            frontend: request.frontend,
            attributes: request.frontend_opt,
            definition: request.definition.filter(|definition| !definition.def.is_empty()),
            inputs: request.frontend_inputs,
            evaluate: request.evaluate,
        };
        let outcome = build.solve(wanted).await?;
        Ok(Response::new(SolveResponse {
            result: Some(build::message(outcome)),
            ..SolveResponse::default()
        }))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnResponse>, Status> {
        let (build, request) = self.open(request).await?;
        build.give_back(request)?;
        Ok(Response::new(ReturnResponse {}))
    }

    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<EvaluateResponse>, Status> {
        let (build, request) = self.open(request).await?;
        let reference = build.find(&request.r#ref)?;
        let evaluated = build.job().evaluate_all(reference.iter()).await;
        evaluated.map_err(|error| status::of_solve(&error))?;
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let (build, request) = self.open(request).await?;
        files::read(&build, request).await.map(Response::new)
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>, Status> {
        let (build, request) = self.open(request).await?;
        files::list(&build, request).await.map(Response::new)
    }

    async fn stat_file(
        &self,
        request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        let (build, request) = self.open(request).await?;
        files::stat(&build, request).await.map(Response::new)
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>, Status> {
        let (build, request) = self.open(request).await?;
        images::config(&build, request).await.map(Response::new)
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Result<Response<ResolveSourceMetaResponse>, Status> {
        let (build, request) = self.open(request).await?;
        images::source_meta(&build, request).await.map(Response::new)
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Result<Response<InputsResponse>, Status> {
        let build = self.build(request.metadata()).await?;
        Ok(Response::new(InputsResponse {
            definitions: build.inputs().clone(),
        }))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let (build, warning) = self.open(request).await?;
        build.progress().warn(VertexWarning {
            vertex: warning.digest,
            level: warning.level,
            short: warning.short,
            detail: warning.detail,
            url: warning.url,
            info: warning.info,
            ranges: warning.ranges,
        });
        Ok(Response::new(WarnResponse {}))
    }

    async fn new_container(
        &self,
        _: Request<NewContainerRequest>,
    ) -> Result<Response<NewContainerResponse>, Status> {
        Err(no_containers())
    }

    async fn release_container(
        &self,
        _: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        Err(no_containers())
    }

    async fn exec_process(
        &self,
        _: Request<Streaming<ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        Err(no_containers())
    }

    async fn read_file_container(
        &self,
        _: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        Err(no_containers())
    }

    async fn read_dir_container(
        &self,
        _: Request<ReadDirRequest>,
    ) -> Result<Response<ReadDirResponse>, Status> {
        Err(no_containers())
    }

    async fn stat_file_container(
        &self,
        _: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        Err(no_containers())
    }
}

fn no_containers() -> Status {
    Status::unimplemented(
        "containers of a client (gateway.exec) are not supported; look at results with ReadFile",
    )
}
