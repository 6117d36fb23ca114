//! From the wire to a layer: written and hashed as it comes, and nothing of it stays unless all of it is right.

use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::LAST_MODIFIED;
use registry::digest::{Algorithm, Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::download::{Call, Limits, Response, tag_of};
use super::{HttpError, HttpSource, name};
use crate::progress::StatusProgress;
use crate::sources::one_file;
use crate::store::{CachedResult, LayerDraft, LayerId, NewLayer, RecordKind, Snapshot, Store};

/// Written at a time.
const PIECE: usize = 1 << 20;

/// What is known of the file at an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    /// As the server wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_modified: Option<String>,
    pub(super) digest: Digest,
    pub(super) name: String,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) modified: Option<i64>,
}

pub(super) struct Wanted<'a> {
    pub(super) source: &'a HttpSource,
    pub(super) store: &'a Store,
    pub(super) limits: &'a Limits,
}

impl Wanted<'_> {
    pub(super) async fn keep(
        &self,
        call: &Call,
        response: Response,
        status: &StatusProgress,
    ) -> Result<(Known, Snapshot), HttpError> {
        let header = |name| {
            let value = response.headers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let last_modified = header(LAST_MODIFIED);
        let modified = last_modified.as_deref().and_then(seconds);
        let name = name::of(self.source, Some(&response.headers));
        let etag = tag_of(&response.headers);
        let draft = self.store.draft()?;
        let file = one_file::create(&draft, &name).map_err(HttpError::Write)?;
        let digest = self.receive(call, response, file, status).await?;
        if let Some(expected) = &self.source.checksum
            && *expected != digest
        {
            return Err(HttpError::Checksum {
                url: call.shown(),
                found: digest,
                expected: expected.clone(),
            });
        }
        let known = Known {
            etag,
            last_modified,
            digest,
            name,
            modified,
        };
        let snapshot = self.publish(draft, &known).await?;
        self.remember(call, &known, &snapshot)?;
        Ok((known, snapshot))
    }

    async fn receive(
        &self,
        call: &Call,
        response: Response,
        file: File,
        status: &StatusProgress,
    ) -> Result<Digest, HttpError> {
        let limits = self.limits;
        let too_large = || HttpError::TooLarge {
            url: call.shown(),
            limit: limits.size,
        };
        let total = response.length.unwrap_or_default();
        if total > limits.size {
            return Err(too_large());
        }
        let algorithm = self
            .source
            .checksum
            .as_ref()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let mut sink = Some(Sink {
            file,
            hasher: Hasher::new(algorithm),
        });
        let started = Instant::now();
        let (mut received, mut waiting) = (0_u64, Vec::new());
        let mut body = response.body;
        loop {
            let next = tokio::time::timeout(limits.patience, body.next()).await;
            let next = next.map_err(|_| HttpError::Silent {
                url: call.shown(),
                patience: limits.patience,
            })?;
            let chunk = match next {
                Some(Ok(chunk)) => chunk,
                Some(Err(source)) => {
                    return Err(HttpError::Cut {
                        url: call.shown(),
                        received,
                        source,
                    });
                }
                None => break,
            };
            received += chunk.len() as u64;
            if received > limits.size {
                return Err(too_large());
            }
            if started.elapsed() > limits.time {
                return Err(HttpError::TooSlow {
                    url: call.shown(),
                    limit: limits.time,
                });
            }
            status.update(received, total);
            waiting.push(chunk);
            if waiting.iter().map(Bytes::len).sum::<usize>() >= PIECE {
                sink = self.write(sink, std::mem::take(&mut waiting)).await?;
            }
        }
        sink = self.write(sink, waiting).await?;
        match sink {
            Some(sink) => Ok(sink.hasher.finish()),
            None => Err(HttpError::Content(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    async fn write(&self, sink: Option<Sink>, chunks: Vec<Bytes>) -> Result<Option<Sink>, HttpError> {
        let write = move || {
            let mut sink = sink;
            if let Some(sink) = &mut sink {
                for chunk in chunks {
                    sink.hasher.update(&chunk);
                    sink.file.write_all(&chunk)?;
                }
            }
            Ok(sink)
        };
        self.store.pool().run(write).await?.map_err(HttpError::Content)
    }

    async fn publish(&self, draft: LayerDraft, known: &Known) -> Result<Snapshot, HttpError> {
        let (store, source, known) = (self.store.clone(), self.source.clone(), known.clone());
        let pool = store.pool().clone();
        let publish = move || {
            // A file whose age nobody knows is as old as it gets, so that it is the same every time.
            let seconds = known.modified.unwrap_or_default();
            one_file::finish(&draft, &known.name, source.appearance, seconds).map_err(HttpError::Write)?;
            // By its key: whoever was faster has the same file.
            let layer = LayerId::new(format!("http-{}", source.key(&known)));
            let new = NewLayer {
                description: format!("http url {}", source.shown()),
                ..NewLayer::default()
            };
            store.commit_as(draft, &layer, new)?;
            Ok(Snapshot::new([layer]))
        };
        pool.run(publish).await?
    }

    fn remember(&self, call: &Call, known: &Known, snapshot: &Snapshot) -> Result<(), HttpError> {
        let result = CachedResult::now(vec![snapshot.clone()]);
        self.store.remember(&self.source.key(known), &result);
        if let Some(key) = self.source.pinned_key() {
            self.store.remember(&key, &result);
        }
        // Without either there is nothing to ask the server about.
        if !call.is_upload() && (known.etag.is_some() || known.last_modified.is_some()) {
            let record = serde_json::to_vec(known).map_err(HttpError::Remember)?;
            let place = self.source.place();
            self.store
                .put_record(RecordKind::Sources, place.as_bytes(), record);
        }
        Ok(())
    }
}

struct Sink {
    file: File,
    hasher: Hasher,
}

/// A date in one of HTTP's formats: today's, or those that old servers still write.
fn seconds(text: &str) -> Option<i64> {
    let text = text.trim();
    let today = || jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp());
    let rfc850 = || {
        let (_, date) = text.split_once(", ")?;
        let date = date.strip_suffix("GMT").or_else(|| date.strip_suffix("UTC"))?;
        utc("%d-%b-%y %H:%M:%S", date.trim_end())
    };
    let asctime = || utc("%a %b %e %H:%M:%S %Y", text);
    let date = today().or_else(rfc850).or_else(asctime)?;
    Some(date.as_second()).filter(|seconds| *seconds >= 0)
}

fn utc(format: &str, text: &str) -> Option<jiff::Timestamp> {
    let date = jiff::civil::DateTime::strptime(format, text).ok()?;
    Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_of_old_servers_are_understood() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 UTC",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(super::seconds(text), Some(784_111_777), "{text}");
        }
        assert_eq!(super::seconds("yesterday"), None);
    }
}
