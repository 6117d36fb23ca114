//! Where a job's files come from: resolves its sources, and pulls the layers that an operation is about to read.

use proto::pb;

use super::Job;
use super::job::Done;
use crate::frontend::{ResolvedImage, WantedImage};
use crate::graph::Vertex;
use crate::ops::OpError;
use crate::progress::VertexProgress;
use crate::sources::local::{self, LocalSource};
use crate::store::Snapshot;

impl Job {
    pub(super) async fn source(
        &self,
        source: &pb::SourceOp,
        _vertex: &Vertex,
        progress: &VertexProgress,
    ) -> Result<Done, OpError> {
        let store = self.solver().store();
        let snapshot = match source.identifier.split_once("://").map(|(scheme, _)| scheme) {
            Some("local") => {
                local::load(&LocalSource::parse(source)?, self.sessions(), store, progress).await?
            }
            _ => {
                return Err(OpError::Unsupported(format!(
                    "source {} is not supported yet",
                    source.identifier
                )));
            }
        };
        Ok(Done {
            outputs: vec![snapshot],
            cached: false,
        })
    }

    /// Brings the files of all inputs here.
    pub(super) async fn fetch(
        &self,
        _inputs: &[Snapshot],
        _progress: &VertexProgress,
    ) -> Result<(), OpError> {
        Ok(())
    }

    /// Brings the files of a result here, for somebody outside of the graph who reads them.
    pub(crate) async fn fetch_files(&self, _snapshot: &Snapshot) -> Result<(), OpError> {
        Ok(())
    }

    /// Looks up an image and its config, in a vertex of its own.
    pub(crate) async fn resolve_image(&self, wanted: WantedImage) -> Result<ResolvedImage, OpError> {
        Err(OpError::Unsupported(format!(
            "image {} is not supported yet",
            wanted.reference
        )))
    }
}
