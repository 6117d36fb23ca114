//! What can go wrong between us and a registry, with the registry's own words where it said any.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;
use crate::manifest::ManifestError;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing}: no answer from registry {host}")]
    Connect {
        host: String,
        doing: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{doing}: registry {host} was silent for {} s", .waited.as_secs())]
    Stalled {
        host: String,
        doing: String,
        waited: Duration,
    },
    #[error("{0}")]
    Refused(Box<Refusal>),
    #[error("credentials for registry {host}")]
    Credentials {
        host: String,
        #[source]
        source: BoxError,
    },
    #[error("token for registry {host} from {realm}")]
    Token {
        host: String,
        realm: String,
        /// What the token server answered, if it did.
        status: Option<StatusCode>,
        #[source]
        source: BoxError,
    },
    #[error("registry {host} asks for an authentication that is not supported: {challenge:?}")]
    Challenge { host: String, challenge: String },
    #[error("{0}")]
    Corrupt(Box<Corruption>),
    #[error("{doing}: registry {host} sent more than {limit} bytes")]
    TooLarge { host: String, doing: String, limit: u64 },
    #[error("{doing}: registry {host} sent no usable {header} header")]
    Header {
        host: String,
        doing: String,
        header: &'static str,
    },
    #[error("manifest from {repository}")]
    Manifest {
        repository: String,
        #[source]
        source: ManifestError,
    },
    #[error("indexes below {repository}@{digest} are nested too deeply")]
    Nested { repository: String, digest: Digest },
    #[error("read the content of blob {digest}")]
    Content {
        digest: Digest,
        #[source]
        source: std::io::Error,
    },
    #[error("certificate or key {} for registry {host}", .path.display())]
    Certificate {
        host: String,
        path: PathBuf,
        #[source]
        source: BoxError,
    },
    #[error("set up the connection to registry {host}")]
    Setup {
        host: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("invalid address of registry or mirror: {address:?}")]
    Address { address: String },
}

/// Content that is not what was asked for.
#[derive(Debug)]
pub struct Corruption {
    pub host: String,
    pub repository: String,
    pub expected: Digest,
    pub finding: Finding,
}

/// In what corrupt content differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Digest(Digest),
    Size { expected: u64, actual: u64 },
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            repository,
            expected,
            finding,
        } = self;
        write!(f, "{repository}@{expected} from registry {host} is corrupt: ")?;
        match finding {
            Finding::Digest(actual) => write!(f, "its content has digest {actual}"),
            Finding::Size { expected, actual } => write!(f, "it has {actual} bytes instead of {expected}"),
        }
    }
}

/// An answer that is no success.
#[derive(Debug)]
pub struct Refusal {
    pub host: String,
    pub repository: String,
    pub doing: String,
    pub status: StatusCode,
    pub errors: Vec<Reason>,
    pub retry_after: Option<Duration>,
}

/// One entry of the error body that the distribution specification defines.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Reason {
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub detail: Value,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: registry {} answered {}",
            self.doing, self.host, self.status
        )?;
        for reason in &self.errors {
            write!(f, ": {}", reason.code.to_ascii_lowercase())?;
            if !reason.message.is_empty() {
                write!(f, ": {}", reason.message)?;
            }
        }
        if matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            f.write_str(": the repository does not exist or needs other credentials")?;
        }
        Ok(())
    }
}

impl Refusal {
    /// Reads the error body; one of another shape (a proxy's page) is left out.
    pub(super) fn parse_reasons(body: &[u8]) -> Vec<Reason> {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            errors: Vec<Reason>,
        }
        serde_json::from_slice::<Body>(body).map_or_else(|_| Vec::new(), |body| body.errors)
    }
}

impl Error {
    /// The registry's HTTP status, if it answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// True if trying again later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } => !source.is_builder(),
            Self::Stalled { .. } => true,
            Self::Refused(refusal) => status_is_transient(refusal.status),
            Self::Token { status, .. } => status.is_some_and(status_is_transient),
            _ => false,
        }
    }

    /// True if the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// True if the registry wants other credentials, or none would do.
    pub fn is_denied(&self) -> bool {
        let status = match self {
            Self::Token { status, .. } => *status,
            _ => self.status(),
        };
        matches!(status, Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))
    }

    /// How long the registry asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

fn status_is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}
