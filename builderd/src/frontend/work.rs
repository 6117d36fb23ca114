//! A Dockerfile on its way to graphs: what was read, what the rules found, and the stages of every platform.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dockerfile::Dockerfile;
use dockerfile::ignore::PatternMatcher;
use dockerfile::lint::{Finding, Linter};
use futures::future::try_join_all;
use proto::pb;

use super::context::{self, ContextUse, Contexts, DockerfileText};
use super::lower::Lowered;
use super::plan::Plan;
use super::{
    Attributes, Build, Error, Host, PinnedSource, Problem, Request, Resolution, WantedImage, arguments,
    epoch, lint,
};
use crate::graph::builder::Operation;

/// What the stages are looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Build,
    /// To find what is wrong with them; without a target with all of them, whether something needs them or not.
    Check,
    /// To see what the target asks for.
    Outline,
}

pub(super) struct Work<'a, H> {
    host: &'a H,
    attributes: &'a Attributes,
    contexts: Contexts<'a>,
    text: String,
    source: Arc<pb::SourceInfo>,
    /// One for each platform; the display gets what the first one found.
    linters: Vec<Linter>,
}

/// Every platform's operations, and what they use of the client's files.
pub(super) struct AllLowered {
    pub(super) platforms: Vec<Lowered>,
    /// The operation of the build context.
    context: Operation,
    /// Those of folders that are named contexts.
    named: BTreeMap<String, Operation>,
    epoch: Option<i64>,
}

impl<'a, H: Host> Work<'a, H> {
    /// Reads the Dockerfile.
    pub(super) async fn open(
        host: &'a H,
        request: &'a Request,
        attributes: &'a Attributes,
    ) -> Result<Self, Error> {
        let mut contexts = Contexts::new(attributes, request);
        contexts.find_remote(host).await?;
        let DockerfileText { text, info } = contexts.read_dockerfile(host).await?;
        let work = Self {
            host,
            attributes,
            contexts,
            text,
            source: Arc::new(info),
            linters: Vec::new(),
        };
        context::check_syntax(&work.text, attributes).map_err(|error| error.in_source(&work.source))?;
        Ok(work)
    }

    /// The Dockerfile, for excerpts.
    pub(super) fn source(&self) -> &Arc<pb::SourceInfo> {
        &self.source
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn parse_error(&self, error: dockerfile::ParseError) -> Error {
        Error::at(error.lines, Problem::Parse(error)).in_source(&self.source)
    }

    /// What the rules have found so far.
    pub(super) fn findings(&self) -> &[Finding] {
        self.linters.first().map(Linter::findings).unwrap_or_default()
    }

    /// Makes operations of all stages that are needed, for every platform.
    pub(super) async fn lower(&mut self, purpose: Purpose) -> Result<AllLowered, Error> {
        let lowered = self.lower_unplaced(purpose).await;
        lowered.map_err(|error| error.in_source(&self.source))
    }

    async fn lower_unplaced(&mut self, purpose: Purpose) -> Result<AllLowered, Error> {
        let attributes = self.attributes;
        let platforms = match purpose {
            Purpose::Build => attributes.platforms.as_slice(),
            // What is said of the text is the same for every platform, or nearly so.
            Purpose::Check | Purpose::Outline => &attributes.platforms[..1],
        };
        let (file, failed) = dockerfile::instruction::parse_until_error(&self.text)
            .map_err(|error| self.parse_error(error))?;
        let linter = lint::start(&file, failed.is_none(), attributes)?;
        self.linters = vec![linter; platforms.len()];
        if let Some(error) = failed {
            return Err(self.parse_error(error));
        }
        let epoch = self.epoch(&file).await?;
        let with_epoch;
        let attributes = match epoch {
            Some(epoch) => {
                with_epoch = attributes.with_epoch(epoch);
                &with_epoch
            }
            None => attributes,
        };
        let mut plans = platforms
            .iter()
            .zip(&mut self.linters)
            .map(|(platform, linter)| Plan::new(&file, attributes, platform, purpose, linter))
            .collect::<Result<Vec<_>, _>>()?;
        self.settle(&mut plans, attributes).await?;

        let folders = plans.iter().flat_map(Plan::named_folders);
        let folders = folders.filter_map(|context| Some((context.name.clone(), context.local()?.to_owned())));
        let contexts = &mut self.contexts;
        contexts
            .read_named_ignore_files(self.host, &folders.collect())
            .await?;
        // Also where nothing is copied: what a build is told to leave out is part of what it was made from.
        let ignored = contexts.read_ignore_file(self.host).await;
        let matcher = PatternMatcher::new(&ignored).map_err(Problem::IgnorePattern)?;
        let platforms = plans
            .into_iter()
            .zip(&mut self.linters)
            .map(|(plan, linter)| plan.lower(&file, attributes, &self.contexts, &matcher, linter))
            .collect::<Result<Vec<_>, _>>()?;
        // One transfer serves all platforms: what any of them needs.
        let mut used = ContextUse::default();
        platforms
            .iter()
            .for_each(|lowered| used.extend(&lowered.context_use));
        Ok(AllLowered {
            context: self.contexts.main_operation(&used, &ignored),
            named: complete_folders(&platforms, &self.contexts),
            epoch: epoch.flatten(),
            platforms,
        })
    }

    /// What `SOURCE_DATE_EPOCH` comes to, if a build argument or the file sets it.
    async fn epoch(&self, file: &Dockerfile) -> Result<Option<Option<i64>>, Error> {
        let attributes = self.attributes;
        let scope = arguments::global(
            file,
            attributes,
            &attributes.build_args,
            &attributes.platforms[0],
            "",
        )?
        .scope;
        let given = attributes.build_args.get(epoch::NAME).map(String::as_str);
        let Some(value) = given.or_else(|| scope.get(epoch::NAME).filter(|value| !value.is_empty())) else {
            return Ok(None);
        };
        let found = epoch::find(self.host, value, file, &scope, attributes, &self.contexts).await?;
        Ok(Some(found))
    }

    /// Looks up the images that stages start from. Triggers of a base image may need further images, so until nobody
    /// wants any.
    async fn settle(&mut self, plans: &mut [Plan], attributes: &Attributes) -> Result<(), Error> {
        let mut images: BTreeMap<WantedImage, Resolution> = BTreeMap::new();
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
                let resolved = self.host.resolve_image(wanted.clone()).await;
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
                    return Err(Error::resolving(lines, written, source_error));
                }
            }
            let mut more = false;
            for (plan, linter) in plans.iter_mut().zip(&mut self.linters) {
                more |= plan.settle(&images, attributes, linter)?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// The definitions and configs of all platforms.
    pub(super) fn finish(&self, lowered: AllLowered) -> Result<Build, Error> {
        let AllLowered {
            platforms,
            context,
            named,
            epoch,
        } = lowered;
        let sources: BTreeSet<PinnedSource> = platforms
            .iter()
            .flat_map(|lowered| lowered.sources.iter().cloned())
            .collect();
        let targets = platforms
            .into_iter()
            .map(|lowered| lowered.finish(&context, &named, &self.source))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Build {
            multi_platform: self.attributes.multi_platform,
            targets,
            epoch,
            sources: sources.into_iter().collect(),
        })
    }
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
