//! Which Docker engine the user means, and how to reach it.
//!
//! The Docker command line's rules: `DOCKER_HOST`, else the context named by `DOCKER_CONTEXT` or by `config.json`, else
//! the local socket.

use std::path::{Path, PathBuf};

use bollard::{API_DEFAULT_VERSION, Docker};
use serde::Deserialize;
use sha2::Digest as _;

use crate::settings::Settings;

pub const DEFAULT_ENDPOINT: &str = "unix:///var/run/docker.sock";
const TIMEOUT_SECONDS: u64 = 120;

#[derive(Debug, thiserror::Error)]
pub enum DockerError {
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
    #[error("Docker endpoint {endpoint} is not supported: use unix:// or tcp://")]
    Scheme { endpoint: String },
    #[error("cannot connect to the Docker engine at {endpoint}")]
    Connect {
        endpoint: String,
        source: bollard::errors::Error,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextFile {
    #[serde(default)]
    endpoints: ContextEndpoints,
}

#[derive(Default, Deserialize)]
struct ContextEndpoints {
    docker: Option<ContextEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextEndpoint {
    #[serde(default)]
    host: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    current_context: String,
}

/// The endpoint of the engine in use, as it is written in builder instances.
pub fn current_endpoint(settings: &Settings) -> Result<String, DockerError> {
    if let Some(host) = settings.get("DOCKER_HOST") {
        return Ok(host.to_owned());
    }
    let name = current_context(settings);
    context_endpoint(settings, &name)
}

/// The name of the context in use.
pub fn current_context(settings: &Settings) -> String {
    if settings.get("DOCKER_HOST").is_some() {
        return "default".to_owned();
    }
    if let Some(name) = settings.get("DOCKER_CONTEXT") {
        return name.to_owned();
    }
    let config = std::fs::read(settings.docker_config_folder().join("config.json")).unwrap_or_default();
    let config: ConfigFile = serde_json::from_slice(&config).unwrap_or_default();
    if config.current_context.is_empty() {
        "default".to_owned()
    } else {
        config.current_context
    }
}

/// The endpoint of a named context.
pub fn context_endpoint(settings: &Settings, name: &str) -> Result<String, DockerError> {
    if name == "default" {
        return Ok(settings.get("DOCKER_HOST").unwrap_or(DEFAULT_ENDPOINT).to_owned());
    }
    let folder = hex::encode(sha2::Sha256::digest(name));
    let path = settings
        .docker_config_folder()
        .join("contexts/meta")
        .join(folder)
        .join("meta.json");
    let bytes = std::fs::read(&path).map_err(|source| DockerError::ReadContext {
        name: name.to_owned(),
        path,
        source,
    })?;
    let file: ContextFile = serde_json::from_slice(&bytes).map_err(|source| DockerError::ParseContext {
        name: name.to_owned(),
        source,
    })?;
    match file.endpoints.docker {
        Some(endpoint) if !endpoint.host.is_empty() => Ok(endpoint.host),
        _ => Err(DockerError::EmptyContext {
            name: name.to_owned(),
        }),
    }
}

/// The socket behind an endpoint on this machine.
pub fn local_socket(endpoint: &str) -> Option<&Path> {
    endpoint.strip_prefix("unix://").map(Path::new)
}

/// A client of the engine, at the newest API version that both sides know.
pub async fn connect(settings: &Settings, endpoint: &str) -> Result<Docker, DockerError> {
    let failed = |source| DockerError::Connect {
        endpoint: endpoint.to_owned(),
        source,
    };
    let docker = if let Some(socket) = endpoint.strip_prefix("unix://") {
        Docker::connect_with_socket(socket, TIMEOUT_SECONDS, API_DEFAULT_VERSION)
    } else if endpoint.starts_with("tcp://")
        || endpoint.starts_with("http://")
        || endpoint.starts_with("https://")
    {
        match certificates(settings, endpoint) {
            Some(folder) => Docker::connect_with_ssl(
                endpoint,
                &folder.join("key.pem"),
                &folder.join("cert.pem"),
                &folder.join("ca.pem"),
                TIMEOUT_SECONDS,
                API_DEFAULT_VERSION,
            ),
            None => Docker::connect_with_http(endpoint, TIMEOUT_SECONDS, API_DEFAULT_VERSION),
        }
    } else {
        return Err(DockerError::Scheme {
            endpoint: endpoint.to_owned(),
        });
    };
    docker.map_err(failed)?.negotiate_version().await.map_err(failed)
}

fn certificates(settings: &Settings, endpoint: &str) -> Option<PathBuf> {
    (settings.get("DOCKER_TLS_VERIFY").is_some() || endpoint.starts_with("https://")).then(|| {
        settings
            .get("DOCKER_CERT_PATH")
            .map_or_else(|| settings.docker_config_folder(), PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_found_by_the_rules_of_docker() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().to_str().unwrap();
        let of = |more: &[(&str, &str)]| Settings::of(&[&[("DOCKER_CONFIG", config)], more].concat());
        assert_eq!(current_endpoint(&of(&[])).unwrap(), DEFAULT_ENDPOINT);
        assert_eq!(
            current_endpoint(&of(&[("DOCKER_HOST", "tcp://h:1")])).unwrap(),
            "tcp://h:1"
        );

        let meta = folder
            .path()
            .join("contexts/meta")
            .join(hex::encode(sha2::Sha256::digest("far")));
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2375"}}}"#,
        )
        .unwrap();
        assert_eq!(
            current_endpoint(&of(&[("DOCKER_CONTEXT", "far")])).unwrap(),
            "tcp://far:2375"
        );
        std::fs::write(folder.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        assert_eq!(current_endpoint(&of(&[])).unwrap(), "tcp://far:2375");
        assert!(matches!(
            current_endpoint(&of(&[("DOCKER_CONTEXT", "lost")])),
            Err(DockerError::ReadContext { .. })
        ));
    }
}
