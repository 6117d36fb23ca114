//! One platform's stages to operations, in the order of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use binfmt::Platform;
use bytes::Bytes;
use dockerfile::Dockerfile;
use dockerfile::expand::{Environment, Expander};
use dockerfile::ignore::PatternMatcher;
use dockerfile::lint::Linter;
use proto::pb;
use registry::ImageConfig;
use registry::image::History;

use super::context::{ContextUse, Contexts};
use super::image::{date, platform_of};
use super::name::Prefix;
use super::named::{NamedContext, Source};
use super::outline::Outline;
use super::plan::{Base, Plan, Stage};
use super::stage::Frame;
use super::work::Purpose;
use super::{Attributes, Error, PinnedSource, Problem, ResolveMode, Target, arguments, lint, scan};
use crate::graph::builder::{Builder, Note, Operation, Output};

/// What stays the same for all stages of a platform, and the graph they are written into.
pub(super) struct Lowering<'a> {
    pub(super) plan: &'a Plan,
    pub(super) attributes: &'a Attributes,
    pub(super) expander: Expander,
    pub(super) proxy: Option<pb::ProxyEnv>,
    pub(super) builder: Builder,
    pub(super) context_use: ContextUse,
    contexts: &'a Contexts<'a>,
    ignored: &'a PatternMatcher,
    linter: &'a mut Linter,
    /// The build context, from its first use on; `Some(None)` is an empty one.
    context: Option<Option<Output>>,
    /// Folders of named contexts.
    named: BTreeMap<String, NamedFolder>,
    /// Finished stages.
    frames: Vec<Option<Frame>>,
    sources: BTreeSet<PinnedSource>,
}

/// A folder of the client, and what is used of it.
pub(super) struct NamedFolder {
    pub(super) context: NamedContext,
    pub(super) used: ContextUse,
    output: Output,
}

/// A platform whose operations are known, except for what the context has to hold.
pub(super) struct Lowered {
    pub(super) context_use: ContextUse,
    pub(super) sources: BTreeSet<PinnedSource>,
    pub(super) named: BTreeMap<String, NamedFolder>,
    pub(super) outline: Outline,
    platform: Platform,
    builder: Builder,
    context: Option<Output>,
    root: Option<Output>,
    image: ImageConfig,
    base_config: Option<Bytes>,
    /// What is scanned beside the result, by name.
    scanned: BTreeMap<String, Option<Output>>,
}

impl Plan {
    pub(super) fn lower(
        self,
        file: &Dockerfile,
        attributes: &Attributes,
        contexts: &Contexts<'_>,
        ignored: &PatternMatcher,
        linter: &mut Linter,
    ) -> Result<Lowered, Error> {
        let mut lowering = Lowering {
            plan: &self,
            attributes,
            expander: Expander::new(file.escape),
            proxy: arguments::proxy(attributes),
            builder: Builder::default(),
            context_use: ContextUse::default(),
            contexts,
            ignored,
            linter,
            context: None,
            named: BTreeMap::new(),
            frames: std::iter::repeat_with(|| None).take(self.stages.len()).collect(),
            sources: BTreeSet::new(),
        };
        let needed = self.needed();
        // Images that are only copied from stand behind the stages of the file; like stages that a context replaces,
        // they have no steps and come first.
        let (files, images): (Vec<usize>, Vec<usize>) = (0..self.stages.len())
            .filter(|at| needed[*at])
            .partition(|at| self.stages[*at].in_file && !self.stages[*at].replaced);
        for at in images.into_iter().chain(files) {
            let frame = lowering.stage(at)?;
            lowering.frames[at] = Some(frame);
        }
        lowering.note_use(self.target, "/");
        let scanned = match attributes.scanned {
            true => lowering.scanned(),
            false => BTreeMap::new(),
        };
        let Lowering {
            builder,
            linter,
            context_use,
            context,
            named,
            mut frames,
            sources,
            ..
        } = lowering;
        let asked: Vec<_> = frames
            .iter_mut()
            .map(|frame| frame.as_mut().map(|frame| std::mem::take(&mut frame.asked)))
            .collect();
        if let Some(rules) = linter.violation() {
            return Err(Problem::Violation(rules).into());
        }
        let history = history(&mut frames, self.target);
        let Frame {
            root,
            image,
            base_config,
            ..
        } = frames[self.target]
            .take()
            .expect("the target is needed, so it was lowered");
        let image = ImageConfig { history, ..image };
        Ok(Lowered {
            outline: match self.purpose {
                Purpose::Outline => self.outline(&asked),
                Purpose::Build | Purpose::Check => Outline::default(),
            },
            context_use,
            sources,
            named,
            platform: self.platform.clone(),
            builder,
            context: context.flatten(),
            root,
            image: self.finish_image(image, attributes),
            base_config,
            scanned,
        })
    }

    /// What the target platform and the request say about the image, whatever its base said.
    fn finish_image(&self, mut image: ImageConfig, attributes: &Attributes) -> ImageConfig {
        image.config.labels.extend(attributes.labels.clone());
        if let Some(Some(epoch)) = attributes.epoch {
            date(&mut image, epoch);
        }
        let platform = platform_of(&self.platform);
        let same = image.os == platform.os && image.architecture == platform.architecture;
        image.os = platform.os;
        image.architecture = platform.architecture;
        if !platform.variant.is_empty() || !same {
            image.variant = platform.variant;
        }
        let normal = image.platform().normalised();
        image.variant = normal.variant;
        image
    }
}

impl Lowering<'_> {
    /// The build context as something to copy from.
    pub(super) fn context(&mut self) -> Option<Output> {
        match self.context {
            Some(context) => context,
            None => {
                let context = self.contexts.main_output(&mut self.builder);
                self.context = Some(context);
                context
            }
        }
    }

    /// The files of a finished stage; `None` if it comes later in the file.
    pub(super) fn finished(&self, stage: usize) -> Option<Option<Output>> {
        self.frames[stage].as_ref().map(|frame| frame.root)
    }

    /// What a scanner is to look at beside the result.
    fn scanned(&mut self) -> BTreeMap<String, Option<Output>> {
        let plan = self.plan;
        let globals = &plan.globals.scope;
        let mut scanned = BTreeMap::new();
        for (at, stage) in plan.stages.iter().enumerate() {
            let Some(frame) = self.frames[at].as_ref().filter(|_| stage.in_file) else {
                continue;
            };
            if at != plan.target && scan::is_for_stage(stage, frame, globals) {
                scanned.insert(stage.name.clone(), frame.root);
                self.note_use(at, "/");
            }
        }
        let target = self.frames[plan.target].as_ref();
        if target.is_some_and(|frame| scan::is_for_context(&plan.stages[plan.target], frame, globals)) {
            self.context_use.add("/");
            let context = self.context();
            scanned.insert("context".to_owned(), context);
        }
        scanned
    }

    fn stage(&mut self, at: usize) -> Result<Frame, Error> {
        let stage = &self.plan.stages[at];
        let prefix = Prefix {
            stage: stage.name.clone(),
            show_platform: self.plan.show_platform,
            total: if stage.in_file { stage.total() } else { 0 },
            done: 0,
        };
        let mut frame = match &stage.base {
            Base::Stage(base) => {
                self.note_use(*base, "/");
                self.frames[*base]
                    .as_ref()
                    .expect("a base stage comes earlier and is needed with this one")
                    .child(*base, prefix)
            }
            Base::Scratch | Base::Image { .. } | Base::Named(_) => {
                let mut prefix = prefix;
                let root = match &stage.base {
                    Base::Named(context) => self.named_root(stage, context)?,
                    _ => self.base_root(at, &mut prefix),
                };
                let image = self.plan.base_image(stage);
                // What a stage has been replaced by may be for another platform than the stage would have been.
                let platform = match stage.replaced && !image.architecture.is_empty() && !image.os.is_empty()
                {
                    true => Platform::new(&image.os, &image.architecture, &image.variant)
                        .with_os_version(&image.os_version),
                    false => stage.platform.clone(),
                };
                let mut frame = Frame::new(prefix, platform, image, root);
                frame.base_config = match &stage.base {
                    Base::Image {
                        found: Some(found), ..
                    } => Some(found.config.clone()),
                    Base::Named(context) => context.config.as_ref().map(|config| config.bytes.clone()),
                    _ => None,
                };
                frame
            }
        };
        if !stage.in_file || stage.replaced {
            return Ok(frame);
        }
        if let Base::Named(_) = &stage.base {
            self.note_use(at, "/");
        }
        frame.start(stage, self.attributes);
        for step in &stage.steps {
            let lines = step.command.lines;
            lint::step(
                self.linter,
                step,
                &frame,
                &self.expander,
                self.attributes,
                self.ignored,
            );
            frame
                .apply(step, self)
                .map_err(|problem| Error::at(lines, problem))?;
        }
        Ok(frame)
    }

    /// The operation that stands for a base image; none for an image without layers, which is scratch.
    fn base_root(&mut self, at: usize, prefix: &mut Prefix) -> Option<Output> {
        let stage = &self.plan.stages[at];
        let Base::Image {
            reference,
            context,
            found: Some(found),
            ..
        } = &stage.base
        else {
            return None;
        };
        let layout = context.as_ref().and_then(|context| context.layout.as_ref());
        if let (Some(digest), None) = (found.pinned.digest(), layout) {
            let digest = digest.clone();
            self.sources.insert(PinnedSource {
                reference: reference.to_string(),
                digest,
            });
        }
        let layers = !found.image.rootfs.diff_ids.is_empty()
            || found.image.history.iter().any(|history| !history.empty_layer);
        if !layers {
            return None;
        }
        let mut source = pb::SourceOp {
            identifier: format!("docker-image://{}", found.pinned),
            ..pb::SourceOp::default()
        };
        if let Some(layout) = layout {
            source.identifier = format!("oci-layout://{}", found.pinned);
            source.attrs.insert("oci.store".to_owned(), layout.name.clone());
        } else if self.attributes.resolve_mode != ResolveMode::Default {
            let mode = self.attributes.resolve_mode.name().to_owned();
            source.attrs.insert("image.resolvemode".to_owned(), mode);
        }
        let note = match context {
            Some(context) if layout.is_some() => Note {
                name: format!("[context {}] OCI load from client", context.name),
                ..Note::default()
            },
            Some(context) => Note {
                name: format!("[context {}] {}", context.name, found.pinned),
                ..Note::default()
            },
            None => Note {
                name: prefix.next(
                    &format!("FROM {}", found.pinned),
                    &stage.platform,
                    &Environment::new(),
                    false,
                ),
                command: Some(stage.code.clone()).filter(|code| !code.is_empty()),
                lines: Some((stage.lines.first, stage.lines.last)),
                ..Note::default()
            },
        };
        Some(self.builder.add(Operation {
            kind: pb::op::Op::Source(source),
            inputs: Vec::new(),
            platform: Some(wire_platform(&stage.platform)),
            note,
        }))
    }

    /// The files of a context: a folder, which is completed when it is known what is used of it, or an input.
    fn named_root(&mut self, stage: &Stage, context: &NamedContext) -> Result<Option<Output>, Error> {
        let local = match &context.source {
            Source::Local(local) => local,
            Source::Input(input) => {
                let definition = self.contexts.input(input).ok_or_else(|| {
                    let problem = Problem::ContextInput {
                        input: input.clone(),
                        name: context.name.clone(),
                    };
                    Error::at(stage.lines, problem)
                })?;
                return Ok(self.builder.import(definition));
            }
            Source::Remote(_) | Source::Given(_) => {
                let operation = context.remote();
                return Ok(operation.map(|operation| self.builder.add(operation)));
            }
            Source::Scratch | Source::Image(_) | Source::Layout(..) => return Ok(None),
        };
        if let Some(known) = self.named.get(&context.name) {
            return Ok(Some(known.output));
        }
        let unused = ContextUse::default();
        let operation = self.contexts.named_operation(&context.name, local, &unused);
        let output = self.builder.add_open(operation);
        let folder = NamedFolder {
            context: context.clone(),
            used: unused,
            output,
        };
        self.named.insert(context.name.clone(), folder);
        Ok(Some(output))
    }

    /// Notes that a path of a stage is used, which matters if the stage is nothing but a folder of the client.
    pub(super) fn note_use(&mut self, stage: usize, path: &str) {
        let plan = self.plan;
        if let Base::Named(context) = &plan.stages[stage].base
            && let Some(folder) = self.named.get_mut(&context.name)
        {
            folder.used.add(path);
        }
    }
}

impl Lowered {
    /// The target, now that it is known what the context holds.
    pub(super) fn finish(
        mut self,
        context: &Operation,
        named: &BTreeMap<String, Operation>,
        source: &Arc<pb::SourceInfo>,
    ) -> Result<Target, Error> {
        for (name, folder) in &self.named {
            if let Some(complete) = named.get(name) {
                self.builder.complete(folder.output, complete);
            }
        }
        if let Some(output) = self.context {
            self.builder.complete(output, context);
        }
        let scanned = self.scanned.into_iter();
        let scanned = scanned.map(|(name, output)| (name, self.builder.definition(output, None)));
        Ok(Target {
            scanned: scanned.collect(),
            platform: self.platform,
            definition: self.builder.definition(self.root, Some(source)),
            config: self.image.to_bytes().map_err(Problem::WriteImageConfig)?,
            base_config: self.base_config,
        })
    }
}

/// The whole history of a stage. Stages keep their own part only: a long chain of them would hold it very often.
fn history(frames: &mut [Option<Frame>], stage: usize) -> Vec<History> {
    let mut parts = Vec::new();
    let mut next = Some(stage);
    while let Some(frame) = next.and_then(|at| frames[at].as_mut()) {
        parts.push(std::mem::take(&mut frame.history));
        next = frame.base;
    }
    parts.into_iter().rev().flatten().collect()
}

pub(super) fn wire_platform(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture().to_owned(),
        os: platform.os().to_owned(),
        variant: platform.variant().to_owned(),
        os_version: platform.os_version().to_owned(),
        ..pb::Platform::default()
    }
}
