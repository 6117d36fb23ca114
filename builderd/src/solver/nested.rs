//! Build operations: a definition that is itself the result of a build.

use std::io::Read;
use std::sync::Arc;

use prost::Message;
use proto::pb;

use super::Job;
use crate::graph::Vertex;
use crate::ops::OpError;
use crate::ops::file::view_of;
use crate::store::Snapshot;

/// The input that holds the definition, and the name of its file unless an attribute says otherwise.
const DEFINITION: &str = "buildkit.llb.definition";

/// The attribute that names the file.
const FILE_NAME: &str = "llbbuild.filename";

/// A definition may have this many bytes.
const MAX_DEFINITION: u64 = 64 << 20;

impl Job {
    /// What the definition in an input comes to.
    pub(super) async fn nested(
        self: &Arc<Self>,
        op: &pb::BuildOp,
        vertex: &Vertex,
        inputs: &[Snapshot],
    ) -> Result<Snapshot, OpError> {
        if op.builder != -1 {
            return Err(OpError::Unsupported(format!(
                "a build operation with a builder of its own (input {}) is not supported: use the LLB builder",
                op.builder
            )));
        }
        let input = op.inputs.get(DEFINITION).ok_or_else(|| {
            OpError::Unsupported(format!("a build operation needs an input named {DEFINITION}"))
        })?;
        let input = usize::try_from(input.input).ok().and_then(|at| inputs.get(at));
        let snapshot = input.cloned().ok_or_else(|| {
            OpError::Unsupported(format!(
                "the input {DEFINITION} of a build operation does not exist"
            ))
        })?;
        let name = op
            .attrs
            .get(FILE_NAME)
            .cloned()
            .unwrap_or_else(|| DEFINITION.to_owned());
        let store = self.store().clone();
        let read = move || {
            let unreadable = |error: &dyn std::fmt::Display| {
                OpError::Unsupported(format!("cannot read the definition {name}: {error}"))
            };
            let file = view_of(&snapshot, &store)
                .and_then(|view| view.open_file(&name))
                .map_err(|error| unreadable(&proto::chain(&error)))?;
            let mut bytes = Vec::new();
            file.take(MAX_DEFINITION + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| unreadable(&error))?;
            if bytes.len() as u64 > MAX_DEFINITION {
                return Err(unreadable(&"it is larger than 64 MiB"));
            }
            pb::Definition::decode(&bytes[..]).map_err(|error| unreadable(&error))
        };
        let definition = self.store().pool().run(read).await??;
        let failed = |error: super::SolveError| OpError::Nested {
            name: vertex.name.clone(),
            source: Box::new(error),
        };
        let Some(edge) = self.load(&definition).map_err(failed)? else {
            return Ok(Snapshot::default());
        };
        let snapshots = self.evaluate(&[edge]).await.map_err(failed)?;
        Ok(snapshots.into_iter().next().unwrap_or_default())
    }
}
