//! The Dockerfile frontend: a Dockerfile and the attributes of a request to one graph per platform.
//!
//! It runs nothing. What it has to know — the Dockerfile, the ignore file, the configs of base images — it asks its
//! [`Host`] for; what it makes is a definition, an image config and a base config for every platform, which share the
//! bytes of all operations that do not depend on the platform. Stages that nothing needs are not even looked at.

mod arguments;
mod attributes;
mod bases;
mod circles;
mod context;
mod copy;
mod epoch;
mod error;
mod image;
mod lint;
mod lower;
mod name;
mod named;
mod outline;
mod plan;
mod ports;
mod remote;
mod requests;
mod run;
mod scan;
mod stage;
mod work;

use std::collections::BTreeMap;

use binfmt::Platform;
use bytes::Bytes;
use dockerfile::lint::Finding;
use proto::pb;
use registry::{Digest, Reference};

pub use attributes::{Attributes, ResolveMode};
pub(crate) use context::is_built_in;
pub use error::{Error, Location, Problem};
pub use requests::{Metadata, answer};

use work::{Purpose, Work};

/// What a request may demand of a frontend in `frontend.caps`.
const CAPABILITIES: [&str; 4] = [
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
];

/// What goes wrong on the host's side.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

/// What the frontend asks of the daemon.
pub trait Host: Send + Sync {
    /// Evaluates a definition and reads files from its result. Files that are not there are left out.
    fn read_files(
        &self,
        definition: pb::Definition,
        paths: Vec<String>,
    ) -> impl Future<Output = Result<BTreeMap<String, Bytes>, HostError>> + Send;

    /// Evaluates a definition and reads at most `length` bytes from the start of a file in its result.
    fn read_start(
        &self,
        definition: pb::Definition,
        path: String,
        length: u64,
    ) -> impl Future<Output = Result<Bytes, HostError>> + Send;

    /// Finds the image behind a reference and reads its config for a platform.
    fn resolve_image(
        &self,
        wanted: WantedImage,
    ) -> impl Future<Output = Result<Resolution, HostError>> + Send;

    /// When a repository or file elsewhere was last changed, in seconds, if that can be known.
    fn source_time(
        &self,
        source: pb::SourceOp,
        name: String,
    ) -> impl Future<Output = Result<Option<i64>, HostError>> + Send;

    /// Tells the client about a rule that the Dockerfile breaks.
    fn warn(&self, finding: &Finding, source: &pb::SourceInfo);
}

/// An image whose config is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedImage {
    pub reference: Reference,
    pub platform: Platform,
    pub mode: ResolveMode,
    /// What the progress display calls the look-up.
    pub name: String,
    /// The client's OCI layout that it is in, instead of a registry.
    pub layout: Option<Layout>,
}

/// An OCI layout that a client serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layout {
    pub name: String,
    /// The session that serves it; without, any of the build's.
    pub session: Option<String>,
}

/// What a reference to an image comes to.
#[derive(Clone, Debug)]
pub enum Resolution {
    Image(ResolvedImage),
    /// The source that a policy puts in its place.
    Elsewhere(Box<pb::SourceOp>),
}

#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The reference that was really used, after policies and mirrors.
    pub reference: Reference,
    /// Of the index or manifest that the reference names.
    pub digest: Digest,
    pub config: Bytes,
}

/// A request to build a Dockerfile.
#[derive(Clone, Debug)]
pub struct Request {
    pub attributes: BTreeMap<String, String>,
    /// Definitions that replace locals or serve as named contexts.
    pub inputs: BTreeMap<String, pb::Definition>,
    /// The session whose files are meant.
    pub session: String,
    /// What the daemon runs on: `BUILDPLATFORM`, and the target if none is asked for.
    pub build_platform: Platform,
}

/// What came of it.
#[derive(Debug)]
pub struct Build {
    /// The result is an index, even for one platform.
    pub multi_platform: bool,
    pub targets: Vec<Target>,
    /// What `SOURCE_DATE_EPOCH` comes to.
    pub epoch: Option<i64>,
    pub sources: Vec<PinnedSource>,
}

/// One platform.
#[derive(Clone, Debug)]
pub struct Target {
    pub platform: Platform,
    /// Empty for scratch.
    pub definition: pb::Definition,
    /// The image config, without layers.
    pub config: Vec<u8>,
    /// The config of the base image as it came.
    pub base_config: Option<Bytes>,
    /// What a scanner of packages is to look at beside the result, by name.
    pub scanned: BTreeMap<String, pb::Definition>,
}

/// An image that the build rests on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinnedSource {
    pub reference: String,
    pub digest: Digest,
}

impl Build {
    /// The result metadata of the gateway: configs per platform, and which platforms there are.
    pub fn metadata(&self) -> BTreeMap<String, Vec<u8>> {
        let mut metadata = BTreeMap::new();
        let mut platforms = Vec::new();
        for target in &self.targets {
            let id = target.platform.to_string();
            let suffix = if self.multi_platform {
                format!("/{id}")
            } else {
                String::new()
            };
            metadata.insert(format!("containerimage.config{suffix}"), target.config.clone());
            if let Some(base) = &target.base_config {
                metadata.insert(format!("containerimage.base.config{suffix}"), base.to_vec());
            }
            if let Some(epoch) = self.epoch {
                metadata.insert(
                    format!("source.date.epoch{suffix}"),
                    epoch.to_string().into_bytes(),
                );
            }
            platforms.push(serde_json::json!({ "ID": id, "Platform": image::platform_of(&target.platform) }));
        }
        let platforms = serde_json::json!({ "Platforms": platforms });
        metadata.insert("refs.platforms".to_owned(), platforms.to_string().into_bytes());
        metadata
    }
}

/// Builds the graphs of a request. What the rules say about the Dockerfile is told the host whether that succeeds or not.
pub async fn build<H: Host>(host: &H, request: &Request) -> Result<Build, Error> {
    let attributes = Attributes::read(request)?;
    let mut work = Work::open(host, request, &attributes).await?;
    let lowered = work.lower(Purpose::Build).await;
    for finding in work.findings() {
        host.warn(finding, work.source());
    }
    work.finish(lowered?)
}

#[cfg(test)]
mod tests;
