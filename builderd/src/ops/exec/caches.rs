//! Folders that steps keep between builds.
//!
//! A cache is a plain folder. One that starts from files gets a copy of them when it is first used, since steps that
//! run side by side must see what the others write. A `locked` cache is waited for; of a `private` one everybody who
//! finds it taken gets another folder.

use std::collections::BTreeMap;

use proto::pb;
use tokio::sync::OwnedMutexGuard;

use crate::executor::step::{Mount, Source};
use crate::ops::{OpError, file};
use crate::store::view::write_copy;
use crate::store::{CacheKey, Flights, Snapshot, Store};

/// The caches of one step, which nobody else may have to himself as long as this lives.
#[derive(Debug, Default)]
pub struct Caches {
    /// By the number of the mount.
    folders: BTreeMap<usize, CacheKey>,
    held: Vec<OwnedMutexGuard<()>>,
}

/// A cache that a step asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    identity: [u8; 32],
    sharing: pb::CacheSharingOpt,
}

impl Caches {
    /// Waits for the caches of an operation that others must not have meanwhile.
    pub async fn take(op: &pb::ExecOp, inputs: &[Snapshot], flights: &Flights) -> Self {
        let mut wanted: BTreeMap<Wanted, Vec<usize>> = BTreeMap::new();
        for (number, mount) in op.mounts.iter().enumerate() {
            if mount.mount_type() == pb::MountType::Cache {
                let sharing = mount.cache_opt.as_ref().map(pb::CacheOpt::sharing);
                let one = Wanted {
                    identity: *identity(mount, &input_of(mount, inputs)).as_bytes(),
                    sharing: sharing.unwrap_or(pb::CacheSharingOpt::Shared),
                };
                wanted.entry(one).or_default().push(number);
            }
        }
        let mut caches = Self::default();
        // In the order of their identities, in which all take them: so nobody waits for somebody who waits for him.
        for (Wanted { identity, sharing }, mounts) in wanted {
            let mut key = CacheKey::from_bytes(identity);
            let known = caches.folders.values().any(|taken| *taken == key);
            if !known {
                let held = match sharing {
                    pb::CacheSharingOpt::Shared => None,
                    pb::CacheSharingOpt::Locked => Some(flights.lock(key).await),
                    pb::CacheSharingOpt::Private => {
                        let (free, held) = first_free(identity, flights);
                        key = free;
                        Some(held)
                    }
                };
                caches.held.extend(held);
            }
            caches
                .folders
                .extend(mounts.into_iter().map(|mount| (mount, key)));
        }
        caches
    }

    /// The folders, each once.
    pub fn keys(&self) -> impl Iterator<Item = &CacheKey> {
        let mut seen = std::collections::HashSet::new();
        self.folders.values().filter(move |key| seen.insert(**key))
    }

    /// Puts the files in place that caches start from.
    pub async fn fill(&self, op: &pb::ExecOp, inputs: &[Snapshot], store: &Store) -> Result<(), OpError> {
        for (number, key) in &self.folders {
            let Some(mount) = op.mounts.get(*number) else {
                continue;
            };
            let input = input_of(mount, inputs);
            if input.is_scratch() || store.has_cache(key) {
                continue;
            }
            let (key, target) = (*key, mount.dest.clone());
            let store = store.clone();
            let pool = store.pool().clone();
            pool.run(move || begin(&key, &input, &store, target)).await??;
        }
        Ok(())
    }

    pub(super) fn mount(&self, number: usize, mount: &pb::Mount, store: &Store) -> Result<Mount, OpError> {
        let failed = |source| OpError::CacheMount {
            target: mount.dest.clone(),
            source,
        };
        let key = self
            .folders
            .get(&number)
            .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let id = mount.cache_opt.as_ref().map_or("", |option| option.id.as_str());
        let description = match id {
            "" => format!("cached mount {}", mount.dest),
            id if id == mount.dest => format!("cached mount {}", mount.dest),
            id => format!("cached mount {} with id {id:?}", mount.dest),
        };
        Ok(Mount {
            destination: mount.dest.clone(),
            source: Source::Folder {
                path: store.cache_folder(key, &description).map_err(failed)?,
                selector: mount.selector.clone(),
            },
            read_only: mount.readonly,
        })
    }
}

fn begin(key: &CacheKey, input: &Snapshot, store: &Store, target: String) -> Result<(), OpError> {
    let draft = store.draft()?;
    let view = file::view_of(input, store).map_err(OpError::CacheFiles)?;
    write_copy(&view, &draft.upper()).map_err(OpError::CacheFiles)?;
    store
        .begin_cache(key, &draft)
        .map_err(|source| OpError::CacheMount { target, source })
}

fn input_of(mount: &pb::Mount, inputs: &[Snapshot]) -> Snapshot {
    usize::try_from(mount.input)
        .ok()
        .and_then(|number| inputs.get(number))
        .cloned()
        .unwrap_or_default()
}

/// Equal ids that start from other files are other caches.
fn identity(mount: &pb::Mount, input: &Snapshot) -> CacheKey {
    let id = mount.cache_opt.as_ref().map_or("", |option| option.id.as_str());
    let layers = input.layers().iter().map(|layer| layer.as_str());
    let kind = if input.is_scratch() {
        "cache mount"
    } else {
        "cache mount with files"
    };
    CacheKey::new(kind, std::iter::once(id).chain(layers))
}

/// The first folder of a private cache that nobody has.
fn first_free(identity: [u8; 32], flights: &Flights) -> (CacheKey, OwnedMutexGuard<()>) {
    let mut key = CacheKey::from_bytes(identity);
    let mut number = 0_u64;
    loop {
        // Each step has only so many, so there is an end to those that are taken.
        if let Some(held) = flights.try_lock(key) {
            return (key, held);
        }
        number += 1;
        key = CacheKey::new("private cache mount", [&identity[..], &number.to_le_bytes()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(sharing: pb::CacheSharingOpt) -> pb::ExecOp {
        let mount = pb::Mount {
            input: -1,
            mount_type: pb::MountType::Cache.into(),
            cache_opt: Some(pb::CacheOpt {
                id: "id".into(),
                sharing: sharing.into(),
            }),
            ..pb::Mount::default()
        };
        pb::ExecOp {
            mounts: vec![mount.clone(), mount],
            ..pb::ExecOp::default()
        }
    }

    #[tokio::test]
    async fn who_finds_a_private_cache_taken_gets_another() {
        let flights = Flights::default();
        let op = step(pb::CacheSharingOpt::Private);
        let first = Caches::take(&op, &[], &flights).await;
        let second = Caches::take(&op, &[], &flights).await;
        assert_eq!(first.keys().count(), 1, "two mounts of one step share it");
        assert!(first.keys().ne(second.keys()));
        let taken: Vec<CacheKey> = first.keys().copied().collect();
        drop(first);
        let third = Caches::take(&op, &[], &flights).await;
        assert!(third.keys().eq(&taken));
    }

    #[tokio::test]
    async fn a_locked_cache_is_free_when_its_holder_is_gone() {
        let flights = Flights::default();
        let op = step(pb::CacheSharingOpt::Locked);
        let holder = Caches::take(&op, &[], &flights).await;
        let waiter = Caches::take(&op, &[], &flights);
        tokio::pin!(waiter);
        assert!(futures::poll!(&mut waiter).is_pending());
        drop(holder);
        assert_eq!(waiter.await.keys().count(), 1);
    }
}
