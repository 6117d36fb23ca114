//! The builder that a command works with: found by name, by the current choice, or made up as the default, with the
//! drivers of its nodes and what they answer.

use std::time::Duration;

use crate::builders::{Builder, Node, NodeChange, Reach, Store, StoreError, Transaction};
use crate::daemon::{self, DaemonInfo};
use crate::docker::{self, DockerError};
use crate::drivers::{Condition, Driver, DriverError};
use crate::progress;
use crate::settings::Settings;
use tonic::transport::Channel;

/// The name of the builder that is there without being created.
pub const DEFAULT: &str = "default";

#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("asking the daemon")]
    Daemon(#[source] Box<tonic::Status>),
    #[error("no answer within {seconds} s")]
    Timeout { seconds: u64 },
}

/// Where builders are kept, and what counts as the current Docker endpoint.
#[derive(Clone, Debug)]
pub struct Builders {
    settings: Settings,
    store: Store,
}

impl Builders {
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            store: Store::new(settings.config_folder()),
        }
    }

    pub fn lock(&self) -> Result<Transaction, StoreError> {
        self.store.lock()
    }

    /// What `use` remembers its choice for.
    pub fn endpoint(&self) -> Result<String, DockerError> {
        docker::current_endpoint(&self.settings)
    }

    /// The named builder, else the one of the environment, else the current one, else the default.
    pub async fn find(&self, name: Option<&str>) -> Result<Builder, InstanceError> {
        let name = name.or_else(|| self.settings.builder());
        let stored = {
            let transaction = self.lock()?;
            match name {
                Some(DEFAULT) => transaction.find(DEFAULT)?,
                Some(name) => return Ok(transaction.builder(name)?),
                None => transaction.current(&self.endpoint()?)?,
            }
        };
        match stored {
            Some(builder) => Ok(builder),
            None => self.default_builder().await,
        }
    }

    /// All stored builders and the default.
    pub async fn all(&self) -> Result<Vec<Builder>, InstanceError> {
        let mut builders = self.lock()?.list()?;
        if builders.iter().all(|builder| builder.name != DEFAULT) {
            builders.push(self.default_builder().await?);
        }
        Ok(builders)
    }

    /// The builder that needs no `create`: in the Docker engine if one answers, else a daemon of our own.
    pub async fn default_builder(&self) -> Result<Builder, InstanceError> {
        let endpoint = self.endpoint()?;
        let driver = self.default_driver(&endpoint).await;
        let mut builder = Builder::new(DEFAULT, driver);
        let endpoint = if driver == "local" {
            format!("local://{DEFAULT}0")
        } else {
            endpoint
        };
        builder
            .update(NodeChange {
                name: None,
                endpoint,
                ..NodeChange::default()
            })
            .map_err(StoreError::Group)?;
        Ok(builder)
    }

    pub async fn default_driver(&self, endpoint: &str) -> &'static str {
        match docker::connect(&self.settings, endpoint).await {
            Ok(_) => "docker-container",
            Err(error) => {
                tracing::debug!(%error, "no Docker engine, the local driver is the default");
                "local"
            }
        }
    }

    pub fn use_builder(&self, name: &str, reach: Reach) -> Result<(), InstanceError> {
        let endpoint = self.endpoint()?;
        Ok(self.lock()?.set_current(&endpoint, name, reach)?)
    }

    /// Notes that a builder was used. The default one has no file to note it in.
    pub fn touch(&self, builder: &Builder) -> Result<(), StoreError> {
        let transaction = self.lock()?;
        if transaction.find(&builder.name)?.is_some() {
            transaction.touch(&builder.name)
        } else {
            Ok(())
        }
    }
}

/// A node and what is known about its daemon.
#[derive(Debug)]
pub struct LoadedNode {
    pub node: Node,
    pub driver: Option<Driver>,
    pub state: Result<NodeState, InstanceError>,
}

#[derive(Clone, Debug)]
pub struct NodeState {
    pub condition: Condition,
    /// What a running daemon says of itself.
    pub info: Option<DaemonInfo>,
    /// The connection over which it said so, to be used again: making one may take a tenth of a second.
    pub channel: Option<Channel>,
}

/// Asks all nodes of a builder at the same time.
pub async fn load(settings: &Settings, builder: &Builder, timeout: Duration) -> Vec<LoadedNode> {
    let nodes = builder.nodes.iter().map(|node| async move {
        let driver = match Driver::of(settings, builder, node) {
            Ok(driver) => driver,
            Err(error) => {
                return LoadedNode {
                    node: node.clone(),
                    driver: None,
                    state: Err(error.into()),
                };
            }
        };
        let state = match tokio::time::timeout(timeout, ask(&driver)).await {
            Ok(state) => state,
            Err(_) => Err(InstanceError::Timeout {
                seconds: timeout.as_secs(),
            }),
        };
        LoadedNode {
            node: node.clone(),
            driver: Some(driver),
            state,
        }
    });
    futures::future::join_all(nodes).await
}

async fn ask(driver: &Driver) -> Result<NodeState, InstanceError> {
    let condition = driver.condition().await?;
    if condition != Condition::Running {
        return Ok(NodeState {
            condition,
            info: None,
            channel: None,
        });
    }
    let channel = driver.channel()?;
    let info = daemon::info(channel.clone())
        .await
        .map_err(|status| InstanceError::Daemon(Box::new(status)))?;
    Ok(NodeState {
        condition,
        info: Some(info),
        channel: Some(channel),
    })
}

/// Starts every node that does not run. Returns whether there was anything to do.
pub async fn boot(nodes: &[LoadedNode], progress: &progress::Sender) -> Result<bool, InstanceError> {
    let idle: Vec<&Driver> = nodes
        .iter()
        .filter(|node| {
            node.state
                .as_ref()
                .is_ok_and(|state| state.condition != Condition::Running)
        })
        .filter_map(|node| node.driver.as_ref())
        .collect();
    futures::future::try_join_all(idle.iter().map(|driver| driver.boot(progress))).await?;
    Ok(!idle.is_empty())
}
