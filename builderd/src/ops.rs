//! Operations: how one vertex turns its input snapshots into its output snapshots.

pub mod exec;
pub mod file;

use crate::executor::step::StepError;
use crate::sources::local::LocalError;
use crate::store::{LayerError, WorkLost};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    #[error("process \"{command}\" did not complete successfully: exit code: {code}")]
    Exit { command: String, code: i32 },
    #[error("process \"{command}\" did not complete successfully")]
    Step {
        command: String,
        #[source]
        source: StepError,
    },
    #[error("cannot keep what the step wrote")]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Lost(#[from] WorkLost),
    #[error(transparent)]
    File(#[from] file::FileOpError),
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A platform that does not run here, why, and what helps.
    #[error("{0}")]
    Platform(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("{entitlement} is not allowed")]
    NotAllowed { entitlement: &'static str },
    #[error("context canceled")]
    Canceled,
}
