//! Answers vertices from imported caches before anything below them runs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use proto::pb::op::Op;
use registry::Digest;

use super::format::CacheRecord;
use super::{Place, lock};
use crate::graph::{Edge, Graph, Vertex};
use crate::ops::{exec, file};
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
        let inputs = places_of(job, &form.inputs);
        for (number, cache) in imported.iter().enumerate() {
            for index in cache.by_digest.get(&form.digest).into_iter().flatten() {
                let Some(record) = cache.records.get(*index) else {
                    continue;
                };
                if fits(record, number, &inputs) {
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
        _ => {
            let whole = with_output(cache_key::portable(&vertex.op, job.proxies(&vertex.op)));
            let bases = bases(vertex);
            let by_content = match content {
                Some(digest) => vec![with_output(digest)],
                None => synonyms(job, vertex, output, &bases),
            };
            let mut forms = vec![Form {
                digest: whole,
                inputs: vertex.inputs.clone(),
            }];
            forms.extend(by_content.into_iter().map(|digest| Form {
                digest,
                inputs: bases.clone(),
            }));
            forms
        }
    }
}

/// The inputs that do not count by the files that an operation takes from them.
fn bases(vertex: &Vertex) -> Vec<Edge> {
    let count = vertex.inputs.len();
    let indices = match &vertex.op.op {
        Some(Op::File(op)) => file::bases(op, count),
        Some(Op::Exec(op)) => exec::bases(op, count).unwrap_or_else(|_| (0..count).collect()),
        _ => (0..count).collect(),
    };
    let inputs = indices.into_iter();
    inputs
        .filter_map(|index| vertex.inputs.get(index).copied())
        .collect()
}

/// The names by content that caches have for an output, whose files nobody brought here: records of the same result. So
/// a cache that is imported and exported again loses none of its names.
fn synonyms(job: &Job, vertex: &Vertex, output: usize, bases: &[Edge]) -> Vec<Digest> {
    if bases.len() == vertex.inputs.len() {
        return Vec::new();
    }
    let key = (vertex.digest.clone(), output);
    let Some(places) = lock(&job.remote_caches().matched).get(&key).cloned() else {
        return Vec::new();
    };
    let inputs = places_of(job, bases);
    let imported = job.remote_caches().imported();
    let mut found: Vec<Digest> = Vec::new();
    for (number, record) in places.iter() {
        let Some((cache, record)) = imported
            .get(*number)
            .and_then(|cache| Some((cache, cache.records.get(*record)?)))
        else {
            continue;
        };
        if record.results.is_empty() && record.chains.is_empty() {
            continue;
        }
        let same = cache.records.iter().filter(|other| {
            other.digest != record.digest
                && other.results == record.results
                && other.chains == record.chains
                && fits(other, *number, &inputs)
        });
        for other in same {
            if !found.contains(&other.digest) {
                found.push(other.digest.clone());
            }
        }
    }
    found
}

/// The records that stand for outputs.
fn places_of(job: &Job, edges: &[Edge]) -> Vec<Arc<BTreeSet<Place>>> {
    let graph = job.graph();
    let matched = lock(&job.remote_caches().matched);
    edges
        .iter()
        .map(|edge| {
            let key = (graph.vertex(edge.vertex).digest.clone(), edge.output);
            matched.get(&key).cloned().unwrap_or_default()
        })
        .collect()
}

/// Whether a record of a cache is linked to records that stand for these inputs.
fn fits(record: &CacheRecord, cache: usize, inputs: &[Arc<BTreeSet<Place>>]) -> bool {
    record.inputs.len() == inputs.len()
        && record.inputs.iter().zip(inputs).all(|(links, places)| {
            links
                .iter()
                .any(|link| link.selector.is_empty() && places.contains(&(cache, link.link)))
        })
}

/// The digest of a source by its content, or of an operation by that of the files it takes; once for each vertex.
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
        Some(op @ (Op::File(_) | Op::Exec(_))) if bases(vertex).len() < vertex.inputs.len() => {
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
            let (op, operation) = (
                op.clone(),
                cache_key::operation(&vertex.op, job.proxies(&vertex.op)),
            );
            pool.run(move || of_files(&op, &operation, &inputs, &store))
                .await
                .ok()?
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

fn of_files(op: &Op, operation: &[u8], inputs: &[Option<Snapshot>], store: &Store) -> Option<Digest> {
    let bases = match op {
        Op::File(op) => file::bases(op, inputs.len()),
        Op::Exec(op) => exec::bases(op, inputs.len()).ok()?,
        _ => return None,
    };
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
    let key = match op {
        Op::File(op) => file::content_key(op, &snapshots, store).ok(),
        Op::Exec(op) => exec::content_key(op, operation, &snapshots, store).ok(),
        _ => None,
    };
    let key = key.flatten()?;
    Some(Digest::of(&[&b"taken "[..], key.as_bytes()].concat()))
}
