//! Why a build failed, with everything a client needs to point at the cause.

use std::sync::Arc;

use crate::graph::{LoadError, SourceRange};
use crate::ops::OpError;

/// A failed vertex.
#[derive(Debug)]
pub struct Failure {
    /// Digest of the vertex, as in the progress log.
    pub vertex: String,
    pub name: String,
    pub ranges: Vec<SourceRange>,
    /// Exit code of the process, if one ran.
    pub exit_code: Option<i32>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SolveError {
    #[error("{error}")]
    Vertex { failure: Arc<Failure>, error: Arc<OpError> },
    #[error(transparent)]
    Load(Arc<LoadError>),
    #[error("{message}")]
    Frontend { message: String, ranges: Vec<SourceRange> },
    #[error("{0}")]
    Request(String),
    #[error("{0}")]
    Export(String),
    #[error("context canceled")]
    Canceled,
}

impl From<LoadError> for SolveError {
    fn from(error: LoadError) -> Self {
        Self::Load(Arc::new(error))
    }
}

/// An error with all its causes on one line, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
