//! Why a build failed: the daemon's words, the lines of the Dockerfile, the last output of the step.

use std::collections::{HashMap, VecDeque};

use prost::Message as _;
use proto::errdefs::{self, Detail};
use proto::rpc;
use serde::Deserialize;

use crate::history::library::{Found, HistoryError};

/// The largest error that is read.
const LARGEST: usize = 16 * 1024 * 1024;
/// Lines of output that are shown.
const TAIL: usize = 16;
/// A line longer than this is cut.
const LONGEST_LINE: usize = 64 * 1024;
const STACK: &str = "github.com/moby/buildkit/stack.Stack+json";

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failure {
    pub code: i32,
    pub message: String,
    /// The step that failed.
    pub step: String,
    pub logs: Vec<String>,
    /// Excerpts of the sources.
    pub sources: String,
    /// Where in the daemon it happened.
    pub stack: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stack {
    frames: Vec<Frame>,
    cmdline: Vec<String>,
    pid: i32,
    version: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Frame {
    name: String,
    file: String,
    line: i32,
}

impl Failure {
    pub async fn of(found: &Found) -> Result<Option<Self>, HistoryError> {
        let record = &found.record;
        if record.error.is_none() && record.external_error.is_none() {
            return Ok(None);
        }
        let mut failure = Self::default();
        if let Some(error) = &record.error {
            failure.code = error.code;
            failure.message.clone_from(&error.message);
        }
        if let Some(external) = &record.external_error {
            let bytes = found.blobs().read(&external.digest, LARGEST).await?;
            let status = rpc::Status::decode(bytes.as_slice()).map_err(HistoryError::Log)?;
            failure.explain(&status, found).await?;
        }
        Ok(Some(failure))
    }

    async fn explain(&mut self, status: &rpc::Status, found: &Found) -> Result<(), HistoryError> {
        self.stack = format!("{}\n", status.message);
        for any in &status.details {
            if any.type_url == STACK
                && let Ok(stack) = serde_json::from_slice::<Stack>(&any.value)
            {
                self.stack.push_str(&format!(
                    "{} {} {}\n",
                    stack.pid,
                    stack.version,
                    stack.cmdline.join(" ")
                ));
                for frame in stack.frames {
                    self.stack
                        .push_str(&format!("{}\n\t{}:{}\n", frame.name, frame.file, frame.line));
                }
                self.stack.push('\n');
            }
            match Detail::from_any(any) {
                Some(Detail::Source(source)) => {
                    self.sources.push_str(&source.excerpt());
                    self.sources.push('\n');
                }
                Some(Detail::Vertex(errdefs::Vertex { digest })) => {
                    (self.step, self.logs) = tail(found, &digest).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A step's name and its last lines.
async fn tail(found: &Found, digest: &str) -> Result<(String, Vec<String>), HistoryError> {
    let mut name = String::new();
    let mut lines = Lines::default();
    let mut replay = found.replay().await?;
    while let Some(message) = replay.next().await? {
        if let Some(vertex) = message.vertexes.iter().find(|vertex| vertex.digest == digest) {
            name.clone_from(&vertex.name);
        }
        for log in message.logs.iter().filter(|log| log.vertex == digest) {
            lines.push(log.stream, &log.msg);
        }
    }
    Ok((name, lines.lines.into_iter().map(|(_, line)| line).collect()))
}

/// The last lines of several streams that are mixed piece by piece.
#[derive(Default)]
struct Lines {
    lines: VecDeque<(usize, String)>,
    count: usize,
    /// Of each stream the line that has no end yet.
    open: HashMap<i64, usize>,
}

impl Lines {
    fn push(&mut self, stream: i64, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let text = String::from_utf8_lossy(text);
            let number = self.open.remove(&stream);
            let line = number.and_then(|number| self.lines.iter_mut().find(|(at, _)| *at == number));
            let number = match (line, number) {
                (Some((number, line)), _) => {
                    if line.len() < LONGEST_LINE {
                        line.push_str(&text);
                    }
                    *number
                }
                // Its beginning is not among the last lines any more.
                (None, Some(number)) => number,
                (None, None) if text.is_empty() => continue,
                (None, None) => {
                    self.count += 1;
                    if self.lines.len() == TAIL {
                        self.lines.pop_front();
                    }
                    self.lines.push_back((self.count, text.into_owned()));
                    self.count
                }
            };
            if !ends {
                self.open.insert(stream, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_two_streams_stay_whole() {
        let mut lines = Lines::default();
        lines.push(1, b"one\ntw");
        lines.push(2, b"error: ");
        lines.push(1, b"o\n\nthree");
        lines.push(2, b"bad\n");
        let texts: Vec<&str> = lines.lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(texts, ["one", "two", "error: bad", "three"]);
        for number in 0..100 {
            lines.push(1, format!("{number}\n").as_bytes());
        }
        assert_eq!(lines.lines.len(), TAIL);
        assert_eq!(lines.lines.back().unwrap().1, "99");
    }
}
