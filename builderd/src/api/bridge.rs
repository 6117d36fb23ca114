//! `moby.buildkit.v1.frontend.LLBBridge`: a client drives its build call by call.
//!
//! Every call names its build in the request's metadata and may come before the build is known.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
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
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::build::{self, Build};
use super::{Daemon, caches, capabilities, containers, files, images, processes, status, workers};
use crate::graph;
use crate::solver::{BuildRequest, References, Rules};

/// How long a call waits for its build to appear.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Service {
    daemon: Arc<Daemon>,
    /// The build of a frontend that has this service for itself.
    only: Option<Arc<Build>>,
}

impl Service {
    /// For all clients: their calls name their builds.
    pub(super) fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon, only: None }
    }

    /// For the one frontend that drives `build`.
    pub(super) fn of(daemon: Arc<Daemon>, build: Arc<Build>) -> Self {
        Self {
            daemon,
            only: Some(build),
        }
    }

    async fn build(&self, metadata: &MetadataMap) -> Result<Arc<Build>, Status> {
        if let Some(build) = &self.only {
            return Ok(Arc::clone(build));
        }
        let mut references = headers::values(metadata, headers::BUILD_ID).into_iter();
        let (Some(reference), None) = (references.next(), references.next()) else {
            return Err(Status::invalid_argument(format!(
                "no buildid found in context: a call needs exactly one {}",
                headers::BUILD_ID
            )));
        };
        let build = self.daemon.builds.wait(&reference, PATIENCE).await;
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
    type ExecProcessStream = Pin<Box<dyn Stream<Item = Result<ExecMessage, Status>> + Send>>;

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        self.build(request.metadata()).await?;
        Ok(Response::new(PongResponse {
            frontend_api_caps: capabilities::list(capabilities::GATEWAY),
            llb_caps: capabilities::list(graph::capabilities::OPERATIONS),
            workers: vec![workers::record(&self.daemon).await],
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let (build, request) = self.open(request).await?;
        let rules = Rules::new(&request.source_policies)
            .map_err(|error| Status::invalid_argument(proto::chain(&error)))?;
        let caches = caches::of_frontend(request.cache_imports);
        build.job().import_caches(caches).await;
        let wanted = BuildRequest {
            frontend: request.frontend,
            attributes: request.frontend_opt,
            definition: request.definition.filter(|definition| !definition.def.is_empty()),
            inputs: request.frontend_inputs,
            evaluate: request.evaluate,
            rules: Arc::new(rules),
        };
        let outcome = build.solve(&self.daemon, wanted).await?;
        let r#ref = match (&outcome.references, request.allow_result_return) {
            (_, true) | (References::One(None), false) => String::new(),
            (References::One(Some(reference)), false) => reference.id.to_string(),
            (References::Platforms(_), false) => {
                return Err(Status::unknown("solve did not return default result"));
            }
        };
        Ok(Response::new(SolveResponse {
            result: Some(build::message(outcome, request.allow_result_array_ref)),
            r#ref,
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
        evaluated.map_err(|error| build.status_of(&error))?;
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
        request: Request<NewContainerRequest>,
    ) -> Result<Response<NewContainerResponse>, Status> {
        let (build, request) = self.open(request).await?;
        containers::create(&build, request).await?;
        Ok(Response::new(NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        let (build, request) = self.open(request).await?;
        containers::release(&build, &request.container_id).await?;
        Ok(Response::new(ReleaseContainerResponse {}))
    }

    async fn exec_process(
        &self,
        request: Request<Streaming<ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        let (build, messages) = self.open(request).await?;
        let (sender, mut answers) = mpsc::channel(1);
        // Ends with the answers' stream, and all processes with it.
        let mut serving = JoinSet::new();
        serving.spawn(processes::serve(build, messages, sender));
        let answers = async_stream::stream! {
            let _serving = serving;
            while let Some(answer) = answers.recv().await {
                yield answer;
            }
        };
        Ok(Response::new(Box::pin(answers)))
    }

    async fn read_file_container(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let (build, request) = self.open(request).await?;
        containers::read(&build, request).await.map(Response::new)
    }

    async fn read_dir_container(
        &self,
        request: Request<ReadDirRequest>,
    ) -> Result<Response<ReadDirResponse>, Status> {
        let (build, request) = self.open(request).await?;
        containers::list(&build, request).await.map(Response::new)
    }

    async fn stat_file_container(
        &self,
        request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        let (build, request) = self.open(request).await?;
        containers::stat(&build, request).await.map(Response::new)
    }
}
