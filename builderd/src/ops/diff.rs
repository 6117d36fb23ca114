//! Diffs: what is different in one snapshot from another, as a snapshot to be merged with others.

use std::collections::HashSet;

use proto::pb;

use super::merge::{portable, select};
use super::{OpError, file};
use crate::store::view::{View, write_difference};
use crate::store::{LayerId, NewLayer, Snapshot, Store};

/// What a diff compares.
#[derive(Debug)]
pub struct Pair {
    lower: Snapshot,
    upper: Snapshot,
}

impl Pair {
    /// The inputs that the operation names.
    pub fn of(op: &pb::DiffOp, inputs: &[Snapshot]) -> Result<Self, OpError> {
        let select = |index| select("diff", index, inputs).map(Option::unwrap_or_default);
        Ok(Self {
            lower: select(op.lower.as_ref().map_or(-1, |lower| lower.input))?,
            upper: select(op.upper.as_ref().map_or(-1, |upper| upper.input))?,
        })
    }

    /// Whether files have to be compared; else the layers say it all.
    pub fn needs_files(&self) -> bool {
        !self.upper.layers().starts_with(self.lower.layers())
    }
}

/// What must be merged onto the lower snapshot to get the upper one.
pub async fn run(pair: Pair, store: &Store) -> Result<Snapshot, OpError> {
    if !pair.needs_files() {
        let count = pair.lower.layers().len();
        if count == 0 {
            return Ok(pair.upper);
        }
        return Ok(portable(&pair.upper, count, store).await?.into());
    }
    let store = store.clone();
    let pool = store.pool().clone();
    let layer = pool
        .run(move || write(&pair.lower, &pair.upper, NewLayer::default(), &store))
        .await??;
    Ok(Snapshot::default().with(layer))
}

/// A new layer with what is different.
pub(super) fn write(
    lower: &Snapshot,
    upper: &Snapshot,
    about: NewLayer,
    store: &Store,
) -> Result<LayerId, OpError> {
    let draft = store.draft()?;
    write_difference(&view(lower, store)?, &view(upper, store)?, &draft.upper()).map_err(OpError::Diff)?;
    Ok(store.commit(draft, about)?)
}

/// The files of a snapshot in which a layer may be twice.
pub(super) fn view(snapshot: &Snapshot, store: &Store) -> Result<View, OpError> {
    file::view_of(&topmost(snapshot), store).map_err(OpError::Diff)
}

/// Of a layer that is there twice the upper occurrence hides the lower one.
fn topmost(snapshot: &Snapshot) -> Snapshot {
    let mut seen = HashSet::new();
    let mut layers: Vec<LayerId> = snapshot
        .layers()
        .iter()
        .rev()
        .filter(|layer| seen.insert(*layer))
        .cloned()
        .collect();
    layers.reverse();
    layers.into()
}
