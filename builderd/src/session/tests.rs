//! Sessions against a client that serves over the other end of a tunnel.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use proto::control::BytesMessage;
use proto::filesync;
use proto::filesync::file_send_server::{FileSend, FileSendServer};
use proto::headers;
use proto::secrets::secrets_server::{Secrets, SecretsServer};
use proto::secrets::{GetSecretRequest, GetSecretResponse};
use proto::sshforward::ssh_server::{Ssh, SshServer};
use proto::tunnel::{self, Tunnel};
use proto::upload::upload_server::{Upload, UploadServer};
use proto::{sshforward, upload};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Streaming};

use super::*;

type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// The headers and content of each file.
type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// What a client got.
#[derive(Clone, Default)]
pub(crate) struct Client {
    received: Received,
    has_it_already: bool,
    /// Is told of each file that begins, none of which is read.
    stalls: Option<mpsc::Sender<()>>,
}

impl Client {
    pub(crate) fn that_stalls(stalls: mpsc::Sender<()>) -> Self {
        Self {
            stalls: Some(stalls),
            ..Self::default()
        }
    }
}

#[tonic::async_trait]
impl Secrets for Client {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        match request.into_inner().id.as_str() {
            "known" => Ok(Response::new(GetSecretResponse {
                data: Bytes::from_static(b"hush"),
            })),
            "broken" => Err(Status::internal("disk on fire")),
            _ => Err(Status::not_found("no such secret")),
        }
    }
}

#[tonic::async_trait]
impl FileSend for Client {
    type DiffCopyStream = Frames;

    async fn diff_copy(&self, request: Request<Streaming<Bytes>>) -> Result<Response<Frames>, Status> {
        if self.has_it_already {
            return Err(Status::already_exists("have it"));
        }
        if let Some(stalls) = &self.stalls {
            stalls.send(()).await.ok();
            std::future::pending::<()>().await;
        }
        let exporter = headers::value(request.metadata(), headers::EXPORTER_ID).unwrap_or_default();
        let digest =
            headers::value(request.metadata(), "exporter-md-containerimage.digest").unwrap_or_default();
        let mut frames = request.into_inner();
        let mut data = Vec::new();
        while let Some(frame) = frames.message().await? {
            assert!(frame.len() <= tunnel::MAX_SESSION_MESSAGE);
            let chunk =
                filesync::BytesMessage::decode(frame).map_err(|error| Status::internal(error.to_string()))?;
            data.extend_from_slice(&chunk.data);
        }
        self.received
            .lock()
            .unwrap()
            .push((format!("{exporter} {digest}"), data));
        Ok(Response::new(futures::stream::empty().boxed()))
    }
}

type AgentBytes = Pin<Box<dyn Stream<Item = Result<sshforward::BytesMessage, Status>> + Send>>;

/// An agent that says what it hears.
#[tonic::async_trait]
impl Ssh for Client {
    type ForwardAgentStream = AgentBytes;

    async fn check_agent(
        &self,
        request: Request<sshforward::CheckAgentRequest>,
    ) -> Result<Response<sshforward::CheckAgentResponse>, Status> {
        match request.into_inner().id.as_str() {
            "default" => Ok(Response::new(sshforward::CheckAgentResponse::default())),
            _ => Err(Status::not_found("no such agent")),
        }
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<sshforward::BytesMessage>>,
    ) -> Result<Response<AgentBytes>, Status> {
        Ok(Response::new(request.into_inner().boxed()))
    }
}

type Pulled = Pin<Box<dyn Stream<Item = Result<upload::BytesMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Upload for Client {
    type PullStream = Pulled;

    async fn pull(
        &self,
        request: Request<Streaming<upload::BytesMessage>>,
    ) -> Result<Response<Pulled>, Status> {
        match headers::value(request.metadata(), headers::UPLOAD_PATH).as_deref() {
            Some("/file") => {
                let parts = [&b"con"[..], b"tent"].map(|data| Ok(upload::BytesMessage { data: data.into() }));
                Ok(Response::new(futures::stream::iter(parts).boxed()))
            }
            _ => Err(Status::not_found("no such file")),
        }
    }
}

/// Opens a session for `client` and keeps it open until the returned task ends.
pub(crate) async fn open(sessions: &Arc<Sessions>, id: &str, client: Client) -> tokio::task::JoinHandle<()> {
    let mut metadata = MetadataMap::new();
    headers::append(&mut metadata, headers::SESSION_ID, [id]).unwrap();
    headers::append(&mut metadata, headers::SESSION_SHARED_KEY, ["key"]).unwrap();
    // Clients write method names in the case they like.
    let methods = [
        method::GET_SECRET.to_lowercase(),
        method::SEND_FILES.to_owned(),
        method::CHECK_AGENT.to_owned(),
        method::FORWARD_AGENT.to_owned(),
        method::PULL.to_owned(),
    ];
    headers::append(&mut metadata, headers::SESSION_METHOD, methods).unwrap();
    let (to_daemon, for_daemon) = mpsc::channel(1);
    let (to_client, for_client) = mpsc::channel(1);
    let (tunnel, mut from_client) = Tunnel::new(ReceiverStream::new(for_client));
    let mut from_daemon = sessions
        .open(&metadata, ReceiverStream::new(for_daemon))
        .await
        .unwrap();
    tokio::spawn(async move {
        while let Some(data) = from_client.next().await {
            if to_daemon.send(Ok(BytesMessage { data })).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(message) = from_daemon.next().await {
            if to_client.send(message.map(|message| message.data)).await.is_err() {
                break;
            }
        }
    });
    let routes = Routes::new(SecretsServer::new(client.clone()))
        .add_service(SshServer::new(client.clone()))
        .add_service(UploadServer::new(client.clone()))
        .add_service(FileSendServer::new(client));
    tokio::spawn(async move {
        tunnel::serve(tunnel, routes, std::future::pending()).await.ok();
    })
}

#[tokio::test]
async fn a_build_waits_for_its_session_and_loses_it_with_the_client() {
    let sessions = Sessions::new();
    let waiting = tokio::spawn({
        let sessions = Arc::clone(&sessions);
        async move { sessions.get("late").await }
    });
    tokio::task::yield_now().await;
    let client = open(&sessions, "late", Client::default()).await;
    let session = waiting.await.unwrap().unwrap();
    assert_eq!(session.shared_key(), "key");
    assert!(session.supports(method::GET_SECRET));
    assert!(!session.supports(method::SYNC_FILES));
    client.abort();
    tokio::time::timeout(Duration::from_secs(10), session.closed().cancelled())
        .await
        .expect("the session ends when its client goes away");
}

#[tokio::test]
async fn secrets_come_from_the_first_client_that_has_them() {
    let sessions = Sessions::new();
    let _client = open(&sessions, "a", Client::default()).await;
    let group = sessions.group(["", "a"]);
    assert_eq!(group.ids().len(), 1, "an empty id is no session");
    let secret = group.secret("known").await.unwrap().expect("the client has it");
    assert_eq!(secret.expose(), b"hush");
    assert_eq!(format!("{secret:?}"), "Secret(…)");
    assert_eq!(group.secret("unknown").await.unwrap(), None);
    assert_eq!(
        group.secret("broken").await.unwrap_err().to_string(),
        "disk on fire"
    );
    assert_eq!(
        group.credentials("registry.example").await.unwrap(),
        Credentials::Anonymous
    );
}

#[tokio::test]
async fn an_archive_reaches_the_client_in_messages_it_accepts() {
    let sessions = Sessions::new();
    let client = Client::default();
    let received = Arc::clone(&client.received);
    let _client = open(&sessions, "a", client).await;
    let archive: Vec<u8> = (0..7_000_000_u32).map(|n| (n % 251) as u8).collect();
    let response = BTreeMap::from([("containerimage.digest".to_owned(), "sha256:00".to_owned())]);
    let receiver = sessions.group(["a"]).receiver().await.unwrap();
    let content = futures::stream::iter([Ok(Bytes::from(archive.clone()))]);
    receiver.send_file(2, &response, content).await.unwrap();
    let received = received.lock().unwrap().pop().expect("one file");
    assert_eq!(received.0, "2 sha256:00");
    assert!(received.1 == archive);
    let broken = futures::stream::iter([Err(io::Error::other("disk on fire"))]);
    let error = receiver.send_file(0, &response, broken).await.unwrap_err();
    assert!(matches!(error, SessionError::Content(_)), "{error:?}");
}

#[tokio::test]
async fn a_client_that_has_the_output_already_is_content() {
    let sessions = Sessions::new();
    let _client = open(
        &sessions,
        "a",
        Client {
            has_it_already: true,
            ..Client::default()
        },
    )
    .await;
    let receiver = sessions.group(["a"]).receiver().await.unwrap();
    let endless = futures::stream::repeat_with(|| Ok(Bytes::from(vec![0; 1 << 20])));
    receiver.send_file(0, &BTreeMap::new(), endless).await.unwrap();
}

#[tokio::test]
async fn a_session_needs_an_id() {
    let error = Sessions::new()
        .open(&MetadataMap::new(), futures::stream::empty())
        .await
        .unwrap_err();
    assert!(matches!(error, SessionError::NoId));
}
