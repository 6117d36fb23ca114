//! The records of a build: one for each way to name a result, linked to those of its inputs.

use std::collections::HashMap;
use std::sync::Arc;

use proto::pb::op::Op;
use registry::Digest;

use super::format::{CacheInput, CacheRecord, CacheResult, ChainedResult};
use super::matching::{cached, forms, needed};
use crate::graph::Edge;
use crate::solver::Job;
use crate::store::{LayerId, Snapshot};

/// Which results go into a cache.
#[derive(Clone, Debug)]
pub(super) enum Extent {
    /// Those whose layers are in one of the targets anyway.
    Targets(Vec<Snapshot>),
    /// Those that can be named by the layers of this one.
    Within(Snapshot),
    /// All of them.
    Everything,
}

impl Extent {
    fn takes(&self, snapshot: &Snapshot) -> bool {
        let layers = snapshot.layers();
        match self {
            Self::Targets(targets) => targets.iter().any(|target| target.layers().starts_with(layers)),
            Self::Within(target) => layers.iter().all(|layer| target.layers().contains(layer)),
            Self::Everything => true,
        }
    }
}

/// A record, and the result that goes with it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) digest: Digest,
    pub(super) inputs: Vec<Vec<CacheInput>>,
    pub(super) result: Option<Snapshot>,
}

/// The records of everything that `targets` were made of.
pub(super) async fn collect(job: &Arc<Job>, targets: &[Edge], extent: &Extent) -> Vec<Entry> {
    let order = needed(&job.graph(), targets);
    let mut entries: Vec<Entry> = Vec::new();
    let mut by_output: HashMap<Edge, Vec<usize>> = HashMap::new();
    for (index, vertex, outputs) in order {
        for output in outputs {
            let edge = Edge {
                vertex: index,
                output,
            };
            let result = match &vertex.op.op {
                Some(Op::Source(_)) | None => None,
                Some(_) => match job.finished_output(&vertex.digest, output) {
                    Some(outputs) => outputs.get(output).cloned(),
                    None => cached(job, &vertex, output).await,
                },
            };
            let result = result.filter(|result| !result.is_scratch() && extent.takes(result));
            for form in forms(job, &vertex, output).await {
                let inputs: Option<Vec<Vec<CacheInput>>> = form
                    .inputs
                    .iter()
                    .map(|input| {
                        let links = by_output.get(input)?.iter();
                        Some(
                            links
                                .map(|link| CacheInput {
                                    selector: String::new(),
                                    link: *link,
                                })
                                .collect(),
                        )
                    })
                    .collect();
                // Without the name of an input, a result has none either.
                let Some(inputs) = inputs else { continue };
                by_output.entry(edge).or_default().push(entries.len());
                entries.push(Entry {
                    digest: form.digest,
                    inputs,
                    result: result.clone(),
                });
            }
        }
    }
    entries
}

/// The records of entries; `place` says where layers are, lowest first.
pub(super) fn records(
    entries: Vec<Entry>,
    created_at: impl Fn(&LayerId) -> String,
    mut place: impl FnMut(&Snapshot) -> Option<Placed>,
) -> Vec<CacheRecord> {
    entries
        .into_iter()
        .map(|entry| {
            let mut record = CacheRecord {
                results: Vec::new(),
                chains: Vec::new(),
                digest: entry.digest,
                inputs: entry.inputs,
            };
            if let Some(result) = &entry.result
                && let Some(placed) = place(result)
            {
                let created_at = result.layers().last().map(&created_at).unwrap_or_default();
                match placed {
                    Placed::Top(layer) => record.results.push(CacheResult { layer, created_at }),
                    Placed::Each(layers) => record.chains.push(ChainedResult { layers, created_at }),
                }
            }
            record
        })
        .collect()
}

/// Where the layers of a result are in a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// The top one, on all below it.
    Top(usize),
    Each(Vec<usize>),
}

impl Placed {
    /// Among the layers of an image.
    pub(super) fn within(image: &Snapshot, result: &Snapshot) -> Option<Self> {
        let layers = result.layers();
        if image.layers().starts_with(layers) {
            return layers.len().checked_sub(1).map(Self::Top);
        }
        let place = |layer| image.layers().iter().position(|other| other == layer);
        layers.iter().map(place).collect::<Option<_>>().map(Self::Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(names: &[&str]) -> Snapshot {
        names.iter().map(|name| LayerId::new(*name)).collect()
    }

    #[test]
    fn results_are_named_by_the_layers_of_the_image() {
        let image = snapshot(&["a", "b", "c"]);
        for (result, placed) in [
            (&["a", "b"][..], Some(Placed::Top(1))),
            (&["a", "c"], Some(Placed::Each(vec![0, 2]))),
            (&["a", "d"], None),
            (&[], None),
        ] {
            assert_eq!(Placed::within(&image, &snapshot(result)), placed, "{result:?}");
        }
    }

    #[test]
    fn an_extent_takes_what_costs_no_further_layers() {
        let targets = Extent::Targets(vec![snapshot(&["a", "b"])]);
        assert!(targets.takes(&snapshot(&["a"])));
        assert!(!targets.takes(&snapshot(&["b"])));
        assert!(Extent::Within(snapshot(&["a", "b"])).takes(&snapshot(&["b"])));
        assert!(Extent::Everything.takes(&snapshot(&["x"])));
    }
}
