//! The Dockerfile frontend: a Dockerfile and the attributes of a request to one graph per platform.
//!
//! It runs nothing. What it has to know — the Dockerfile, the ignore file, the configs of base images — it asks its
//! [`Host`] for; what it makes is a definition, an image config and a base config for every platform, which share the
//! bytes of all operations that do not depend on the platform. Stages that nothing needs are not even looked at.

mod arguments;
mod attributes;
mod circles;
mod context;
mod copy;
mod error;
mod image;
mod lint;
mod lower;
mod name;
mod named;
mod plan;
mod ports;
mod remote;
mod run;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use binfmt::Platform;
use bytes::Bytes;
use dockerfile::ignore::PatternMatcher;
use dockerfile::lint::Finding;
use futures::future::try_join_all;
use proto::pb;
use registry::{Digest, Reference};

pub use attributes::{Attributes, ResolveMode};
pub use error::{Error, Location, Problem};

use context::{ContextUse, Contexts};
use lower::Lowered;
use plan::Plan;

use crate::graph::builder::Operation;

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
    ) -> impl Future<Output = Result<ResolvedImage, HostError>> + Send;
}

/// An image whose config is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedImage {
    pub reference: Reference,
    pub platform: Platform,
    pub mode: ResolveMode,
    /// What the progress display calls the look-up.
    pub name: String,
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
    pub sources: Vec<PinnedSource>,
    pub warnings: Vec<Finding>,
    /// The Dockerfile, for excerpts.
    pub source: Arc<pb::SourceInfo>,
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
            platforms.push(serde_json::json!({ "ID": id, "Platform": image::platform_of(&target.platform) }));
        }
        let platforms = serde_json::json!({ "Platforms": platforms });
        metadata.insert("refs.platforms".to_owned(), platforms.to_string().into_bytes());
        metadata
    }
}

/// Builds the graphs of a request.
pub async fn build<H: Host>(host: &H, request: &Request) -> Result<Build, Error> {
    let attributes = Attributes::read(request)?;
    let mut contexts = Contexts::new(&attributes, request);
    contexts.find_remote(host).await?;
    let file = contexts.read_dockerfile(host).await?;
    let source = Arc::new(file.info);
    let located = |error: Error| error.in_source(&source);
    context::check_syntax(&file.text, &attributes).map_err(located)?;
    let dockerfile = dockerfile::parse(&file.text)
        .map_err(|error| located(Error::at(error.lines, Problem::Parse(error))))?;

    let mut plans = attributes
        .platforms
        .iter()
        .map(|platform| Plan::new(&dockerfile, &attributes, platform))
        .collect::<Result<Vec<_>, _>>()
        .map_err(located)?;
    let mut images: BTreeMap<WantedImage, ResolvedImage> = BTreeMap::new();
    // Triggers of a base image may need further images, so until nobody wants any.
    loop {
        let wanted: BTreeSet<WantedImage> = plans
            .iter()
            .flat_map(Plan::wanted_images)
            .map(|(wanted, _)| wanted)
            .collect();
        let missing: Vec<_> = wanted
            .into_iter()
            .filter(|wanted| !images.contains_key(wanted))
            .collect();
        let resolve = async |wanted: WantedImage| {
            let resolved = host.resolve_image(wanted.clone()).await;
            resolved
                .map(|image| (wanted.clone(), image))
                .map_err(|source| (wanted, source))
        };
        match try_join_all(missing.into_iter().map(resolve)).await {
            Ok(found) => images.extend(found),
            Err((wanted, source_error)) => {
                let place = plans
                    .iter()
                    .flat_map(Plan::wanted_images)
                    .find(|(other, _)| *other == wanted);
                let (lines, written) = place.map(|(_, place)| place).unwrap_or_default();
                return Err(located(Error::resolving(lines, written, source_error)));
            }
        }
        let mut more = false;
        for plan in &mut plans {
            more |= plan.settle(&images, &attributes).map_err(located)?;
        }
        if !more {
            break;
        }
    }

    let folders = plans.iter().flat_map(Plan::named_folders);
    let folders = folders.filter_map(|context| Some((context.name.clone(), context.local()?.to_owned())));
    contexts.read_named_ignore_files(host, &folders.collect()).await?;
    let ignored = if plans.iter().any(Plan::uses_context) {
        contexts.read_ignore_file(host).await?
    } else {
        Vec::new()
    };
    let matcher = PatternMatcher::new(&ignored).map_err(Problem::IgnorePattern)?;
    let mut lowered = plans
        .into_iter()
        .map(|plan| plan.lower(&dockerfile, &attributes, &contexts, &matcher))
        .collect::<Result<Vec<_>, _>>()
        .map_err(located)?;
    // One transfer serves all platforms: what any of them needs.
    let mut used = ContextUse::default();
    lowered
        .iter()
        .for_each(|lowered| used.extend(&lowered.context_use));
    let operation = contexts.main_operation(&used, &ignored);
    let named = complete_folders(&lowered, &contexts);
    let sources: BTreeSet<PinnedSource> = lowered
        .iter()
        .flat_map(|lowered| lowered.sources.iter().cloned())
        .collect();
    let warnings = lowered
        .first_mut()
        .map(|first| std::mem::take(&mut first.warnings))
        .unwrap_or_default();
    let targets = lowered
        .into_iter()
        .map(|lowered| lowered.finish(&operation, &named, &source))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Build {
        multi_platform: attributes.multi_platform,
        targets,
        sources: sources.into_iter().collect(),
        warnings,
        source,
    })
}

/// The operations for folders that are named contexts, with what any platform uses of them.
fn complete_folders(lowered: &[Lowered], contexts: &Contexts<'_>) -> BTreeMap<String, Operation> {
    let mut uses: BTreeMap<&str, (&str, ContextUse)> = BTreeMap::new();
    for (name, folder) in lowered.iter().flat_map(|lowered| &lowered.named) {
        if let Some(local) = folder.context.local() {
            let (_, used) = uses.entry(name).or_insert_with(|| (local, ContextUse::default()));
            used.extend(&folder.used);
        }
    }
    uses.into_iter()
        .map(|(name, (local, used))| (name.to_owned(), contexts.named_operation(name, local, &used)))
        .collect()
}

#[cfg(test)]
mod tests;
