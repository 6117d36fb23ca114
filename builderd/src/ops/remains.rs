//! What a failed operation leaves for a client that wants to look at it.

use std::sync::{Mutex, PoisonError};

use crate::store::{LayerDraft, LayerError, NewLayer, Snapshot, Store};

/// Kept as long as the error that carries it; nothing of it becomes a result by itself.
#[derive(Debug, Default)]
pub struct Remains {
    /// What the operation started from.
    pub inputs: Vec<Option<Snapshot>>,
    /// What it left, by mount or action.
    pub mounts: Vec<Option<Remnant>>,
    /// Which action of a file operation failed.
    pub action: Option<usize>,
    /// Which input could not be looked into.
    pub unreadable: Option<usize>,
}

/// Files in the state in which a failed operation left them.
#[derive(Debug)]
pub enum Remnant {
    Untouched(Snapshot),
    Written(Written),
}

/// A draft that becomes a layer when somebody asks for it.
#[derive(Debug)]
pub struct Written {
    base: Snapshot,
    draft: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Draft(LayerDraft),
    Layer(Snapshot),
    Lost,
}

impl Remnant {
    pub(crate) fn written(base: Snapshot, draft: LayerDraft) -> Self {
        Self::Written(Written {
            base,
            draft: Mutex::new(State::Draft(draft)),
        })
    }

    /// The files as a snapshot; `None` if an earlier attempt to make one failed. Blocks.
    pub fn snapshot(&self, store: &Store) -> Result<Option<Snapshot>, LayerError> {
        let written = match self {
            Self::Untouched(snapshot) => return Ok(Some(snapshot.clone())),
            Self::Written(written) => written,
        };
        let mut state = written.draft.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Lost) {
            State::Draft(draft) => {
                let layer = store.commit(draft, NewLayer::default())?;
                let snapshot = written.base.with(layer);
                *state = State::Layer(snapshot.clone());
                Ok(Some(snapshot))
            }
            State::Layer(snapshot) => {
                *state = State::Layer(snapshot.clone());
                Ok(Some(snapshot))
            }
            State::Lost => Ok(None),
        }
    }
}
