//! Why a build failed, with everything a client needs to point at the cause.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use proto::chain;
use proto::errdefs::{self, Detail};
use proto::pb;

use super::RuleError;
use super::attest::AttestError;
use super::remote::CacheError;
use crate::exporters::ExportError;
use crate::frontend;
use crate::graph::{LoadError, SourceRange};
use crate::ops::OpError;
use crate::ops::remains::Remains;

/// Bytes of source text that an error repeats once for each of its places.
const MOST_SOURCE: usize = 256 << 10;

/// A failed vertex.
#[derive(Debug)]
pub struct Failure {
    /// Digest of the vertex, as in the progress log.
    pub vertex: String,
    pub name: String,
    /// The lines that the vertex was made from.
    pub ranges: Vec<SourceRange>,
    pub op: pb::Op,
    pub description: BTreeMap<String, String>,
    pub remains: Remains,
    pub error: OpError,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SolveError {
    #[error("{}", chain(&_0.error))]
    Vertex(Arc<Failure>),
    #[error("{}", chain(_0.as_ref()))]
    Load(Arc<LoadError>),
    #[error("{}", chain(_0.as_ref()))]
    Frontend(Arc<frontend::Error>),
    #[error("{}", chain(_0.as_ref()))]
    Export(Arc<ExportError>),
    #[error("{}", chain(_0.as_ref()))]
    Attest(Arc<AttestError>),
    /// A source that may not be used, or rules about sources that make no sense.
    #[error("{}", chain(_0.as_ref()))]
    Rules(Arc<RuleError>),
    #[error("{}", chain(_0.as_ref()))]
    Cache(Arc<CacheError>),
    #[error("{0}")]
    Request(String),
    /// Nobody wants the result any more.
    #[error("{}", crate::progress::CANCELED)]
    Canceled,
}

impl SolveError {
    /// The vertex that failed, be it on the way of a frontend.
    pub(super) fn failure(&self) -> Option<&Arc<Failure>> {
        match self {
            Self::Vertex(failure) => Some(failure),
            Self::Frontend(error) => {
                let mut cause = error.source();
                while let Some(error) = cause {
                    if let Some(Self::Vertex(failure)) = error.downcast_ref::<Self>() {
                        return Some(failure);
                    }
                    cause = error.source();
                }
                None
            }
            _ => None,
        }
    }

    /// For the client: the lines to show, the vertex that failed, how its process ended.
    pub fn details(&self) -> Vec<Detail> {
        match self {
            Self::Vertex(failure) => {
                let mut details: Vec<Detail> = Vec::new();
                // Each carries a whole file, and together they must fit into the headers of the answer.
                let size: usize = failure.ranges.iter().map(|range| range.info.data.len()).sum();
                let mut shown: Vec<&SourceRange> = Vec::new();
                // Clients show them from the last to the first, as errors that wrap each other.
                for range in failure.ranges.iter().rev() {
                    if size <= MOST_SOURCE {
                        details.push(Detail::Source(excerpt(range)));
                    } else if shown.iter().all(|other| !Arc::ptr_eq(&other.info, &range.info)) {
                        let of_file = failure
                            .ranges
                            .iter()
                            .filter(|other| Arc::ptr_eq(&other.info, &range.info));
                        let ranges = of_file.flat_map(|other| other.ranges.iter().cloned()).collect();
                        let info = Arc::clone(&range.info);
                        details.push(Detail::Source(excerpt(&SourceRange { info, ranges })));
                        shown.push(range);
                    }
                }
                details.push(Detail::Vertex(errdefs::Vertex {
                    digest: failure.vertex.clone(),
                }));
                match &failure.error {
                    OpError::Exit { code, .. } | OpError::OutOfMemory { code, .. } => {
                        details.push(Detail::Exit(errdefs::Exit {
                            code: code.unsigned_abs(),
                        }))
                    }
                    OpError::Policy(error) => details.extend(error.decision().map(Detail::Decision)),
                    _ => {}
                }
                details
            }
            Self::Export(error) => match &**error {
                ExportError::Compatibility { version, feature } => {
                    vec![Detail::CompatibilityFeature(errdefs::CompatibilityFeature {
                        version: *version,
                        feature: feature.clone(),
                    })]
                }
                _ => Vec::new(),
            },
            Self::Frontend(error) => {
                let mut details: Vec<Detail> = error.detail().into_iter().collect();
                // What the frontend asked for may have failed as a vertex of its own.
                let mut cause = error.source();
                while let Some(error) = cause {
                    if let Some(inner) = error.downcast_ref::<Self>() {
                        details.extend(inner.details());
                    }
                    cause = error.source();
                }
                details
            }
            Self::Attest(error) => error.detail().into_iter().collect(),
            Self::Load(_) | Self::Rules(_) | Self::Cache(_) | Self::Request(_) | Self::Canceled => Vec::new(),
        }
    }
}

impl From<LoadError> for SolveError {
    fn from(error: LoadError) -> Self {
        Self::Load(Arc::new(error))
    }
}

impl From<RuleError> for SolveError {
    fn from(error: RuleError) -> Self {
        Self::Rules(Arc::new(error))
    }
}

impl From<frontend::Error> for SolveError {
    fn from(error: frontend::Error) -> Self {
        Self::Frontend(Arc::new(error))
    }
}

fn excerpt(range: &SourceRange) -> errdefs::Source {
    let position = |position: Option<&pb::Position>| {
        let position = position.copied().unwrap_or_default();
        errdefs::Position {
            line: position.line,
            character: position.character,
        }
    };
    errdefs::Source {
        info: range.info.as_ref().into(),
        ranges: range
            .ranges
            .iter()
            .map(|range| errdefs::Range {
                start: position(range.start.as_ref()),
                end: position(range.end.as_ref().or(range.start.as_ref())),
            })
            .collect(),
    }
}
