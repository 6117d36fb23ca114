//! A daemon that somebody else runs, reached over a socket, TCP with or without TLS, or a container of its own.

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::stream::{self, Opener};
use super::{Condition, DriverError};
use crate::builders::Node;
use crate::daemon;
use crate::docker;
use crate::progress::{self, Work};
use crate::settings::Settings;

/// How long a daemon that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Remote {
    settings: Settings,
    endpoint: String,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Tls {
    authority: String,
    certificate: Option<String>,
    key: Option<String>,
    server_name: Option<String>,
}

/// Whether this is an address that the remote driver can use.
pub fn is_valid_endpoint(endpoint: &str) -> bool {
    ["unix://", "tcp://", "docker-container://"]
        .iter()
        .any(|scheme| endpoint.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

impl Remote {
    pub fn new(settings: &Settings, node: &Node) -> Result<Self, DriverError> {
        if !is_valid_endpoint(&node.endpoint) {
            return Err(DriverError::Endpoint {
                endpoint: node.endpoint.clone(),
            });
        }
        let option = |name: &str| node.driver_opts.get(name).cloned();
        for name in node.driver_opts.keys() {
            if !matches!(name.as_str(), "cacert" | "cert" | "key" | "servername") {
                return Err(DriverError::UnknownOption {
                    option: name.clone(),
                    driver: "remote",
                });
            }
        }
        let tls = match (option("cacert"), option("cert"), option("key")) {
            (None, None, None) => None,
            (None, _, _) => {
                return Err(DriverError::IncompleteTls {
                    given: "cert and key",
                    missing: "cacert",
                });
            }
            (Some(_), Some(_), None) => {
                return Err(DriverError::IncompleteTls {
                    given: "cert",
                    missing: "key",
                });
            }
            (Some(_), None, Some(_)) => {
                return Err(DriverError::IncompleteTls {
                    given: "key",
                    missing: "cert",
                });
            }
            (Some(authority), certificate, key) => Some(Tls {
                authority,
                certificate,
                key,
                server_name: option("servername"),
            }),
        };
        Ok(Self {
            settings: settings.clone(),
            endpoint: node.endpoint.clone(),
            tls,
        })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn opener(&self) -> Result<Opener, DriverError> {
        if self.tls.is_some() {
            return Err(DriverError::NoRawStream {
                endpoint: self.endpoint.clone(),
            });
        }
        if let Some(path) = self.endpoint.strip_prefix("unix://") {
            Ok(Opener::Unix(path.into()))
        } else if let Some(address) = self.endpoint.strip_prefix("tcp://") {
            Ok(Opener::Tcp(address.trim_end_matches('/').to_owned()))
        } else if let Some(container) = self.endpoint.strip_prefix("docker-container://") {
            Ok(Opener::Exec {
                settings: self.settings.clone(),
                endpoint: docker::current_endpoint(&self.settings)?,
                container: container.to_owned(),
                command: vec!["buildctl".to_owned(), "dial-stdio".to_owned()],
                socket: None,
            })
        } else {
            Err(DriverError::Endpoint {
                endpoint: self.endpoint.clone(),
            })
        }
    }

    pub fn channel(&self) -> Result<Channel, DriverError> {
        let Some(tls) = &self.tls else {
            return Ok(stream::channel(self.opener()?));
        };
        let failed = |source| DriverError::Tls {
            endpoint: self.endpoint.clone(),
            source,
        };
        let address = self
            .endpoint
            .strip_prefix("tcp://")
            .unwrap_or(&self.endpoint)
            .trim_end_matches('/');
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&tls.authority)?));
        if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        if let Some(name) = &tls.server_name {
            config = config.domain_name(name);
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(failed)?;
        Ok(stream::tuned(endpoint)
            .tls_config(config)
            .map_err(failed)?
            .connect_lazy())
    }

    pub async fn condition(&self) -> Result<Condition, DriverError> {
        let channel = self.channel()?;
        Ok(if daemon::answers(channel).await {
            Condition::Running
        } else {
            Condition::Inactive
        })
    }

    pub async fn boot(&self, progress: &progress::Sender) -> Result<(), DriverError> {
        let channel = self.channel()?;
        if daemon::answers(channel.clone()).await {
            return Ok(());
        }
        let name = "[internal] waiting for connection";
        let work = Work::begin(progress, name).await;
        let ready = daemon::wait_until_ready(channel, PATIENCE).await;
        work.end(ready.then_some(()).ok_or_else(|| DriverError::Silent {
            endpoint: self.endpoint.clone(),
            seconds: PATIENCE.as_secs(),
        }))
        .await
    }
}

fn read(path: &str) -> Result<Vec<u8>, DriverError> {
    std::fs::read(path).map_err(|source| DriverError::File {
        action: "reading",
        path: path.to_owned(),
        source,
    })
}
