//! The wire: BuildKit's gRPC interface as Rust types, and what both ends of it share.
//!
//! The `.proto` files are written from a description of the interface, with every field that peers may send.
//! Maps are `BTreeMap`, so that encoding is deterministic; `bytes` fields are [`bytes::Bytes`].

mod causes;
mod excerpt;
pub mod frames;
pub mod headers;
mod json;
pub mod transfer;
pub mod tunnel;

pub use causes::{chain, message};

#[expect(
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}

#[expect(
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod filesend {
    include!(concat!(env!("OUT_DIR"), "/frames/moby.filesync.v1.rs"));
}

/// LLB operations.
pub use wire::pb;

/// `moby.buildkit.v1`: the `Control` service.
pub mod control {
    pub use crate::wire::moby::buildkit::v1::*;
}

/// `moby.buildkit.v1.types`: worker records.
pub use wire::moby::buildkit::v1::types;

/// `moby.buildkit.v1.apicaps`.
pub use wire::moby::buildkit::v1::apicaps as caps;

/// `moby.buildkit.v1.frontend`: the `LLBBridge` service.
pub use wire::moby::buildkit::v1::frontend as gateway;

/// `moby.buildkit.v1.sourcepolicy`.
pub use wire::moby::buildkit::v1::sourcepolicy;

/// `moby.buildkit.v1.sourcepolicy.policysession`: the `PolicyVerifier` service.
pub use wire::moby::buildkit::v1::sourcepolicy::policysession;

/// `moby.filesync.v1`: `FileSync` and `Auth`, and `FileSend` with undecoded frames.
pub mod filesync {
    pub use crate::filesend::{file_send_client, file_send_server};
    pub use crate::wire::moby::filesync::v1::*;
}

/// `fsutil.types`: packets of the transfer protocol.
pub use wire::fsutil::types as fsutil;

/// `moby.buildkit.secrets.v1`.
pub use wire::moby::buildkit::secrets::v1 as secrets;

/// `moby.sshforward.v1`.
pub use wire::moby::sshforward::v1 as sshforward;

/// `moby.upload.v1`.
pub use wire::moby::upload::v1 as upload;

/// `moby.exporter.v1`.
pub use wire::moby::exporter::v1 as exporter;

/// `containerd.services.content.v1`.
pub use wire::containerd::services::content::v1 as content;

/// `google.rpc`: the status that carries error details.
pub use wire::google::rpc;

pub mod errdefs;
