//! Records: small keyed byte strings in one redb file.
//!
//! Writes are queued and served from memory at once; one thread writes everything that is queued in one durable
//! transaction (group commit), in the order of the calls, so nobody waits for a disk, and a kill loses at most the
//! last few milliseconds. `flush` waits until everything queued before it is durable.
//!
//! A record may speak of folders and blobs whose bytes the kernel has not written back yet. That is harmless when the
//! process dies, not when the machine does: such things are listed in the table `unsynced` until a `syncfs` while the
//! daemon is idle has covered them, and what is still listed after the machine was restarted is thrown away.

mod file;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::TableDefinition;
use tokio::sync::watch;

use super::OpenError;
use file::MetadataFile;

/// Writers wait when this many records wait for the disk.
const QUEUE_LIMIT: usize = 1 << 16;
/// How long nothing must have been written before the file system is synced.
const IDLE: Duration = Duration::from_secs(2);
const FORMAT: &[u8] = b"1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Layers,
    Results,
    Contexts,
    Images,
    Sources,
    Fetched,
    Builds,
    Unsynced,
    State,
}

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Self::Layers => "layers",
            Self::Results => "results",
            Self::Contexts => "contexts",
            Self::Images => "images",
            Self::Sources => "sources",
            Self::Fetched => "fetched",
            Self::Builds => "builds",
            Self::Unsynced => "unsynced",
            Self::State => "state",
        })
    }
}

/// `None` removes.
type Batch = BTreeMap<(Table, Vec<u8>), Option<Arc<[u8]>>>;

/// A write to the metadata file failed; what was queued is served from memory and tried again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot write records to the state folder")]
pub struct FlushError(#[source] Arc<redb::Error>);

#[derive(Debug, thiserror::Error)]
#[error("cannot read records from the state folder")]
pub struct ReadError(#[source] Box<redb::Error>);

impl From<redb::Error> for ReadError {
    fn from(error: redb::Error) -> Self {
        Self(Box::new(error))
    }
}

#[derive(Debug)]
pub(super) struct Metadata {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    database: MetadataFile,
    /// The folder whose file system is synced.
    root: File,
    queue: Mutex<Queue>,
    changed: Condvar,
    written: watch::Sender<Written>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Queue {
    pending: Batch,
    /// What the thread is writing now: not readable from the file yet.
    writing: Arc<Batch>,
    /// Number of writes asked for so far.
    asked: u64,
    failing: bool,
    closing: bool,
}

#[derive(Debug, Clone, Default)]
struct Written {
    upto: u64,
    error: Option<FlushError>,
}

impl Metadata {
    pub(super) fn open(root: &Path) -> Result<Self, OpenError> {
        let path = root.join("metadata.redb");
        let fail = |source: redb::Error| OpenError::Metadata {
            path: path.clone(),
            source: Box::new(source),
        };
        let database = MetadataFile::open(path.clone()).map_err(fail)?;
        let found = database.read(Table::State, b"format").map_err(fail)?;
        match found.as_deref() {
            Some(FORMAT) => {}
            Some(other) => {
                let found = String::from_utf8_lossy(other).into_owned();
                return Err(OpenError::Format { path, found });
            }
            None => {
                let format = BTreeMap::from([((Table::State, b"format".to_vec()), Some(Arc::from(FORMAT)))]);
                database.write(&format).map_err(fail)?;
            }
        }
        let root_folder = File::open(root).map_err(|source| OpenError::Folder {
            doing: "open",
            path: root.to_path_buf(),
            source,
        })?;
        let shared = Arc::new(Shared {
            database,
            root: root_folder,
            queue: Mutex::default(),
            changed: Condvar::new(),
            written: watch::Sender::default(),
        });
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.write_until_closed()
            })
            .map_err(|source| OpenError::Folder {
                doing: "start writing in",
                path: root.to_path_buf(),
                source,
            })?;
        Ok(Self {
            shared,
            writer: Some(writer),
        })
    }

    /// Whether the machine was restarted since this was called last, as far as one can tell.
    pub(super) fn note_boot(&self) -> Result<bool, ReadError> {
        // Where the kernel does not tell, each start counts as a restart.
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let last = self.get(Table::State, b"boot")?;
        let restarted = boot.is_empty() || last.as_deref() != Some(&*boot);
        if restarted {
            self.put(Table::State, b"boot", boot);
        }
        Ok(restarted)
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        {
            let queue = self.shared.lock();
            let key = (table, key.to_vec());
            if let Some(value) = queue.pending.get(&key).or_else(|| queue.writing.get(&key)) {
                return Ok(value.clone());
            }
        }
        // Not queued when we looked: if it was written since, the file has it.
        Ok(self.shared.database.read(table, key)?)
    }

    /// All keys of a table that the file knows; for the sweep when the folder is opened, before anything is queued.
    pub(super) fn keys(&self, table: Table) -> Result<Vec<Vec<u8>>, ReadError> {
        Ok(self.shared.database.keys(table)?)
    }

    /// Shows `see` every record of a table, as it is now.
    pub(super) fn each(&self, table: Table, mut see: impl FnMut(&[u8], &[u8])) -> Result<(), ReadError> {
        let queued: BTreeMap<Vec<u8>, Option<Arc<[u8]>>> = {
            let queue = self.shared.lock();
            let newest_last = queue.writing.iter().chain(&queue.pending);
            newest_last
                .filter(|((of, _), _)| *of == table)
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect()
        };
        // What is written between these two looks is among the queued.
        self.shared.database.each(table, |key, value| {
            if !queued.contains_key(key) {
                see(key, value);
            }
        })?;
        for (key, value) in &queued {
            if let Some(value) = value {
                see(key, value);
            }
        }
        Ok(())
    }

    /// Removes records, except those that were written anew since they were read as `stale` says.
    pub(super) fn remove_unchanged(
        &self,
        table: Table,
        stale: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<usize, ReadError> {
        let mut removed = 0;
        for (key, value) in stale {
            // Not atomic with a write that comes right now; such a record is lost, and its work done again.
            if self.get(table, &key)?.as_deref() == Some(&value[..]) {
                self.remove(table, &key);
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Gives the space of removed records back to the file system. Reading and writing wait meanwhile.
    pub(super) fn compact(&self) -> Result<(), ReadError> {
        Ok(self.shared.database.compact()?)
    }

    #[cfg(test)]
    pub(super) fn close_file(&self) {
        self.shared.database.close();
    }

    pub(super) fn put(&self, table: Table, key: &[u8], value: impl Into<Arc<[u8]>>) {
        self.shared.queue(table, key, Some(value.into()));
    }

    pub(super) fn remove(&self, table: Table, key: &[u8]) {
        self.shared.queue(table, key, None);
    }

    /// Waits until everything queued so far is durable; fails when a write of it does, though that is tried again.
    pub(super) async fn flush(&self) -> Result<(), FlushError> {
        let asked = self.shared.lock().asked;
        let mut written = self.shared.written.subscribe();
        let state = written
            .wait_for(|written| written.upto >= asked || written.error.is_some())
            .await
            .map(|state| state.clone())
            .expect("the sender lives as long as `self`");
        match state.error {
            Some(error) if state.upto < asked => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes records panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, table: Table, key: &[u8], value: Option<Arc<[u8]>>) {
        let mut queue = self.lock();
        while queue.pending.len() >= QUEUE_LIMIT && !queue.failing {
            // Back-pressure of a few milliseconds: 65 536 records take redb less than half a second.
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.failing && queue.pending.len() >= QUEUE_LIMIT {
            tracing::debug!(
                ?table,
                "record dropped: the disk takes none, and memory holds as many as it may"
            );
            return;
        }
        queue.pending.insert((table, key.to_vec()), value);
        queue.asked += 1;
        drop(queue);
        self.changed.notify_all();
    }

    fn write_until_closed(&self) {
        // What a killed daemon left may not be on the disk either.
        let mut unsynced = true;
        loop {
            let mut queue = self.lock();
            while queue.pending.is_empty() && !queue.closing {
                if unsynced {
                    let (woken, waited) = self
                        .changed
                        .wait_timeout(queue, IDLE)
                        .unwrap_or_else(PoisonError::into_inner);
                    queue = woken;
                    if waited.timed_out() {
                        break;
                    }
                } else {
                    queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            }
            if queue.pending.is_empty() {
                let closing = queue.closing;
                drop(queue);
                if unsynced || closing {
                    self.sync();
                    unsynced = false;
                }
                if closing {
                    return;
                }
                continue;
            }
            let batch = Arc::new(std::mem::take(&mut queue.pending));
            queue.writing = Arc::clone(&batch);
            let (upto, closing) = (queue.asked, queue.closing);
            drop(queue);
            // Writers that wait for room have it now.
            self.changed.notify_all();
            match self.database.write(&batch) {
                Ok(()) => {
                    unsynced |= batch.keys().any(|(table, _)| *table == Table::Unsynced);
                    let mut queue = self.lock();
                    queue.writing = Arc::default();
                    queue.failing = false;
                    drop(queue);
                    self.written.send_replace(Written { upto, error: None });
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot write records");
                    let mut queue = self.lock();
                    let newer = std::mem::replace(&mut queue.pending, Batch::clone(&batch));
                    queue.pending.extend(newer);
                    queue.writing = Arc::default();
                    queue.failing = true;
                    self.changed.notify_all();
                    self.written
                        .send_modify(|written| written.error = Some(FlushError(Arc::new(error))));
                    if closing {
                        return;
                    }
                    // Not with each new record: what fails takes its time.
                    drop(
                        self.changed
                            .wait_timeout_while(queue, IDLE, |queue| !queue.closing),
                    );
                }
            }
        }
    }

    /// Brings all folders and blobs to the disk, then forgets that they were not there.
    fn sync(&self) {
        let listed = match self.database.keys(Table::Unsynced) {
            Ok(listed) if listed.is_empty() => return,
            Ok(listed) => listed,
            Err(error) => return tracing::warn!(%error, "cannot read which layers wait for the disk"),
        };
        if let Err(error) = rustix::fs::syncfs(&self.root) {
            return tracing::error!(%error, "cannot sync the state folder");
        }
        let done = listed
            .into_iter()
            .map(|key| ((Table::Unsynced, key), None))
            .collect();
        if let Err(error) = self.database.write(&done) {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot write records");
        }
    }
}
