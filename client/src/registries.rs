//! How registries are reached where the client speaks to them itself: as the configuration of the builder in use says,
//! so that what a build can push, `imagetools` can look at.

use std::path::{Path, PathBuf};

use registry::client::{ClientCertificate, Config, HostConfig};
use serde::Deserialize;
use tempfile::TempDir;

use crate::builders::daemon_files::{CONFIG, CONTAINER_FOLDER};
use crate::builders::{Builder, Node};

#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("the daemon configuration of builder \"{builder}\"")]
    Parse {
        builder: String,
        source: Box<toml::de::Error>,
    },
    #[error("keeping certificates of registries in a temporary folder")]
    Certificates(#[source] std::io::Error),
}

/// What a client is made with.
#[derive(Debug, Default)]
pub struct Registries {
    pub config: Config,
    /// Certificates that exist only in the builder's file; gone with this.
    certificates: Option<TempDir>,
}

/// Only what concerns registries; the daemon looks at the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    registry: std::collections::BTreeMap<String, Settings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    mirrors: Vec<String>,
    http: Option<bool>,
    insecure: bool,
    ca: Vec<PathBuf>,
    keypair: Vec<KeyPair>,
}

#[derive(Debug, Deserialize)]
struct KeyPair {
    key: PathBuf,
    cert: PathBuf,
}

impl Registries {
    /// The registries of a builder's first node, as buildx has it.
    pub fn of(builder: Option<&Builder>) -> Result<Self, RegistriesError> {
        let mut registries = Self::default();
        let Some((builder, node)) = builder.and_then(|builder| Some((builder, builder.nodes.first()?)))
        else {
            return Ok(registries);
        };
        let Some(content) = node.files.get(CONFIG) else {
            return Ok(registries);
        };
        let text = String::from_utf8_lossy(&content.0);
        let file: File = toml::from_str(&text).map_err(|source| RegistriesError::Parse {
            builder: builder.name.clone(),
            source: Box::new(source),
        })?;
        for (name, settings) in file.registry {
            let host = registries.host(node, settings)?;
            registries.config.hosts.insert(name, host);
        }
        Ok(registries)
    }

    fn host(&mut self, node: &Node, settings: Settings) -> Result<HostConfig, RegistriesError> {
        let mut roots = Vec::new();
        for root in &settings.ca {
            roots.push(self.here(node, root)?);
        }
        let client_certificate = match settings.keypair.first() {
            None => None,
            Some(pair) => Some(ClientCertificate {
                certificate: self.here(node, &pair.cert)?,
                key: self.here(node, &pair.key)?,
            }),
        };
        Ok(HostConfig {
            mirrors: settings.mirrors,
            plain_http: settings.http.filter(|http| *http),
            insecure: settings.insecure,
            roots,
            client_certificate,
            ..HostConfig::default()
        })
    }

    /// Where a file is on this machine. What was made for a container is among the node's files.
    fn here(&mut self, node: &Node, path: &Path) -> Result<PathBuf, RegistriesError> {
        let inside = path.strip_prefix(CONTAINER_FOLDER).ok().and_then(Path::to_str);
        let Some((name, content)) = inside.and_then(|name| node.files.get_key_value(name)) else {
            return Ok(path.to_owned());
        };
        let folder = match &mut self.certificates {
            Some(folder) => folder,
            empty => empty.insert(tempfile::tempdir().map_err(RegistriesError::Certificates)?),
        };
        let file = folder.path().join(name.replace('/', "_"));
        std::fs::write(&file, &content.0).map_err(RegistriesError::Certificates)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builders::{Content, NodeChange};

    fn builder(files: &[(&str, &str)]) -> Builder {
        let mut builder = Builder::new("test", "docker-container");
        let files = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Content(text.as_bytes().to_vec())));
        let change = NodeChange {
            endpoint: "unix:///nowhere".to_owned(),
            files: files.collect(),
            ..NodeChange::default()
        };
        builder.update(change).unwrap();
        builder
    }

    #[test]
    fn registries_are_reached_as_the_builder_reaches_them() {
        assert_eq!(Registries::of(None).unwrap().config, Config::default());
        let text = "debug = true\n[registry.\"r.example:5000\"]\nhttp = true\nmirrors = [\"m.example\"]\nca = [\"/etc/buildkit/certs/r/ca.pem\", \"/elsewhere.pem\"]\n";
        let first = builder(&[(CONFIG, text), ("certs/r/ca.pem", "PEM")]);
        let registries = Registries::of(Some(&first)).unwrap();
        let host = &registries.config.hosts["r.example:5000"];
        assert_eq!(
            (host.plain_http, &host.mirrors),
            (Some(true), &vec!["m.example".to_owned()])
        );
        assert_eq!(std::fs::read_to_string(&host.roots[0]).unwrap(), "PEM");
        assert_eq!(host.roots[1], Path::new("/elsewhere.pem"));
        let broken = builder(&[(CONFIG, "[registry")]);
        assert!(matches!(
            Registries::of(Some(&broken)),
            Err(RegistriesError::Parse { .. })
        ));
    }
}
