//! The daemon's API, called without a client between.

use std::path::Path;

use proto::content::content_client::ContentClient;
use proto::content::{InfoRequest, ReadContentRequest};
use proto::control::control_client::ControlClient;
use proto::control::{
    BuildHistoryEvent, BuildHistoryRecord, BuildHistoryRequest, DiskUsageRequest, PruneRequest, SolveRequest,
    SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest, UsageRecord,
};
use proto::gateway::ReturnRequest;
use proto::gateway::llb_bridge_client::LlbBridgeClient;
use proto::{headers, tunnel};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// Calls that belong to one build.
pub type Bridge = LlbBridgeClient<InterceptedService<Channel, OfBuild>>;

/// Says with each call which build it belongs to.
#[derive(Clone, Debug)]
pub struct OfBuild(MetadataValue<Ascii>);

impl Interceptor for OfBuild {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(headers::BUILD_ID, self.0.clone());
        Ok(request)
    }
}

/// A connection to a daemon; its calls block.
#[derive(Debug)]
pub struct Api {
    runtime: Runtime,
    channel: Channel,
}

impl Api {
    /// Connects to the daemon behind this socket.
    pub fn connect(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let channel = runtime.block_on(async {
            let stream = UnixStream::connect(socket).await.expect("the daemon listens");
            tunnel::connect(stream).await.expect("the daemon answers")
        });
        Self { runtime, channel }
    }

    fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(tunnel::MAX_MESSAGE)
    }

    /// Builds without a client: only what needs no session.
    pub fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Status> {
        let response = self.runtime.block_on(self.control().solve(request))?;
        Ok(response.into_inner())
    }

    /// A build that `client` drives, and what it returns is its result.
    pub fn drive(
        &self,
        reference: &str,
        client: impl AsyncFnOnce(Bridge) -> ReturnRequest,
    ) -> Result<SolveResponse, Status> {
        let build = OfBuild(reference.parse().expect("a reference is plain text"));
        let mut bridge = LlbBridgeClient::with_interceptor(self.channel.clone(), build);
        let request = SolveRequest {
            r#ref: reference.to_owned(),
            ..SolveRequest::default()
        };
        let mut control = self.control();
        self.runtime.block_on(async {
            let (solved, returned) = tokio::join!(control.solve(request), async {
                let result = client(bridge.clone()).await;
                bridge.r#return(result).await
            });
            let response = solved?.into_inner();
            returned?;
            Ok(response)
        })
    }

    pub fn disk_usage(&self, filter: &[&str]) -> Result<Vec<UsageRecord>, Status> {
        let request = DiskUsageRequest {
            filter: owned(filter),
            ..DiskUsageRequest::default()
        };
        let response = self.runtime.block_on(self.control().disk_usage(request))?;
        Ok(response.into_inner().record)
    }

    /// The records that were removed.
    pub fn prune(&self, request: PruneRequest) -> Result<Vec<UsageRecord>, Status> {
        self.runtime.block_on(async {
            let response = self.control().prune(request).await?;
            collect(response.into_inner()).await
        })
    }

    /// Starts to prune, and calls `then` after the first record.
    pub fn prune_and_then(&self, request: PruneRequest, then: impl FnOnce()) {
        self.runtime.block_on(async {
            let response = self.control().prune(request).await.expect("pruning begins");
            let mut records = response.into_inner();
            records.message().await.expect("a record").expect("a record");
            then();
        });
    }

    pub fn history(&self, request: BuildHistoryRequest) -> Result<Vec<BuildHistoryEvent>, Status> {
        self.runtime.block_on(async {
            let response = self.control().listen_build_history(request).await?;
            assert!(response.metadata().contains_key(headers::CURRENT_TIMESTAMP));
            collect(response.into_inner()).await
        })
    }

    /// The records there are that match the filters, the newest first.
    pub fn records(&self, filter: &[&str]) -> Result<Vec<BuildHistoryRecord>, Status> {
        let request = BuildHistoryRequest {
            early_exit: true,
            filter: owned(filter),
            ..BuildHistoryRequest::default()
        };
        let events = self.history(request)?.into_iter();
        Ok(events.filter_map(|event| event.record).collect())
    }

    /// Listens to what happens until `enough` has what it needs.
    pub fn follow(
        &self,
        request: BuildHistoryRequest,
        mut enough: impl FnMut(BuildHistoryEvent) -> bool,
    ) -> Result<(), Status> {
        self.runtime.block_on(async {
            let mut events = self.control().listen_build_history(request).await?.into_inner();
            while let Some(event) = events.message().await? {
                if enough(event) {
                    break;
                }
            }
            Ok(())
        })
    }

    pub fn update_history(&self, request: UpdateBuildHistoryRequest) -> Result<(), Status> {
        let updated = self
            .runtime
            .block_on(self.control().update_build_history(request));
        updated.map(drop)
    }

    /// The progress of a build.
    pub fn status(&self, reference: &str) -> Result<Vec<StatusResponse>, Status> {
        self.runtime.block_on(async {
            let request = StatusRequest {
                r#ref: reference.to_owned(),
            };
            let response = self.control().status(request).await?;
            collect(response.into_inner()).await
        })
    }

    /// Part of a blob; all of it from `offset` on if `size` is 0.
    pub fn blob(&self, digest: &str, offset: i64, size: i64) -> Result<Vec<u8>, Status> {
        self.runtime.block_on(async {
            let request = ReadContentRequest {
                digest: digest.to_owned(),
                offset,
                size,
            };
            let response = ContentClient::new(self.channel.clone()).read(request).await?;
            let parts = collect(response.into_inner()).await?;
            Ok(parts.into_iter().flat_map(|part| part.data).collect())
        })
    }

    pub fn blob_size(&self, digest: &str) -> Result<i64, Status> {
        let request = InfoRequest {
            digest: digest.to_owned(),
        };
        let response = self
            .runtime
            .block_on(async { ContentClient::new(self.channel.clone()).info(request).await })?;
        Ok(response.into_inner().info.unwrap_or_default().size)
    }
}

async fn collect<T>(mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        all.push(message);
    }
    Ok(all)
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
