//! Where a node's daemon runs, and how to reach it.
//!
//! Three drivers: `docker-container` runs the daemon in a container of a Docker engine, `remote` uses one that somebody
//! else runs, `local` starts one as a background process of this machine. All of them end in one thing: a byte stream
//! to the daemon's socket, over which [`crate::daemon`] speaks gRPC.

mod container;
mod executable;
mod image;
mod local;
mod remote;
mod stream;

use std::fmt;

use crate::builders::{Builder, Node};
use crate::docker::DockerError;
use crate::progress;
use crate::settings::Settings;

pub use executable::ExecutableError;
pub use stream::DaemonStream;

/// The drivers by name, in the order in which help texts list them.
pub const NAMES: [&str; 3] = ["docker-container", "remote", "local"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Inactive,
    Starting,
    Running,
    Stopping,
    Stopped,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inactive => "inactive",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("failed to find driver \"{name}\", available are {}", NAMES.join(", "))]
    UnknownDriver { name: String },
    #[error("invalid driver option {option} for {driver} driver")]
    UnknownOption { option: String, driver: &'static str },
    #[error("invalid value \"{value}\" for driver option {option}: {expected}")]
    OptionValue {
        option: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error(
        "endpoint {endpoint} is not valid for the remote driver: write unix://PATH, tcp://HOST:PORT or docker-container://NAME"
    )]
    Endpoint { endpoint: String },
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error("asking the Docker engine to {action}")]
    Engine {
        action: String,
        source: bollard::errors::Error,
    },
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    #[error("{action} {path}")]
    File {
        action: &'static str,
        path: String,
        source: std::io::Error,
    },
    #[error("connecting to {endpoint}")]
    Connect {
        endpoint: String,
        source: std::io::Error,
    },
    #[error("the daemon in container {container} ended: {log}")]
    ContainerEnded { container: String, log: String },
    #[error("the daemon ended during start-up, its log {log} ends with: {tail}")]
    DaemonEnded { log: String, tail: String },
    #[error("the daemon did not answer within {seconds} s, see {log}")]
    NotReady { seconds: u64, log: String },
    #[error("no daemon answered at {endpoint} within {seconds} s")]
    Silent { endpoint: String, seconds: u64 },
    #[error("TLS needs {missing} beside {given}")]
    IncompleteTls {
        given: &'static str,
        missing: &'static str,
    },
    #[error("a raw stream to {endpoint} is not possible: the connection is encrypted by this program itself")]
    NoRawStream { endpoint: String },
    #[error("setting up TLS to {endpoint}")]
    Tls {
        endpoint: String,
        source: tonic::transport::Error,
    },
}

#[derive(Debug)]
pub enum Driver {
    Container(Box<container::Container>),
    Remote(remote::Remote),
    Local(local::Local),
}

impl Driver {
    /// The driver of one node. Options are checked here, before anything is contacted.
    pub fn of(settings: &Settings, builder: &Builder, node: &Node) -> Result<Self, DriverError> {
        match builder.driver.as_str() {
            "docker-container" => {
                container::Container::new(settings, node).map(|driver| Self::Container(Box::new(driver)))
            }
            "remote" => remote::Remote::new(settings, node).map(Self::Remote),
            "local" => local::Local::new(settings, node).map(Self::Local),
            other => Err(DriverError::UnknownDriver {
                name: other.to_owned(),
            }),
        }
    }

    pub async fn condition(&self) -> Result<Condition, DriverError> {
        match self {
            Self::Container(driver) => driver.condition().await,
            Self::Remote(driver) => driver.condition().await,
            Self::Local(driver) => Ok(driver.condition().await),
        }
    }

    /// Starts the daemon unless it runs, and waits until it answers.
    pub async fn boot(&self, progress: &progress::Sender) -> Result<(), DriverError> {
        match self {
            Self::Container(driver) => driver.boot(progress).await,
            Self::Remote(driver) => driver.boot(progress).await,
            Self::Local(driver) => driver.boot(progress).await,
        }
    }

    /// Ends the daemon. For a remote one that is not ours to do.
    pub async fn stop(&self) -> Result<(), DriverError> {
        match self {
            Self::Container(driver) => driver.stop().await,
            Self::Remote(_) => Ok(()),
            Self::Local(driver) => driver.stop().await,
        }
    }

    /// Removes what the driver made: the container or the process, and its state unless that is to be kept.
    pub async fn remove(&self, state: State) -> Result<(), DriverError> {
        match self {
            Self::Container(driver) => driver.remove(state).await,
            Self::Remote(_) => Ok(()),
            Self::Local(driver) => driver.remove(state).await,
        }
    }

    /// A channel for gRPC calls. It connects when the first call is made.
    pub fn channel(&self) -> Result<tonic::transport::Channel, DriverError> {
        match self {
            Self::Container(driver) => Ok(stream::channel(driver.opener())),
            Self::Remote(driver) => driver.channel(),
            Self::Local(driver) => Ok(stream::channel(driver.opener())),
        }
    }

    /// A raw byte stream to the daemon's socket.
    pub async fn stream(&self) -> Result<DaemonStream, DriverError> {
        let (opener, endpoint) = match self {
            Self::Container(driver) => (driver.opener(), "the container".to_owned()),
            Self::Remote(driver) => (driver.opener()?, driver.endpoint().to_owned()),
            Self::Local(driver) => (driver.opener(), "the local daemon".to_owned()),
        };
        opener
            .open()
            .await
            .map_err(|source| DriverError::Connect { endpoint, source })
    }
}

/// What happens to a daemon's cache when it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Keep,
    Remove,
}
