//! The progress of a build, once more from the beginning: from the daemon, or from the log of an imported record.
//!
//! The log is a sequence of status messages, each behind its length in four bytes, the lowest first.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read as _};

use prost::Message as _;
use proto::control::{StatusRequest, StatusResponse};

use super::library::{Found, HistoryError, Place};
use crate::daemon;

/// A status message of the daemon is far smaller.
const LARGEST: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub enum Replay {
    Daemon {
        node: String,
        messages: Box<tonic::Streaming<StatusResponse>>,
    },
    Log(BufReader<File>),
    Nothing,
}

impl Found {
    pub async fn replay(&self) -> Result<Replay, HistoryError> {
        match &self.place {
            Place::Daemon(channel) => {
                let request = StatusRequest {
                    r#ref: self.id().to_owned(),
                };
                let messages = daemon::control(channel.clone())
                    .status(request)
                    .await
                    .map_err(|status| call(&self.node, status))?
                    .into_inner();
                Ok(Replay::Daemon {
                    node: self.node.clone(),
                    messages: Box::new(messages),
                })
            }
            Place::Imported(_) => {
                let Some(logs) = &self.record.logs else {
                    return Ok(Replay::Nothing);
                };
                let Some(path) = self.blobs().path(&logs.digest)? else {
                    return Ok(Replay::Nothing);
                };
                let file = File::open(&path).map_err(|source| HistoryError::File {
                    action: "reading",
                    path,
                    source,
                })?;
                Ok(Replay::Log(BufReader::new(file)))
            }
        }
    }
}

impl Replay {
    /// The next message; none at the end.
    pub async fn next(&mut self) -> Result<Option<StatusResponse>, HistoryError> {
        match self {
            Self::Daemon { node, messages } => messages.message().await.map_err(|status| call(node, status)),
            Self::Log(log) => read_entry(log),
            Self::Nothing => Ok(None),
        }
    }
}

fn read_entry(log: &mut BufReader<File>) -> Result<Option<StatusResponse>, HistoryError> {
    let mut length = [0; 4];
    match log.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(_) => return Err(HistoryError::CutLog),
        Ok(()) => {}
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > LARGEST {
        return Err(HistoryError::CutLog);
    }
    let mut bytes = vec![0; length];
    log.read_exact(&mut bytes).map_err(|_| HistoryError::CutLog)?;
    StatusResponse::decode(bytes.as_slice())
        .map(Some)
        .map_err(HistoryError::Log)
}

fn call(node: &str, status: tonic::Status) -> HistoryError {
    HistoryError::Call {
        action: "reading the build's log",
        node: node.to_owned(),
        source: Box::new(status),
    }
}
