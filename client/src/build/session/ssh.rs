//! `SSH`: the agents that `--ssh` named. Connections go to the user's agent, or to one that is started for key files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use proto::sshforward::ssh_server::Ssh;
use proto::sshforward::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use proto::{headers, sshforward};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tonic::{Request, Response, Status, Streaming};

use super::Tasks;
use crate::build::values::AgentSource;

/// How long a new agent may take until it listens.
const START: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Agents {
    agents: BTreeMap<String, Agent>,
    tasks: Tasks,
}

#[derive(Debug)]
struct Agent {
    source: AgentSource,
    /// An agent for keys, started when it is first asked for.
    own: OnceCell<OwnAgent>,
}

/// An agent that ends with the session.
#[derive(Debug)]
struct OwnAgent {
    socket: PathBuf,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl Agents {
    pub fn new(sources: BTreeMap<String, AgentSource>, tasks: Tasks) -> Self {
        let agent = |source| Agent {
            source,
            own: OnceCell::new(),
        };
        Self {
            agents: sources
                .into_iter()
                .map(|(id, source)| (id, agent(source)))
                .collect(),
            tasks,
        }
    }

    async fn socket(&self, id: &str) -> Result<&Path, Status> {
        let id = if id.is_empty() { "default" } else { id };
        let agent = self
            .agents
            .get(id)
            .ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))?;
        match &agent.source {
            AgentSource::Socket(path) => Ok(path),
            AgentSource::Keys(keys) => {
                let own = agent.own.get_or_try_init(|| start(keys)).await;
                own.map(|own| own.socket.as_path()).map_err(Status::unknown)
            }
        }
    }
}

#[tonic::async_trait]
impl Ssh for Agents {
    type ForwardAgentStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.socket(&request.into_inner().id).await?;
        Ok(Response::new(CheckAgentResponse::default()))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<sshforward::BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = headers::value(request.metadata(), headers::SSH_ID).unwrap_or_default();
        let socket = self.socket(&id).await?;
        let stream = UnixStream::connect(socket).await.map_err(|error| {
            Status::unavailable(format!(
                "cannot connect to the SSH agent {}: {error}",
                socket.display()
            ))
        })?;
        let (answers, mut questions) = stream.into_split();
        let mut incoming = request.into_inner();
        self.tasks.spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if questions.write_all(&message.data).await.is_err() {
                    break;
                }
            }
            // The agent is gone, or hears by this that nobody asks any more.
            let _gone = questions.shutdown().await;
        });
        let answers = tokio_util::io::ReaderStream::new(answers).map(|chunk| {
            chunk
                .map(|data| BytesMessage { data })
                .map_err(|error| Status::unavailable(error.to_string()))
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// Starts an agent that has these keys and nothing else.
async fn start(keys: &[PathBuf]) -> Result<OwnAgent, String> {
    let missing = |program: &'static str| {
        move |error: std::io::Error| {
            format!(
                "--ssh with key files needs the program {program}: {error}; or use your own agent with --ssh default"
            )
        }
    };
    let folder = tempfile::Builder::new()
        .prefix("trimaran-ssh-")
        .tempdir()
        .map_err(|error| format!("cannot make a folder for an SSH agent: {error}"))?;
    let socket = folder.path().join("agent");
    let process = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(missing("ssh-agent"))?;
    let listening = async {
        while UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(START, listening)
        .await
        .map_err(|_| "the SSH agent for the keys of --ssh did not start".to_owned())?;
    for key in keys {
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &socket)
            // The terminal shows the build: there is no place to ask for a passphrase.
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("SSH_ASKPASS", "/bin/false")
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(missing("ssh-add"))?;
        if !added.status.success() {
            let reason = String::from_utf8_lossy(&added.stderr);
            return Err(format!(
                "cannot use the key {}: {}; one with a passphrase works through your own agent and --ssh default",
                key.display(),
                reason.trim()
            ));
        }
    }
    Ok(OwnAgent {
        socket,
        _process: process,
        _folder: folder,
    })
}
