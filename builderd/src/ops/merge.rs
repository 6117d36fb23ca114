//! Merges: the files of several snapshots over each other, without copying any.
//!
//! What is merged is what the layers of each input do, deletions included, one after the other. A layer may lie on
//! other files than those it was made on, so there it must not hide whole folders, only the names that it removed, nor hold what its step left as it was.

use proto::pb;

use super::{OpError, diff};
use crate::store::{CacheKey, CachedResult, LayerId, NewLayer, Snapshot, Store, view};

/// The inputs over each other, the first one lowest.
pub async fn run(op: &pb::MergeOp, inputs: &[Snapshot], store: &Store) -> Result<Snapshot, OpError> {
    let mut merged: Vec<LayerId> = Vec::new();
    for input in &op.inputs {
        let Some(input) = select("merge", input.input, inputs)? else {
            continue;
        };
        if merged.is_empty() {
            // These lie on what they were made on.
            merged.extend_from_slice(input.layers());
        } else {
            merged.extend(portable(&input, 0, store).await?);
        }
    }
    Ok(merged.into())
}

/// An input by its number; -1 stands for no files at all.
pub(super) fn select(
    operation: &'static str,
    index: i64,
    inputs: &[Snapshot],
) -> Result<Option<Snapshot>, OpError> {
    if index == -1 {
        return Ok(None);
    }
    let input = usize::try_from(index).ok().and_then(|index| inputs.get(index));
    match input {
        Some(input) => Ok(Some(input.clone()).filter(|input| !input.is_scratch())),
        None => Err(OpError::Input {
            operation,
            index,
            available: inputs.len(),
        }),
    }
}

/// The layers of a snapshot from the one at `first` on, as they may lie on anything.
pub(super) async fn portable(
    snapshot: &Snapshot,
    first: usize,
    store: &Store,
) -> Result<Vec<LayerId>, OpError> {
    let (snapshot, store) = (snapshot.clone(), store.clone());
    let pool = store.pool().clone();
    pool.run(move || {
        (first..snapshot.layers().len())
            .map(|index| portable_layer(&snapshot, index, &store))
            .collect()
    })
    .await?
}

fn portable_layer(snapshot: &Snapshot, index: usize, store: &Store) -> Result<LayerId, OpError> {
    let layer = &snapshot.layers()[index];
    // The layers of an image stay as they are: whoever unpacks the merged image does with them what we do.
    if store.layer(layer).is_some_and(|record| record.remote.is_some()) {
        return Ok(layer.clone());
    }
    let up_to_it = &snapshot.layers()[..=index];
    let key = CacheKey::new("portable layer", up_to_it.iter().map(LayerId::as_str));
    if let Some(known) = store.lookup(&key)
        && let [known] = &known.outputs[..]
        && let [known] = known.layers()
    {
        return Ok(known.clone());
    }
    let below = Snapshot::new(&snapshot.layers()[..index]);
    let under = diff::view(&below, store)?;
    let is_difference = view::is_difference(&store.layer_folder(layer), &under).map_err(OpError::Diff)?;
    let portable = if is_difference {
        layer.clone()
    } else {
        let description = store
            .layer(layer)
            .map(|record| record.description)
            .unwrap_or_default();
        let about = NewLayer {
            description,
            ..NewLayer::default()
        };
        diff::write(&below, &Snapshot::new(up_to_it), about, store)?
    };
    let outputs = vec![Snapshot::default().with(portable.clone())];
    store.remember(&key, &CachedResult::now(outputs));
    Ok(portable)
}
