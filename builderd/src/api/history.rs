//! The history of builds: which run, which have ended, and what is known about them.
//!
//! A record is made when its build begins and lives in memory; when the build has ended it is written with its log,
//! after the client has its answer. So a kill takes running builds out of the history, and never leaves half a record.
//! Whoever asks for a build that is being written waits for it.

mod filter;
mod log;
mod trace;
mod write;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures::Stream;
use prost::Message as _;
use proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, SolveRequest,
    StatusResponse, UpdateBuildHistoryRequest,
};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tonic::Status;

use super::status;
use crate::config::HistoryLimits;
use crate::progress::Progress;
use crate::store::{BuildRecord, Store};
use filter::Filters;
pub(super) use write::{Made, Recording};

/// Events that a slow listener may be behind.
const BEHIND: usize = 128;
/// How long one waits for a record that is being written.
const PATIENCE: Duration = Duration::from_secs(10);
/// More records are not kept, however young they are, unless somebody pinned them.
const MOST: usize = 2000;

#[derive(Debug)]
pub struct History {
    store: Store,
    limits: HistoryLimits,
    state: Mutex<State>,
    events: broadcast::Sender<Arc<BuildHistoryEvent>>,
    /// Changes with every record that was written.
    written: watch::Sender<()>,
    /// One at a time changes records of builds that ended.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<String, Arc<BuildHistoryRecord>>,
    /// Ended, but their records are not there yet.
    writing: HashSet<String>,
    writers: JoinSet<()>,
}

impl History {
    pub fn new(store: Store, limits: HistoryLimits) -> Arc<Self> {
        Arc::new(Self {
            store,
            limits,
            state: Mutex::default(),
            events: broadcast::channel(BEHIND).0,
            written: watch::Sender::new(()),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// Notes that a build begins. Its record is written when the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>, request: &SolveRequest, progress: &Progress) -> Recording {
        let recording = Recording::new(Arc::clone(self), request, progress.clone());
        let record = recording.record();
        self.state()
            .running
            .insert(record.r#ref.clone(), Arc::clone(&record));
        self.tell(BuildHistoryEventType::Started, &record);
        recording
    }

    /// What the request asks for: first what there is, then, unless it wants no more, what happens.
    pub(super) fn listen(
        self: &Arc<Self>,
        request: BuildHistoryRequest,
    ) -> Result<impl Stream<Item = Result<BuildHistoryEvent, Status>> + Send + use<>, Status> {
        let filters =
            Filters::parse(&request.filter).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let limit = usize::try_from(request.limit)
            .map_err(|_| Status::invalid_argument(format!("invalid limit {}", request.limit)))?;
        let history = Arc::clone(self);
        Ok(async_stream::try_stream! {
            let mut events = history.events.subscribe();
            history.settled(&request.r#ref).await;
            let is_wanted = |record: &BuildHistoryRecord| {
                (request.r#ref.is_empty() || record.r#ref == request.r#ref) && filters.match_record(record)
            };
            let mut present = history.present(request.active_only)?;
            present.retain(|event| event.record.as_ref().is_some_and(&is_wanted));
            if limit > 0 {
                present.truncate(limit);
            }
            for event in present {
                yield event;
            }
            if request.early_exit {
                return;
            }
            loop {
                let event = match events.recv().await {
                    Ok(event) => event,
                    Err(broadcast::error::RecvError::Closed) => break,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        Err(Status::aborted(format!("{missed} events were missed; listen again")))?
                    }
                };
                let is_deleted = event.r#type() == BuildHistoryEventType::Deleted;
                let wanted = event.record.as_ref().is_some_and(|record| match is_deleted {
                    true => request.r#ref.is_empty() || record.r#ref == request.r#ref,
                    false => is_wanted(record),
                });
                if wanted {
                    yield BuildHistoryEvent::clone(&event);
                }
            }
        })
    }

    /// All records, the newest first.
    fn present(&self, active_only: bool) -> Result<Vec<BuildHistoryEvent>, Status> {
        let event = |of: BuildHistoryEventType, record: BuildHistoryRecord| BuildHistoryEvent {
            r#type: of.into(),
            record: Some(record),
        };
        let mut events: Vec<BuildHistoryEvent> = self
            .state()
            .running
            .values()
            .map(|record| event(BuildHistoryEventType::Started, BuildHistoryRecord::clone(record)))
            .collect();
        if !active_only {
            let ended = self.store.builds().map_err(|error| status::of_failure(&error))?;
            let ended = ended.iter().filter_map(decoded);
            events.extend(ended.map(|record| event(BuildHistoryEventType::Complete, record)));
        }
        let created = |event: &BuildHistoryEvent| {
            let time = event.record.as_ref().and_then(|record| record.created_at);
            time.map(|time| (time.seconds, time.nanos))
        };
        events.sort_by_key(|event| std::cmp::Reverse(created(event)));
        Ok(events)
    }

    /// The progress of a build that ended, if it is known.
    pub(super) async fn replay(
        &self,
        reference: &str,
    ) -> Result<Option<impl Stream<Item = Result<StatusResponse, Status>> + Send + use<>>, Status> {
        self.settled(reference).await;
        let Some(record) = self.ended(reference)? else {
            return Ok(None);
        };
        log::replay(&self.store, record.logs.as_ref()).map(Some)
    }

    /// Pins, deletes or waits for a record.
    pub(super) async fn update(&self, request: UpdateBuildHistoryRequest) -> Result<(), Status> {
        let reference = request.r#ref;
        self.settled(&reference).await;
        // A record is final as soon as it is written.
        if request.finalize && !request.delete {
            return Ok(());
        }
        let _alone = self.changing.lock().await;
        if self.state().running.contains_key(&reference) {
            return Err(Status::failed_precondition(format!(
                "build {reference} is still running: cancel it, or wait for its end"
            )));
        }
        if request.delete {
            return match self.remove(vec![reference.clone()]).await? {
                0 => Err(no_such_record(&reference)),
                _ => Ok(()),
            };
        }
        let failed = |error: crate::store::ReadError| status::of_failure(&error);
        let Some(mut stored) = self.store.build(&reference).map_err(failed)? else {
            return Err(no_such_record(&reference));
        };
        let mut record = decoded(&stored).ok_or_else(|| no_such_record(&reference))?;
        record.pinned = request.pinned;
        record.generation += 1;
        stored.about.pinned = request.pinned;
        stored.bytes = record.encode_to_vec();
        self.store.put_build(&stored);
        self.tell(BuildHistoryEventType::Complete, &Arc::new(record));
        Ok(())
    }

    /// Removes the records that are neither young nor among the newest.
    pub(super) async fn expire(&self) {
        let _alone = self.changing.lock().await;
        let records = match self.store.builds() {
            Ok(records) => records,
            Err(error) => {
                return tracing::warn!("cannot read build records: {}", proto::chain(&error));
            }
        };
        let expired = expired(records, self.limits, SystemTime::now());
        if !expired.is_empty()
            && let Err(error) = self.remove(expired).await
        {
            tracing::warn!("cannot remove build records: {}", error.message());
        }
    }

    /// Waits until all records are written, for a daemon that ends.
    pub async fn flush(&self) {
        // Others may end while these are written.
        let all = async {
            while !self.state().writing.is_empty() {
                self.settled("").await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.ok();
        self.store.note_uses();
        if let Err(error) = self.store.flush().await {
            tracing::warn!("cannot write build records: {}", proto::chain(&error));
        }
    }

    async fn remove(&self, references: Vec<String>) -> Result<usize, Status> {
        let store = self.store.clone();
        let removed = self
            .store
            .pool()
            .run(move || store.remove_builds(&references))
            .await
            .map_err(|error| status::of_failure(&error))?
            .map_err(|error| status::of_failure(&error))?;
        for reference in &removed {
            let record = BuildHistoryRecord {
                r#ref: reference.clone(),
                ..BuildHistoryRecord::default()
            };
            self.tell(BuildHistoryEventType::Deleted, &Arc::new(record));
        }
        Ok(removed.len())
    }

    fn ended(&self, reference: &str) -> Result<Option<BuildHistoryRecord>, Status> {
        let stored = self
            .store
            .build(reference)
            .map_err(|error| status::of_failure(&error))?;
        Ok(stored.as_ref().and_then(decoded))
    }

    /// Waits until the record of this build, or of all that have ended by now for the empty reference, is not being
    /// written any more.
    pub(super) async fn settled(&self, reference: &str) {
        let mut written = self.written.subscribe();
        let is_awaited = |ended: &&String| reference.is_empty() || *ended == reference;
        let awaited: HashSet<String> = self.state().writing.iter().filter(is_awaited).cloned().collect();
        let settled = async {
            while !awaited.is_disjoint(&self.state().writing) {
                if written.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, settled).await.is_err() {
            tracing::debug!(build = reference, "the record is not written yet");
        }
    }

    fn tell(&self, what: BuildHistoryEventType, record: &Arc<BuildHistoryRecord>) {
        // An error says that nobody listens.
        let _ = self.events.send(Arc::new(BuildHistoryEvent {
            r#type: what.into(),
            record: Some(BuildHistoryRecord::clone(record)),
        }));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decoded(stored: &BuildRecord) -> Option<BuildHistoryRecord> {
    BuildHistoryRecord::decode(&stored.bytes[..])
        .inspect_err(|error| tracing::warn!(build = stored.about.reference, %error, "build record ignored"))
        .ok()
}

fn no_such_record(reference: &str) -> Status {
    Status::not_found(format!("no build record for ref {reference}"))
}

/// The references of the records to remove.
fn expired(records: Vec<BuildRecord>, limits: HistoryLimits, now: SystemTime) -> Vec<String> {
    let mut unpinned: Vec<_> = records
        .into_iter()
        .map(|record| record.about)
        .filter(|about| !about.pinned)
        .collect();
    unpinned.sort_by_key(|about| std::cmp::Reverse(about.ended));
    let is_old = |ended: SystemTime| now.duration_since(ended).is_ok_and(|age| age > limits.max_age);
    let most = MOST.max(limits.max_entries);
    unpinned
        .into_iter()
        .enumerate()
        .skip(limits.max_entries)
        .filter(|(place, about)| *place >= most || is_old(about.ended))
        .map(|(_, about)| about.reference)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::AboutBuild;

    #[test]
    fn records_expire_when_they_are_old_and_many_but_never_pinned_ones() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let record = |age: u64, pinned: bool| BuildRecord {
            about: AboutBuild {
                reference: format!("{age}"),
                ended: now - Duration::from_secs(age),
                pinned,
                blobs: Vec::new(),
            },
            bytes: Vec::new(),
        };
        let some = || {
            vec![
                record(5, false),
                record(900, true),
                record(50, false),
                record(500, false),
            ]
        };
        for (max_age, max_entries, gone) in [
            (100, 3, &[][..]),
            (100, 2, &["500"]),
            (100, 0, &["500"]),
            (10, 1, &["50", "500"]),
            (0, 0, &["5", "50", "500"]),
            (1000, 0, &[]),
        ] {
            let limits = HistoryLimits {
                max_age: Duration::from_secs(max_age),
                max_entries,
            };
            assert_eq!(expired(some(), limits, now), gone, "{limits:?}");
        }
        let many: Vec<_> = (0..MOST as u64 + 3).map(|age| record(age, false)).collect();
        let limits = HistoryLimits {
            max_age: Duration::MAX,
            max_entries: 1,
        };
        assert_eq!(expired(many, limits, now), ["2000", "2001", "2002"]);
    }
}
