//! Build operations: a definition that is itself the result of a build.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use proto::pb;
use tokio::sync::OnceCell;

use super::Job;
use super::job::Done;
use crate::graph::{Edge, Graph, Vertex};
use crate::ops::OpError;
use crate::ops::file::view_of;
use crate::progress::VertexProgress;
use crate::store::Snapshot;

/// The input that holds the definition, and the name of its file unless an attribute says otherwise.
const DEFINITION: &str = "buildkit.llb.definition";

/// The attribute that names the file.
const FILE_NAME: &str = "llbbuild.filename";

/// A definition may have this many bytes.
const MAX_DEFINITION: u64 = 64 << 20;

/// Builds in builds: a step can write a definition in which such a step is again.
const MAX_DEPTH: usize = 32;

/// The build operations of one build, each of which is done once.
#[derive(Debug, Default)]
pub(super) struct Nesting(Mutex<HashMap<String, Nested>>);

#[derive(Debug, Default)]
struct Nested {
    result: Arc<OnceCell<Snapshot>>,
    /// The build operations in its definition, by digest.
    uses: BTreeSet<String>,
    /// How many others it lies in.
    depth: usize,
}

impl Nesting {
    fn result(&self, digest: &str) -> Arc<OnceCell<Snapshot>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known.entry(digest.to_owned()).or_default().result)
    }

    /// Takes in what the definition of `digest` uses. That is known only when it was read, so circles can be found only
    /// here; each that is in one would wait for itself.
    fn uses(&self, digest: &str, uses: BTreeSet<String>) -> Result<(), OpError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let depth = known.get(digest).map_or(0, |nested| nested.depth) + 1;
        let mut reached: Vec<&String> = uses.iter().collect();
        let mut seen: BTreeSet<&String> = reached.iter().copied().collect();
        while let Some(next) = reached.pop() {
            if next.as_str() == digest {
                return Err(OpError::Unsupported(
                    "a build operation uses its own result".into(),
                ));
            }
            let further = known.get(next).into_iter().flat_map(|nested| &nested.uses);
            reached.extend(further.filter(|further| seen.insert(further)));
        }
        if depth > MAX_DEPTH && !uses.is_empty() {
            return Err(OpError::Unsupported(format!(
                "more than {MAX_DEPTH} build operations lie in each other"
            )));
        }
        for used in &uses {
            let nested = known.entry(used.clone()).or_default();
            nested.depth = nested.depth.max(depth);
        }
        known.entry(digest.to_owned()).or_default().uses = uses;
        Ok(())
    }
}

/// The build operations that an edge is made with.
fn builds_below(graph: &Graph, edge: Edge) -> BTreeSet<String> {
    let mut builds = BTreeSet::new();
    let mut seen = BTreeSet::from([edge.vertex]);
    let mut reached = vec![edge.vertex];
    while let Some(index) = reached.pop() {
        let vertex = graph.vertex(index);
        if matches!(vertex.op.op, Some(pb::op::Op::Build(_))) {
            builds.insert(vertex.digest.clone());
        }
        let inputs = vertex.inputs.iter().map(|input| input.vertex);
        reached.extend(inputs.filter(|input| seen.insert(*input)));
    }
    builds
}

impl Job {
    /// What the definition in an input comes to.
    pub(super) async fn nested(
        self: &Arc<Self>,
        op: &pb::BuildOp,
        vertex: &Vertex,
        inputs: &[Snapshot],
        progress: &VertexProgress,
    ) -> Result<Done, OpError> {
        let result = self.nesting().result(&vertex.digest);
        let run = async || {
            self.fetch(inputs, progress).await?;
            progress.start();
            self.build_in(op, vertex, inputs).await
        };
        let snapshot = result.get_or_try_init(run).await?.clone();
        Ok(Done {
            outputs: vec![snapshot],
            cached: false,
        })
    }

    async fn build_in(
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
        let uses = builds_below(&self.graph(), edge);
        self.nesting().uses(&vertex.digest, uses)?;
        let snapshots = self.evaluate(&[edge]).await.map_err(failed)?;
        Ok(snapshots.into_iter().next().unwrap_or_default())
    }
}
