//! The client's SSH agent as a socket here: each connection to it is one through the session.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::Session;

/// Agents are asked one question after the other; more connections than this are no questions.
const CONNECTIONS: usize = 16;

#[derive(Debug)]
pub struct AgentSocket {
    path: PathBuf,
    /// Ends the relay, and every connection, with the socket.
    _relay: JoinSet<()>,
}

impl AgentSocket {
    /// `folder` must be private: whoever can open the socket can use the keys.
    pub fn listen(folder: &Path, session: Arc<Session>, id: &str) -> io::Result<Self> {
        let path = folder.join("agent");
        // The folder by its descriptor: its whole path may be longer than a socket address.
        let private = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(folder)?;
        let address = format!("/proc/self/fd/{}/agent", private.as_raw_fd());
        let listener = UnixListener::bind(address)?;
        let mut relay = JoinSet::new();
        relay.spawn(accept(listener, session, id.to_owned()));
        Ok(Self { path, _relay: relay })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

async fn accept(listener: UnixListener, session: Arc<Session>, id: String) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(relay(stream, Arc::clone(&session), id.clone()));
            }
            Err(error) => return tracing::debug!(%error, "the socket for an SSH agent is gone"),
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(mut stream: UnixStream, session: Arc<Session>, id: String) {
    let mut agent = match session.forward_agent(&id).await {
        Ok(agent) => agent,
        Err(error) => return tracing::debug!(%error, "no connection to the client's SSH agent"),
    };
    if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut agent).await {
        tracing::debug!(%error, "a connection to the client's SSH agent broke off");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::session::{Sessions, tests as client};

    #[tokio::test]
    async fn what_is_said_to_the_socket_reaches_the_clients_agent() {
        let sessions = Sessions::new();
        let _client = client::open(&sessions, "a", client::Client::default()).await;
        let group = sessions.group(["a"]);
        assert!(group.agent("other").await.unwrap().is_none());
        let session = group.agent("default").await.unwrap().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = AgentSocket::listen(folder.path(), session, "default").unwrap();
        for text in ["one", "two"] {
            let mut stream = UnixStream::connect(socket.path()).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut heard = [0; 3];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, text.as_bytes());
        }
        let path = socket.path().to_owned();
        drop(socket);
        tokio::task::yield_now().await;
        let gone = async { while UnixStream::connect(&path).await.is_ok() {} };
        tokio::time::timeout(std::time::Duration::from_secs(10), gone)
            .await
            .unwrap();
    }
}
