//! What the user sees of a build: plain lines, a live picture, raw JSON, or nothing.
//!
//! A [`Display`] is a pure consumer of status messages. It runs as one task that owns the trace and the terminal;
//! everybody else has a [`Sender`]. The channel is bounded, so a slow terminal slows the reader of the status stream
//! and not the memory. Progress goes to standard error: standard output is for data.

mod plain;
mod relay;
pub mod status;
#[cfg(test)]
mod tests;
mod trace;
mod tty;
pub mod units;
mod wire;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use relay::Relay;
pub use status::{Status, Vertex, VertexStatus};
pub use tty::Paint;

use crate::builders::Builder;
use crate::gojson;
use plain::Plain;
use trace::Trace;
use tty::{Size, Tty};

const REFRESH: Duration = Duration::from_millis(100);
/// Messages waiting for the display.
const QUEUE: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Auto,
    Plain,
    Tty,
    RawJson,
    /// Nothing but, at the end, the image id on standard output.
    Quiet,
    None,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "" | "auto" => Self::Auto,
            "plain" => Self::Plain,
            "tty" => Self::Tty,
            "rawjson" => Self::RawJson,
            "quiet" => Self::Quiet,
            "none" => Self::None,
            other => {
                return Err(format!(
                    "invalid progress mode {other}, expected auto, plain, tty, quiet, rawjson or none"
                ));
            }
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    #[error("failed to get console: standard error is not a terminal, use --progress=plain")]
    NotATerminal,
    #[error("writing progress")]
    Write(#[source] io::Error),
}

pub type Sender = mpsc::Sender<Status>;

/// The running display. Dropping every [`Sender`] ends it; [`Display::finish`] waits for its last line.
#[derive(Debug)]
pub struct Display {
    task: JoinHandle<Result<Vec<status::VertexWarning>, ProgressError>>,
}

/// Which builder is at work, for the first line; the plain display has none where it is empty.
#[derive(Clone, Debug)]
pub struct Heading {
    pub plain: String,
    pub tty: String,
}

impl Heading {
    /// For a builder at work; `doing` begins the line: `building with`, `booting`.
    pub fn of(doing: &str, builder: &Builder) -> Self {
        let Builder { name, driver, .. } = builder;
        Self {
            plain: format!("{doing} \"{name}\" instance using {driver} driver"),
            tty: format!("{driver}:{name}"),
        }
    }

    /// For work in which no builder takes part.
    pub fn none() -> Self {
        Self {
            plain: String::new(),
            tty: String::new(),
        }
    }
}

impl Display {
    pub fn start(mode: Mode, heading: Heading, paint: Paint) -> Result<(Self, Sender), ProgressError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let is_terminal = io::stderr().is_terminal();
        let task = match mode {
            Mode::Tty if !is_terminal => return Err(ProgressError::NotATerminal),
            Mode::Tty => tokio::spawn(show_tty(receiver, heading, paint)),
            Mode::Auto if is_terminal => tokio::spawn(show_tty(receiver, heading, paint)),
            Mode::Auto | Mode::Plain => tokio::spawn(show_plain(receiver, heading)),
            Mode::RawJson => tokio::spawn(show_json(receiver)),
            Mode::Quiet | Mode::None => tokio::spawn(show_nothing(receiver)),
        };
        Ok((Self { task }, sender))
    }

    /// Waits until everything sent has been shown, and returns the warnings of the build.
    pub async fn finish(self) -> Result<Vec<status::VertexWarning>, ProgressError> {
        self.task
            .await
            .unwrap_or_else(|stopped| Err(ProgressError::Write(io::Error::other(stopped))))
    }
}

async fn show_plain(
    mut receiver: mpsc::Receiver<Status>,
    heading: Heading,
) -> Result<Vec<status::VertexWarning>, ProgressError> {
    let mut trace = Trace::default();
    let mut plain = Plain::new(
        io::BufWriter::new(io::stderr()),
        Some(heading.plain).filter(|heading| !heading.is_empty()),
    );
    let mut clock = tokio::time::interval(REFRESH);
    loop {
        tokio::select! {
            status = receiver.recv() => match status {
                Some(status) => {
                    trace.update(&status);
                    // Printed by the clock: what is overtaken at once is not worth a line.
                    continue;
                }
                None => break,
            },
            _ = clock.tick() => {}
        }
        plain
            .refresh(&mut trace, Instant::now())
            .map_err(ProgressError::Write)?;
    }
    plain.finish(&mut trace).map_err(ProgressError::Write)?;
    Ok(trace.warnings().cloned().collect())
}

async fn show_tty(
    mut receiver: mpsc::Receiver<Status>,
    heading: Heading,
    paint: Paint,
) -> Result<Vec<status::VertexWarning>, ProgressError> {
    let mut trace = Trace::default();
    let mut tty = Tty::new(io::stderr(), heading.tty, paint);
    let mut clock = tokio::time::interval(REFRESH);
    loop {
        tokio::select! {
            status = receiver.recv() => match status {
                Some(status) => {
                    trace.update(&status);
                    // Drawn by the clock: a terminal cannot follow every message.
                    continue;
                }
                None => break,
            },
            _ = clock.tick() => {}
        }
        tty.refresh(&trace, terminal_size(), Timestamp::now())
            .map_err(ProgressError::Write)?;
    }
    tty.finish(&trace, terminal_size())
        .map_err(ProgressError::Write)?;
    Ok(trace.warnings().cloned().collect())
}

async fn show_json(
    mut receiver: mpsc::Receiver<Status>,
) -> Result<Vec<status::VertexWarning>, ProgressError> {
    let mut warnings = Vec::new();
    while let Some(status) = receiver.recv().await {
        let line = serde_json::to_string(&status).map_err(|source| ProgressError::Write(source.into()))?;
        let mut line = gojson::escape(&line);
        line.push('\n');
        io::stderr()
            .write_all(line.as_bytes())
            .map_err(ProgressError::Write)?;
        warnings.extend(status.warnings);
    }
    Ok(warnings)
}

async fn show_nothing(
    mut receiver: mpsc::Receiver<Status>,
) -> Result<Vec<status::VertexWarning>, ProgressError> {
    let mut warnings = Vec::new();
    while let Some(status) = receiver.recv().await {
        warnings.extend(status.warnings);
    }
    Ok(warnings)
}

fn terminal_size() -> Size {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
            columns: usize::from(size.ws_col),
            rows: usize::from(size.ws_row),
        },
        _ => Size {
            columns: 80,
            rows: 24,
        },
    }
}

/// A step that the client itself works on, such as booting a daemon.
///
/// A display that has ended cannot show it; the work matters more, so failures to send are not failures.
#[derive(Debug)]
pub struct Work<'a> {
    sender: &'a Sender,
    vertex: Vertex,
}

impl<'a> Work<'a> {
    pub async fn begin(sender: &'a Sender, name: &str) -> Self {
        let vertex = Vertex {
            digest: step_digest(name),
            name: name.to_owned(),
            started: Some(Timestamp::now()),
            ..Vertex::default()
        };
        let _ = sender
            .send(Status {
                vertexes: vec![vertex.clone()],
                ..Status::default()
            })
            .await;
        Self { sender, vertex }
    }

    /// One part of it, shown as a line of its own.
    pub async fn part<T, E>(&self, name: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut status = VertexStatus {
            id: name.to_owned(),
            vertex: self.vertex.digest.clone(),
            started: Some(Timestamp::now()),
            timestamp: Timestamp::now(),
            ..VertexStatus::default()
        };
        let _ = self
            .sender
            .send(Status {
                statuses: vec![status.clone()],
                ..Status::default()
            })
            .await;
        let result = work.await;
        status.timestamp = Timestamp::now();
        status.completed = Some(status.timestamp);
        let _ = self
            .sender
            .send(Status {
                statuses: vec![status],
                ..Status::default()
            })
            .await;
        result
    }

    /// What it says while it goes on, with its line break.
    pub async fn log(&self, text: &str) {
        let log = status::VertexLog {
            vertex: self.vertex.digest.clone(),
            stream: 1,
            data: text.as_bytes().to_vec(),
            timestamp: Timestamp::now(),
        };
        let _ = self
            .sender
            .send(Status {
                logs: vec![log],
                ..Status::default()
            })
            .await;
    }

    pub async fn end<T, E: std::fmt::Display>(self, result: Result<T, E>) -> Result<T, E> {
        let error = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let vertex = Vertex {
            completed: Some(Timestamp::now()),
            error,
            ..self.vertex
        };
        let _ = self
            .sender
            .send(Status {
                vertexes: vec![vertex],
                ..Status::default()
            })
            .await;
        result
    }
}

/// The key of a step that the client made itself.
pub fn step_digest(name: &str) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(name)))
}
