//! Exporters: what a build made goes where the client wants it.
//!
//! An export is one vertex in the progress log. What it makes depends on the results, the records of their layers and
//! its attributes only, so that a repeated build exports the same bytes; a push that would change nothing is one
//! question to the registry.

mod archive;
mod assemble;
mod attestations;
pub(crate) mod attributes;
mod build_info;
pub(crate) mod compatibility;
mod content;
mod files;
mod history;
mod layers;
pub mod package_url;
mod provenance;
mod push;
mod supplement;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use proto::chain;
use registry::{Descriptor, Platform};

pub use attestations::{
    Attestation, AttestationContent, AttestationError, AttestationSubject, INLINE_ONLY, REASON, SBOM_CORE,
    has_sbom,
};
pub use attributes::ImageOptions;
pub use build_info::BuildInfo;
pub use files::TreeError;
pub use provenance::{Provenance, Slsa};

use crate::progress::{Progress, VertexProgress};
use crate::session::{Group, SessionError};
use crate::sources::image::{FetchError, Images};
use crate::store::{BlobError, LayerBlobError, LayerId, Snapshot, WorkLost};

/// One result of a build: a file system for a platform, and how to run it.
#[derive(Clone, Debug)]
pub struct Target {
    /// As in result metadata: `linux/arm64`.
    pub id: String,
    pub platform: Platform,
    pub snapshot: Snapshot,
    /// The image config as the frontend made it, without layers and times; none for a result that is no image.
    pub config: Option<Vec<u8>>,
    /// The config of the image it was built on.
    pub base_config: Option<Vec<u8>>,
    /// `source.date.epoch` of this result, in seconds.
    pub epoch: Option<i64>,
    pub attestations: Vec<Attestation>,
}

/// What a build comes to, all snapshots being there.
#[derive(Clone, Debug)]
pub struct Results {
    pub targets: Vec<Target>,
    /// An index even for one platform.
    pub multi_platform: bool,
    pub build_info: Option<BuildInfo>,
    /// Result metadata by BuildKit's keys.
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// What an export works with.
#[derive(Debug)]
pub struct Context<'a> {
    pub images: &'a Images,
    pub sessions: &'a Group,
    pub progress: &'a Progress,
    /// Which of the client's exports this is.
    pub number: usize,
}

/// What to tell the client: BuildKit's response keys.
pub type Response = BTreeMap<String, String>;

/// What an export came to.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    pub response: Response,
    /// The index or manifest that names an image; none for plain files.
    pub root: Option<Descriptor>,
    /// Index, manifests and configs.
    pub documents: Vec<Bytes>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("exporter {0:?} could not be found")]
    UnknownExporter(String),
    #[error("invalid value {value:?} of exporter attribute {key}: expected {expected}")]
    Attribute {
        key: String,
        value: String,
        expected: &'static str,
    },
    #[error("exporter attribute {key}={value} is not supported: {way_out}")]
    Unsupported {
        key: String,
        value: String,
        way_out: &'static str,
    },
    #[error(
        "unsupported compatibility-version {version} feature {feature}: leave it out, or ask for version 20 or later"
    )]
    Compatibility { version: i64, feature: String },
    #[error("invalid image name {name:?}")]
    Name {
        name: String,
        #[source]
        source: registry::reference::ReferenceError,
    },
    #[error("tag is needed when pushing to registry")]
    NoName,
    #[error("can't push tagged ref {name} by digest")]
    TaggedByDigest { name: String },
    #[error(
        "cannot export attestations with oci-mediatypes=false: leave it out, or build with --provenance=false"
    )]
    AttestationDialect,
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    #[error("cannot keep an attestation")]
    Blob(#[source] BlobError),
    #[error("docker exporter does not currently support exporting manifest lists")]
    DockerIndex,
    #[error("cannot export multiple platforms without multi-platform enabled")]
    SeveralPlatforms,
    #[error("invalid annotation: no platform {platform} in the result")]
    AnnotationPlatform { platform: String },
    #[error("the image config of {target} cannot be read")]
    Config {
        target: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot write a manifest or config")]
    Write(#[source] serde_json::Error),
    #[error("cannot make the blob of layer {layer}")]
    Layer {
        layer: LayerId,
        #[source]
        source: LayerBlobError,
    },
    #[error("cannot get a layer of the base image")]
    Fetch(#[from] FetchError),
    #[error("failed to push {name}")]
    Push {
        name: String,
        #[source]
        source: registry::Error,
    },
    #[error("cannot read blob {digest}")]
    Open {
        digest: registry::Digest,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot send the result to the client")]
    Send(#[source] SessionError),
    #[error(
        "cannot overwrite {} from {first} with {second} when split option is disabled: leave platform-split=false out",
        path.display()
    )]
    Collision {
        path: PathBuf,
        first: String,
        second: String,
    },
    #[error("cannot read the result")]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Lost(#[from] WorkLost),
}

/// Exports results; `kind` is BuildKit's name of the exporter.
pub async fn export(
    kind: &str,
    attributes: &BTreeMap<String, String>,
    results: &Results,
    context: &Context<'_>,
) -> Result<Exported, ExportError> {
    let title = match kind {
        "image" | "moby" => "exporting to image",
        "oci" => "exporting to oci image format",
        "docker" => "exporting to docker image format",
        "local" => "exporting to client directory",
        "tar" => "exporting to client tarball",
        other => return Err(ExportError::UnknownExporter(other.to_owned())),
    };
    let vertex = context.progress.internal_vertex(title);
    vertex.start();
    let exported = match kind {
        "local" => files::to_folder(attributes, results, context, &vertex)
            .await
            .map(Exported::of_files),
        "tar" => files::to_tar(attributes, results, context, &vertex)
            .await
            .map(Exported::of_files),
        _ => image(kind, attributes, results, context, &vertex).await,
    };
    match &exported {
        Ok(_) => vertex.complete(),
        Err(error) => vertex.fail(&chain(error)),
    }
    exported
}

async fn image(
    kind: &str,
    attributes: &BTreeMap<String, String>,
    results: &Results,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<Exported, ExportError> {
    let mut options = ImageOptions::parse(attributes, results)?;
    if matches!(kind, "image" | "moby") && !attributes.contains_key("attestation-inline") {
        options.inline_attestations = true;
    }
    if kind == "docker" && (results.targets.len() > 1 || results.multi_platform) {
        return Err(ExportError::DockerIndex);
    }
    let assembled = assemble::assemble(&options, results, context, vertex).await?;
    let response = assembled.response(&options)?;
    match kind {
        "oci" | "docker" if options.folder => content::send(&assembled, context, vertex).await?,
        "oci" | "docker" => archive::send(kind, &options, &assembled, &response, context, vertex).await?,
        _ if options.push => push::push(&options, &assembled, context, vertex).await?,
        _ => {}
    }
    Ok(Exported {
        response,
        root: Some(assembled.root_descriptor().clone()),
        documents: assembled.documents(),
    })
}

impl Exported {
    fn of_files(response: Response) -> Self {
        Self {
            response,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
