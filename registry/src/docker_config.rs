//! Credentials from Docker's `config.json` and from the credential helpers it names.
//!
//! A helper for the one registry comes before the general store, both before what is written in the file. Helpers are
//! foreign programs: they get a time limit and are killed when it passes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use futures::future::BoxFuture;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use crate::client::{BoxError, CredentialSource, Credentials, Secret};

/// What Docker has written for its hub since the first version of the API.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HELPER_TIME: Duration = Duration::from_secs(30);
/// Helpers say so on standard output, with a failure.
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    #[error("read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("parse {}", .path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the entry {key:?} of Docker's config.json is no base64 of user:password")]
    Entry { key: String },
    #[error("run docker-credential-{helper}")]
    RunHelper {
        helper: String,
        #[source]
        source: std::io::Error,
    },
    #[error("docker-credential-{helper} did not answer within {} s", HELPER_TIME.as_secs())]
    SlowHelper { helper: String },
    #[error("docker-credential-{helper} failed: {message}")]
    HelperFailed { helper: String, message: String },
    #[error("the answer of docker-credential-{helper} is no valid JSON")]
    HelperAnswer { helper: String },
    #[error("invalid name of a credential helper: {helper:?}")]
    HelperName { helper: String },
}

/// The parts of `config.json` that concern registries.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry(secret)")
    }
}

impl DockerConfig {
    /// `$DOCKER_CONFIG`, else `~/.docker`.
    pub fn default_folder() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        set("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(set("HOME")?).join(".docker")))
    }

    /// Reads `config.json` in `folder`; a missing file is an empty one.
    pub fn load(folder: &Path) -> Result<Self, DockerConfigError> {
        Self::load_file(&folder.join("config.json"))
    }

    /// Reads a file in the format of `config.json`; a missing file is an empty one.
    pub fn load_file(path: &Path) -> Result<Self, DockerConfigError> {
        let path = || path.to_owned();
        let text = match std::fs::read(path()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(DockerConfigError::Read { path: path(), source }),
        };
        serde_json::from_slice(&text).map_err(|source| DockerConfigError::Parse { path: path(), source })
    }

    /// What to show to the registry at `host` (`registry-1.docker.io`, `localhost:5000`, …).
    pub async fn find(&self, host: &str) -> Result<Credentials, DockerConfigError> {
        let key = server_key(host);
        let helper = self
            .cred_helpers
            .iter()
            .find(|(server, _)| host_of(server) == host_of(key))
            .map(|(_, helper)| helper)
            .or(self.creds_store.as_ref())
            .filter(|helper| !helper.is_empty());
        if let Some(helper) = helper {
            let found = ask_helper(helper, key).await?;
            if found != Credentials::Anonymous {
                return Ok(found);
            }
        }
        let exact = self.auths.get_key_value(key);
        let by_host = || {
            self.auths
                .iter()
                .find(|(server, _)| host_of(server) == host_of(key))
        };
        match exact.or_else(by_host) {
            Some((server, entry)) => entry.credentials(server),
            None => Ok(Credentials::Anonymous),
        }
    }
}

impl CredentialSource for DockerConfig {
    fn credentials<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Credentials, BoxError>> {
        Box::pin(async move { Ok(self.find(host).await?) })
    }
}

impl Entry {
    fn credentials(&self, key: &str) -> Result<Credentials, DockerConfigError> {
        if !self.registrytoken.is_empty() {
            return Ok(Credentials::Bearer {
                token: Secret::new(&self.registrytoken),
            });
        }
        if !self.identitytoken.is_empty() {
            return Ok(Credentials::Identity {
                token: Secret::new(&self.identitytoken),
            });
        }
        let (username, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            decode_pair(&self.auth).ok_or_else(|| DockerConfigError::Entry { key: key.to_owned() })?
        };
        if username.is_empty() && password.is_empty() {
            return Ok(Credentials::Anonymous);
        }
        Ok(Credentials::Basic {
            username,
            password: Secret::new(password),
        })
    }
}

fn decode_pair(auth: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(auth.trim())
        .ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker pads with NUL.
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// The key under which Docker keeps the credentials of an API host.
fn server_key(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB_KEY,
        host => host,
    }
}

/// Old entries are URLs: `https://host/v1/`.
fn host_of(server: &str) -> &str {
    let rest = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    match rest.split('/').next().unwrap_or(rest) {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        host => host,
    }
}

async fn ask_helper(helper: &str, server: &str) -> Result<Credentials, DockerConfigError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    if helper.contains('/') {
        return Err(DockerConfigError::HelperName {
            helper: helper.to_owned(),
        });
    }
    let name = || helper.to_owned();
    let run_failed = |source| DockerConfigError::RunHelper {
        helper: name(),
        source,
    };
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(run_failed)?;
    let dialogue = async move {
        if let Some(mut input) = child.stdin.take() {
            // A helper may answer without reading.
            let _unread = input.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(HELPER_TIME, dialogue)
        .await
        .map_err(|_| DockerConfigError::SlowHelper { helper: name() })?
        .map_err(run_failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        if text.trim() == NOT_FOUND {
            return Ok(Credentials::Anonymous);
        }
        let shown = if text.trim().is_empty() {
            String::from_utf8_lossy(&output.stderr).trim().to_owned()
        } else {
            text.trim().to_owned()
        };
        return Err(DockerConfigError::HelperFailed {
            helper: name(),
            message: shown,
        });
    }
    let Ok(answer) = serde_json::from_str::<Answer>(&text) else {
        return Err(DockerConfigError::HelperAnswer { helper: name() });
    };
    Ok(match (answer.username.as_str(), answer.secret) {
        ("", secret) if secret.is_empty() => Credentials::Anonymous,
        ("<token>", secret) => Credentials::Identity {
            token: Secret::new(secret),
        },
        (username, secret) => Credentials::Basic {
            username: username.to_owned(),
            password: Secret::new(secret),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DockerConfig {
        serde_json::from_str(text).unwrap()
    }

    fn basic(username: &str, password: &str) -> Credentials {
        Credentials::Basic {
            username: username.to_owned(),
            password: Secret::new(password),
        }
    }

    #[tokio::test]
    async fn every_form_of_an_entry_is_understood() {
        let config = parse(
            r#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"aHViOnBhOnNz"},
                "localhost:5000":{"username":"u","password":"p"},
                "https://old.example.com/v1/":{"auth":"bzpwAAA="},
                "id.example.com":{"auth":"eDp5","identitytoken":"I"},
                "reg.example.com":{"registrytoken":"R"},
                "empty.example.com":{}
            },"credsStore":"","HttpHeaders":{"a":"b"}}"#,
        );
        for (host, expected) in [
            ("registry-1.docker.io", basic("hub", "pa:ss")),
            ("docker.io", basic("hub", "pa:ss")),
            ("localhost:5000", basic("u", "p")),
            ("old.example.com", basic("o", "p")),
            (
                "id.example.com",
                Credentials::Identity {
                    token: Secret::new("I"),
                },
            ),
            (
                "reg.example.com",
                Credentials::Bearer {
                    token: Secret::new("R"),
                },
            ),
            ("empty.example.com", Credentials::Anonymous),
            ("localhost:5001", Credentials::Anonymous),
        ] {
            assert_eq!(config.find(host).await.unwrap(), expected, "{host}");
        }
        assert!(!format!("{config:?}").contains("aHVi"));
    }

    #[tokio::test]
    async fn a_broken_entry_is_named() {
        let config = parse(r#"{"auths":{"a.example.com":{"auth":"%%%"}}}"#);
        let error = config.find("a.example.com").await.unwrap_err();
        assert!(matches!(error, DockerConfigError::Entry { key } if key == "a.example.com"));
    }

    #[tokio::test]
    async fn helpers_come_first_and_a_missing_one_is_named() {
        let config = parse(
            r#"{"auths":{"a.example.com":{"username":"u","password":"p"}},
                "credHelpers":{"a.example.com":"trimaran-test-none"}}"#,
        );
        let error = config.find("a.example.com").await.unwrap_err();
        assert_eq!(error.to_string(), "run docker-credential-trimaran-test-none");
        let config = parse(r#"{"credsStore":"../evil"}"#);
        assert!(matches!(
            config.find("x").await,
            Err(DockerConfigError::HelperName { .. })
        ));
    }

    #[test]
    fn a_missing_file_is_an_empty_config_and_a_broken_one_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(DockerConfig::load(folder.path()).unwrap().auths.is_empty());
        std::fs::write(folder.path().join("config.json"), "{").unwrap();
        assert!(matches!(
            DockerConfig::load(folder.path()),
            Err(DockerConfigError::Parse { .. })
        ));
    }
}
