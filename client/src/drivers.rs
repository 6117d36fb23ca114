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
use crate::ssh::SshError;

pub use executable::ExecutableError;
pub use stream::DaemonStream;

pub const CONTAINER: &str = "docker-container";
pub const REMOTE: &str = "remote";
pub const LOCAL: &str = "local";

/// The drivers by name, in the order in which help texts list them.
pub const NAMES: [&str; 3] = [CONTAINER, REMOTE, LOCAL];

/// Refuses a driver that there is not.
pub fn known(name: &str) -> Result<(), DriverError> {
    match name {
        name if NAMES.contains(&name) => Ok(()),
        "kubernetes" => Err(DriverError::Kubernetes),
        "docker" => Err(DriverError::Docker),
        other => Err(DriverError::UnknownDriver {
            name: other.to_owned(),
        }),
    }
}

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
    #[error(
        "the kubernetes driver is not supported: run builderd in the cluster, and reach it with `--driver remote tcp://HOST:PORT`, for instance through `kubectl port-forward`"
    )]
    Kubernetes,
    #[error(
        "additional instances of driver \"docker\" cannot be created, as it is the engine's own: use docker-container"
    )]
    Docker,
    #[error("invalid driver option {option} for {driver} driver, {known}")]
    UnknownOption {
        option: String,
        driver: &'static str,
        known: &'static str,
    },
    #[error("driver option {option}={value} is not supported: {way_out}")]
    UnsupportedOption {
        option: &'static str,
        value: String,
        way_out: &'static str,
    },
    #[error("non-absolute path '{path}' provided for {option}")]
    RelativePath { option: &'static str, path: String },
    #[error("setting {what} is not supported for remote driver: the daemon has its own")]
    NotOurs { what: &'static str },
    #[error("invalid value \"{value}\" for driver option {option}: {expected}")]
    OptionValue {
        option: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error(
        "endpoint {endpoint} is not valid for the remote driver: write unix://PATH, tcp://HOST:PORT, ssh://[USER@]HOST[:PORT][/SOCKET] or docker-container://NAME"
    )]
    Endpoint { endpoint: String },
    #[error(
        "endpoint {endpoint} is not supported: forward the pod's port with `kubectl port-forward`, and write tcp://localhost:PORT"
    )]
    Pod { endpoint: String },
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error(transparent)]
    Engine(#[from] DockerError),
    #[error("asking the Docker engine to {action}")]
    Request {
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
    #[error(
        "TLS over {endpoint} is not supported, as only tcp:// takes certificates: leave cacert, cert, key and servername out"
    )]
    TlsEndpoint { endpoint: String },
    #[error("tls enabled, but missing keys {missing}")]
    IncompleteTls { missing: String },
    #[error("no credentials for the image {image}")]
    Credentials {
        image: String,
        source: registry::docker_config::DockerConfigError,
    },
    #[error("invalid image name {image}")]
    Image {
        image: String,
        source: registry::reference::ReferenceError,
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
        known(&builder.driver)?;
        match builder.driver.as_str() {
            CONTAINER => container::Container::new(settings, node, builder.origin)
                .map(|driver| Self::Container(Box::new(driver))),
            REMOTE => remote::Remote::new(settings, node).map(Self::Remote),
            _ => local::Local::new(settings, node).map(Self::Local),
        }
    }

    /// `default-load`: whether a build without an output goes into the Docker engine.
    pub fn loads_by_default(&self) -> bool {
        match self {
            Self::Container(driver) => driver.loads_by_default(),
            Self::Remote(driver) => driver.loads_by_default(),
            Self::Local(_) => false,
        }
    }

    /// What buildx calls features of a driver, by name.
    pub fn features(&self) -> [(&'static str, bool); 6] {
        [
            (
                "Automatically load images to the Docker Engine image store",
                self.loads_by_default(),
            ),
            ("Cache export", true),
            ("Direct push", true),
            ("Docker exporter", true),
            ("Multi-platform build", true),
            ("OCI exporter", true),
        ]
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
        self.boot_among(progress, "internal").await
    }

    /// As [`Self::boot`], one of several whose steps are told apart by what is in brackets.
    pub async fn boot_among(&self, progress: &progress::Sender, bracket: &str) -> Result<(), DriverError> {
        match self {
            Self::Container(driver) => driver.boot(progress, bracket).await,
            Self::Remote(driver) => driver.boot(progress, bracket).await,
            Self::Local(driver) => driver.boot(progress, bracket).await,
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

/// A boolean as Go spells it.
fn switch(option: &'static str, value: &str) -> Result<bool, DriverError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(DriverError::OptionValue {
            option,
            value: value.to_owned(),
            expected: "true or false",
        }),
    }
}

/// What happens to a daemon's cache when it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Keep,
    Remove,
}
