//! What clients may look at after an operation failed: its inputs, and what it left, under ids of their own.

use std::sync::Arc;

use proto::errdefs::{ContentCache, Detail, FileAction, Solve, op_json};

use super::{Failure, Job, SolveError};
use crate::ops::OpError;
use crate::store::Snapshot;

/// Longer operations are left out: details travel in headers, and a file's contents may be in an operation.
const MAX_OPERATION: usize = 64 << 10;

/// How many failed operations of one build are kept to look at.
const MOST_FAILURES: usize = 64;

/// Something that a client was told of.
#[derive(Clone, Debug)]
pub(super) struct Told {
    failure: Arc<Failure>,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Input(usize),
    Mount(usize),
}

impl Job {
    /// Keeps what a failed operation left as long as this build, and says by which ids it is known.
    pub(crate) fn keep_remains(&self, error: &SolveError) -> Option<Detail> {
        let failure = error.failure()?;
        let remains = &failure.remains;
        let mut told = self.remnants();
        let room = told.len() < MOST_FAILURES * 2 * (remains.inputs.len() + remains.mounts.len()).max(1);
        let mut tell = |place: Place, is_there: bool| {
            if !is_there || !room {
                return String::new();
            }
            let id = format!("trimaran-left::{:032x}", rand::random::<u128>());
            let failure = Arc::clone(failure);
            told.insert(id.clone(), Told { failure, place });
            id
        };
        let inputs = remains.inputs.iter().enumerate();
        let input_ids = inputs
            .map(|(at, input)| tell(Place::Input(at), input.is_some()))
            .collect();
        let mounts = remains.mounts.iter().enumerate();
        let mount_ids = mounts
            .map(|(at, mount)| tell(Place::Mount(at), mount.is_some()))
            .collect();
        Some(Detail::Solve(Box::new(Solve {
            input_ids,
            mount_ids,
            op: op_json(&failure.op, MAX_OPERATION),
            file: remains.action.map(|index| FileAction {
                index: index.to_string(),
            }),
            cache: remains.unreadable.map(|index| ContentCache {
                index: index.to_string(),
            }),
            description: failure.description.clone(),
        })))
    }

    /// What is behind an id of [`Self::keep_remains`].
    pub(crate) async fn remnant(&self, id: &str) -> Result<Option<Snapshot>, OpError> {
        let Some(told) = self.remnants().get(id).cloned() else {
            return Ok(None);
        };
        let store = self.store().clone();
        let found = move || {
            let remains = &told.failure.remains;
            match told.place {
                Place::Input(at) => Ok(remains.inputs.get(at).cloned().flatten()),
                Place::Mount(at) => match remains.mounts.get(at).and_then(Option::as_ref) {
                    Some(remnant) => remnant.snapshot(&store),
                    None => Ok(None),
                },
            }
        };
        Ok(self.store().pool().run(found).await??)
    }
}
