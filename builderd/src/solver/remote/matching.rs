//! Answers vertices from imported caches before anything below them runs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use proto::pb;
use proto::pb::op::Op;
use registry::Digest;

use super::{Place, lock};
use crate::graph::{Edge, Graph, Vertex};
use crate::ops::file;
use crate::solver::schedule::{self, Outputs};
use crate::solver::{Job, SolveError, cache_key};
use crate::store::{LayerId, Snapshot, Store};

/// One way to name an output: a digest, and the inputs that count with it.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) digest: Digest,
    pub(super) inputs: Vec<Edge>,
}

/// The vertices that targets need, inputs first, with the outputs that are used.
pub(super) fn needed(graph: &Graph, targets: &[Edge]) -> Vec<(usize, Arc<Vertex>, BTreeSet<usize>)> {
    let mut used: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut stack: Vec<Edge> = targets.to_vec();
    while let Some(edge) = stack.pop() {
        let first = !used.contains_key(&edge.vertex);
        used.entry(edge.vertex).or_default().insert(edge.output);
        if first {
            stack.extend(graph.vertex(edge.vertex).inputs.iter().copied());
        }
    }
    used.into_iter()
        .map(|(index, outputs)| (index, Arc::clone(graph.vertex(index)), outputs))
        .collect()
}

/// Finds what caches have of the targets and what they need; what a cache answers, and everything below that nobody
/// else needs, does not run. What is recorded here comes first.
pub(in crate::solver) fn answer<'a>(
    job: &'a Arc<Job>,
    targets: &'a [Edge],
) -> BoxFuture<'a, Result<(), SolveError>> {
    answer_all(job, targets).boxed()
}

async fn answer_all(job: &Arc<Job>, targets: &[Edge]) -> Result<(), SolveError> {
    let order = needed(&job.graph(), targets);
    let sources: Vec<Edge> = order
        .iter()
        .filter(|(_, vertex, _)| is_source(vertex))
        .map(|(index, ..)| Edge {
            vertex: *index,
            output: 0,
        })
        .collect();
    schedule::compute(job, &sources).await?;
    let mut known: HashMap<usize, Outputs> = HashMap::new();
    for (index, vertex, outputs) in &order {
        let here = match job.finished(&vertex.digest) {
            Some(found) => Some(found),
            None => inputs(vertex, &known).and_then(|inputs| job.look_up(vertex, &inputs)),
        };
        known.extend(here.map(|outputs| (*index, outputs)));
        for output in outputs {
            let places = places(job, vertex, *output).await;
            lock(&job.remote_caches().matched).insert((vertex.digest.clone(), *output), Arc::new(places));
        }
    }
    let vertices: HashMap<usize, &Arc<Vertex>> =
        order.iter().map(|(index, vertex, _)| (*index, vertex)).collect();
    let mut stack = targets.to_vec();
    let mut seen = HashSet::new();
    while let Some(edge) = stack.pop() {
        let Some(vertex) = vertices.get(&edge.vertex) else {
            continue;
        };
        if !seen.insert(edge) || known.contains_key(&edge.vertex) {
            continue;
        }
        if let Some(snapshot) = cached(job, vertex, edge.output).await {
            job.announce_cached(vertex);
            job.finish_part(&vertex.digest, edge.output, snapshot);
        } else {
            stack.extend(vertex.inputs.iter().copied());
        }
    }
    Ok(())
}

/// What an imported cache has of an output.
pub(super) async fn cached(job: &Job, vertex: &Vertex, output: usize) -> Option<Snapshot> {
    let key = (vertex.digest.clone(), output);
    let places = lock(&job.remote_caches().matched).get(&key).cloned()?;
    let imported = job.remote_caches().imported();
    let progress = job.reporter(vertex);
    for (cache, record) in places.iter() {
        let cache = imported.get(*cache)?;
        if let Some(snapshot) = cache.result(job, *record, &progress).await {
            return Some(snapshot);
        }
    }
    None
}

fn is_source(vertex: &Vertex) -> bool {
    matches!(vertex.op.op, Some(Op::Source(_)))
}

fn inputs(vertex: &Vertex, known: &HashMap<usize, Outputs>) -> Option<Vec<Snapshot>> {
    let inputs = vertex.inputs.iter();
    inputs
        .map(|edge| known.get(&edge.vertex)?.get(edge.output).cloned())
        .collect()
}

/// The records that stand for an output of a vertex whose inputs were matched before.
async fn places(job: &Job, vertex: &Vertex, output: usize) -> BTreeSet<Place> {
    let mut found = BTreeSet::new();
    if vertex.metadata.ignore_cache {
        return found;
    }
    let imported = job.remote_caches().imported();
    for form in forms(job, vertex, output).await {
        let inputs: Vec<Arc<BTreeSet<Place>>> = {
            let graph = job.graph();
            let matched = lock(&job.remote_caches().matched);
            form.inputs
                .iter()
                .map(|edge| {
                    let key = (graph.vertex(edge.vertex).digest.clone(), edge.output);
                    matched.get(&key).cloned().unwrap_or_default()
                })
                .collect()
        };
        for (number, cache) in imported.iter().enumerate() {
            for index in cache.by_digest.get(&form.digest).into_iter().flatten() {
                let Some(record) = cache.records.get(*index) else {
                    continue;
                };
                let fits = record.inputs.len() == inputs.len()
                    && record.inputs.iter().zip(&inputs).all(|(links, places)| {
                        links
                            .iter()
                            .any(|link| link.selector.is_empty() && places.contains(&(number, link.link)))
                    });
                if fits {
                    found.insert((number, *index));
                }
            }
        }
    }
    found
}

/// The ways to name an output of a vertex, as far as they are known.
pub(super) async fn forms(job: &Job, vertex: &Vertex, output: usize) -> Vec<Form> {
    let content = content(job, vertex).await;
    let with_output = |digest: Digest| match output {
        0 => digest,
        _ => Digest::of(format!("{digest}@{output}").as_bytes()),
    };
    match &vertex.op.op {
        Some(Op::Source(_)) => content
            .into_iter()
            .map(|digest| Form {
                digest,
                inputs: Vec::new(),
            })
            .collect(),
        Some(Op::File(op)) => {
            let mut forms = vec![Form {
                digest: with_output(cache_key::portable(&vertex.op)),
                inputs: vertex.inputs.clone(),
            }];
            let bases = file::bases(op, vertex.inputs.len());
            forms.extend(content.map(|digest| {
                Form {
                    digest: with_output(digest),
                    inputs: bases
                        .iter()
                        .filter_map(|index| vertex.inputs.get(*index).copied())
                        .collect(),
                }
            }));
            forms
        }
        _ => vec![Form {
            digest: with_output(cache_key::portable(&vertex.op)),
            inputs: vertex.inputs.clone(),
        }],
    }
}

/// The digest of a source by its content, or of a file operation by that of the files it takes; once for each vertex.
async fn content(job: &Job, vertex: &Vertex) -> Option<Digest> {
    if let Some(known) = lock(&job.remote_caches().contents).get(&vertex.digest) {
        return known.clone();
    }
    let store = job.store().clone();
    let pool = store.pool().clone();
    let digest = match &vertex.op.op {
        Some(Op::Source(_)) => {
            let snapshot = job.finished(&vertex.digest)?.first().cloned()?;
            pool.run(move || of_source(&snapshot, &store)).await.ok()?
        }
        Some(Op::File(op)) => {
            let inputs: Vec<Option<Snapshot>> = {
                let graph = job.graph();
                let inputs = vertex.inputs.iter();
                inputs
                    .map(|edge| {
                        let digest = &graph.vertex(edge.vertex).digest;
                        job.finished_output(digest, edge.output)?
                            .get(edge.output)
                            .cloned()
                    })
                    .collect()
            };
            let op = op.clone();
            pool.run(move || of_files(&op, &inputs, &store)).await.ok()?
        }
        _ => None,
    };
    // What is not known yet may be after more has run.
    if digest.is_some() {
        lock(&job.remote_caches().contents).insert(vertex.digest.clone(), digest.clone());
    }
    digest
}

fn of_source(snapshot: &Snapshot, store: &Store) -> Option<Digest> {
    let is_of_image = |layer: &LayerId| layer.as_str().contains(':');
    if snapshot.layers().iter().all(is_of_image) {
        let names: Vec<&str> = snapshot.layers().iter().map(LayerId::as_str).collect();
        return Some(Digest::of(format!("image {}", names.join(" ")).as_bytes()));
    }
    let sum = file::whole_content(snapshot, store);
    sum.inspect_err(|error| tracing::debug!(%error, "a source has no portable key"))
        .ok()
        .map(|sum| Digest::of(&[&b"files "[..], &sum].concat()))
}

fn of_files(op: &pb::FileOp, inputs: &[Option<Snapshot>], store: &Store) -> Option<Digest> {
    let bases = file::bases(op, inputs.len());
    let mut snapshots = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        if bases.contains(&index) {
            snapshots.push(Snapshot::default());
            continue;
        }
        let input = input.clone()?;
        if !input.layers().iter().all(|layer| store.has_folder(layer)) {
            return None;
        }
        snapshots.push(input);
    }
    let key = file::content_key(op, &snapshots, store).ok().flatten()?;
    Some(Digest::of(&[&b"taken "[..], key.as_bytes()].concat()))
}
