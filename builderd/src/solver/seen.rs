//! What the sources of a build were found to be. It is asked once for each, so that a build never works with two
//! versions of one source, however much changes while it runs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::sources::git::Resolved;
use crate::sources::http::Loaded;
use crate::store::CacheKey;

#[derive(Debug, Default)]
pub(super) struct Seen {
    files: Mutex<HashMap<CacheKey, Loaded>>,
    references: Mutex<HashMap<CacheKey, Resolved>>,
}

impl Seen {
    pub(super) fn file(&self, key: &CacheKey) -> Option<Loaded> {
        get(&self.files, key)
    }

    pub(super) fn keep_file(&self, key: CacheKey, file: &Loaded) {
        keep(&self.files, key, file);
    }

    pub(super) fn reference(&self, key: &CacheKey) -> Option<Resolved> {
        get(&self.references, key)
    }

    pub(super) fn keep_reference(&self, key: CacheKey, reference: &Resolved) {
        keep(&self.references, key, reference);
    }
}

fn get<T: Clone>(map: &Mutex<HashMap<CacheKey, T>>, key: &CacheKey) -> Option<T> {
    let map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.get(key).cloned()
}

fn keep<T: Clone>(map: &Mutex<HashMap<CacheKey, T>>, key: CacheKey, value: &T) {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.insert(key, value.clone());
}
