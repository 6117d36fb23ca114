//! The loop that owns the states of all vertices of one evaluation.
//!
//! A vertex becomes ready when its inputs are done. A ready vertex is answered from the records if they have it —
//! in the loop itself, so that a build in which nothing changed costs one lookup a vertex and no task — and else runs
//! as a task. The first failure stops the rest; tasks end when the set that owns them is dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Job, SolveError, remote};
use crate::graph::{Edge, Vertex};
use crate::store::Snapshot;

/// The outputs of a vertex, by output index.
pub type Outputs = Arc<[Snapshot]>;

struct Evaluation {
    nodes: HashMap<usize, Node>,
    ready: VecDeque<usize>,
    done: HashMap<usize, Outputs>,
}

struct Node {
    vertex: Arc<Vertex>,
    /// Inputs that are not done yet; a vertex used twice counts twice.
    waiting_for: usize,
    users: Vec<usize>,
}

/// Brings about the snapshots behind `targets`, with the help of imported caches if there are any.
pub async fn evaluate(job: &Arc<Job>, targets: &[Edge]) -> Result<Vec<Snapshot>, SolveError> {
    if job.remote_caches().any() {
        remote::answer(job, targets).await?;
    }
    compute(job, targets).await
}

/// Brings about the snapshots behind `targets` here.
pub(super) async fn compute(job: &Arc<Job>, targets: &[Edge]) -> Result<Vec<Snapshot>, SolveError> {
    let mut evaluation = Evaluation::plan(job, targets);
    let mut running: JoinSet<(usize, Result<Outputs, SolveError>)> = JoinSet::new();
    loop {
        while let Some(index) = evaluation.ready.pop_front() {
            let Some(node) = evaluation.nodes.get(&index) else {
                continue;
            };
            let vertex = Arc::clone(&node.vertex);
            let inputs = evaluation.inputs(&vertex);
            match job.recall(&vertex, &inputs) {
                Some(outputs) => evaluation.finish(job, index, outputs),
                None => {
                    let job = Arc::clone(job);
                    running.spawn(async move { (index, job.run(&vertex, inputs).await) });
                }
            }
        }
        let finished = tokio::select! {
            finished = running.join_next() => finished,
            () = job.cancellation().cancelled() => {
                running.shutdown().await;
                return Err(SolveError::Canceled);
            }
        };
        match finished {
            None => break,
            Some(Ok((index, Ok(outputs)))) => evaluation.finish(job, index, outputs),
            Some(Ok((_, Err(error)))) => {
                running.shutdown().await;
                return Err(error);
            }
            Some(Err(panic)) => {
                running.shutdown().await;
                return Err(SolveError::Request(format!(
                    "internal error: a step's task ended abnormally: {panic}"
                )));
            }
        }
    }
    Ok(targets.iter().map(|edge| evaluation.snapshot(*edge)).collect())
}

impl Evaluation {
    /// Collects what the targets need and the job does not have yet.
    fn plan(job: &Job, targets: &[Edge]) -> Self {
        let mut evaluation = Self {
            nodes: HashMap::new(),
            ready: VecDeque::new(),
            done: HashMap::new(),
        };
        let graph = job.graph();
        let mut stack: Vec<Edge> = targets.to_vec();
        while let Some(edge) = stack.pop() {
            let index = edge.vertex;
            if evaluation.nodes.contains_key(&index) {
                continue;
            }
            let vertex = Arc::clone(graph.vertex(index));
            if let Some(outputs) = job.finished_output(&vertex.digest, edge.output) {
                evaluation.done.insert(index, outputs);
                continue;
            }
            // Another output may be done.
            evaluation.done.remove(&index);
            stack.extend(vertex.inputs.iter().copied());
            evaluation.nodes.insert(
                index,
                Node {
                    vertex,
                    waiting_for: 0,
                    users: Vec::new(),
                },
            );
        }
        // Announce in topological order: displays number vertices as they hear of them.
        let mut order: Vec<usize> = evaluation.nodes.keys().copied().collect();
        order.sort_unstable();
        for index in order {
            let Some(vertex) = evaluation.nodes.get(&index).map(|node| Arc::clone(&node.vertex)) else {
                continue;
            };
            job.announce(&graph, &vertex);
            let mut waiting_for = 0;
            for edge in &vertex.inputs {
                if let Some(input) = evaluation.nodes.get_mut(&edge.vertex) {
                    input.users.push(index);
                    waiting_for += 1;
                }
            }
            if let Some(node) = evaluation.nodes.get_mut(&index) {
                node.waiting_for = waiting_for;
            }
            if waiting_for == 0 {
                evaluation.ready.push_back(index);
            }
        }
        evaluation
    }

    fn inputs(&self, vertex: &Vertex) -> Vec<Snapshot> {
        vertex.inputs.iter().map(|edge| self.snapshot(*edge)).collect()
    }

    fn snapshot(&self, edge: Edge) -> Snapshot {
        self.done
            .get(&edge.vertex)
            .and_then(|outputs| outputs.get(edge.output))
            .cloned()
            .unwrap_or_default()
    }

    fn finish(&mut self, job: &Job, index: usize, outputs: Outputs) {
        let Some(node) = self.nodes.remove(&index) else {
            return;
        };
        job.finish(&node.vertex.digest, &outputs);
        self.done.insert(index, outputs);
        for user in node.users {
            if let Some(user_node) = self.nodes.get_mut(&user) {
                user_node.waiting_for -= 1;
                if user_node.waiting_for == 0 {
                    self.ready.push_back(user);
                }
            }
        }
    }
}
