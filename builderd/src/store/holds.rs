//! Who uses what: layers and blobs that must not be removed now.
//!
//! A `Store` handle may carry a *lease*; whatever is looked up, made or committed through such a handle, or a clone of
//! it, stays until the last of these handles is dropped. A layer is held *before* it is looked up, and removed only
//! under the lock that counts the holders: so it is either found and stays, or it is not found.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use registry::digest::Digest;

use super::{LayerId, Store};

/// The holders of all layers and blobs.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<Counts>);

#[derive(Debug, Default)]
pub(super) struct Counts {
    layers: HashMap<LayerId, u32>,
    blobs: HashMap<Digest, u32>,
    /// Uses that no record tells of yet.
    uses: HashMap<LayerId, Uses>,
}

/// How often a layer was used, and when last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uses {
    pub count: u64,
    pub last: SystemTime,
}

impl Counts {
    pub(super) fn holds_layer(&self, layer: &LayerId) -> bool {
        self.layers.contains_key(layer)
    }

    pub(super) fn holds_blob(&self, blob: &Digest) -> bool {
        self.blobs.contains_key(blob)
    }
}

impl Holds {
    /// As long as this is locked, nobody begins to use anything.
    pub(super) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses since the last call.
    pub(super) fn take_uses(&self) -> HashMap<LayerId, Uses> {
        std::mem::take(&mut self.lock().uses)
    }
}

/// What one user keeps from being removed.
#[derive(Debug)]
pub(super) struct Lease {
    holds: Arc<Holds>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    layers: HashSet<LayerId>,
    blobs: HashSet<Digest>,
}

impl Lease {
    fn new(holds: Arc<Holds>) -> Arc<Self> {
        let held = Mutex::default();
        Arc::new(Self { holds, held })
    }

    /// Keeps layers, whether or not they are there.
    pub(super) fn hold<'a>(&self, layers: impl IntoIterator<Item = &'a LayerId>) {
        let mut held = self.held();
        let mut fresh = Vec::new();
        for layer in layers {
            // Builds ask for the same lower layers again and again.
            if !held.layers.contains(layer) {
                held.layers.insert(layer.clone());
                fresh.push(layer.clone());
            }
        }
        if fresh.is_empty() {
            return;
        }
        let last = SystemTime::now();
        let mut counts = self.holds.lock();
        for layer in fresh {
            let uses = counts
                .uses
                .entry(layer.clone())
                .or_insert(Uses { count: 0, last });
            uses.count += 1;
            uses.last = last;
            *counts.layers.entry(layer).or_default() += 1;
        }
    }

    pub(super) fn hold_blob(&self, blob: &Digest) {
        if self.held().blobs.insert(blob.clone()) {
            *self.holds.lock().blobs.entry(blob.clone()).or_default() += 1;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = std::mem::take(&mut *self.held());
        let mut counts = self.holds.lock();
        for layer in held.layers {
            release(&mut counts.layers, &layer);
        }
        for blob in held.blobs {
            release(&mut counts.blobs, &blob);
        }
    }
}

fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Store {
    /// A handle for one user, such as a build: what goes through it stays until it and its clones are dropped.
    #[must_use]
    pub fn leased(&self) -> Self {
        Self {
            lease: Some(Lease::new(Arc::clone(&self.inner().holds))),
            inner: Arc::clone(&self.inner),
        }
    }

    /// The lease of this handle; of one without, a lease for as long as the returned value lives.
    pub(super) fn lease(&self) -> Arc<Lease> {
        self.lease
            .clone()
            .unwrap_or_else(|| Lease::new(Arc::clone(&self.inner().holds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_users_hold_is_free_when_both_are_gone() {
        let holds = Arc::new(Holds::default());
        let layer = LayerId::new("a");
        let (one, other) = (Lease::new(Arc::clone(&holds)), Lease::new(Arc::clone(&holds)));
        one.hold([&layer, &layer]);
        one.hold([&layer]);
        other.hold([&layer]);
        drop(one);
        assert!(holds.lock().holds_layer(&layer));
        drop(other);
        assert!(!holds.lock().holds_layer(&layer));
        assert_eq!(holds.take_uses()[&layer].count, 2, "a user counts once");
        assert!(holds.take_uses().is_empty());
    }
}
