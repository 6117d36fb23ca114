//! The frames between daemon and runner, over one stream socket: a little-endian length, a kind, a body.
//!
//! Output travels as raw bytes, everything else as JSON. Both ends are the same executable, so the version in `Hello`
//! only guards against a container that was left from another one. No frame is longer than `MAX_FRAME`.

use serde::{Deserialize, Serialize};

use super::step::{Attached, ExitStatus, Step, Stream, TerminalSize};

pub(super) const VERSION: u32 = 4;

/// Secrets arrive inside `Start`, at most 500 KiB each, as JSON numbers.
pub(super) const MAX_FRAME: usize = 16 << 20;

/// How much output one frame carries at most.
pub(super) const OUTPUT_CHUNK: usize = 32 << 10;

/// How much may be on its way to or from an attached process whose other side does not read, so that it holds up nobody
/// but itself.
pub(super) const WINDOW: usize = 256 << 10;

/// What output counts for: a frame takes memory beyond its bytes.
pub(super) fn weight(bytes: usize) -> usize {
    bytes + 64
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// With as many open files as the step's cgroup has entrances, as has `Join`.
    Start {
        id: u64,
        step: Box<Step>,
        /// A step that somebody talks with; `None` reads nothing and writes to pipes.
        attached: Option<Attached>,
    },
    /// One more process beside the first one of step `within`, in its namespaces. What `step` says about mounts and
    /// names is not looked at.
    Join {
        id: u64,
        within: u64,
        step: Box<Step>,
        attached: Attached,
    },
    Signal {
        id: u64,
        signal: i32,
    },
    Resize {
        id: u64,
        size: TerminalSize,
    },
    /// What the process reads; empty is the end of it. Travels as raw bytes.
    Input {
        id: u64,
        bytes: Vec<u8>,
    },
    /// So much of an attached step's output has been consumed.
    Consumed {
        id: u64,
        count: usize,
    },
    Kill {
        id: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Hello {
        version: u32,
    },
    /// The program of an attached step runs.
    Started {
        id: u64,
    },
    /// So much of an attached step's input has been passed on.
    Taken {
        id: u64,
        count: usize,
    },
    Exit {
        id: u64,
        result: Result<ExitStatus, String>,
    },
    /// Nothing can run in this sandbox; the runner ends after it.
    Failed {
        reason: String,
    },
}

/// One frame as the runner sends it.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    Reply(Reply),
    Output {
        id: u64,
        stream: Stream,
        bytes: &'a [u8],
    },
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("frame of {0} bytes")]
    TooLong(usize),
    #[error("frame of kind {0}")]
    UnknownKind(u8),
    #[error("frame of output or input is cut short")]
    ShortOutput,
    #[error("frame is not valid JSON")]
    Json(#[source] serde_json::Error),
}

const JSON: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const INPUT: u8 = 3;
const HEADER: usize = 5;

pub(super) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    seal(&mut frame, JSON);
    Ok(frame)
}

pub(super) fn encode_output(id: u64, stream: Stream, bytes: &[u8]) -> Vec<u8> {
    encode_bytes(id, if stream == Stream::Stdout { STDOUT } else { STDERR }, bytes)
}

pub(super) fn encode_input(id: u64, bytes: &[u8]) -> Vec<u8> {
    encode_bytes(id, INPUT, bytes)
}

fn encode_bytes(id: u64, kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + 8 + bytes.len());
    frame.extend_from_slice(&[0; HEADER]);
    frame.extend_from_slice(&id.to_le_bytes());
    frame.extend_from_slice(bytes);
    seal(&mut frame, kind);
    frame
}

fn seal(frame: &mut [u8], kind: u8) {
    // A longer body than u32 can say is refused by the reader, as is anything above MAX_FRAME.
    let length = u32::try_from(frame.len() - HEADER).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4] = kind;
}

/// Takes whole frames off the front of a growing buffer.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// Where to append what was read; frames taken before are dropped.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        &mut self.buffer
    }

    fn next(&mut self) -> Result<Option<(u8, &[u8])>, FrameError> {
        let rest = &self.buffer[self.taken..];
        let Some((&[a, b, c, d, kind], body)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = body.get(..length) else {
            return Ok(None);
        };
        self.taken += HEADER + length;
        Ok(Some((kind, body)))
    }

    pub(super) fn next_request(&mut self) -> Result<Option<Request>, FrameError> {
        match self.next()? {
            None => Ok(None),
            Some((JSON, body)) => serde_json::from_slice(body).map(Some).map_err(FrameError::Json),
            Some((INPUT, body)) => {
                let (id, bytes) = body.split_first_chunk::<8>().ok_or(FrameError::ShortOutput)?;
                Ok(Some(Request::Input {
                    id: u64::from_le_bytes(*id),
                    bytes: bytes.to_vec(),
                }))
            }
            Some((kind, _)) => Err(FrameError::UnknownKind(kind)),
        }
    }

    pub(super) fn next_reply(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let Some((kind, body)) = self.next()? else {
            return Ok(None);
        };
        let stream = match kind {
            JSON => {
                return serde_json::from_slice(body)
                    .map(|reply| Some(Frame::Reply(reply)))
                    .map_err(FrameError::Json);
            }
            STDOUT => Stream::Stdout,
            STDERR => Stream::Stderr,
            other => return Err(FrameError::UnknownKind(other)),
        };
        let (id, bytes) = body.split_first_chunk::<8>().ok_or(FrameError::ShortOutput)?;
        Ok(Some(Frame::Output {
            id: u64::from_le_bytes(*id),
            stream,
            bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = encode(&Reply::Hello { version: 7 }).unwrap();
        wire.extend(encode_output(3, Stream::Stderr, b"oops"));
        for cut in 0..wire.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                frames.buffer().extend_from_slice(part);
                while let Some(frame) = frames.next_reply().unwrap() {
                    seen.push(format!("{frame:?}"));
                }
            }
            assert_eq!(
                seen,
                [
                    "Reply(Hello { version: 7 })",
                    "Output { id: 3, stream: Stderr, bytes: [111, 111, 112, 115] }"
                ]
            );
        }
    }

    #[test]
    fn hostile_frames_are_refused() {
        for (bytes, refusal) in [
            (&[255, 255, 255, 255, 0][..], "frame of 4294967295 bytes"),
            (&[0, 0, 0, 0, 9], "frame of kind 9"),
            (&[1, 0, 0, 0, STDOUT, 0], "frame of output or input is cut short"),
            (&[1, 0, 0, 0, JSON, b'{'], "frame is not valid JSON"),
        ] {
            let mut frames = Frames::default();
            frames.buffer().extend_from_slice(bytes);
            assert_eq!(frames.next_reply().unwrap_err().to_string(), refusal);
        }
    }
}
