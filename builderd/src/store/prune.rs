//! Removing what is not needed: on request, and by itself under policies.
//!
//! Of each layer the record goes first, then the folder leaves for the trash, both under the lock that keeps builds from
//! taking the layer up; its blobs follow, unless another record names them. The removed records are durable before anybody is told. A kill in between
//! leaves a folder without a record, or a record without a folder: while something is being removed the state says
//! so, and the next start looks for both.

mod plan;

use std::collections::HashSet;
use std::time::SystemTime;

use registry::digest::Digest;
use tokio::sync::mpsc;

use super::metadata::{FlushError, ReadError, Table};
use super::usage::{DOCUMENTS, Inventory, REPOSITORY, UsageError, blobs_of};
use super::{LayerId, RecordKind, Snapshot, Store, Usage, WorkLost};

pub use plan::PrunePolicy;

/// So many entries are removed before the records are waited for.
const BATCH: usize = 64;
/// In the table of the state: something is being removed.
pub(super) const REMOVING: &[u8] = b"removing";

#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error("cannot find out what can go")]
    Usage(#[from] UsageError),
    #[error("cannot ask how much of the disk is free")]
    Free(#[source] std::io::Error),
    #[error("cannot record what was removed")]
    Record(#[from] FlushError),
    #[error("cannot read records from the state folder")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Lost(#[from] WorkLost),
}

impl Store {
    /// Removes what `policies` let go, one policy after the other, and tells `removed` of each entry. Ends early when
    /// nobody listens any more. Nothing that a lease holds is touched.
    pub async fn prune(
        &self,
        policies: &[PrunePolicy],
        removed: mpsc::Sender<Usage>,
    ) -> Result<(), PruneError> {
        let _alone = self.inner().pruning.lock().await;
        let mut marked = false;
        let mut pruned = Ok(());
        for policy in policies {
            pruned = self.prune_by(policy, &removed, &mut marked).await;
            if pruned.is_err() || removed.is_closed() {
                break;
            }
        }
        if marked {
            let store = self.clone();
            self.pool()
                .run(move || store.forget_what_leads_nowhere())
                .await??;
            self.inner().metadata.remove(Table::State, REMOVING);
        }
        pruned
    }

    async fn prune_by(
        &self,
        policy: &PrunePolicy,
        removed: &mpsc::Sender<Usage>,
        marked: &mut bool,
    ) -> Result<(), PruneError> {
        let (store, policy) = (self.clone(), policy.clone());
        let (inventory, planned) = self.pool().run(move || store.plan(&policy)).await??;
        if planned.is_empty() {
            return Ok(());
        }
        if !*marked {
            self.inner().metadata.put(Table::State, REMOVING, []);
            self.flush().await?;
            *marked = true;
        }
        let mut removal = Removal {
            store: self.clone(),
            inventory,
            kept: HashSet::new(),
            bared: HashSet::new(),
        };
        let mut planned = planned.into_iter().peekable();
        while planned.peek().is_some() {
            let batch: Vec<Usage> = planned.by_ref().take(BATCH).collect();
            let (gone, back) = self
                .pool()
                .run(move || {
                    let gone: Vec<Usage> = batch.into_iter().filter(|entry| removal.remove(entry)).collect();
                    removal.remove_blobs();
                    (gone, removal)
                })
                .await?;
            removal = back;
            self.flush().await?;
            for entry in gone {
                tracing::debug!(id = entry.id, size = entry.size, "removed");
                if removed.send(entry).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What `policy` lets go, in this order.
    fn plan(&self, policy: &PrunePolicy) -> Result<(Inventory, Vec<Usage>), PruneError> {
        self.note_uses();
        let inventory = self.inventory()?;
        let entries = self.usage_of(&inventory);
        let free = match policy.min_free_space {
            0 => 0,
            _ => self.disk_space().map_err(PruneError::Free)?.free,
        };
        let planned = plan::plan(&entries, policy, SystemTime::now(), free);
        let mut entries: Vec<Option<Usage>> = entries.into_iter().map(Some).collect();
        let planned = planned
            .into_iter()
            .filter_map(|index| entries.get_mut(index)?.take())
            .collect();
        Ok((inventory, planned))
    }

    /// Gives back the space that removed records took in the file of the records. Builds that look something up
    /// meanwhile wait.
    pub async fn compact(&self) -> Result<(), PruneError> {
        self.flush().await?;
        let store = self.clone();
        Ok(self
            .pool()
            .run(move || store.inner().metadata.compact())
            .await??)
    }

    /// Of the file system that the state folder lies on.
    pub fn disk_space(&self) -> std::io::Result<DiskSpace> {
        let stat = rustix::fs::statvfs(self.inner().folder.root())?;
        Ok(DiskSpace {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bfree.saturating_mul(stat.f_frsize),
        })
    }

    /// Removes cached results and notes of sources that name what is gone, and what belongs to such results. They do no
    /// harm, but they add up.
    fn forget_what_leads_nowhere(&self) -> Result<(), ReadError> {
        let metadata = &self.inner().metadata;
        let mut layers = HashSet::new();
        metadata.each(Table::Layers, |key, _| {
            layers.insert(LayerId::new(String::from_utf8_lossy(key)));
        })?;
        // First, as a result is there before what belongs to it.
        let mut fetched = Vec::new();
        metadata.each(Table::Fetched, |key, value| {
            fetched.push((key.to_vec(), value.to_vec()));
        })?;
        let mut results = HashSet::new();
        let mut stale = Vec::new();
        metadata.each(Table::Results, |key, value| {
            let result = serde_json::from_slice::<super::CachedResult>(value);
            let whole = result.is_ok_and(|result| {
                let mut named = result.outputs.iter().flat_map(Snapshot::layers);
                named.all(|layer| layers.contains(layer))
            });
            if whole {
                results.insert(key.to_vec());
            } else {
                stale.push((key.to_vec(), value.to_vec()));
            }
        })?;
        metadata.remove_unchanged(Table::Results, stale)?;
        fetched.retain(|(key, _)| !results.contains(key));
        metadata.remove_unchanged(Table::Fetched, fetched)?;
        let mut stale = Vec::new();
        metadata.each(Table::Images, |key, value| {
            let digest = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            if !digest.is_some_and(|digest: Digest| self.blobs().has(&digest)) {
                stale.push((key.to_vec(), value.to_vec()));
            }
        })?;
        metadata.remove_unchanged(Table::Images, stale)?;
        Ok(())
    }

    /// Removes the records of a kind of which `lost` says, by key and value, that they name what is gone. It may be
    /// called with a record that is being written right now.
    pub async fn forget_records(
        &self,
        kind: RecordKind,
        lost: impl Fn(&[u8], &[u8]) -> bool + Send + 'static,
    ) -> Result<usize, PruneError> {
        let store = self.clone();
        let forgotten = self.pool().run(move || {
            let mut stale = Vec::new();
            let metadata = &store.inner().metadata;
            metadata.each(kind.table(), |key, value| {
                if lost(key, value) {
                    stale.push((key.to_vec(), value.to_vec()));
                }
            })?;
            metadata.remove_unchanged(kind.table(), stale)
        });
        Ok(forgotten.await??)
    }
}

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    pub total: u64,
    pub free: u64,
}

struct Removal {
    store: Store,
    inventory: Inventory,
    /// Somebody began to use these, or something that was made on them.
    kept: HashSet<LayerId>,
    /// The blobs of the layers that are gone.
    bared: HashSet<Digest>,
}

impl Removal {
    /// Whether the entry is gone now.
    fn remove(&mut self, entry: &Usage) -> bool {
        if entry.id == DOCUMENTS {
            let documents = std::mem::take(&mut self.inventory.documents);
            let documents = documents.into_iter().map(|(digest, _)| digest).collect();
            return self.store.remove_unnamed(&documents);
        }
        if let Some(name) = entry.id.strip_prefix(REPOSITORY) {
            return self.store.remove_repository(name);
        }
        let id = LayerId::new(&*entry.id);
        let Some(record) = self.inventory.layers.get(&id) else {
            return false;
        };
        let parent = record.parent.clone();
        let gone = !self.kept.contains(&id) && self.store.remove_layer(&id);
        if gone {
            self.bared.extend(blobs_of(record).cloned());
        } else {
            self.kept.extend(parent);
        }
        gone
    }

    /// The blobs of what is gone; those that stay, as they cannot be known to be unnamed, count as documents from now on.
    fn remove_blobs(&mut self) {
        if !self.bared.is_empty() {
            self.store.remove_unnamed(&std::mem::take(&mut self.bared));
        }
    }
}

impl Store {
    /// Removes a layer unless somebody uses it.
    fn remove_layer(&self, id: &LayerId) -> bool {
        let inner = self.inner();
        let holds = inner.holds.lock();
        if holds.holds_layer(id) {
            return false;
        }
        inner.metadata.remove(Table::Layers, id.as_str().as_bytes());
        inner
            .known_layers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(id);
        inner.folder.discard(&self.layer_path(id));
        true
    }

    fn remove_unnamed(&self, blobs: &HashSet<Digest>) -> bool {
        let removed = self.discard_unnamed(blobs);
        if let Err(error) = &removed {
            tracing::warn!(%error, "blobs stay: cannot read who names them");
        }
        removed.is_ok()
    }
}

#[cfg(test)]
mod tests;
