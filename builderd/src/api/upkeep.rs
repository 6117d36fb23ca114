//! What the daemon does when builds have ended: it removes what the policies let go, and old build records.
//!
//! It runs in the background, at most once in a while, and never keeps a build waiting. What a build uses stays.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::history::History;
use crate::sources::local;
use crate::store::{PrunePolicy, Store, Usage};
use crate::sys::give_memory_back;

/// Between the end of a build and the work: the client's next questions are answered first.
const DELAY: Duration = Duration::from_secs(1);
/// From the end of one run to the begin of the next.
const PAUSE: Duration = Duration::from_secs(60);

/// Wakes the upkeep.
#[derive(Debug, Default)]
pub struct Upkeep {
    build_ended: Notify,
}

impl Upkeep {
    pub(super) fn build_ended(&self) {
        self.build_ended.notify_one();
    }

    /// Keeps the state folder in order for as long as the future is polled; once at first.
    pub async fn run(&self, store: &Store, policies: &[PrunePolicy], history: &Arc<History>) {
        loop {
            tokio::time::sleep(DELAY).await;
            collect(store, policies).await;
            history.expire().await;
            tokio::time::sleep(PAUSE).await;
            give_memory_back();
            self.build_ended.notified().await;
        }
    }
}

async fn collect(store: &Store, policies: &[PrunePolicy]) {
    let noting = store.clone();
    if let Err(error) = store.pool().run(move || noting.note_uses()).await {
        tracing::warn!("uses of layers not noted: {}", proto::chain(&error));
    }
    if policies.is_empty() {
        return;
    }
    let (sender, mut removed) = mpsc::channel::<Usage>(64);
    let count = async {
        let (mut entries, mut bytes) = (0_u64, 0_u64);
        while let Some(entry) = removed.recv().await {
            entries += 1;
            bytes += entry.size;
        }
        (entries, bytes)
    };
    let (pruned, (entries, bytes)) = tokio::join!(store.prune(policies, sender), count);
    if let Err(error) = pruned {
        tracing::warn!("garbage collection failed: {}", proto::chain(&error));
    }
    if entries > 0 {
        tracing::info!(entries, bytes, "garbage collected");
        tidy(store, Records::AsTheyAre).await;
    }
}

/// What becomes of the file with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Records {
    AsTheyAre,
    Shrink,
}

/// Removes notes that lead nowhere after something was removed.
pub(super) async fn tidy(store: &Store, records: Records) {
    let mut done = local::forget_lost(store).await;
    if records == Records::Shrink && done.is_ok() {
        done = store.compact().await;
    }
    if let Err(error) = done {
        tracing::warn!("cannot tidy the records up: {}", proto::chain(&error));
    }
}
