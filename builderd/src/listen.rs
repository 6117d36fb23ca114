//! Addresses to listen on, and the sockets behind them.
//!
//! A Unix socket is for its owner only: it is made under another name, given its mode and moved into place, so that
//! at no moment somebody else can connect. A socket that a live daemon answers on is left alone.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use futures::stream::{self, Stream};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp(String),
}

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("address {0:?} has no scheme; use unix://PATH or tcp://HOST:PORT")]
    NoScheme(String),
    #[error("address {0:?} is not supported; use unix://PATH or tcp://HOST:PORT")]
    Scheme(String),
    #[error("address {0:?} is not complete")]
    Incomplete(String),
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}")]
    Bind { address: Address, source: io::Error },
    #[error("another daemon listens on {0}")]
    Taken(Address),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| AddressError::NoScheme(text.to_owned()))?;
        match (scheme, rest) {
            ("unix" | "tcp", "") => Err(AddressError::Incomplete(text.to_owned())),
            ("unix", path) => Ok(Self::Unix(path.into())),
            ("tcp", host) => Ok(Self::Tcp(host.to_owned())),
            _ => Err(AddressError::Scheme(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

#[derive(Debug)]
pub enum Listener {
    Unix {
        listener: UnixListener,
        path: PathBuf,
    },
    Tcp {
        listener: TcpListener,
        address: SocketAddr,
    },
}

impl Listener {
    /// What clients connect to.
    pub fn address(&self) -> Address {
        match self {
            Self::Unix { path, .. } => Address::Unix(path.clone()),
            Self::Tcp { address, .. } => Address::Tcp(address.to_string()),
        }
    }

    /// Whether other machines can connect.
    pub fn is_reachable_from_outside(&self) -> bool {
        matches!(self, Self::Tcp { address, .. } if !address.ip().is_loopback())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            // Nobody is told if it is gone already.
            std::fs::remove_file(path).ok();
        }
    }
}

/// Opens the socket of an address.
pub async fn listen(address: &Address) -> Result<Listener, ListenError> {
    let failed = |source| ListenError::Bind {
        address: address.clone(),
        source,
    };
    match address {
        Address::Unix(path) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(ListenError::Taken(address.clone()));
            }
            let listener = private_socket(path).map_err(failed)?;
            Ok(Listener::Unix {
                listener,
                path: path.clone(),
            })
        }
        Address::Tcp(host) => {
            let listener = TcpListener::bind(host).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            Ok(Listener::Tcp { listener, address })
        }
    }
}

/// Connections as they come in.
pub fn unix_connections(listener: &UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    stream::poll_fn(|cx| {
        listener
            .poll_accept(cx)
            .map_ok(|(connection, _)| connection)
            .map(Some)
    })
}

/// Connections as they come in; small messages are sent at once.
pub fn tcp_connections(listener: &TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::poll_fn(|cx| {
        let accepted = listener.poll_accept(cx).map_ok(|(connection, _)| connection);
        accepted.map(|connection| {
            Some(connection.and_then(|connection| connection.set_nodelay(true).map(|()| connection)))
        })
    })
}

fn private_socket(path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_string_lossy();
    let nursery = path.with_file_name(format!(".{name}.{}", std::process::id()));
    std::fs::remove_file(&nursery).ok();
    let listener = UnixListener::bind(&nursery)?;
    let placed = std::fs::set_permissions(&nursery, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&nursery, path));
    if let Err(error) = placed {
        std::fs::remove_file(&nursery).ok();
        return Err(error);
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/daemon.sock");
        let address = Address::Unix(path.clone());
        let listener = listen(&address).await.unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(matches!(listen(&address).await, Err(ListenError::Taken(_))));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_answers_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        listen(&Address::Unix(path)).await.unwrap();
    }
}
