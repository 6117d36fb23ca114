//! Calls of a session that return one answer: credentials, secrets, the SSH agent.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryFutureExt};
use proto::exporter::exporter_client::ExporterClient;
use proto::exporter::{ExporterRequest, FinalizeExportRequest, FindExportersRequest};
use proto::filesync::CredentialsRequest;
use proto::filesync::auth_client::AuthClient;
use proto::headers;
use proto::policysession::policy_verifier_client::PolicyVerifierClient;
use proto::policysession::{CheckPolicyRequest, CheckPolicyResponse};
use proto::secrets::GetSecretRequest;
use proto::secrets::secrets_client::SecretsClient;
use proto::tunnel::{MAX_MESSAGE, Tunnel};
use proto::{sshforward, upload};
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Status};

use super::{Secret, Session, SessionError};

/// Full names of the methods that a session may offer.
pub mod method {
    pub const SYNC_FILES: &str = "/moby.filesync.v1.FileSync/DiffCopy";
    pub const SEND_FILES: &str = "/moby.filesync.v1.FileSend/DiffCopy";
    pub const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
    pub const FETCH_TOKEN: &str = "/moby.filesync.v1.Auth/FetchToken";
    pub const TOKEN_AUTHORITY: &str = "/moby.filesync.v1.Auth/GetTokenAuthority";
    pub const GET_SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
    pub const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
    pub const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
    pub const FIND_EXPORTERS: &str = "/moby.exporter.v1.Exporter/FindExporters";
    pub const FINALIZE_EXPORT: &str = "/moby.exporter.v1.Exporter/FinalizeExport";
    pub const CHECK_POLICY: &str = "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";
    pub const WRITE_CONTENT: &str = "/containerd.services.content.v1.Content/Write";
    pub const PULL: &str = "/moby.upload.v1.Upload/Pull";
    pub const CONTENT_INFO: &str = "/containerd.services.content.v1.Content/Info";
    pub const READ_CONTENT: &str = "/containerd.services.content.v1.Content/Read";
}

/// A client may ask its user, a helper program or the network.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The host in the URLs of files that come through the session.
pub const UPLOAD_HOST: &str = "buildkit-session";

/// What a client has for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    Anonymous,
    Password {
        username: String,
        password: Secret,
    },
    /// A refresh token for the registry's token service.
    IdentityToken(Secret),
}

impl Session {
    /// The client's credentials for a registry host, as in `registry-1.docker.io` or `localhost:5000`.
    pub async fn credentials(&self, host: &str) -> Result<Credentials, SessionError> {
        const METHOD: &str = method::CREDENTIALS;
        self.require(METHOD)?;
        let mut client = AuthClient::new(self.channel());
        let call = client.credentials(CredentialsRequest {
            host: host.to_owned(),
        });
        let answer = within(METHOD, call).await?.into_inner();
        let secret = Secret::new(answer.secret.into_bytes());
        Ok(match (answer.username, secret) {
            (username, secret) if username.is_empty() && secret.is_empty() => Credentials::Anonymous,
            (username, secret) if username.is_empty() => Credentials::IdentityToken(secret),
            (username, password) => Credentials::Password { username, password },
        })
    }

    /// A secret of the client; `None` if it has none of that name.
    pub async fn secret(&self, id: &str) -> Result<Option<Secret>, SessionError> {
        const METHOD: &str = method::GET_SECRET;
        if !self.supports(METHOD) {
            return Ok(None);
        }
        let mut client = SecretsClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        let request = GetSecretRequest {
            id: id.to_owned(),
            annotations: Default::default(),
        };
        match within(METHOD, client.get_secret(request)).await {
            Ok(answer) => Ok(Some(Secret::new(answer.into_inner().data))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The exporters that the client adds, now that there are results.
    pub async fn find_exporters(
        &self,
        request: FindExportersRequest,
    ) -> Result<Vec<ExporterRequest>, SessionError> {
        const METHOD: &str = method::FIND_EXPORTERS;
        self.require(METHOD)?;
        let mut client = ExporterClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        let call = async {
            match client.find_exporters(request).await {
                Err(status) if [Code::Unimplemented, Code::Unavailable].contains(&status.code()) => {
                    Ok(Vec::new())
                }
                other => other.map(|answer| answer.into_inner().exporters),
            }
        };
        within(METHOD, call).await
    }

    /// Tells the client what the exports came to; it may refuse. Not all clients want to know.
    pub async fn finalize_export(&self, response: BTreeMap<String, String>) -> Result<(), SessionError> {
        const METHOD: &str = method::FINALIZE_EXPORT;
        if !self.supports(METHOD) {
            return Ok(());
        }
        let mut client = ExporterClient::new(self.channel());
        let request = FinalizeExportRequest {
            exporter_response: response,
        };
        let call = async {
            match client.finalize_export(request).await {
                Err(status) if [Code::Unimplemented, Code::Unavailable].contains(&status.code()) => Ok(()),
                other => other.map(drop),
            }
        };
        within(METHOD, call).await
    }

    /// What the client's policy says of a source.
    pub async fn check_policy(
        &self,
        question: CheckPolicyRequest,
    ) -> Result<CheckPolicyResponse, SessionError> {
        const METHOD: &str = method::CHECK_POLICY;
        self.require(METHOD)?;
        let mut client = PolicyVerifierClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        Ok(within(METHOD, client.check_policy(question)).await?.into_inner())
    }

    /// Fails if the client has no SSH agent of that name.
    pub async fn check_agent(&self, id: &str) -> Result<(), SessionError> {
        const METHOD: &str = method::CHECK_AGENT;
        self.require(METHOD)?;
        let mut client = sshforward::ssh_client::SshClient::new(self.channel());
        let request = sshforward::CheckAgentRequest {
            id: agent_id(id).to_owned(),
        };
        within(METHOD, client.check_agent(request)).await?;
        Ok(())
    }

    /// A new connection to the client's SSH agent.
    pub async fn forward_agent(&self, id: &str) -> Result<Tunnel, SessionError> {
        const METHOD: &str = method::FORWARD_AGENT;
        self.require(METHOD)?;
        let mut client = sshforward::ssh_client::SshClient::new(self.channel());
        let mut metadata = MetadataMap::new();
        headers::append(&mut metadata, headers::SSH_ID, [agent_id(id)]).map_err(|source| {
            SessionError::Metadata {
                key: headers::SSH_ID,
                source,
            }
        })?;
        let (hand_over, payloads) = oneshot::channel::<ReceiverStream<Bytes>>();
        // Made while it is read: the response begins only when the agent answers the first request.
        let incoming = async move {
            let payloads = payloads
                .await
                .map_err(|_| Status::cancelled("the connection was closed"))?;
            let messages = payloads.map(|data| sshforward::BytesMessage { data });
            let request = Request::from_parts(metadata, Extensions::default(), messages);
            let answers = client.forward_agent(request).await?.into_inner();
            Ok(answers.map(|message| message.map(|message| message.data)))
        };
        let (agent, payloads) = Tunnel::new(incoming.try_flatten_stream());
        // The receiver is inside the tunnel that was just made.
        hand_over.send(payloads).ok();
        Ok(agent)
    }

    /// The bytes of a file that the client hands out once, such as a context from its standard input.
    pub async fn pull(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>, SessionError> {
        const METHOD: &str = method::PULL;
        self.require(METHOD)?;
        let mut client = upload::upload_client::UploadClient::new(self.channel());
        let mut request = Request::new(futures::stream::pending());
        for (key, value) in [
            (headers::UPLOAD_PATH, format!("/{id}")),
            (headers::UPLOAD_HOST, UPLOAD_HOST.to_owned()),
        ] {
            headers::append(request.metadata_mut(), key, [value])
                .map_err(|source| SessionError::Metadata { key, source })?;
        }
        let answers = within(METHOD, client.pull(request)).await?.into_inner();
        Ok(answers.map(|message| message.map(|message| message.data)))
    }

    pub(super) fn require(&self, method: &'static str) -> Result<(), SessionError> {
        if self.supports(method) {
            Ok(())
        } else {
            Err(SessionError::Unsupported { method })
        }
    }
}

/// Clients call their only agent `default`.
fn agent_id(id: &str) -> &str {
    if id.is_empty() { "default" } else { id }
}

pub(super) async fn within<T>(
    method: &'static str,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, SessionError> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|status| failed(method, status)),
        Err(_) => Err(SessionError::TimedOut { method }),
    }
}

pub(super) fn failed(method: &'static str, call: Status) -> SessionError {
    SessionError::Call {
        method,
        call: Box::new(call),
    }
}
