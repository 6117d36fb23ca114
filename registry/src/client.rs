//! A client of the OCI distribution API.
//!
//! Pulls ask the configured mirrors first and verify every byte against the digest asked for; pushes go to the registry
//! itself. Connections are shared by all clones of a client and by all names it acts in (`with_credentials`).

mod auth;
mod copy;
mod download;
mod error;
mod host;
mod manifests;
mod referrers;
mod transport;
mod upload;

use std::sync::Arc;

pub use self::auth::{
    Anonymous, CredentialSource, Credentials, IssuedToken, Secret, TokenRequest, issue_token,
};
pub use self::copy::{Copied, Copier};
pub use self::download::BlobReader;
pub use self::error::{BoxError, Corruption, Error, Finding, Reason, Refusal};
pub use self::host::{ClientCertificate, Config, HostConfig, Retry, is_loopback};
pub use self::transport::OnProgress;
pub use self::upload::{BlobSource, Pushed, Upload, UploadOptions};

use self::auth::Auth;
use self::host::{Connections, Endpoint};
use self::transport::Transport;

/// Talks to registries in one name.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
}

impl Client {
    pub fn new(config: Config, credentials: Arc<dyn CredentialSource>) -> Self {
        Self {
            transport: Transport {
                connections: Arc::new(Connections::new(config)),
                auth: Arc::new(Auth::new(credentials)),
            },
        }
    }

    /// The same connections, in another name.
    #[must_use]
    pub fn with_credentials(&self, credentials: Arc<dyn CredentialSource>) -> Self {
        Self {
            transport: Transport {
                connections: self.transport.connections.clone(),
                auth: Arc::new(Auth::new(credentials)),
            },
        }
    }

    /// The same credentials, with another configuration for one registry (`registry.insecure` of an export).
    #[must_use]
    pub fn with_host(&self, registry: &str, host: HostConfig) -> Self {
        let mut config = self.transport.connections.config.clone();
        config.hosts.insert(registry.to_owned(), host);
        Self {
            transport: Transport {
                connections: Arc::new(Connections::new(config)),
                auth: self.transport.auth.clone(),
            },
        }
    }

    pub fn config(&self) -> &Config {
        &self.transport.connections.config
    }

    /// Tries `attempt` at each server to pull from; what the registry itself says counts in the end.
    async fn try_each<T, F>(
        &self,
        endpoints: &[Arc<Endpoint>],
        mut attempt: impl FnMut(Arc<Endpoint>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Some((origin, mirrors)) = endpoints.split_last() else {
            unreachable!("a registry is always its own last endpoint");
        };
        for mirror in mirrors {
            match attempt(mirror.clone()).await {
                Ok(found) => return Ok(found),
                Err(error) => tracing::debug!(mirror = mirror.host, %error, "mirror passed over"),
            }
        }
        attempt(origin.clone()).await
    }
}

#[cfg(test)]
mod tests;
