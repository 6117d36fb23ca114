//! The clients' sessions: their files, secrets, credentials and where their output goes.
//!
//! A session is an HTTP/2 connection inside the stream of a `Control/Session` call; the daemon is its client. It
//! lives as long as that call, and is dropped when the client fails two health checks in a row. Whoever asks for a
//! session by id waits for it for a while, because a client opens it at the same time as it starts the build.

mod agent;
mod group;
mod health;
mod registry;
mod registry_credentials;
mod secret;
mod services;
mod stores;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;
mod transfers;

pub use agent::AgentSocket;
pub use group::Group;
pub use registry::{Session, SessionStream, Sessions};
pub use secret::Secret;
pub use services::{Credentials, UPLOAD_HOST, method};
pub use stores::ContentStore;
pub use transfers::{FileRequest, Files};

use std::sync::Arc;

use tonic::Status;

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the session carries no id")]
    NoId,
    #[error("the session's connection failed")]
    Connect(#[source] tonic::transport::Error),
    // BuildKit's text, which clients and users know.
    #[error("no active session for {id}: context deadline exceeded")]
    Missing { id: Arc<str> },
    #[error("the client does not offer {method}")]
    Unsupported { method: &'static str },
    #[error("the client answered no call of {method} in time")]
    TimedOut { method: &'static str },
    #[error("{}", call.message())]
    Call { method: &'static str, call: Box<Status> },
    #[error("cannot send {key}")]
    Metadata {
        key: &'static str,
        source: proto::headers::KeyError,
    },
    #[error("cannot read what is to be sent to the client")]
    Content(#[source] std::io::Error),
    #[error("cannot send files to the client")]
    SendFiles(#[source] proto::transfer::SendError),
}

impl SessionError {
    /// Whether the client simply has no such thing: another session of the group may.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Unsupported { .. } => true,
            Self::Call { call, .. } => matches!(
                call.code(),
                tonic::Code::NotFound | tonic::Code::Unimplemented | tonic::Code::Unavailable
            ),
            _ => false,
        }
    }
}
