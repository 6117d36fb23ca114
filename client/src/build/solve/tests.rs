//! Builds against a daemon that is made of nothing but the API: it asks the session for everything once.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use proto::control::control_server::{Control, ControlServer};
use proto::control::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveResponse, StatusResponse,
    UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord, Vertex,
};
use proto::errdefs::{self, Detail};
use proto::filesync::auth_client::AuthClient;
use proto::filesync::file_send_client::FileSendClient;
use proto::filesync::file_sync_client::FileSyncClient;
use proto::filesync::{self, CredentialsRequest};
use proto::fsutil::Packet;
use proto::secrets::GetSecretRequest;
use proto::secrets::secrets_client::SecretsClient;
use proto::transfer::{Event, Receiving};
use proto::tunnel::{self, Tunnel};
use registry::docker_config::DockerConfig;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response as Reply, Streaming};

use super::*;
use crate::build::request::{Flags, Plan};
use crate::progress::status::Status as Shown;
use crate::settings::Settings;

#[derive(Clone, Copy, PartialEq)]
enum Script {
    AskForEverything,
    Fail,
}

struct Daemon {
    script: Script,
    session: watch::Sender<Option<Channel>>,
    ended: watch::Sender<bool>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    fn note(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }

    /// What a real daemon asks for in the course of a build.
    async fn ask(&self, session: Channel) -> Result<Response, Status> {
        self.note(format!(
            "dockerfile {}",
            fetch(&session, "dockerfile", &["Dockerfile"]).await?
        ));
        self.note(format!("context {}", fetch(&session, "context", &[]).await?));
        let missing = fetch(&session, "elsewhere", &[]).await.unwrap_err();
        self.note(format!("elsewhere {}", missing.message()));
        let mut secrets = SecretsClient::new(session.clone());
        for id in ["TOKEN", "other"] {
            let request = GetSecretRequest {
                id: id.to_owned(),
                ..GetSecretRequest::default()
            };
            let answer = match secrets.get_secret(request).await {
                Ok(reply) => String::from_utf8(reply.into_inner().data.to_vec()).unwrap(),
                Err(status) => status.message().to_owned(),
            };
            self.note(format!("secret {id} {answer}"));
        }
        let host = CredentialsRequest {
            host: "registry.example".to_owned(),
        };
        let credentials = AuthClient::new(session.clone())
            .credentials(host)
            .await?
            .into_inner();
        self.note(format!(
            "credentials {}:{}",
            credentials.username, credentials.secret
        ));
        let chunks = ["one ", "two"].map(|part| {
            let data = Bytes::from(part);
            Bytes::from(filesync::BytesMessage { data }.encode_to_vec())
        });
        let mut request = Request::new(futures::stream::iter(chunks));
        request
            .metadata_mut()
            .insert("buildkit-attachable-exporter-id", "0".parse().unwrap());
        let replies = FileSendClient::new(session)
            .diff_copy(request)
            .await?
            .into_inner();
        replies.try_collect::<Vec<_>>().await?;
        Ok(Response::from([(
            "containerimage.digest".to_owned(),
            "sha256:1".to_owned(),
        )]))
    }
}

/// The paths of a folder, and the contents of its files.
async fn fetch(session: &Channel, name: &str, followed: &[&str]) -> Result<String, Status> {
    let (replies, outgoing) = mpsc::channel::<Packet>(8);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("dir-name", name.parse().unwrap());
    for path in followed {
        request
            .metadata_mut()
            .append("followpaths", path.parse().unwrap());
    }
    let packets = FileSyncClient::new(session.clone())
        .diff_copy(request)
        .await?
        .into_inner();
    let mut receiving = Receiving::new(packets, replies);
    let (mut paths, mut contents) = (Vec::new(), BTreeMap::new());
    while let Some(event) = receiving
        .next()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?
    {
        match event {
            Event::Entry { id, stat, .. } => {
                assert_eq!((stat.uid, stat.gid), (0, 0));
                paths.push(stat.path);
                if receiving.has_content(id) {
                    receiving.request(id).unwrap();
                    contents.insert(id, Vec::new());
                }
            }
            Event::Data { id, data } => contents.entry(id).or_default().extend_from_slice(&data),
            _ => {}
        }
    }
    let contents: Vec<_> = contents
        .values()
        .map(|content| String::from_utf8_lossy(content))
        .collect();
    Ok(format!("{paths:?} {contents:?}"))
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Control for Daemon {
    type StatusStream = Answers<StatusResponse>;
    type SessionStream = Answers<BytesMessage>;
    type PruneStream = Answers<UsageRecord>;
    type ListenBuildHistoryStream = Answers<BuildHistoryEvent>;

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Reply<Self::SessionStream>, Status> {
        let methods = request
            .metadata()
            .get_all("x-docker-expose-session-grpc-method")
            .iter()
            .count();
        self.note(format!("session with {methods} methods"));
        let (tunnel, outgoing) = Tunnel::new(request.into_inner().map_ok(|message| message.data));
        let session = self.session.clone();
        tokio::spawn(async move {
            session.send_replace(Some(tunnel::connect(tunnel).await.unwrap()));
        });
        Ok(Reply::new(outgoing.map(|data| Ok(BytesMessage { data })).boxed()))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Reply<SolveResponse>, Status> {
        let request = request.into_inner();
        self.note(format!(
            "solve {} {}",
            request.frontend, request.frontend_attrs["filename"]
        ));
        let mut session = self.session.subscribe();
        let session = session.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        let outcome = match self.script {
            Script::AskForEverything => self.ask(session).await,
            Script::Fail => {
                let source = errdefs::Source {
                    info: errdefs::SourceInfo {
                        filename: "Dockerfile".to_owned(),
                        data: Bytes::from("FROM x\n"),
                        ..errdefs::SourceInfo::default()
                    },
                    ranges: vec![errdefs::Range::default()],
                };
                Err(errdefs::status(Code::Unknown, "no x", &[Detail::Source(source)]))
            }
        };
        self.ended.send_replace(true);
        Ok(Reply::new(SolveResponse {
            exporter_response: outcome?,
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Reply<Self::StatusStream>, Status> {
        let mut ended = self.ended.subscribe();
        let step = Vertex {
            digest: "sha256:0".to_owned(),
            name: "step".to_owned(),
            ..Vertex::default()
        };
        let first = StatusResponse {
            vertexes: vec![step.clone()],
            ..StatusResponse::default()
        };
        let rest = async move {
            ended.wait_for(|ended| *ended).await.unwrap();
            Ok(StatusResponse {
                vertexes: vec![step],
                ..StatusResponse::default()
            })
        };
        let stream = futures::stream::iter([Ok(first)]).chain(futures::stream::once(rest));
        Ok(Reply::new(stream.boxed()))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Reply<ListWorkersResponse>, Status> {
        Err(unused())
    }
    async fn info(&self, _: Request<InfoRequest>) -> Result<Reply<InfoResponse>, Status> {
        Err(unused())
    }
    async fn disk_usage(&self, _: Request<DiskUsageRequest>) -> Result<Reply<DiskUsageResponse>, Status> {
        Err(unused())
    }
    async fn prune(&self, _: Request<PruneRequest>) -> Result<Reply<Self::PruneStream>, Status> {
        Err(unused())
    }
    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Result<Reply<Self::ListenBuildHistoryStream>, Status> {
        Err(unused())
    }
    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Reply<UpdateBuildHistoryResponse>, Status> {
        Err(unused())
    }
}

fn unused() -> Status {
    Status::unimplemented("builds do not call this")
}

/// Runs a build in a folder against a daemon with this script: the outcome, what was asked, what was shown.
async fn build(folder: &Path, script: Script) -> (anyhow::Result<Response>, Vec<String>, Vec<Shown>) {
    std::fs::create_dir_all(folder.join("context/sub")).unwrap();
    std::fs::write(folder.join("context/Dockerfile"), "FROM x\n").unwrap();
    std::fs::write(folder.join("context/sub/file"), "content").unwrap();
    std::fs::write(
        folder.join("config.json"),
        r#"{"auths":{"registry.example":{"auth":"bmFtZTp3b3Jk"}}}"#,
    )
    .unwrap();
    let settings = Settings::of(&[("TOKEN", "t0p"), ("HOME", folder.to_str().unwrap())]);
    let flags = Flags {
        context: folder.join("context").to_str().unwrap().to_owned(),
        outputs: vec![format!(
            "type=tar,dest={}",
            folder.join("out/archive.tar").display()
        )],
        secrets: vec!["id=TOKEN".to_owned()],
        ..Flags::default()
    };
    let plan = Plan::new(&flags, &settings).unwrap();

    let asked = Arc::new(Mutex::new(Vec::new()));
    let daemon = Daemon {
        script,
        session: watch::Sender::new(None),
        ended: watch::Sender::new(false),
        asked: Arc::clone(&asked),
    };
    let socket = folder.join("daemon.sock");
    let listener = UnixListenerStream::new(tokio::net::UnixListener::bind(&socket).unwrap());
    let server = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(ControlServer::new(daemon))
            .serve_with_incoming(listener),
    );
    let channel = tonic::transport::Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    let (progress, mut shown) = mpsc::channel(16);
    let part = plan.whole();
    let build = Build {
        channel: channel.connect_lazy(),
        request: plan.solve_request(&part, "ref", "session"),
        offer: plan.offer(&part, &settings, DockerConfig::load(folder).unwrap()),
        relay: Relay::new(progress),
        stop: CancellationToken::new(),
    };
    let outcome = build.run(async { Ok(()) }).await;
    server.abort();
    let mut messages = Vec::new();
    while let Ok(message) = shown.try_recv() {
        messages.push(message);
    }
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    (outcome, asked, messages)
}

#[tokio::test]
async fn the_session_serves_what_the_flags_named_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (outcome, mut asked, shown) = build(folder.path(), Script::AskForEverything).await;
    assert_eq!(outcome.unwrap()["containerimage.digest"], "sha256:1");
    // The session and the request race each other.
    asked[..2].sort();
    assert_eq!(
        asked,
        [
            "session with 9 methods",
            "solve dockerfile.v0 Dockerfile",
            r#"dockerfile ["Dockerfile"] ["FROM x\n"]"#,
            r#"context ["Dockerfile", "sub", "sub/file"] ["FROM x\n", "content"]"#,
            "elsewhere no access allowed to dir \"elsewhere\"",
            "secret TOKEN t0p",
            "secret other secret other not found",
            "credentials name:word",
        ]
    );
    assert_eq!(
        std::fs::read(folder.path().join("out/archive.tar")).unwrap(),
        b"one two"
    );
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0].vertexes[0].name, "step");
}

#[tokio::test]
async fn a_failed_build_keeps_its_details_and_leaves_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let (outcome, _, _) = build(folder.path(), Script::Fail).await;
    let error = outcome.unwrap_err();
    let failed = error.downcast_ref::<BuildFailed>().unwrap();
    assert_eq!(failed.to_string(), "failed to solve: no x");
    assert_eq!(errdefs::details(&failed.status).len(), 1);
    assert!(!folder.path().join("out").exists());
}
