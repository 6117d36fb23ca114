//! A daemon that somebody else runs, reached over a socket, TCP with or without TLS, ssh, or a container of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::stream::{self, Opener};
use super::{Condition, DriverError};
use crate::builders::Node;
use crate::daemon;
use crate::docker;
use crate::progress::{self, Work};
use crate::settings::Settings;
use crate::ssh;

/// How long a daemon that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Remote {
    settings: Settings,
    endpoint: String,
    address: Address,
    tls: Option<Tls>,
    loads_by_default: bool,
}

#[derive(Debug)]
enum Address {
    Unix(PathBuf),
    Tcp(String),
    Container {
        name: String,
        /// The Docker context whose engine has it.
        context: Option<String>,
    },
    Ssh(ssh::Target),
}

#[derive(Debug)]
struct Tls {
    authority: String,
    /// The certificate to show, and its key.
    certificate: Option<(String, String)>,
    server_name: Option<String>,
}

const OPTIONS: &str = "which has cacert, cert, key, servername and default-load";

impl Address {
    fn parse(endpoint: &str) -> Result<Self, DriverError> {
        let text = || endpoint.to_owned();
        match endpoint.split_once("://") {
            Some((_, "")) => Err(DriverError::Endpoint { endpoint: text() }),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => Ok(Self::Tcp(address.trim_end_matches('/').to_owned())),
            Some(("ssh", _)) => Ok(Self::Ssh(ssh::Target::parse(endpoint)?)),
            Some(("docker-container", rest)) => {
                let (name, context) = match rest.split_once("?context=") {
                    Some((name, context)) => (name, Some(context.to_owned())),
                    None => (rest, None),
                };
                let name = name.trim_end_matches('/').to_owned();
                if name.is_empty() || name.contains(['/', '?']) {
                    return Err(DriverError::Endpoint { endpoint: text() });
                }
                Ok(Self::Container { name, context })
            }
            Some(("kube-pod", _)) => Err(DriverError::Pod { endpoint: text() }),
            _ => Err(DriverError::Endpoint { endpoint: text() }),
        }
    }
}

impl Remote {
    pub fn new(settings: &Settings, node: &Node) -> Result<Self, DriverError> {
        if !node.files.is_empty() {
            return Err(DriverError::NotOurs { what: "config file" });
        }
        if !node.daemon_flags.is_empty() {
            return Err(DriverError::NotOurs {
                what: "buildkit flags",
            });
        }
        let mut files: BTreeMap<&'static str, String> = BTreeMap::new();
        let (mut server_name, mut loads_by_default) = (None, false);
        for (option, value) in &node.driver_opts {
            match option.as_str() {
                "cacert" => absolute("cacert", value, &mut files)?,
                "cert" => absolute("cert", value, &mut files)?,
                "key" => absolute("key", value, &mut files)?,
                "servername" => server_name = Some(value.clone()),
                "default-load" => loads_by_default = super::switch("default-load", value)?,
                _ => {
                    return Err(DriverError::UnknownOption {
                        option: option.clone(),
                        driver: super::REMOTE,
                        known: OPTIONS,
                    });
                }
            }
        }
        let tls = tls(&mut files, server_name)?;
        let address = Address::parse(&node.endpoint)?;
        if tls.is_some() && !matches!(address, Address::Tcp(_)) {
            return Err(DriverError::TlsEndpoint {
                endpoint: node.endpoint.clone(),
            });
        }
        Ok(Self {
            settings: settings.clone(),
            endpoint: node.endpoint.clone(),
            address,
            tls,
            loads_by_default,
        })
    }

    pub fn loads_by_default(&self) -> bool {
        self.loads_by_default
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
        Ok(match &self.address {
            Address::Unix(path) => Opener::Unix(path.clone()),
            Address::Tcp(address) => Opener::Tcp(address.clone()),
            Address::Container { name, context } => Opener::Exec {
                settings: self.settings.clone(),
                endpoint: match context {
                    Some(context) => context.clone(),
                    None => docker::current_endpoint(&self.settings)?,
                },
                container: name.clone(),
                command: vec!["buildctl".to_owned(), "dial-stdio".to_owned()],
                socket: None,
            },
            Address::Ssh(target) => {
                let mut command = vec!["buildctl".to_owned()];
                if let Some(socket) = target.socket() {
                    command.extend(["--addr".to_owned(), format!("unix://{socket}")]);
                }
                command.push("dial-stdio".to_owned());
                Opener::Ssh(target.clone(), command)
            }
        })
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
        if let Some((certificate, key)) = &tls.certificate {
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

    pub async fn boot(&self, progress: &progress::Sender, bracket: &str) -> Result<(), DriverError> {
        let channel = self.channel()?;
        if daemon::answers(channel.clone()).await {
            return Ok(());
        }
        let work = Work::begin(progress, &format!("[{bracket}] waiting for connection")).await;
        let ready = daemon::wait_until_ready(channel, PATIENCE).await;
        work.end(ready.then_some(()).ok_or_else(|| DriverError::Silent {
            endpoint: self.endpoint.clone(),
            seconds: PATIENCE.as_secs(),
        }))
        .await
    }
}

fn absolute(
    option: &'static str,
    path: &str,
    files: &mut BTreeMap<&'static str, String>,
) -> Result<(), DriverError> {
    // The instance is used from other folders than this one.
    if !Path::new(path).is_absolute() {
        return Err(DriverError::RelativePath {
            option,
            path: path.to_owned(),
        });
    }
    files.insert(option, path.to_owned());
    Ok(())
}

fn tls(
    files: &mut BTreeMap<&'static str, String>,
    server_name: Option<String>,
) -> Result<Option<Tls>, DriverError> {
    if files.is_empty() && server_name.is_none() {
        return Ok(None);
    }
    let (authority, certificate, key) = (files.remove("cacert"), files.remove("cert"), files.remove("key"));
    let missing: Vec<&str> = [
        ("cacert", authority.is_none()),
        ("key", certificate.is_some() && key.is_none()),
        ("cert", key.is_some() && certificate.is_none()),
    ]
    .into_iter()
    .filter_map(|(name, is_missing)| is_missing.then_some(name))
    .collect();
    match authority {
        Some(authority) if missing.is_empty() => Ok(Some(Tls {
            authority,
            certificate: certificate.zip(key),
            server_name,
        })),
        _ => Err(DriverError::IncompleteTls {
            missing: missing.join(", "),
        }),
    }
}

fn read(path: &str) -> Result<Vec<u8>, DriverError> {
    std::fs::read(path).map_err(|source| DriverError::File {
        action: "reading",
        path: path.to_owned(),
        source,
    })
}
