//! A daemon that builds nothing and answers what it was told to: for what clients print, which must not depend on times
//! and identifiers.
//!
//! Records can be removed, and what was pruned is remembered; all else is fixed.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::Stream;
use proto::content::content_server::{Content, ContentServer};
use proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest as BlobRequest, InfoResponse as BlobResponse,
    ListContentRequest, ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, StatusRequest as IngestRequest, StatusResponse as IngestResponse, UpdateRequest,
    UpdateResponse, WriteContentRequest, WriteContentResponse,
};
use proto::control::control_server::{Control, ControlServer};
use proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, BytesMessage,
    DiskUsageRequest, DiskUsageResponse, InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse,
    PruneRequest, SolveRequest, SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest,
    UpdateBuildHistoryResponse, UsageRecord,
};
use proto::pb::Platform;
use proto::types::{BuildkitVersion, WorkerRecord};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// What it answers.
#[derive(Debug, Default)]
pub struct Answers {
    pub usage: Vec<UsageRecord>,
    pub records: Vec<BuildHistoryRecord>,
    /// The progress of builds, by reference.
    pub progress: BTreeMap<String, Vec<StatusResponse>>,
    /// The files of records, by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Its clock, as RFC 3339.
    pub clock: String,
}

#[derive(Debug)]
struct State {
    answers: Answers,
    pruned: Vec<PruneRequest>,
    asked_usage: Vec<DiskUsageRequest>,
}

/// Answers as long as it is not dropped.
#[derive(Debug)]
pub struct FakeDaemon {
    address: String,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

impl FakeDaemon {
    pub fn start(socket: &Path, answers: Answers) -> Self {
        let state = Arc::new(Mutex::new(State {
            answers,
            pruned: Vec::new(),
            asked_usage: Vec::new(),
        }));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let service = Service(Arc::clone(&state));
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket).expect("the socket's folder is there")
        };
        runtime.spawn(
            Server::builder()
                .add_service(ControlServer::new(service.clone()))
                .add_service(ContentServer::new(service))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Self {
            address: format!("unix://{}", socket.display()),
            state,
            _runtime: runtime,
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// What was asked to be pruned.
    pub fn pruned(&self) -> Vec<PruneRequest> {
        self.state
            .lock()
            .expect("nobody panics with the lock")
            .pruned
            .clone()
    }

    pub fn asked_usage(&self) -> Vec<DiskUsageRequest> {
        let state = self.state.lock().expect("nobody panics with the lock");
        state.asked_usage.clone()
    }

    /// The builds that it has records of.
    pub fn records(&self) -> Vec<String> {
        let state = self.state.lock().expect("nobody panics with the lock");
        let records = state.answers.records.iter();
        records.map(|record| record.r#ref.clone()).collect()
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

type Answering<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn all<T: Send + 'static>(items: Vec<T>) -> Answering<T> {
    Box::pin(tokio_stream::iter(items.into_iter().map(Ok)))
}

impl Service {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().expect("nobody panics with the lock"))
    }
}

#[tonic::async_trait]
impl Control for Service {
    type PruneStream = Answering<UsageRecord>;
    type StatusStream = Answering<StatusResponse>;
    type SessionStream = Answering<BytesMessage>;
    type ListenBuildHistoryStream = Answering<BuildHistoryEvent>;

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let record = self.with(|state| {
            state.asked_usage.push(request.into_inner());
            state.answers.usage.clone()
        });
        Ok(Response::new(DiskUsageResponse { record }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let usage = self.with(|state| {
            state.pruned.push(request.into_inner());
            state.answers.usage.clone()
        });
        let removed = usage.into_iter().filter(|record| !record.in_use).collect();
        Ok(Response::new(all(removed)))
    }

    async fn solve(&self, _: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        Err(Status::unimplemented("this daemon builds nothing"))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let reference = request.into_inner().r#ref;
        let progress = self.with(|state| state.answers.progress.get(&reference).cloned());
        let progress = progress.ok_or_else(|| Status::not_found(format!("no such job {reference}")))?;
        Ok(Response::new(all(progress)))
    }

    async fn session(
        &self,
        _: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("this daemon builds nothing"))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let platform = |architecture: &str| Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            ..Platform::default()
        };
        Ok(Response::new(ListWorkersResponse {
            record: vec![WorkerRecord {
                id: "fake".to_owned(),
                platforms: vec![platform("amd64"), platform("arm64")],
                ..WorkerRecord::default()
            }],
        }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            buildkit_version: Some(BuildkitVersion {
                version: "v0.26.0".to_owned(),
                ..BuildkitVersion::default()
            }),
        }))
    }

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let wanted = request.into_inner().r#ref;
        let (records, clock) =
            self.with(|state| (state.answers.records.clone(), state.answers.clock.clone()));
        let events = records
            .into_iter()
            .filter(|record| wanted.is_empty() || record.r#ref == wanted)
            .map(|record| BuildHistoryEvent {
                r#type: if record.completed_at.is_some() {
                    BuildHistoryEventType::Complete.into()
                } else {
                    BuildHistoryEventType::Started.into()
                },
                record: Some(record),
            });
        let mut response = Response::new(all(events.collect()));
        if let Ok(clock) = clock.parse() {
            response
                .metadata_mut()
                .insert("buildkit-current-timestamp", clock);
        }
        Ok(response)
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        let request = request.into_inner();
        self.with(|state| {
            let records = &mut state.answers.records;
            let count = records.len();
            if request.delete {
                records.retain(|record| record.r#ref != request.r#ref);
            }
            if request.delete && records.len() == count {
                return Err(Status::not_found(format!("no record {}", request.r#ref)));
            }
            Ok(Response::new(UpdateBuildHistoryResponse {}))
        })
    }
}

const NOT_HERE: &str = "this daemon has only files to read";

#[tonic::async_trait]
impl Content for Service {
    type ListStream = Answering<ListContentResponse>;
    type ReadStream = Answering<ReadContentResponse>;
    type WriteStream = Answering<WriteContentResponse>;

    async fn info(&self, request: Request<BlobRequest>) -> Result<Response<BlobResponse>, Status> {
        let digest = request.into_inner().digest;
        let size = self.with(|state| state.answers.blobs.get(&digest).map(Vec::len));
        let size = size.ok_or_else(|| Status::not_found(format!("{digest}: not found")))?;
        Ok(Response::new(BlobResponse {
            info: Some(Info {
                digest,
                size: i64::try_from(size).unwrap_or(i64::MAX),
                created_at: Some(prost_types::Timestamp::default()),
                updated_at: Some(prost_types::Timestamp::default()),
                ..Info::default()
            }),
        }))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        const PIECE: usize = 512;
        let request = request.into_inner();
        let blob = self.with(|state| state.answers.blobs.get(&request.digest).cloned());
        let blob = blob.ok_or_else(|| Status::not_found(format!("{}: not found", request.digest)))?;
        let number = |value: i64| usize::try_from(value).unwrap_or_default();
        let from = number(request.offset).min(blob.len());
        let to = match number(request.size) {
            0 => blob.len(),
            size => (from + size).min(blob.len()),
        };
        let pieces = blob[from..to]
            .chunks(PIECE)
            .enumerate()
            .map(|(at, data)| ReadContentResponse {
                offset: i64::try_from(from + at * PIECE).unwrap_or(i64::MAX),
                data: data.to_vec().into(),
            });
        Ok(Response::new(all(pieces.collect())))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        Err(Status::unimplemented(NOT_HERE))
    }

    async fn list(&self, _: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        Err(Status::unimplemented(NOT_HERE))
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented(NOT_HERE))
    }

    async fn status(&self, _: Request<IngestRequest>) -> Result<Response<IngestResponse>, Status> {
        Err(Status::unimplemented(NOT_HERE))
    }

    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        Err(Status::unimplemented(NOT_HERE))
    }

    async fn write(
        &self,
        _: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        Err(Status::unimplemented(NOT_HERE))
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented(NOT_HERE))
    }
}
