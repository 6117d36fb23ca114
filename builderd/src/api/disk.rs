//! `Control/DiskUsage` and `Control/Prune`.

use std::time::{Duration, SystemTime};

use futures::Stream;
use proto::control::{DiskUsageRequest, DiskUsageResponse, PruneRequest, UsageRecord};
use tokio::sync::mpsc;
use tonic::Status;

use super::{Daemon, status, upkeep};
use crate::filter::Filter;
use crate::store::{PrunePolicy, Usage};

/// Removed entries that wait for their client.
const WAITING: usize = 64;

pub(super) async fn usage(daemon: &Daemon, request: DiskUsageRequest) -> Result<DiskUsageResponse, Status> {
    let filter = filter(&request.filter)?;
    let age = duration("ageLimit", request.age_limit)?;
    let now = SystemTime::now();
    // Until a record is there, the blobs it will name are nobody's.
    daemon.history.settled("").await;
    let entries = daemon.solver.store().usage().await;
    let entries = entries.map_err(|error| status::of_failure(&error))?;
    let wanted = entries
        .into_iter()
        .filter(|entry| entry.is_meant_by(&filter) && entry.is_older_than(age, now));
    Ok(DiskUsageResponse {
        record: wanted.map(record).collect(),
    })
}

/// Removes what the request means, and tells of each record that is gone.
pub(super) fn prune(
    daemon: &Daemon,
    request: &PruneRequest,
) -> Result<impl Stream<Item = Result<UsageRecord, Status>> + Send + use<>, Status> {
    let policy = PrunePolicy {
        filter: filter(&request.filter)?,
        all: request.all,
        keep_duration: duration("keepDuration", request.keep_duration)?,
        reserved_space: bytes("reservedSpace", request.reserved_space)?,
        max_used_space: bytes("maxUsedSpace", request.max_used_space)?,
        min_free_space: bytes("minFreeSpace", request.min_free_space)?,
    };
    let store = daemon.solver.store().clone();
    Ok(async_stream::try_stream! {
        let (sender, mut removed) = mpsc::channel(WAITING);
        let policies = [policy];
        let mut pruning = Box::pin(store.prune(&policies, sender));
        let mut pruned = None;
        loop {
            let entry = tokio::select! {
                entry = removed.recv() => entry,
                result = &mut pruning, if pruned.is_none() => {
                    pruned = Some(result);
                    continue;
                }
            };
            match entry {
                Some(entry) => yield record(entry),
                None => break,
            }
        }
        let pruned = match pruned {
            Some(pruned) => pruned,
            None => pruning.await,
        };
        pruned.map_err(|error| status::of_failure(&error))?;
        upkeep::tidy(&store, upkeep::Records::Shrink).await;
    })
}

fn filter(expressions: &[String]) -> Result<Filter, Status> {
    Filter::parse(expressions).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn duration(name: &str, nanoseconds: i64) -> Result<Duration, Status> {
    u64::try_from(nanoseconds)
        .map(Duration::from_nanos)
        .map_err(|_| Status::invalid_argument(format!("{name} is negative")))
}

fn bytes(name: &str, bytes: i64) -> Result<u64, Status> {
    u64::try_from(bytes).map_err(|_| Status::invalid_argument(format!("{name} is negative")))
}

fn record(entry: Usage) -> UsageRecord {
    UsageRecord {
        id: entry.id,
        mutable: entry.mutable,
        in_use: entry.in_use,
        size: i64::try_from(entry.size).unwrap_or(i64::MAX),
        created_at: Some(entry.created_at.into()),
        last_used_at: Some(entry.last_used.into()),
        usage_count: i64::try_from(entry.uses).unwrap_or(i64::MAX),
        description: entry.description,
        record_type: entry.content.name().to_owned(),
        parents: entry.parents,
        ..UsageRecord::default()
    }
}
