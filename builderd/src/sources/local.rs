//! `local://` sources: a folder of the client, received over its session into an immutable layer.
//!
//! For each folder of a client the last listing is remembered. Files whose entries have not changed since are taken
//! over from the layer that was made of it; if nothing changed there is nothing to write at all. A layer is named by
//! a digest of its tree (times apart), so equal content is one layer whoever sends it, and all that was built from
//! it is found in the cache.

mod index;
mod receive;
mod selection;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;

use proto::pb;
use proto::transfer::ReceiveError;

use crate::progress::VertexProgress;
use crate::session::{FileRequest, Group, SessionError};
use crate::store::view::ViewError;
use crate::store::{LayerError, Snapshot, Store, WorkLost};

pub use index::forget_lost;
pub use receive::receive;

const SCHEME: &str = "local://";

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("{0:?} is no local source")]
    Identifier(String),
    #[error("invalid value of {name} for local source {source_name}")]
    Attribute {
        source_name: String,
        name: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("local source {source_name} asks for {name}={value}, which this daemon does not support")]
    Unsupported {
        source_name: String,
        name: &'static str,
        value: String,
    },
    #[error("invalid pattern of files whose content is wanted")]
    Pattern(#[source] dockerfile::ignore::PatternError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("receive {name}")]
    Receive {
        name: String,
        #[source]
        source: ReceiveError,
    },
    #[error("write what was received")]
    Write(#[source] ViewError),
    #[error("write the content of {path:?}")]
    Content {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Lost(#[from] WorkLost),
    #[error("the path {path:?}… is longer than {limit} bytes")]
    PathTooLong { path: String, limit: usize },
    #[error("the listing is larger than {limit} bytes")]
    ListingTooLarge { limit: usize },
    #[error("{path:?} was announced with {announced} bytes, but more than {received} came")]
    TooMuchContent {
        path: String,
        announced: u64,
        received: u64,
    },
    #[error("the client sends more than {limit} files at a time")]
    TooManyAtOnce { limit: usize },
    #[error("{path:?} is a character device 0:0, which layers use as the mark of a removed file")]
    Whiteout { path: String },
    #[error("{path:?} has the device number {major}:{minor}")]
    DeviceNumber { path: String, major: i64, minor: i64 },
}

/// When a file counts as the one that was received last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Differ {
    /// If its entry in the listing is the same.
    #[default]
    Metadata,
    /// Never.
    None,
}

/// What a local source asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalSource {
    pub files: FileRequest,
    /// The session to ask; any of the build if not given.
    pub session: Option<String>,
    pub shared_key_hint: String,
    pub differ: Differ,
    /// If only the listing is wanted: the patterns of files that are wanted nevertheless.
    pub listing: Option<Vec<String>>,
}

impl LocalSource {
    pub fn parse(source: &pb::SourceOp) -> Result<Self, LocalError> {
        let name = source
            .identifier
            .strip_prefix(SCHEME)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| LocalError::Identifier(source.identifier.clone()))?;
        let attributes = Attributes {
            name,
            values: &source.attrs,
        };
        let listing = match attributes.text("local.metadatatransfer") {
            "" | "false" => None,
            "true" => Some(attributes.list("local.metadatatransferexclude")?),
            value => return Err(attributes.unsupported("local.metadatatransfer", value)),
        };
        let differ = match attributes.text("local.differ") {
            "" | "metadata" => Differ::Metadata,
            "none" => Differ::None,
            value => return Err(attributes.unsupported("local.differ", value)),
        };
        Ok(Self {
            files: FileRequest {
                name: name.to_owned(),
                include: attributes.list("local.includepattern")?,
                exclude: attributes.list("local.excludepatterns")?,
                follow: attributes.list("local.followpaths")?,
            },
            session: Some(attributes.text("local.session"))
                .filter(|session| !session.is_empty())
                .map(str::to_owned),
            shared_key_hint: attributes.text("local.sharedkeyhint").to_owned(),
            differ,
            listing,
        })
    }
}

struct Attributes<'a> {
    name: &'a str,
    values: &'a BTreeMap<String, String>,
}

impl Attributes<'_> {
    fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    fn list(&self, name: &'static str) -> Result<Vec<String>, LocalError> {
        match self.text(name) {
            "" => Ok(Vec::new()),
            // `null` is what Go writes for an empty list.
            text => serde_json::from_str::<Option<Vec<String>>>(text)
                .map(Option::unwrap_or_default)
                .map_err(|source| LocalError::Attribute {
                    source_name: self.name.to_owned(),
                    name,
                    source,
                }),
        }
    }

    fn unsupported(&self, name: &'static str, value: &str) -> LocalError {
        LocalError::Unsupported {
            source_name: self.name.to_owned(),
            name,
            value: value.to_owned(),
        }
    }
}

/// Gets the folder from the clients of `sessions`, and reports the bytes that come in below `vertex`.
pub async fn load(
    source: &LocalSource,
    sessions: &Group,
    store: &Store,
    vertex: &VertexProgress,
) -> Result<Snapshot, LocalError> {
    let status = vertex.status(&format!("transferring {}:", source.files.name), "transferring");
    let received = match &source.session {
        Some(id) => sessions.only(id).sync_files(&source.files).await,
        None => sessions.sync_files(&source.files).await,
    };
    let (session, files) = received?;
    let snapshot = receive(files, source, session.shared_key(), store, |bytes| {
        status.update(bytes, 0)
    })
    .await?;
    status.complete();
    Ok(snapshot)
}
