//! Docker contexts, read where the Docker command line keeps them: `contexts/meta/<hash>/meta.json` below its
//! configuration folder, with certificates in `contexts/tls/<hash>/docker`. The hash is that of the name.

use std::path::PathBuf;

use serde::Deserialize;
use sha2::Digest as _;

use super::{DEFAULT_CONTEXT, DockerError, Engine};
use crate::settings::Settings;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextFile {
    #[serde(default)]
    name: String,
    #[serde(default)]
    endpoints: ContextEndpoints,
}

#[derive(Default, Deserialize)]
struct ContextEndpoints {
    docker: Option<ContextEndpoint>,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    #[serde(default, rename = "Host")]
    host: String,
    #[serde(default, rename = "SkipTLSVerify")]
    skip_verification: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    current_context: String,
}

/// The name of the context in use.
pub fn current_context(settings: &Settings) -> String {
    if settings.get("DOCKER_HOST").is_some() {
        return DEFAULT_CONTEXT.to_owned();
    }
    if let Some(name) = settings.get("DOCKER_CONTEXT") {
        return name.to_owned();
    }
    let config = std::fs::read(settings.docker_config_folder().join("config.json")).unwrap_or_default();
    let config: ConfigFile = serde_json::from_slice(&config).unwrap_or_default();
    if config.current_context.is_empty() {
        DEFAULT_CONTEXT.to_owned()
    } else {
        config.current_context
    }
}

/// The names of all contexts that users have made, sorted. A description that cannot be read has none.
pub fn context_names(settings: &Settings) -> Vec<String> {
    let folder = settings.docker_config_folder().join("contexts/meta");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let bytes = std::fs::read(entry.path().join("meta.json")).ok()?;
            let file: ContextFile = serde_json::from_slice(&bytes).ok()?;
            Some(file.name).filter(|name| !name.is_empty())
        })
        .collect();
    names.sort();
    names
}

/// Whether there is a context of this name, the default one included.
pub fn has_context(settings: &Settings, name: &str) -> bool {
    name == DEFAULT_CONTEXT || meta_path(settings, name).is_file()
}

/// The engine of a context that a user has made.
pub(super) fn engine(settings: &Settings, name: &str) -> Result<Engine, DockerError> {
    let path = meta_path(settings, name);
    let bytes = std::fs::read(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => DockerError::NoContext {
            name: name.to_owned(),
        },
        _ => DockerError::ReadContext {
            name: name.to_owned(),
            path,
            source,
        },
    })?;
    let file: ContextFile = serde_json::from_slice(&bytes).map_err(|source| DockerError::ParseContext {
        name: name.to_owned(),
        source,
    })?;
    let endpoint = file
        .endpoints
        .docker
        .filter(|endpoint| !endpoint.host.is_empty())
        .ok_or_else(|| DockerError::EmptyContext {
            name: name.to_owned(),
        })?;
    let certificates = settings
        .docker_config_folder()
        .join("contexts/tls")
        .join(hash(name))
        .join("docker");
    let uses_tls = endpoint.host.starts_with("tcp://") || endpoint.host.starts_with("https://");
    if uses_tls && endpoint.skip_verification {
        return Err(DockerError::Unverified {
            name: name.to_owned(),
        });
    }
    Ok(Engine {
        certificates: (uses_tls && certificates.is_dir()).then_some(certificates),
        host: endpoint.host,
    })
}

fn meta_path(settings: &Settings, name: &str) -> PathBuf {
    settings
        .docker_config_folder()
        .join("contexts/meta")
        .join(hash(name))
        .join("meta.json")
}

fn hash(name: &str) -> String {
    hex::encode(sha2::Sha256::digest(name))
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULT_ENDPOINT, current_endpoint, engine};
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

        let write = |name: &str, text: &str| {
            let meta = meta_path(&of(&[]), name);
            std::fs::create_dir_all(meta.parent().unwrap()).unwrap();
            std::fs::write(meta, text).unwrap();
        };
        write(
            "far",
            r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2376","SkipTLSVerify":false}}}"#,
        );
        assert_eq!(
            current_endpoint(&of(&[("DOCKER_CONTEXT", "far")])).unwrap(),
            "far"
        );
        std::fs::write(folder.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        assert_eq!(current_endpoint(&of(&[])).unwrap(), "far");
        let plain = engine(&of(&[]), "far").unwrap();
        assert_eq!(
            (plain.host.as_str(), &plain.certificates),
            ("tcp://far:2376", &None)
        );
        let certificates = folder
            .path()
            .join("contexts/tls")
            .join(hash("far"))
            .join("docker");
        std::fs::create_dir_all(&certificates).unwrap();
        assert_eq!(engine(&of(&[]), "far").unwrap().certificates, Some(certificates));
        assert!(matches!(
            current_endpoint(&of(&[("DOCKER_CONTEXT", "lost")])),
            Err(DockerError::NoContext { .. })
        ));

        write(
            "blind",
            r#"{"Name":"blind","Endpoints":{"docker":{"Host":"tcp://b:1","SkipTLSVerify":true}}}"#,
        );
        write("other", r#"{"Name":"other","Endpoints":{"kubernetes":{}}}"#);
        write("torn", "{");
        assert!(matches!(
            engine(&of(&[]), "blind"),
            Err(DockerError::Unverified { .. })
        ));
        assert!(matches!(
            engine(&of(&[]), "other"),
            Err(DockerError::EmptyContext { .. })
        ));
        assert_eq!(context_names(&of(&[])), ["blind", "far", "other"]);
    }
}
