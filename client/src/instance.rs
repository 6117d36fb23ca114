//! The builder that a command works with: found by name, by the current choice, or made up as the default, with the
//! drivers of its nodes and what they answer.

use std::time::Duration;

use crate::builders::{Builder, Node, NodeChange, Origin, Store, StoreError, Transaction, valid_name};
use crate::daemon::{self, DaemonInfo};
use crate::docker::{self, DockerError};
use crate::drivers::{Condition, Driver, DriverError};
use crate::progress;
use crate::settings::Settings;
use tonic::transport::Channel;

/// The name of the builder that is there without being created.
pub const DEFAULT: &str = docker::DEFAULT_CONTEXT;

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
            store: Store::new(settings.config_folder(), settings.buildx_folder()),
        }
    }

    pub fn lock(&self) -> Result<Transaction, StoreError> {
        self.store.lock()
    }

    /// As [`Store::lock_for`].
    pub fn lock_for(&self, name: &str) -> Result<Transaction, StoreError> {
        self.store.lock_for(name)
    }

    /// What `use` remembers its choice for.
    pub fn endpoint(&self) -> Result<String, DockerError> {
        docker::current_endpoint(&self.settings)
    }

    /// The named builder, else the one of the environment, else the current one, else that of the Docker context.
    pub async fn find(&self, name: Option<&str>) -> Result<Builder, InstanceError> {
        match self.stored(name)? {
            Some(builder) => Ok(builder),
            None => {
                let name = name.or_else(|| self.settings.builder());
                let context = name.map_or_else(|| docker::current_context(&self.settings), str::to_owned);
                self.of_context(&context).await
            }
        }
    }

    /// As `find`, without a look at any engine: nothing for a builder that needs no `create`.
    pub fn stored(&self, name: Option<&str>) -> Result<Option<Builder>, InstanceError> {
        let name = name.or_else(|| self.settings.builder());
        let transaction = self.lock()?;
        match name {
            Some(name) if docker::has_context(&self.settings, name) => {
                // A context's name need not be one that an instance can have.
                match valid_name(name) {
                    Ok(name) => Ok(transaction.find(&name)?),
                    Err(_) => Ok(None),
                }
            }
            Some(name) => Ok(Some(transaction.builder(name)?)),
            None => Ok(transaction.current(&self.endpoint()?)?),
        }
    }

    /// All stored builders by name, and then those of the Docker contexts.
    pub async fn all(&self) -> Result<Vec<Builder>, InstanceError> {
        let mut builders = self.lock()?.list()?;
        let mut contexts = docker::context_names(&self.settings);
        contexts.push(DEFAULT.to_owned());
        contexts.sort();
        for name in contexts {
            if builders.iter().all(|builder| builder.name != name) {
                builders.push(self.of_context(&name).await?);
            }
        }
        Ok(builders)
    }

    /// The names that `--builder` takes.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.store.names().unwrap_or_default();
        names.extend(docker::context_names(&self.settings));
        names.push(DEFAULT.to_owned());
        names.sort();
        names.dedup();
        names
    }

    /// The builder that needs no `create`: in the engine of a Docker context. The default one is a daemon of our own
    /// where no engine answers.
    async fn of_context(&self, name: &str) -> Result<Builder, InstanceError> {
        let (driver, endpoint) = if name == DEFAULT {
            let endpoint = docker::engine(&self.settings, DEFAULT)?.host;
            match self.default_driver(&endpoint).await {
                "local" => ("local", format!("local://{DEFAULT}0")),
                driver => (driver, endpoint),
            }
        } else {
            ("docker-container", name.to_owned())
        };
        let mut builder = Builder::new(name, driver);
        builder.origin = Origin::Context;
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

    /// Notes that a builder was used. One that nobody made has no file to note it in.
    pub fn touch(&self, builder: &Builder) -> Result<(), StoreError> {
        self.lock()?.touch(&builder.name)
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
    let idle: Vec<(&str, &Driver)> = nodes
        .iter()
        .filter(|node| {
            node.state
                .as_ref()
                .is_ok_and(|state| state.condition != Condition::Running)
        })
        .filter_map(|node| Some((node.node.name.as_str(), node.driver.as_ref()?)))
        .collect();
    let several = idle.len() > 1;
    futures::future::try_join_all(idle.iter().map(|&(name, driver)| async move {
        // Several that start at the same time are told apart.
        let bracket = if several {
            format!("{name} internal")
        } else {
            "internal".to_owned()
        };
        driver.boot_among(progress, &bracket).await
    }))
    .await?;
    Ok(!idle.is_empty())
}
