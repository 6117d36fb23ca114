//! From the begin of a build to its record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use dockerfile::address::without_credentials;
use prost::Message as _;
use proto::control::{BuildHistoryEventType, BuildHistoryRecord, Descriptor, Exporter, SolveRequest};
use proto::rpc;
use registry::Digest;
use tonic::{Code, Status};

use super::trace::{self, Spans, Whole};
use super::{History, log};
use crate::api::{export, status};
use crate::exporters::Slsa;
use crate::progress::{Progress, now};
use crate::solver::Exports;
use crate::store::{AboutBuild, BlobError, BuildRecord, Store, WorkLost};

/// BuildKit spells it like this.
const ERROR_MEDIA_TYPE: &str = "application/vnd.googeapis.google.rpc.status+proto";

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Log(#[from] log::WriteError),
    #[error("cannot keep a blob of the record")]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Lost(#[from] WorkLost),
}

/// What a build came to.
#[derive(Clone, Debug)]
pub(in crate::api) struct Made {
    pub exports: Exports,
    /// The platforms of the results; `None` for one result without a name.
    pub platforms: Option<Vec<String>>,
}

/// A build that is in the history. Dropped, it has ended: with what it was told, or cancelled.
#[derive(Debug)]
pub(in crate::api) struct Recording {
    history: Arc<History>,
    record: Arc<BuildHistoryRecord>,
    progress: Progress,
    outcome: Result<Made, Status>,
}

impl Recording {
    pub(super) fn new(history: Arc<History>, request: &SolveRequest, progress: Progress) -> Self {
        let exporters = export::exporters(request).into_iter();
        let record = Arc::new(BuildHistoryRecord {
            r#ref: request.r#ref.clone(),
            frontend: request.frontend.clone(),
            frontend_attrs: kept(&request.frontend_attrs),
            exporters: exporters
                .map(|exporter| Exporter {
                    r#type: exporter.kind,
                    attrs: exporter.attributes,
                })
                .collect(),
            created_at: Some(now()),
            ..BuildHistoryRecord::default()
        });
        Self {
            history,
            record,
            progress,
            outcome: Err(status::canceled()),
        }
    }

    pub(super) fn record(&self) -> Arc<BuildHistoryRecord> {
        Arc::clone(&self.record)
    }

    pub(in crate::api) fn note(&mut self, outcome: &Result<Made, Status>) {
        self.outcome.clone_from(outcome);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Err(status::canceled()));
        let ended = Ended {
            record: BuildHistoryRecord {
                completed_at: Some(now()),
                ..BuildHistoryRecord::clone(&self.record)
            },
            progress: self.progress.clone(),
            outcome,
        };
        self.history.end(ended);
    }
}

/// All that becomes a record.
struct Ended {
    record: BuildHistoryRecord,
    progress: Progress,
    outcome: Result<Made, Status>,
}

impl History {
    fn end(self: &Arc<Self>, ended: Ended) {
        let reference = ended.record.r#ref.clone();
        let mut state = self.state();
        state.running.remove(&reference);
        while state.writers.try_join_next().is_some() {}
        // When the runtime itself goes down, the build is not in the history.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        state.writing.insert(reference.clone());
        let history = Arc::clone(self);
        let write = async move {
            let _written = Written(&history, reference.clone());
            let event = match ended.write(&history.store.leased()).await {
                Ok(record) => (BuildHistoryEventType::Complete, record),
                Err(error) => {
                    let reason = proto::chain(&error);
                    tracing::warn!(build = reference, "build not recorded: {reason}");
                    let record = BuildHistoryRecord {
                        r#ref: reference.clone(),
                        ..BuildHistoryRecord::default()
                    };
                    (BuildHistoryEventType::Deleted, record)
                }
            };
            history.tell(event.0, &Arc::new(event.1));
        };
        state.writers.spawn_on(write, &runtime);
    }
}

/// However the writing of a record ends, nobody waits for it any more.
struct Written<'a>(&'a History, String);

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.0.state().writing.remove(&self.1);
        self.0.written.send_replace(());
    }
}

impl Ended {
    async fn write(self, store: &Store) -> Result<BuildHistoryRecord, WriteError> {
        let mut record = self.record;
        let mut spans = Spans::default();
        let (logs, counts) = log::write(store, &self.progress, |message| spans.add(message)).await?;
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        record.num_total_steps = number(counts.total());
        record.num_cached_steps = number(counts.cached());
        record.num_completed_steps = number(counts.completed());
        record.num_warnings = number(counts.warnings);
        let mut blobs: Vec<Digest> = logs.digest.parse().into_iter().collect();
        record.logs = Some(logs);
        let trace = spans.to_json(&Whole {
            reference: &record.r#ref,
            started: record.created_at,
            completed: record.completed_at,
            error: self.outcome.as_ref().map_or_else(Status::message, |_| ""),
        });
        let size = i64::try_from(trace.len()).unwrap_or(i64::MAX);
        for digest in keep(store, vec![trace]).await? {
            record.trace = Some(Descriptor {
                media_type: trace::MEDIA_TYPE.to_owned(),
                digest: digest.to_string(),
                size,
                ..Descriptor::default()
            });
            blobs.push(digest);
        }
        match self.outcome {
            Ok(made) => {
                attest(store, &mut record, &made, &mut blobs).await?;
                let exports = made.exports;
                blobs.extend(keep(store, exports.documents).await?);
                let results = exports.roots.iter();
                let results: BTreeMap<i64, Descriptor> = results
                    .map(|(number, root)| (i64::try_from(*number).unwrap_or(i64::MAX), descriptor(root)))
                    .collect();
                if let Some(first) = results.values().next().cloned() {
                    let result = record.result.get_or_insert_default();
                    result.result_deprecated = Some(first);
                    result.results = results;
                }
                record.exporter_response = exports.response;
            }
            Err(error) => {
                let whole = message_of(&error);
                let bytes = Bytes::from(whole.encode_to_vec());
                let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
                for digest in keep(store, vec![bytes]).await? {
                    record.external_error = Some(Descriptor {
                        media_type: ERROR_MEDIA_TYPE.to_owned(),
                        digest: digest.to_string(),
                        size,
                        ..Descriptor::default()
                    });
                    blobs.push(digest);
                }
                record.error = Some(rpc::Status {
                    details: Vec::new(),
                    ..whole
                });
            }
        }
        store.put_build(&BuildRecord {
            about: AboutBuild {
                reference: record.r#ref.clone(),
                ended: SystemTime::now(),
                pinned: false,
                blobs,
            },
            bytes: record.encode_to_vec(),
        });
        Ok(record)
    }
}

/// Says for each result what it was made from.
async fn attest(
    store: &Store,
    record: &mut BuildHistoryRecord,
    made: &Made,
    blobs: &mut Vec<Digest>,
) -> Result<(), WriteError> {
    for (platform, predicate) in &made.exports.provenance {
        let size = i64::try_from(predicate.len()).unwrap_or(i64::MAX);
        let Some(digest) = keep(store, vec![predicate.clone()]).await?.pop() else {
            continue;
        };
        let descriptor = Descriptor {
            media_type: "application/vnd.in-toto+json".to_owned(),
            digest: digest.to_string(),
            size,
            annotations: BTreeMap::from([(
                "in-toto.io/predicate-type".to_owned(),
                Slsa::V1.predicate_type().to_owned(),
            )]),
        };
        let result = match made.platforms {
            Some(_) => record.results.entry(platform.clone()).or_default(),
            None => record.result.get_or_insert_default(),
        };
        result.attestations.push(descriptor);
        blobs.push(digest);
    }
    Ok(())
}

async fn keep(store: &Store, documents: Vec<Bytes>) -> Result<Vec<Digest>, WriteError> {
    let blobs = store.blobs();
    let kept = store.pool().run(move || {
        let kept = documents.iter().map(|document| blobs.keep(document));
        kept.collect::<Result<Vec<_>, BlobError>>()
    });
    Ok(kept.await??)
}

fn descriptor(root: &registry::Descriptor) -> Descriptor {
    Descriptor {
        media_type: root.media_type.clone(),
        digest: root.digest.to_string(),
        size: i64::try_from(root.size).unwrap_or(i64::MAX),
        annotations: root.annotations.clone().unwrap_or_default(),
    }
}

/// A status as a message, with its details.
fn message_of(status: &Status) -> rpc::Status {
    let carried = rpc::Status::decode(status.details()).unwrap_or_default();
    rpc::Status {
        code: match status.code() {
            Code::Ok => Code::Unknown.into(),
            code => code.into(),
        },
        message: status.message().to_owned(),
        details: carried.details,
    }
}

/// What a record keeps of a build's attributes: addresses of contexts may carry a password, which is nobody's business
/// after the build.
fn kept(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let kept = |(key, value): (&String, &String)| {
        let value = match key.split(':').next() {
            Some("context") => without_credentials(value),
            _ => value.clone(),
        };
        (key.clone(), value)
    };
    attributes.iter().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_contexts_are_not_kept() {
        let attributes = [
            ("context", "https://me:secret@example.com/x.git#main"),
            ("context:lib", "https://token@example.com/lib.tar"),
            ("build-arg:URL", "https://a@b/c"),
        ];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let kept = kept(&BTreeMap::from(attributes));
        assert_eq!(kept["context"], "https://example.com/x.git#main");
        assert_eq!(kept["context:lib"], "https://example.com/lib.tar");
        assert_eq!(kept["build-arg:URL"], "https://a@b/c");
    }
}
