//! What the daemon may ask of the client during a build: files, credentials, secrets, and room for results.
//!
//! The services run on a second HTTP/2 connection inside the `Control/Session` call. They read only what the build's
//! flags named: a folder, a secret, an output. Their tasks belong to the session and end with it.

mod auth;
mod content;
mod files;
mod follow;
mod receive;
mod secrets;
mod send;
mod ssh;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures::{StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use proto::content::content_server::ContentServer;
use proto::control::BytesMessage;
use proto::filesync::auth_server::AuthServer;
use proto::filesync::file_send_server::FileSendServer;
use proto::filesync::file_sync_server::FileSyncServer;
use proto::secrets::secrets_server::SecretsServer;
use proto::sshforward::ssh_server::SshServer;
use proto::tunnel::{self, Tunnel};
use registry::docker_config::DockerConfig;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::outputs::Destination;
use super::values::{AgentSource, SecretSource};
use crate::daemon;
use crate::layout::Layout;
use crate::settings::Settings;

const METHODS: [&str; 15] = [
    "/grpc.health.v1.Health/Check",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.Auth/FetchToken",
    "/moby.filesync.v1.Auth/GetTokenAuthority",
    "/moby.filesync.v1.Auth/VerifyTokenAuthority",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSync/TarStream",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Update",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Write",
];

/// Everything that a session has to offer.
#[derive(Debug)]
pub struct Offer {
    pub folders: BTreeMap<String, PathBuf>,
    pub secrets: BTreeMap<String, SecretSource>,
    /// SSH agents.
    pub agents: BTreeMap<String, AgentSource>,
    /// By the number of the export.
    pub destinations: Vec<Destination>,
    /// OCI layouts, by the names that the daemon asks for.
    pub layouts: BTreeMap<String, Layout>,
    pub credentials: DockerConfig,
    /// Tells apart the folders of this client from equally named ones of others.
    pub shared_key: String,
    pub settings: Settings,
}

/// Tasks of the services. They end with the last handle; those that write results can be waited for.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    /// Why a result could not be written. The daemon does not always wait to hear it.
    failure: Arc<Mutex<Option<String>>>,
}

impl Tasks {
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.tracker.spawn(async move {
            token.run_until_cancelled(work).await;
        });
    }

    fn fail(&self, reason: &str) {
        if let Ok(mut failure) = self.failure.lock() {
            failure.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// Waits until everything that came has been written.
    pub async fn finish(&self) -> Result<(), String> {
        self.tracker.close();
        self.tracker.wait().await;
        let failure = self.failure.lock().ok().and_then(|mut failure| failure.take());
        failure.map_or(Ok(()), Err)
    }

    pub fn cancel(&self) {
        self.token.cancel();
    }
}

/// Serves a session until the daemon ends it; dropping the future ends it from this side.
pub async fn serve(channel: Channel, id: &str, offer: Offer, tasks: &Tasks) -> Result<(), Status> {
    let metadata = (
        id.to_owned(),
        offer.shared_key.clone(),
        [
            ("FileSend", !offer.destinations.is_empty()),
            ("SSH", !offer.agents.is_empty()),
            ("Content/", !offer.layouts.is_empty()),
        ],
    );
    let routes = routes(offer, tasks).await;

    // The tunnel has both directions, the call has first one, then the other: its stream of requests is handed over
    // once the tunnel is there.
    let (hand_over, handed_over) = oneshot::channel();
    let incoming = async move {
        let outgoing: tokio_stream::wrappers::ReceiverStream<bytes::Bytes> = handed_over
            .await
            .map_err(|_| Status::aborted("the session has ended"))?;
        let mut request = Request::new(outgoing.map(|data| BytesMessage { data }));
        let (id, shared_key, offered) = metadata;
        describe(&mut request, &id, &shared_key, offered)?;
        let response = daemon::control(channel).session(request).await?;
        Ok::<_, Status>(response.into_inner().map_ok(|message| message.data))
    }
    .try_flatten_stream();
    let (tunnel, outgoing) = Tunnel::new(incoming);
    if hand_over.send(outgoing).is_err() {
        return Err(Status::aborted("the session has ended"));
    }
    let served = tunnel::serve(tunnel, routes, std::future::pending()).await;
    served.map_err(|error| Status::unavailable(crate::error::chain(&error)))
}

/// `offered` says of services that not every build has whether this one does.
fn describe<T>(
    request: &mut Request<T>,
    id: &str,
    shared_key: &str,
    offered: [(&str, bool); 3],
) -> Result<(), Status> {
    let value = |text: &str| {
        AsciiMetadataValue::try_from(text)
            .map_err(|_| Status::invalid_argument(format!("{text:?} is no header value")))
    };
    let metadata = request.metadata_mut();
    metadata.insert("x-docker-expose-session-uuid", value(id)?);
    metadata.insert("x-docker-expose-session-name", value("")?);
    metadata.insert("x-docker-expose-session-sharedkey", value(shared_key)?);
    for method in METHODS.iter().filter(|method| {
        offered
            .iter()
            .all(|(service, is_there)| *is_there || !method.contains(service))
    }) {
        metadata.append(
            "x-docker-expose-session-grpc-method",
            AsciiMetadataValue::from_static(method),
        );
    }
    Ok(())
}

async fn routes(offer: Offer, tasks: &Tasks) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let files = files::Files {
        folders: Arc::new(offer.folders),
        tasks: tasks.clone(),
    };
    let auth = auth::Auth {
        config: Arc::new(offer.credentials),
        folder: offer.settings.config_folder(),
    };
    let secrets = secrets::Secrets {
        sources: offer.secrets,
        settings: offer.settings.clone(),
    };
    let agents = ssh::Agents::new(offer.agents, tasks.clone());
    let content = content::Content {
        layouts: Arc::new(offer.layouts),
        tasks: tasks.clone(),
    };
    let send = send::Results {
        destinations: Arc::new(offer.destinations),
        settings: offer.settings,
        tasks: tasks.clone(),
    };
    Routes::new(health)
        .add_service(limits(FileSyncServer::new(files)))
        .add_service(AuthServer::new(auth))
        .add_service(SecretsServer::new(secrets))
        .add_service(SshServer::new(agents))
        .add_service(ContentServer::new(content).max_decoding_message_size(tunnel::MAX_MESSAGE))
        .add_service(FileSendServer::new(send).max_decoding_message_size(tunnel::MAX_MESSAGE))
}

fn limits(server: FileSyncServer<files::Files>) -> FileSyncServer<files::Files> {
    server
        .max_decoding_message_size(tunnel::MAX_MESSAGE)
        .max_encoding_message_size(tunnel::MAX_MESSAGE)
}
