//! Operations: how one vertex turns its input snapshots into its output snapshots.

pub mod diff;
pub mod exec;
pub mod file;
pub mod merge;
pub mod remains;

use proto::pb;
use registry::reference::ReferenceError;

use crate::executor::step::StepError;
use crate::sources::blob::BlobSourceError;
use crate::sources::git::GitError;
use crate::sources::http::HttpError;
use crate::sources::image::{FetchError, ImageError};
use crate::sources::local::LocalError;
use crate::store::{LayerError, Snapshot, WorkLost};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    #[error("process \"{command}\" did not complete successfully: exit code: {code}")]
    Exit { command: String, code: i32 },
    #[error(
        "process \"{command}\" did not complete successfully: exit code: {code}: a process of it was killed as memory ran out{}",
        bound(*limit)
    )]
    OutOfMemory {
        command: String,
        code: i32,
        limit: Option<i64>,
    },
    #[error("process \"{command}\" did not complete successfully")]
    Step {
        command: String,
        #[source]
        source: StepError,
    },
    #[error("cannot keep what the step wrote")]
    Layer(#[from] LayerError),
    #[error("cannot compare the inputs of the diff")]
    Diff(#[source] crate::store::view::ViewError),
    #[error("{operation} operation refers to input {index}, but has {available} inputs")]
    Input {
        operation: &'static str,
        index: i64,
        available: usize,
    },
    #[error(transparent)]
    Lost(#[from] WorkLost),
    #[error(transparent)]
    File(#[from] file::FileOpError),
    /// What is to be copied cannot be read, which is found out before anything is copied.
    #[error("failed to compute cache key: failed to calculate checksum of ref {snapshot}")]
    CacheKey {
        /// The files that are copied from, by their uppermost layer.
        snapshot: String,
        #[source]
        source: file::FileOpError,
    },
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error(transparent)]
    Git(Box<GitError>),
    #[error(transparent)]
    Http(Box<HttpError>),
    #[error(transparent)]
    Blob(Box<BlobSourceError>),
    /// A source that the client's policy does not let pass.
    #[error(transparent)]
    Policy(Box<crate::solver::PolicyError>),
    #[error("invalid image reference {reference:?}")]
    Reference {
        reference: String,
        #[source]
        source: ReferenceError,
    },
    #[error(transparent)]
    Image(Box<ImageError>),
    #[error(transparent)]
    Fetch(Box<FetchError>),
    /// A platform that does not run here, why, and what helps.
    #[error("{0}")]
    Platform(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("secret {id}: not found")]
    NoSecret { id: String },
    #[error("secret {id}")]
    Secret {
        id: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("secret {id} is not text, so no variable can hold it: mount it as a file")]
    SecretText { id: String },
    #[error("no SSH key {id:?} forwarded from the client: build with --ssh {id}")]
    NoAgent { id: String },
    #[error("SSH agent {id}")]
    Agent {
        id: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot make a socket for the SSH agent {id}")]
    AgentSocket {
        id: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot copy the files that a cache mount starts from")]
    CacheFiles(#[source] crate::store::view::ViewError),
    #[error("cannot make the cache mounted at {target}")]
    CacheMount {
        target: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Cgroup(#[from] crate::executor::cgroup::CgroupError),
    #[error(transparent)]
    Device(#[from] crate::executor::cdi::DeviceError),
    #[error("device {0} is requested by the build but not allowed; --allow device=NAME allows it")]
    ForbiddenDevices(String),
    #[error("cannot make a proxy for the network of the step")]
    Proxy(#[source] std::io::Error),
    #[error("cannot make certificates for the proxy of the step")]
    Authority(#[from] crate::proxy::AuthorityError),
    /// A definition that was built, and fails itself.
    #[error("nested build {name}")]
    Nested {
        name: String,
        #[source]
        source: Box<crate::solver::SolveError>,
    },
    /// A read-only mount of something that its input does not have.
    #[error("failed to compute cache key: {selector:?}: not found (mounted at {target})")]
    NoSuchSource { selector: String, target: String },
    #[error("{entitlement} is not allowed")]
    NotAllowed { entitlement: &'static str },
    #[error("context canceled")]
    Canceled,
}

/// How much memory there was, and where to ask for more.
fn bound(limit: Option<i64>) -> String {
    match limit {
        Some(bytes) => format!(", of which its limit leaves it {bytes} bytes: raise the limit `memory`"),
        None => " in its cgroup or on the machine".to_owned(),
    }
}

impl From<ImageError> for OpError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<FetchError> for OpError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Box::new(error))
    }
}

impl From<GitError> for OpError {
    fn from(error: GitError) -> Self {
        Self::Git(Box::new(error))
    }
}

impl From<BlobSourceError> for OpError {
    fn from(error: BlobSourceError) -> Self {
        Self::Blob(Box::new(error))
    }
}

impl From<HttpError> for OpError {
    fn from(error: HttpError) -> Self {
        Self::Http(Box::new(error))
    }
}

/// The inputs that are results; the others only had to come about.
pub fn passthrough(op: &pb::PassthroughOp, inputs: &[Snapshot]) -> Result<Vec<Snapshot>, OpError> {
    let pick = |index: &i64| {
        let input = usize::try_from(*index).ok().and_then(|index| inputs.get(index));
        input.cloned().ok_or(OpError::Input {
            operation: "passthrough",
            index: *index,
            available: inputs.len(),
        })
    };
    op.outputs.iter().map(pick).collect()
}
