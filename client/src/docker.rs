//! Which Docker engine the user means, and how to reach it.
//!
//! The Docker command line's rules: `DOCKER_HOST`, else the context named by `DOCKER_CONTEXT` or by `config.json`, else
//! the local socket. Where an engine is named, in instances and on the command line, it is a context's name or an
//! address.

mod contexts;

use std::path::{Path, PathBuf};

use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::settings::Settings;
use crate::ssh::{self, SshError};

pub use contexts::{context_names, current_context, has_context};

pub const DEFAULT_ENDPOINT: &str = "unix:///var/run/docker.sock";
/// The context that is there without being made.
pub const DEFAULT_CONTEXT: &str = "default";
const TIMEOUT_SECONDS: u64 = 120;

#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    #[error("there is no Docker context \"{name}\", `docker context ls` lists those there are")]
    NoContext { name: String },
    #[error("reading the Docker context \"{name}\" ({})", path.display())]
    ReadContext {
        name: String,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the Docker context \"{name}\" has no usable description")]
    ParseContext { name: String, source: serde_json::Error },
    #[error("the Docker context \"{name}\" names no Docker engine")]
    EmptyContext { name: String },
    #[error(
        "the Docker context \"{name}\" trusts any certificate, which is not supported: give it the engine's authority with `docker context update --docker host=…,ca=FILE`"
    )]
    Unverified { name: String },
    #[error("Docker endpoint {endpoint} is not supported: use unix://PATH, tcp://HOST:PORT or ssh://HOST")]
    Scheme { endpoint: String },
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error("cannot connect to the Docker engine at {endpoint}")]
    Connect {
        endpoint: String,
        source: bollard::errors::Error,
    },
}

/// An engine's address, and the certificates for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    pub host: String,
    /// A folder with `ca.pem`, `cert.pem` and `key.pem`.
    certificates: Option<PathBuf>,
}

/// The endpoint of the engine in use, as it is written in builder instances: the name of a context made by the user,
/// else an address.
pub fn current_endpoint(settings: &Settings) -> Result<String, DockerError> {
    let name = current_context(settings);
    if name == DEFAULT_CONTEXT {
        return Ok(default_host(settings).to_owned());
    }
    // One that is not there is found out now, before it is written anywhere.
    contexts::engine(settings, &name)?;
    Ok(name)
}

fn default_host(settings: &Settings) -> &str {
    settings.get("DOCKER_HOST").unwrap_or(DEFAULT_ENDPOINT)
}

/// The engine that an endpoint means: an address, or the name of a context.
pub fn engine(settings: &Settings, endpoint: &str) -> Result<Engine, DockerError> {
    let of_environment = |host: &str| Engine {
        host: host.to_owned(),
        certificates: certificates(settings, host),
    };
    if endpoint.contains("://") {
        Ok(of_environment(endpoint))
    } else if endpoint == DEFAULT_CONTEXT {
        Ok(of_environment(default_host(settings)))
    } else {
        contexts::engine(settings, endpoint)
    }
}

/// An address as a user may write it, in full: with the port and the path that Docker assumes.
pub fn full_address(text: &str) -> Result<String, DockerError> {
    let text = text.trim();
    let unsupported = || DockerError::Scheme {
        endpoint: text.to_owned(),
    };
    match text.split_once("://") {
        Some(("unix", "")) => Ok(DEFAULT_ENDPOINT.to_owned()),
        Some(("unix" | "http" | "https", _)) => Ok(text.to_owned()),
        Some(("ssh", _)) => {
            ssh::Target::parse(text)?;
            Ok(text.to_owned())
        }
        Some(("tcp", address)) => tcp_address(address).ok_or_else(unsupported),
        Some(_) => Err(unsupported()),
        None => tcp_address(text).ok_or_else(unsupported),
    }
}

fn tcp_address(address: &str) -> Option<String> {
    let address = address.trim_end_matches('/');
    let (host, port) = match address.rsplit_once(':') {
        // The colons of an IPv6 address are within its brackets.
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (address, "2375"),
    };
    let host = if host.is_empty() { "localhost" } else { host };
    port.parse::<u16>().ok()?;
    (!host.contains(['/', '@'])).then(|| format!("tcp://{host}:{port}"))
}

/// The socket behind an endpoint on this machine.
pub fn local_socket(endpoint: &str) -> Option<&Path> {
    endpoint.strip_prefix("unix://").map(Path::new)
}

/// A client of the engine that an endpoint means, at the newest API version that both sides know.
pub async fn connect(settings: &Settings, endpoint: &str) -> Result<Docker, DockerError> {
    let engine = engine(settings, endpoint)?;
    let host = engine.host.as_str();
    let failed = |source| DockerError::Connect {
        endpoint: host.to_owned(),
        source,
    };
    let docker = if let Some(socket) = host.strip_prefix("unix://") {
        Docker::connect_with_socket(socket, TIMEOUT_SECONDS, API_DEFAULT_VERSION)
    } else if host.starts_with("ssh://") {
        over_ssh(&ssh::Target::parse(host)?)
    } else if host.starts_with("tcp://") || host.starts_with("http://") || host.starts_with("https://") {
        match &engine.certificates {
            Some(folder) => Docker::connect_with_ssl(
                host,
                &folder.join("key.pem"),
                &folder.join("cert.pem"),
                &folder.join("ca.pem"),
                TIMEOUT_SECONDS,
                API_DEFAULT_VERSION,
            ),
            None => Docker::connect_with_http(host, TIMEOUT_SECONDS, API_DEFAULT_VERSION),
        }
    } else {
        return Err(DockerError::Scheme {
            endpoint: host.to_owned(),
        });
    };
    docker.map_err(failed)?.negotiate_version().await.map_err(failed)
}

/// As the Docker command line does it: its own on the other machine connects to the engine's socket there.
fn over_ssh(target: &ssh::Target) -> Result<Docker, bollard::errors::Error> {
    let mut command = vec!["docker".to_owned()];
    if let Some(socket) = target.socket() {
        command.push(format!("--host=unix://{socket}"));
    }
    command.extend(["system".to_owned(), "dial-stdio".to_owned()]);
    let target = target.clone();
    let connector =
        tower::service_fn(move |_: http::Uri| std::future::ready(target.open(&command).map(TokioIo::new)));
    let client = Client::builder(TokioExecutor::new()).build(connector);
    Docker::connect_with_custom_transport(
        move |request: BollardRequest| {
            let response = client.request(request);
            async move { response.await.map_err(bollard::errors::Error::from) }
        },
        Some("http://docker.example.com"),
        TIMEOUT_SECONDS,
        API_DEFAULT_VERSION,
    )
}

fn certificates(settings: &Settings, host: &str) -> Option<PathBuf> {
    let wanted = host.starts_with("https://") || (host.starts_with("tcp://") && tls_by_environment(settings));
    wanted.then(|| {
        settings
            .get("DOCKER_CERT_PATH")
            .map_or_else(|| settings.docker_config_folder(), PathBuf::from)
    })
}

/// Whether the environment asks for TLS, which cannot be written into an instance.
pub fn tls_by_environment(settings: &Settings) -> bool {
    settings.get("DOCKER_TLS_VERIFY").is_some() || settings.get("DOCKER_TLS").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_what_docker_assumes() {
        for (text, full) in [
            ("unix://", DEFAULT_ENDPOINT),
            ("unix:///x.sock", "unix:///x.sock"),
            ("tcp://host", "tcp://host:2375"),
            ("tcp://:7", "tcp://localhost:7"),
            ("host:7", "tcp://host:7"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://[::1]:9/", "tcp://[::1]:9"),
            ("ssh://me@host:22", "ssh://me@host:22"),
        ] {
            assert_eq!(full_address(text).unwrap(), full);
        }
        for text in ["npipe:////./pipe/x", "fd://", "tcp://host:x", "ssh://", "ftp://x"] {
            assert!(full_address(text).is_err(), "{text}");
        }
    }
}
