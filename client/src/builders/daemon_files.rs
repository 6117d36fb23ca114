//! The daemon's configuration file, and the certificates that it names, ready to be put beside a daemon elsewhere.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::group::Content;

/// The name of the configuration among a node's files.
pub const CONFIG: &str = "buildkitd.toml";
/// Where a daemon in a container has its files.
pub const CONTAINER_FOLDER: &str = "/etc/buildkit";
/// No configuration and no certificate is longer.
const LIMIT: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("buildkit configuration file not found: {}", path.display())]
    NotFound { path: PathBuf },
    #[error("reading {} for the daemon", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is longer than 1 MiB", path.display())]
    TooLong { path: PathBuf },
    #[error("{} is no daemon configuration", path.display())]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("{} is not encoded in UTF-8", path.display())]
    Encoding { path: PathBuf },
    #[error("writing the daemon configuration")]
    Write(#[from] toml::ser::Error),
}

/// Where the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a container: certificates are copied into it.
    Container,
    /// On this machine: certificates stay where they are.
    Here,
}

/// What a configuration file comes to.
#[derive(Debug, Default)]
pub struct DaemonFiles {
    pub files: BTreeMap<String, Content>,
    /// What the configuration lets builds ask for.
    pub entitlements: Vec<String>,
}

/// Reads a configuration and the certificates it names. As in buildx, their relative paths count from the working
/// folder.
pub fn load(path: &Path, place: Place) -> Result<DaemonFiles, FilesError> {
    let bytes = read(path).map_err(|error| match error {
        FilesError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => FilesError::NotFound {
            path: path.to_owned(),
        },
        other => other,
    })?;
    let text = String::from_utf8(bytes).map_err(|_| FilesError::Encoding {
        path: path.to_owned(),
    })?;
    let mut table: Table = toml::from_str(&text).map_err(|source| FilesError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let mut certificates = Certificates {
        place,
        files: BTreeMap::new(),
        has_moved: false,
    };
    if let Some(Value::Table(registries)) = table.get_mut("registry") {
        for (host, settings) in registries {
            certificates.collect(host, settings)?;
        }
    }
    let entitlements = table
        .get("insecure-entitlements")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    // A file that says what is true there, too, keeps its comments.
    let text = if certificates.has_moved {
        toml::to_string(&table)?
    } else {
        text
    };
    let mut files = certificates.files;
    files.insert(CONFIG.to_owned(), Content(text.into_bytes()));
    Ok(DaemonFiles { files, entitlements })
}

struct Certificates {
    place: Place,
    files: BTreeMap<String, Content>,
    has_moved: bool,
}

impl Certificates {
    fn collect(&mut self, host: &str, settings: &mut Value) -> Result<(), FilesError> {
        for authority in settings
            .get_mut("ca")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            self.take(host, authority)?;
        }
        let pairs = settings.get_mut("keypair").and_then(Value::as_array_mut);
        for pair in pairs.into_iter().flatten() {
            for part in ["key", "cert"] {
                if let Some(file) = pair.get_mut(part) {
                    self.take(host, file)?;
                }
            }
        }
        Ok(())
    }

    /// Takes a file over, and writes into the configuration where it will be. What is no path is left to the daemon,
    /// which explains it.
    fn take(&mut self, host: &str, value: &mut Value) -> Result<(), FilesError> {
        let Some(path) = value.as_str().filter(|path| !path.is_empty()).map(PathBuf::from) else {
            return Ok(());
        };
        let moved = match self.place {
            Place::Here => std::path::absolute(&path)
                .map_err(|source| FilesError::Read {
                    path: path.clone(),
                    source,
                })?
                .display()
                .to_string(),
            Place::Container => {
                let content = Content(read(&path)?);
                format!("{CONTAINER_FOLDER}/{}", self.name(host, &path, content))
            }
        };
        self.has_moved |= value.as_str() != Some(moved.as_str());
        *value = Value::String(moved);
        Ok(())
    }

    /// Puts the file among the others. Two files with one name, from different folders, get two names.
    fn name(&mut self, host: &str, path: &Path, content: Content) -> String {
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let mut folder = String::new();
        for character in host.chars() {
            match character {
                c if safe(c) => folder.push(c),
                _ if folder.ends_with('_') => {}
                _ => folder.push('_'),
            }
        }
        let base = path.file_name().unwrap_or_default().to_string_lossy();
        let mut name = format!("certs/{folder}/{base}");
        let mut number = 2;
        while self.files.get(&name).is_some_and(|other| *other != content) {
            name = format!("certs/{folder}/{number}-{base}");
            number += 1;
        }
        self.files.insert(name.clone(), content);
        name
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FilesError> {
    let failed = |source| FilesError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LIMIT {
        return Err(FilesError::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> String {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    #[test]
    fn certificates_go_with_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let one = write(folder, "one/ca.pem", "1");
        let two = write(folder, "two/ca.pem", "2");
        let key = write(folder, "key.pem", "k");
        let cert = write(folder, "cert.pem", "c");
        let text = format!(
            "insecure-entitlements = [\"network.host\"]\n[registry.\"my registry:5000\"]\nca = [\"{one}\", \"{two}\"]\n[[registry.\"my registry:5000\".keypair]]\nkey = \"{key}\"\ncert = \"{cert}\"\n"
        );
        let config = write(folder, "c.toml", &text);
        let loaded = load(Path::new(&config), Place::Container).unwrap();
        assert_eq!(loaded.entitlements, ["network.host"]);
        let names: Vec<&str> = loaded.files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "buildkitd.toml",
                "certs/my_registry_5000/2-ca.pem",
                "certs/my_registry_5000/ca.pem",
                "certs/my_registry_5000/cert.pem",
                "certs/my_registry_5000/key.pem",
            ]
        );
        let written = String::from_utf8(loaded.files[CONFIG].0.clone()).unwrap();
        let written: Table = toml::from_str(&written).unwrap();
        let registry = &written["registry"]["my registry:5000"];
        assert_eq!(
            registry["ca"][1].as_str(),
            Some("/etc/buildkit/certs/my_registry_5000/2-ca.pem")
        );
        assert_eq!(
            registry["keypair"][0]["key"].as_str(),
            Some("/etc/buildkit/certs/my_registry_5000/key.pem")
        );

        let here = load(Path::new(&config), Place::Here).unwrap();
        assert_eq!(here.files[CONFIG].0, text.into_bytes());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let text = |error: FilesError| proto::chain(&error);
        let of = |path: &str| text(load(Path::new(path), Place::Container).unwrap_err());
        assert_eq!(
            of("/no/such.toml"),
            "buildkit configuration file not found: /no/such.toml"
        );
        let bad = write(folder, "bad.toml", "x = [");
        assert!(of(&bad).starts_with(&format!("{bad} is no daemon configuration: TOML parse error")));
        let lost = write(folder, "lost.toml", "[registry.r]\nca = ['/no/ca.pem']\n");
        assert!(of(&lost).starts_with("reading /no/ca.pem for the daemon: No such file"));
    }
}
