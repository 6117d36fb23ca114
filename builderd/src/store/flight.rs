//! Equal work in flight, done once: a lock per cache key.
//!
//! Whoever holds the lock does the work and records the result; those who waited look the result up. If the holder
//! fails or is cancelled, the next waiter does the work itself, so that no build depends on another one's fate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::CacheKey;

#[derive(Debug, Default)]
pub struct Flights {
    locks: Mutex<HashMap<CacheKey, Weak<AsyncMutex<()>>>>,
}

impl Flights {
    pub async fn lock(&self, key: CacheKey) -> OwnedMutexGuard<()> {
        self.of(key).lock_owned().await
    }

    /// The lock, unless somebody has it.
    pub fn try_lock(&self, key: CacheKey) -> Option<OwnedMutexGuard<()>> {
        self.of(key).try_lock_owned().ok()
    }

    fn of(&self, key: CacheKey) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.len() > 1024 {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        match locks.get(&key).and_then(Weak::upgrade) {
            Some(lock) => lock,
            None => {
                let lock = Arc::default();
                locks.insert(key, Arc::downgrade(&lock));
                lock
            }
        }
    }
}
