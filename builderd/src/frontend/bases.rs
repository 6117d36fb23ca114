//! What stages start from, once it is known: images with their configs and triggers, and folders of the client.

use std::collections::BTreeMap;
use std::sync::Arc;

use dockerfile::Lines;
use dockerfile::address::without_credentials;
use dockerfile::instruction::{self, Command, Instruction};
use dockerfile::lint::Linter;
use proto::pb;
use registry::{ImageConfig, Reference};

use super::named::{ImageContext, NamedContext};
use super::plan::{Base, FoundImage, Plan, Stage};
use super::{Attributes, Error, Problem, Resolution, WantedImage, image, lint};

/// How often policies may put something else in the place of one base.
const MAX_MOVES: usize = 10;

/// What a policy puts in the place of a stage's image, which a named context may be.
fn elsewhere(stage: &Stage, source: &pb::SourceOp, attributes: &Attributes) -> Result<Base, Problem> {
    let shown = || without_credentials(&source.identifier);
    match &stage.base {
        Base::Image { .. } if stage.moves == MAX_MOVES => Err(Problem::PolicyCircle(shown())),
        Base::Image {
            context: Some(context),
            ..
        } => {
            // Another platform may get something else, and folders are told apart by the names of their contexts.
            let name = match context.name.contains("::") {
                true => context.name.clone(),
                false => format!("{}::{}", context.name, stage.platform),
            };
            NamedContext::moved(attributes, &name, source).map(Base::from)
        }
        _ => Err(Problem::NoImage(shown())),
    }
}

impl Plan {
    /// Images whose config is not known yet, with the place that asked and the name it used.
    pub(super) fn wanted_images(&self) -> Vec<(WantedImage, (Option<Lines>, String))> {
        let mut wanted = Vec::new();
        for at in self.needed_stages() {
            let stage = &self.stages[at];
            if let Base::Image {
                written,
                reference,
                context,
                found: None,
            } = &stage.base
            {
                wanted.push((
                    self.wanted(stage, reference, context.as_ref()),
                    (Some(stage.lines), written.clone()),
                ));
            }
        }
        wanted
    }

    fn wanted(&self, stage: &Stage, reference: &Reference, context: Option<&ImageContext>) -> WantedImage {
        let place = match context {
            Some(context) => format!("context {}", context.name),
            None if self.show_platform => format!("{} internal", stage.platform),
            None => "internal".to_owned(),
        };
        WantedImage {
            reference: reference.clone(),
            platform: stage.platform.clone(),
            mode: self.mode,
            name: format!("[{place}] load metadata for {reference}"),
            layout: context.and_then(|context| context.layout.clone()),
        }
    }

    /// Takes in what is known of images, and adds the triggers of bases. True if that made further images needed.
    pub(super) fn settle(
        &mut self,
        images: &BTreeMap<WantedImage, Resolution>,
        attributes: &Attributes,
        linter: &mut Linter,
    ) -> Result<bool, Error> {
        for at in self.needed_stages() {
            let stage = &self.stages[at];
            let Base::Image {
                reference,
                context,
                found: None,
                ..
            } = &stage.base
            else {
                continue;
            };
            let resolved = match images.get(&self.wanted(stage, reference, context.as_ref())) {
                None => continue,
                Some(Resolution::Image(resolved)) => resolved,
                Some(Resolution::Elsewhere(source)) => {
                    let base = elsewhere(stage, source, attributes)
                        .map_err(|problem| Error::at(stage.lines, problem))?;
                    let stage = &mut self.stages[at];
                    if matches!(base, Base::Scratch) {
                        stage.platform = self.platform.clone();
                    }
                    stage.base = base;
                    stage.moves += 1;
                    continue;
                }
            };
            let image = ImageConfig::parse(&resolved.config)
                .map_err(|source| Error::at(stage.lines, Problem::ImageConfig(source)))?;
            let settled = FoundImage {
                pinned: resolved.reference.clone().pinned(resolved.digest.clone()),
                image,
                config: resolved.config.clone(),
            };
            if let Base::Image {
                written,
                context: None,
                ..
            } = &stage.base
            {
                lint::base_image(linter, stage, written, &settled);
            }
            if let Base::Image { found, .. } = &mut self.stages[at].base {
                *found = Some(Box::new(settled));
            }
        }
        for at in self.needed_stages() {
            self.add_triggers(at, attributes)?;
        }
        Ok(!self.wanted_images().is_empty())
    }

    /// ONBUILD instructions of the base run before the stage's own.
    fn add_triggers(&mut self, at: usize, attributes: &Attributes) -> Result<(), Error> {
        let stage = &self.stages[at];
        if stage.triggers_done {
            return Ok(());
        }
        let triggers: Vec<String> = match &stage.base {
            Base::Image {
                found: Some(found), ..
            } => found.image.config.on_build.clone(),
            Base::Image { found: None, .. } => return Ok(()),
            Base::Stage(base) => {
                let steps = self.stages[*base].steps.iter();
                steps
                    .filter_map(|step| match &step.command.instruction {
                        Instruction::Onbuild(text) => Some(text.clone()),
                        _ => None,
                    })
                    .collect()
            }
            Base::Named(context) => {
                let config = context.config.as_ref();
                config.map_or_else(Vec::new, |config| config.image.config.on_build.clone())
            }
            Base::Scratch => Vec::new(),
        };
        let lines = stage.lines;
        let mut steps = Vec::new();
        for trigger in triggers {
            let command = instruction::parse_trigger(&trigger)
                .map_err(|error| Error::at(lines, Problem::Parse(error)))?;
            steps.push(self.step(Arc::new(Command { lines, ..command }), true, attributes)?);
        }
        let stage = &mut self.stages[at];
        stage.steps.splice(0..0, steps);
        stage.triggers_done = true;
        Ok(())
    }

    /// The config a stage's instructions start with, for a stage that does not start from another.
    pub(super) fn base_image(&self, stage: &Stage) -> ImageConfig {
        let known = match &stage.base {
            Base::Image {
                found: Some(found), ..
            } => Some(&found.image),
            Base::Named(context) => context.config.as_ref().map(|config| &config.image),
            _ => None,
        };
        match known {
            Some(image) => {
                let mut image = image.clone();
                image.created = None;
                image.config.on_build.clear();
                image
            }
            // A context that is the result of a stage says nothing that was not given with it.
            None if stage.replaced => ImageConfig::for_platform(&image::platform_of(&stage.platform)),
            None => image::scratch(&stage.platform),
        }
    }

    /// The folders of the client that needed stages are made of.
    pub(super) fn named_folders(&self) -> Vec<NamedContext> {
        let bases = self.needed_stages().into_iter().map(|at| &self.stages[at].base);
        let folder = |base: &Base| match base {
            Base::Named(context) if context.local().is_some() => Some(context.as_ref().clone()),
            _ => None,
        };
        bases.filter_map(folder).collect()
    }
}
