//! What a build reports about itself: one ordered log of events that any number of readers replay and follow.
//!
//! It is the only source of every display. Each event carries the full state of its vertex, as BuildKit's API demands.
//! A reader that falls behind gets what it missed in one message; nothing is dropped and nobody is waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use proto::pb;
use tokio::sync::watch;

/// How many bytes of one step's output are kept; one line stands for the rest. 2 MiB unless told otherwise, as in
/// BuildKit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimit(pub usize);

impl Default for LogLimit {
    fn default() -> Self {
        Self(2 << 20)
    }
}

/// Output that comes in smaller pieces is put together up to this size.
const JOINED: usize = 1024;
/// A message to a reader ends when it holds this much, so that it stays far below gRPC's message limits.
const MAX_MESSAGE: usize = 512 * 1024;

/// The error text of a vertex that was stopped because something else failed; clients show it as CANCELED.
pub const CANCELED: &str = "context canceled";

#[derive(Clone, Debug)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Log bytes kept of one step.
    log_limit: LogLimit,
    log: Mutex<Log>,
    /// Number of events so far, and `true` once no more will come.
    changed: watch::Sender<(usize, bool)>,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<Event>,
    vertices: BTreeMap<String, Vertex>,
    log_sizes: HashMap<String, usize>,
    /// How far the fastest reader is; what nobody has read yet may still grow.
    read: usize,
    closed: bool,
}

impl Log {
    /// Appends to the last event if it goes on and nobody has read it: a step that writes byte by byte must not cost
    /// an event a byte.
    fn join(&mut self, next: &VertexLog) -> bool {
        if self.closed || self.read >= self.events.len() {
            return false;
        }
        let Some(Event::Log(last)) = self.events.last_mut() else {
            return false;
        };
        let goes_on = last.vertex == next.vertex
            && last.stream == next.stream
            && last.msg.len() + next.msg.len() <= JOINED
            && soon_after(last.timestamp.as_ref(), next.timestamp.as_ref());
        if goes_on {
            last.msg = [&last.msg[..], &next.msg].concat().into();
        }
        goes_on
    }
}

fn short(bytes: usize) -> String {
    match bytes {
        0 => "0B".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

/// Displays show the time of each line, so only what came together is joined.
fn soon_after(first: Option<&prost_types::Timestamp>, second: Option<&prost_types::Timestamp>) -> bool {
    let nanos =
        |time: &prost_types::Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    first
        .zip(second)
        .is_some_and(|(first, second)| nanos(second) - nanos(first) < 20_000_000)
}

#[derive(Clone, Debug)]
enum Event {
    Vertex(Vertex),
    Status(VertexStatus),
    Log(VertexLog),
    Warning(VertexWarning),
}

/// Output of a step goes to one of two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    Stdout = 1,
    Stderr = 2,
}

impl Default for Progress {
    fn default() -> Self {
        Self::with_limit(LogLimit::default())
    }
}

impl Progress {
    pub fn with_limit(log_limit: LogLimit) -> Self {
        Self(Arc::new(Inner {
            log_limit,
            log: Mutex::default(),
            changed: watch::channel((0, false)).0,
        }))
    }

    /// A vertex by its digest; announces it to readers if it is new.
    pub fn vertex(
        &self,
        digest: &str,
        name: &str,
        inputs: Vec<String>,
        group: Option<pb::ProgressGroup>,
    ) -> VertexProgress {
        let mut log = self.log();
        if !log.vertices.contains_key(digest) {
            let vertex = Vertex {
                digest: digest.to_owned(),
                name: name.to_owned(),
                inputs,
                progress_group: group,
                ..Vertex::default()
            };
            log.vertices.insert(digest.to_owned(), vertex.clone());
            self.push(&mut log, Event::Vertex(vertex));
        }
        VertexProgress {
            progress: self.clone(),
            digest: digest.to_owned(),
        }
    }

    /// A vertex that is no operation of the graph: its digest is derived from its name.
    pub fn internal_vertex(&self, name: &str) -> VertexProgress {
        self.vertex(&crate::graph::digest_of(name.as_bytes()), name, Vec::new(), None)
    }

    /// Ends the log: what is still running is reported as cancelled, readers reach their end.
    pub fn close(&self) {
        let mut log = self.log();
        let running: Vec<Vertex> = log
            .vertices
            .values()
            .filter(|vertex| vertex.started.is_some() && vertex.completed.is_none())
            .cloned()
            .collect();
        for mut vertex in running {
            vertex.completed = Some(now());
            vertex.error = CANCELED.to_owned();
            log.vertices.insert(vertex.digest.clone(), vertex.clone());
            self.push(&mut log, Event::Vertex(vertex));
        }
        log.closed = true;
        self.0.changed.send_replace((log.events.len(), true));
    }

    pub fn warn(&self, warning: VertexWarning) {
        self.push(&mut self.log(), Event::Warning(warning));
    }

    /// Whether both are the log of one build.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Reads the log from its beginning.
    pub fn reader(&self) -> Reader {
        Reader {
            progress: self.clone(),
            position: 0,
            changed: self.0.changed.subscribe(),
        }
    }

    fn push(&self, log: &mut Log, event: Event) {
        if log.closed {
            return;
        }
        log.events.push(event);
        self.0.changed.send_replace((log.events.len(), false));
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One vertex's door to the log.
#[derive(Clone, Debug)]
pub struct VertexProgress {
    progress: Progress,
    digest: String,
}

impl VertexProgress {
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn start(&self) {
        self.change(|vertex| {
            vertex.started = Some(now());
            vertex.completed = None;
            vertex.cached = false;
            vertex.error.clear();
        });
    }

    pub fn complete(&self) {
        self.change(|vertex| vertex.completed = Some(now()));
    }

    /// The result was there already.
    pub fn cached(&self) {
        self.change(|vertex| {
            let time = now();
            vertex.started.get_or_insert(time);
            vertex.completed = Some(time);
            vertex.cached = true;
        });
    }

    pub fn fail(&self, error: &str) {
        self.change(|vertex| {
            let time = now();
            vertex.started.get_or_insert(time);
            vertex.completed = Some(time);
            vertex.error = error.to_owned();
        });
    }

    /// Starts, and ends as the work does.
    pub async fn during<T, E: std::error::Error + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.start();
        let done = work.await;
        match &done {
            Ok(_) => self.complete(),
            Err(error) => self.fail(&proto::chain(error)),
        }
        done
    }

    pub fn log(&self, stream: LogStream, data: Bytes) {
        let LogLimit(limit) = self.progress.0.log_limit;
        let mut log = self.progress.log();
        let size = log.log_sizes.entry(self.digest.clone()).or_default();
        if *size > limit {
            return;
        }
        let left = limit - *size;
        *size = size.saturating_add(data.len());
        let msg = if *size > limit {
            let end = format!("\n[output clipped, log limit {} reached]\n", short(limit));
            [&data[..left], end.as_bytes()].concat().into()
        } else {
            data
        };
        let event = VertexLog {
            vertex: self.digest.clone(),
            timestamp: Some(now()),
            stream: stream as i64,
            msg,
        };
        if !log.join(&event) {
            self.progress.push(&mut log, Event::Log(event));
        }
    }

    /// A line below the vertex: `id` is unique in the vertex; counts are bytes, 0 of 0 for a plain step.
    pub fn status(&self, id: &str, name: &str) -> StatusProgress {
        let status = VertexStatus {
            id: id.to_owned(),
            vertex: self.digest.clone(),
            name: name.to_owned(),
            timestamp: Some(now()),
            started: Some(now()),
            ..VertexStatus::default()
        };
        let line = StatusProgress {
            progress: self.progress.clone(),
            status: Arc::new(Mutex::new(status)),
        };
        line.send();
        line
    }

    fn change(&self, change: impl FnOnce(&mut Vertex)) {
        let mut log = self.progress.log();
        let Some(vertex) = log.vertices.get_mut(&self.digest) else {
            return;
        };
        change(vertex);
        let vertex = vertex.clone();
        self.progress.push(&mut log, Event::Vertex(vertex));
    }
}

/// One line below a vertex, such as a layer being pulled.
#[derive(Clone, Debug)]
pub struct StatusProgress {
    progress: Progress,
    status: Arc<Mutex<VertexStatus>>,
}

impl StatusProgress {
    /// Reports bytes done; calls closer together than 100 ms are swallowed, except the last.
    pub fn update(&self, current: u64, total: u64) {
        {
            let mut status = self.lock();
            let due = status
                .timestamp
                .and_then(|t| SystemTime::try_from(t).ok())
                .is_none_or(|last| last.elapsed().is_ok_and(|elapsed| elapsed.as_millis() >= 100));
            status.current = i64::try_from(current).unwrap_or(i64::MAX);
            status.total = i64::try_from(total).unwrap_or(i64::MAX);
            if !due {
                return;
            }
            status.timestamp = Some(now());
        }
        self.send();
    }

    pub fn complete(&self) {
        {
            let mut status = self.lock();
            status.timestamp = Some(now());
            status.completed = status.timestamp;
        }
        self.send();
    }

    fn send(&self) {
        let status = self.lock().clone();
        self.progress
            .push(&mut self.progress.log(), Event::Status(status));
    }

    fn lock(&self) -> MutexGuard<'_, VertexStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A position in the log.
#[derive(Debug)]
pub struct Reader {
    progress: Progress,
    position: usize,
    changed: watch::Receiver<(usize, bool)>,
}

impl Reader {
    /// Everything that was logged since the last call, at most one message's worth; waits while there is nothing;
    /// `None` after the last event of a closed log. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<StatusResponse> {
        let position = self.position;
        self.changed
            .wait_for(|(count, closed)| *count > position || *closed)
            .await
            .ok()?;
        let mut log = self.progress.log();
        let events = log.events.get(self.position..).unwrap_or_default();
        if events.is_empty() {
            return None;
        }
        let mut message = StatusResponse::default();
        let mut size = 0;
        for event in events {
            if size >= MAX_MESSAGE {
                break;
            }
            size += 256;
            match event.clone() {
                Event::Vertex(vertex) => message.vertexes.push(vertex),
                Event::Status(status) => message.statuses.push(status),
                Event::Log(line) => {
                    size += line.msg.len();
                    message.logs.push(line);
                }
                Event::Warning(warning) => message.warnings.push(warning),
            }
            self.position += 1;
        }
        log.read = log.read.max(self.position);
        Some(message)
    }
}

/// The present, as the API writes it.
pub fn now() -> prost_types::Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_reader_sees_everything_and_the_end() {
        let progress = Progress::default();
        let vertex = progress.vertex("sha256:1", "one", vec![], None);
        vertex.start();
        vertex.log(LogStream::Stdout, Bytes::from_static(b"hello"));
        vertex.complete();
        progress.close();
        let mut reader = progress.reader();
        let message = reader.next().await.expect("events");
        assert_eq!(message.vertexes.len(), 3);
        assert!(message.vertexes[2].completed.is_some());
        assert_eq!(message.logs[0].msg, "hello");
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn what_runs_at_the_end_is_cancelled() {
        let progress = Progress::default();
        progress.vertex("sha256:1", "one", vec![], None).start();
        progress.close();
        let message = progress.reader().next().await.expect("events");
        assert_eq!(message.vertexes.last().expect("vertex").error, CANCELED);
    }

    #[tokio::test]
    async fn output_byte_by_byte_is_few_events_and_nothing_is_lost() {
        let progress = Progress::default();
        let vertex = progress.vertex("sha256:1", "one", vec![], None);
        let mut reader = progress.reader();
        reader.next().await.expect("the vertex");
        for _ in 0..5000 {
            vertex.log(LogStream::Stdout, Bytes::from_static(b"x"));
        }
        let mut message = reader.next().await.expect("output");
        assert!(message.logs.len() < 1000, "{}", message.logs.len());
        // What was read does not grow any more.
        vertex.log(LogStream::Stdout, Bytes::from_static(b"y"));
        progress.close();
        message.logs.extend(reader.next().await.expect("the rest").logs);
        let all: Vec<u8> = message.logs.iter().flat_map(|log| log.msg.to_vec()).collect();
        assert_eq!(all, [vec![b'x'; 5000], vec![b'y']].concat());
    }

    #[tokio::test]
    async fn a_flood_of_output_is_clipped_once() {
        let progress = Progress::default();
        let vertex = progress.vertex("sha256:1", "one", vec![], None);
        for _ in 0..80 {
            vertex.log(LogStream::Stderr, Bytes::from(vec![b'x'; 64 * 1024]));
        }
        progress.close();
        let mut reader = progress.reader();
        let mut total = 0;
        while let Some(message) = reader.next().await {
            total += message.logs.iter().map(|log| log.msg.len()).sum::<usize>();
        }
        assert!(total <= LogLimit::default().0 + 100, "{total}");
    }

    #[tokio::test]
    async fn output_is_kept_up_to_the_limit() {
        for (limit, shown) in [
            (3, "abc\n[output clipped, log limit 3B reached]\n"),
            (8, "abcdefgh"),
        ] {
            let progress = Progress::with_limit(LogLimit(limit));
            let vertex = progress.vertex("sha256:1", "one", vec![], None);
            for part in ["ab", "cdef", "gh"] {
                vertex.log(LogStream::Stdout, Bytes::from_static(part.as_bytes()));
            }
            progress.close();
            let message = progress.reader().next().await.expect("output");
            let all: Vec<u8> = message.logs.iter().flat_map(|log| log.msg.to_vec()).collect();
            assert_eq!(String::from_utf8_lossy(&all), shown);
        }
        assert_eq!(
            [short(LogLimit::default().0), short(200 << 10), short(0)],
            ["2MiB", "200KiB", "0B"]
        );
    }
}
