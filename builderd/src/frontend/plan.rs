//! The stages of a file for one platform: who starts from whom, who copies from whom, and what is needed at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use binfmt::Platform;
use bytes::Bytes;
use dockerfile::expand::{Expander, Expansion};
use dockerfile::instruction::{self, Command, Instruction, Mount};
use dockerfile::lint::{Linter, description};
use dockerfile::suggest::{Case, hint};
use dockerfile::{Dockerfile, Lines};
use registry::{ImageConfig, Reference};

use super::arguments::Globals;
use super::named::{ImageContext, NamedContext};
use super::work::Purpose;
use super::{Attributes, Error, Problem, arguments, lint};

pub(super) const SCRATCH: &str = "scratch";

/// What a stage starts from.
#[derive(Clone, Debug)]
pub(super) enum Base {
    Scratch,
    Stage(usize),
    Image {
        /// As written, variables replaced.
        written: String,
        reference: Reference,
        /// The context that it stands for.
        context: Option<ImageContext>,
        found: Option<Box<FoundImage>>,
    },
    /// Files of a named context that is no image.
    Named(Box<NamedContext>),
}

/// A base image whose config is known.
#[derive(Clone, Debug)]
pub(super) struct FoundImage {
    pub(super) pinned: Reference,
    pub(super) image: ImageConfig,
    pub(super) config: Bytes,
}

#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// For messages and names: the declared name, else `stage-<n>`.
    pub(super) name: String,
    pub(super) declared: Option<String>,
    pub(super) base: Base,
    /// Where the stage runs, which is also the platform of its base image.
    pub(super) platform: Platform,
    pub(super) steps: Vec<Step>,
    pub(super) code: String,
    pub(super) lines: Lines,
    /// Stands in the file; false for an image that `COPY --from` names directly.
    pub(super) in_file: bool,
    /// A named context is its result: its instructions do not count.
    pub(super) replaced: bool,
    /// Arguments that FROM names.
    pub(super) from_args: BTreeSet<String>,
    /// What the comments above say about it.
    pub(super) description: String,
    pub(super) triggers_done: bool,
    /// How often a policy has put something else in the place of its base.
    pub(super) moves: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) command: Arc<Command>,
    /// Stages that files are taken from: of `COPY --from` the only one, of RUN one per mount that has a `from`.
    pub(super) sources: Vec<Option<usize>>,
    pub(super) on_build: bool,
}

pub(super) struct Plan {
    pub(super) platform: Platform,
    pub(super) globals: Globals,
    pub(super) stages: Vec<Stage>,
    pub(super) target: usize,
    pub(super) show_platform: bool,
    by_name: HashMap<String, usize>,
    pub(super) mode: super::ResolveMode,
    pub(super) purpose: Purpose,
    /// Every stage counts as needed.
    all: bool,
}

impl Plan {
    pub(super) fn new(
        file: &Dockerfile,
        attributes: &Attributes,
        platform: &Platform,
        purpose: Purpose,
        linter: &mut Linter,
    ) -> Result<Self, Error> {
        let last = file
            .stages
            .last()
            .and_then(|stage| stage.name.as_deref())
            .unwrap_or_default();
        let target_stage = attributes.target.as_deref().unwrap_or(last);
        let global = |build_args: &BTreeMap<String, String>| {
            arguments::global(file, attributes, build_args, platform, target_stage)
        };
        if let Ok(defaults) = global(&BTreeMap::new()) {
            lint::defaults(linter, file, &defaults.scope);
        }
        let mut plan = Self {
            platform: platform.clone(),
            globals: global(&attributes.build_args)?,
            stages: Vec::new(),
            target: 0,
            show_platform: attributes.multi_platform,
            by_name: HashMap::new(),
            mode: attributes.resolve_mode,
            purpose,
            all: purpose == Purpose::Check && attributes.target.is_none(),
        };
        for stage in &file.stages {
            plan.add(stage, file, attributes, linter)?;
        }
        plan.target = plan.find_target(attributes)?;
        for (at, stage) in file.stages.iter().enumerate() {
            if plan.stages[at].replaced {
                continue;
            }
            for command in &stage.commands {
                let step = plan.step(Arc::clone(command), false, attributes)?;
                plan.stages[at].steps.push(step);
            }
        }
        plan.refuse_circles()?;
        // A lone stage needs no name to be told from others.
        if let [only] = plan.stages.as_mut_slice() {
            only.name.clear();
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        stage: &instruction::Stage,
        file: &Dockerfile,
        attributes: &Attributes,
        linter: &mut Linter,
    ) -> Result<(), Error> {
        let expander = Expander::new(file.escape);
        let at = |problem| Error::at(stage.lines, problem);
        let expand = |text: &str| {
            expander
                .word(text, &self.globals.scope)
                .map_err(|failed| at(Problem::Expansion(failed)))
        };
        let base = expand(&stage.base)?;
        let wanted = stage.platform.as_deref().map(expand).transpose()?;
        lint::from(linter, file, &self.globals.scope, stage, &base, wanted.as_ref());
        let from_args = base
            .used
            .iter()
            .chain(wanted.iter().flat_map(|wanted| &wanted.used));
        let from_args = from_args.cloned().collect();
        let base = base.text;
        if base.is_empty() {
            return Err(at(Problem::BlankBase(stage.base.clone())));
        }
        let written = stage.platform.clone().unwrap_or_default();
        let platform_hint = |wanted: &Expansion| {
            let mut hints = wanted
                .missing
                .iter()
                .map(|name| hint(name, self.globals.scope.names(), Case::Sensitive));
            hints.find(|hint| !hint.is_empty()).unwrap_or_default()
        };
        let platform = match wanted {
            None => self.platform.clone(),
            Some(wanted) if wanted.text.is_empty() => {
                let hint = platform_hint(&wanted);
                return Err(at(Problem::BlankPlatform { text: written, hint }));
            }
            Some(wanted) => {
                let parsed: Result<Platform, _> = wanted.text.parse();
                parsed.map_err(|problem| {
                    at(Problem::StagePlatform {
                        text: written,
                        problem,
                        hint: platform_hint(&wanted),
                    })
                })?
            }
        };
        let number = self.stages.len();
        let replacement = match &stage.name {
            Some(name) => NamedContext::find(attributes, name, &platform).map_err(at)?,
            None => None,
        };
        let replaced = replacement.is_some();
        let base = match replacement {
            Some(context) => context.into(),
            None => self.base(base, &platform, attributes, stage.lines)?,
        };
        let platform = match &base {
            Base::Stage(base) => self.stages[*base].platform.clone(),
            Base::Scratch => self.platform.clone(),
            Base::Image { .. } | Base::Named(_) => platform,
        };
        self.stages.push(Stage {
            name: stage.name.clone().unwrap_or_else(|| format!("stage-{number}")),
            declared: stage.name.clone(),
            base,
            platform,
            steps: Vec::new(),
            code: stage.code.clone(),
            lines: stage.lines,
            in_file: true,
            replaced,
            from_args,
            description: stage
                .name
                .as_deref()
                .map(|name| description(&stage.comments, name).to_owned())
                .unwrap_or_default(),
            triggers_done: replaced,
            moves: 0,
        });
        if let Some(name) = &stage.name {
            self.by_name.insert(name.clone(), number);
        }
        Ok(())
    }

    /// Names of earlier stages go before those of contexts, and these before images.
    fn base(
        &self,
        name: String,
        platform: &Platform,
        attributes: &Attributes,
        lines: Lines,
    ) -> Result<Base, Error> {
        if let Some(&stage) = self.by_name.get(&name) {
            return Ok(Base::Stage(stage));
        }
        if name == SCRATCH {
            return Ok(Base::Scratch);
        }
        let reference: Result<Reference, _> = name.parse();
        let reference = reference.map_err(|problem| {
            Error::at(
                lines,
                Problem::StageName {
                    name: name.clone(),
                    problem,
                },
            )
        })?;
        let context = NamedContext::find(attributes, &name, platform);
        if let Some(context) = context.map_err(|problem| Error::at(lines, problem))? {
            return Ok(context.into());
        }
        Ok(Base::Image {
            written: name,
            reference: reference.or_latest(),
            context: None,
            found: None,
        })
    }

    fn find_target(&self, attributes: &Attributes) -> Result<usize, Error> {
        let Some(name) = &attributes.target else {
            return Ok(self.stages.len() - 1);
        };
        if let Some(&stage) = self.by_name.get(&name.to_lowercase()) {
            return Ok(stage);
        }
        match name.parse::<usize>() {
            Ok(number) if number < self.stages.len() => Ok(number),
            _ => {
                let names = self.stages.iter().map(|stage| stage.name.as_str());
                Err(Problem::NoTarget {
                    name: name.clone(),
                    hint: hint(name, names, Case::Sensitive),
                }
                .into())
            }
        }
    }

    pub(super) fn step(
        &mut self,
        command: Arc<Command>,
        on_build: bool,
        attributes: &Attributes,
    ) -> Result<Step, Error> {
        let lines = command.lines;
        let sources = match &command.instruction {
            Instruction::Copy(copy) => match &copy.from {
                Some(from) => vec![Some(self.source(from, lines, attributes)?)],
                None => Vec::new(),
            },
            Instruction::Run(run) => {
                let froms = run
                    .mounts
                    .iter()
                    .map(|mount| Mount::source_stage(mount))
                    .collect::<Result<Vec<_>, _>>();
                let froms = froms.map_err(|problem| Error::at(lines, Problem::Mount(problem)))?;
                let source = |from: Option<String>| {
                    from.map(|from| self.named_source(&from, lines, attributes))
                        .transpose()
                };
                froms.into_iter().map(source).collect::<Result<_, _>>()?
            }
            _ => Vec::new(),
        };
        Ok(Step {
            command,
            sources,
            on_build,
        })
    }

    /// `COPY --from`: the number of a stage, the name of one, or an image.
    fn source(&mut self, from: &str, lines: Lines, attributes: &Attributes) -> Result<usize, Error> {
        let Ok(number) = from.parse::<i64>() else {
            return self.named_source(from, lines, attributes);
        };
        let stage = usize::try_from(number)
            .ok()
            .filter(|stage| self.stages.get(*stage).is_some_and(|stage| stage.in_file));
        stage.ok_or_else(|| Error::at(lines, Problem::StageIndex(number)))
    }

    fn named_source(&mut self, from: &str, lines: Lines, attributes: &Attributes) -> Result<usize, Error> {
        if let Some(&stage) = self.by_name.get(&from.to_lowercase()) {
            return Ok(stage);
        }
        let base = self.base(from.to_owned(), &self.platform, attributes, lines)?;
        self.stages.push(Stage {
            name: String::new(),
            declared: None,
            base,
            platform: self.platform.clone(),
            steps: Vec::new(),
            code: String::new(),
            lines,
            in_file: false,
            replaced: false,
            from_args: BTreeSet::new(),
            description: String::new(),
            triggers_done: true,
            moves: 0,
        });
        Ok(self.stages.len() - 1)
    }

    /// For every stage, whether the target needs it.
    pub(super) fn needed(&self) -> Vec<bool> {
        let mut needed = vec![self.all; self.stages.len()];
        let mut open = vec![self.target];
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut needed[at], true) {
                continue;
            }
            let stage = &self.stages[at];
            if let Base::Stage(base) = stage.base {
                open.push(base);
            }
            open.extend(stage.steps.iter().flat_map(|step| step.sources.iter().flatten()));
        }
        needed
    }

    pub(super) fn needed_stages(&self) -> Vec<usize> {
        self.needed()
            .into_iter()
            .enumerate()
            .filter_map(|(at, needed)| needed.then_some(at))
            .collect()
    }
}

impl Stage {
    /// How many steps a stage is said to have: its base image, and what does something to files.
    pub(super) fn total(&self) -> usize {
        let base = usize::from(matches!(self.base, Base::Image { .. } | Base::Named(_)) && self.in_file);
        let steps = self.steps.iter().filter(|step| {
            matches!(
                step.command.instruction,
                Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_)
            )
        });
        base + steps.count()
    }
}
