//! One stage while its instructions are applied: its files, the config of its image, and what steps see.

use binfmt::Platform;
use bytes::Bytes;
use dockerfile::Lines;
use dockerfile::expand::{Environment, Expander};
use dockerfile::ignore::clean;
use dockerfile::instruction::{Arg, CommandLine, Instruction, Pair};
use dockerfile::lint::description;
use proto::pb;
use registry::ImageConfig;
use registry::image::{Empty, History};

use super::image::{self, Layer, commit};
use super::lower::Lowering;
use super::name::{Prefix, shown};
use super::outline::{Asked, Declared};
use super::plan::{Stage, Step};
use super::{Attributes, Problem, ports};
use crate::graph::builder::{Note, Operation, Output};

pub(super) struct Frame {
    /// The files; `None` is scratch.
    pub(super) root: Option<Output>,
    /// Its history stands below.
    pub(super) image: ImageConfig,
    /// The stage that this one starts from, whose history comes before its own.
    pub(super) base: Option<usize>,
    pub(super) history: Vec<History>,
    pub(super) base_config: Option<Bytes>,
    /// What a step sees: variables of the image and ARGs.
    pub(super) environment: Environment,
    pub(super) directory: String,
    pub(super) platform: Platform,
    pub(super) prefix: Prefix,
    pub(super) ignore_cache: bool,
    /// ARGs in scope, in the order of declaration; they appear in the history of RUN.
    pub(super) args: Vec<(String, Option<String>)>,
    /// A WORKDIR of the file was applied; before that a relative one depends on the base image.
    pub(super) workdir_set: bool,
    /// Where this stage said what only its last instruction of the kind can say. A CMD that was set is not reset by an
    /// ENTRYPOINT.
    said: Said,
    /// What this stage asks its client for.
    pub(super) asked: Asked,
}

/// The latest instructions of kinds of which only the last one counts.
#[derive(Clone, Debug, Default)]
struct Said {
    cmd: Option<Lines>,
    entrypoint: Option<Lines>,
    healthcheck: Option<Lines>,
}

impl Frame {
    pub(super) fn new(
        prefix: Prefix,
        platform: Platform,
        mut image: ImageConfig,
        root: Option<Output>,
    ) -> Self {
        Self {
            root,
            base: None,
            history: std::mem::take(&mut image.history),
            image,
            base_config: None,
            environment: Environment::new(),
            directory: "/".to_owned(),
            platform,
            prefix,
            ignore_cache: false,
            args: Vec::new(),
            workdir_set: false,
            said: Said::default(),
            asked: Asked::default(),
        }
    }

    /// A stage that starts from this one, the one at `at`.
    pub(super) fn child(&self, at: usize, prefix: Prefix) -> Self {
        let mut image = self.image.clone();
        image.config.on_build.clear();
        Self {
            base: Some(at),
            base_config: self.base_config.clone(),
            environment: self.environment.clone(),
            directory: self.directory.clone(),
            args: self.args.clone(),
            workdir_set: self.workdir_set,
            ..Self::new(prefix, self.platform.clone(), image, self.root)
        }
    }

    /// Takes over what the image config says.
    pub(super) fn start(&mut self, stage: &Stage, attributes: &Attributes) {
        self.ignore_cache = attributes.ignores_cache(stage.declared.as_deref());
        let config = &mut self.image.config;
        if !config.env.iter().any(|pair| pair.starts_with("PATH=")) {
            config.env.extend(image::default_path(self.platform.os()));
        }
        for pair in &config.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.environment.set(name, value);
        }
        if !config.working_dir.is_empty() {
            config.working_dir = join(&config.working_dir.clone(), "/");
            self.directory.clone_from(&config.working_dir);
        }
    }

    pub(super) fn apply(&mut self, step: &Step, lowering: &mut Lowering<'_>) -> Result<(), Problem> {
        let expander = lowering.expander;
        match &step.command.instruction {
            Instruction::Add(add) => self.add(step, add, lowering)?,
            Instruction::Arg(args) => self.declare(step, args, lowering)?,
            Instruction::Cmd(line) => {
                let words = image::command(&self.image, line);
                commit(
                    &mut self.history,
                    format!("CMD {}", image::quoted_list(&words)),
                    Layer::None,
                );
                self.image.config.cmd = words;
                self.image.config.args_escaped = true;
                self.said.cmd = Some(step.command.lines);
            }
            Instruction::Copy(copy) => self.copy(step, copy, lowering)?,
            Instruction::Entrypoint(line) => {
                let words = image::command(&self.image, line);
                commit(
                    &mut self.history,
                    format!("ENTRYPOINT {}", image::quoted_list(&words)),
                    Layer::None,
                );
                self.image.config.entrypoint = words;
                if self.said.cmd.is_none() {
                    self.image.config.cmd.clear();
                }
                self.said.entrypoint = Some(step.command.lines);
            }
            Instruction::Env(pairs) => {
                let pairs = self.expand_pairs(pairs, &expander)?;
                for (name, value) in &pairs {
                    self.environment.set(name, value);
                    image::set_env(&mut self.image.config.env, name, value);
                }
                commit(&mut self.history, history("ENV", &pairs), Layer::None);
            }
            Instruction::Expose(specifications) => self.expose(specifications, &expander)?,
            Instruction::Healthcheck(check) => {
                let check = image::healthcheck(check);
                commit(
                    &mut self.history,
                    format!("HEALTHCHECK {}", image::healthcheck_text(&check)),
                    Layer::None,
                );
                self.image.config.healthcheck = Some(check);
                self.said.healthcheck = Some(step.command.lines);
            }
            Instruction::Label(pairs) => {
                let pairs = self.expand_pairs(pairs, &expander)?;
                commit(&mut self.history, history("LABEL", &pairs), Layer::None);
                self.image.config.labels.extend(pairs);
            }
            Instruction::Maintainer(name) => {
                self.image.author.clone_from(name);
                commit(&mut self.history, format!("MAINTAINER {name}"), Layer::None);
            }
            Instruction::Onbuild(trigger) => self.image.config.on_build.push(trigger.clone()),
            Instruction::Run(run) => self.run(step, run, lowering)?,
            Instruction::Shell(words) => {
                commit(
                    &mut self.history,
                    format!("SHELL {}", image::list(words)),
                    Layer::None,
                );
                self.image.config.shell.clone_from(words);
            }
            Instruction::StopSignal(signal) => {
                let signal = self.expand(signal, &expander)?;
                if !image::is_signal(&signal) {
                    return Err(Problem::Signal(signal));
                }
                commit(&mut self.history, format!("STOPSIGNAL {signal}"), Layer::None);
                self.image.config.stop_signal = signal;
            }
            Instruction::User(user) => {
                let user = self.expand(user, &expander)?;
                commit(&mut self.history, format!("USER {user}"), Layer::None);
                self.image.config.user = user;
            }
            Instruction::Volume(paths) => self.volumes(paths, &expander)?,
            Instruction::Workdir(path) => self.workdir(step, path, lowering)?,
        }
        Ok(())
    }

    /// The instruction of this stage that does not count any more once this one is applied.
    pub(super) fn replaced_by(&self, instruction: &Instruction) -> Option<Lines> {
        match instruction {
            Instruction::Cmd(_) => self.said.cmd,
            Instruction::Entrypoint(_) => self.said.entrypoint,
            Instruction::Healthcheck(_) => self.said.healthcheck,
            _ => None,
        }
    }

    pub(super) fn expand(&self, text: &str, expander: &Expander) -> Result<String, Problem> {
        expander.text(text, &self.environment).map_err(Problem::Expansion)
    }

    /// All pairs of one instruction see the variables as they were before it.
    fn expand_pairs(&self, pairs: &[Pair], expander: &Expander) -> Result<Vec<(String, String)>, Problem> {
        pairs
            .iter()
            .map(|pair| {
                Ok((
                    self.expand(&pair.name, expander)?,
                    self.expand(&pair.value, expander)?,
                ))
            })
            .collect()
    }

    /// ARG: a build argument if one was given, else the default, else what the global scope says.
    fn declare(&mut self, step: &Step, args: &[Arg], lowering: &Lowering<'_>) -> Result<(), Problem> {
        let mut shown = Vec::new();
        for Arg { name, default } in args {
            let value = match (lowering.attributes.build_args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(default, &lowering.expander)?),
                (None, None) => lowering.plan.globals.scope.get(name).map(str::to_owned),
            };
            let inherited =
                value.is_some() && default.is_none() && !lowering.attributes.build_args.contains_key(name);
            let declared = Declared {
                value: value.clone().unwrap_or_default(),
                description: description(&step.command.comments, name).to_owned(),
                lines: step.command.lines,
                ..Declared::default()
            };
            self.asked.arg(name, Some(declared).filter(|_| !inherited));
            match &value {
                Some(value) => {
                    self.environment.set(name, value);
                    shown.push(format!("{name}={value}"));
                }
                None => shown.push(name.clone()),
            }
            self.args.push((name.clone(), value));
        }
        commit(&mut self.history, format!("ARG {}", shown.join(" ")), Layer::None);
        Ok(())
    }

    fn expose(&mut self, specifications: &[String], expander: &Expander) -> Result<(), Problem> {
        let mut exposed = Vec::new();
        for specification in specifications {
            for word in expander
                .words(specification, &self.environment)
                .map_err(Problem::Expansion)?
            {
                exposed.extend(ports::parse(&word)?);
            }
        }
        commit(
            &mut self.history,
            format!("EXPOSE {}", image::list(&exposed)),
            Layer::None,
        );
        self.image
            .config
            .exposed_ports
            .extend(exposed.into_iter().map(|port| (port, Empty {})));
        Ok(())
    }

    fn volumes(&mut self, paths: &[String], expander: &Expander) -> Result<(), Problem> {
        let paths = paths
            .iter()
            .map(|path| self.expand(path, expander))
            .collect::<Result<Vec<_>, _>>()?;
        if paths.iter().any(String::is_empty) {
            return Err(Problem::Copy("VOLUME specified can not be an empty string"));
        }
        commit(
            &mut self.history,
            format!("VOLUME {}", image::list(&paths)),
            Layer::None,
        );
        self.image
            .config
            .volumes
            .extend(paths.into_iter().map(|path| (path, Empty {})));
        Ok(())
    }

    fn workdir(&mut self, step: &Step, path: &str, lowering: &mut Lowering<'_>) -> Result<(), Problem> {
        let path = self.expand(path, &lowering.expander)?;
        self.workdir_set = true;
        let directory = join(&path, &self.image.config.working_dir);
        self.image.config.working_dir.clone_from(&directory);
        self.directory.clone_from(&directory);
        if directory == "/" {
            commit(&mut self.history, format!("WORKDIR {directory}"), Layer::None);
            return Ok(());
        }
        let input = if self.root.is_some() { 0 } else { -1 };
        let owner = Some(self.image.config.user.as_str()).filter(|user| !user.is_empty());
        let mkdir = pb::FileActionMkDir {
            path: directory.clone(),
            mode: 0o755,
            make_parents: true,
            owner: owner.map(|user| ownership(user, input)),
            // In nanoseconds.
            timestamp: lowering
                .attributes
                .epoch
                .flatten()
                .map_or(-1, |seconds| seconds.saturating_mul(1_000_000_000)),
        };
        let action = pb::FileAction {
            input,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkdir(mkdir)),
        };
        let note = self.note(step, lowering);
        self.root = Some(lowering.builder.add(Operation {
            kind: pb::op::Op::File(pb::FileOp {
                actions: vec![action],
            }),
            inputs: self.root.into_iter().collect(),
            platform: None,
            note: Note {
                ignore_cache: false,
                ..note
            },
        }));
        commit(&mut self.history, format!("WORKDIR {directory}"), Layer::Made);
        Ok(())
    }

    /// The name and place of a file step.
    pub(super) fn note(&mut self, step: &Step, lowering: &Lowering<'_>) -> Note {
        let text = shown(&step.command.code, &lowering.expander, &self.environment);
        let lines = step.command.lines;
        Note {
            name: self
                .prefix
                .next(&text, &self.platform, &self.environment, step.on_build),
            lines: Some((lines.first, lines.last)),
            ignore_cache: self.ignore_cache,
            ..Note::default()
        }
    }
}

fn history(keyword: &str, pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!(" {name}={value}"));
    format!("{keyword}{}", pairs.collect::<String>())
}

/// `path` seen from `directory`, cleaned; what starts with `/` does not care.
pub(super) fn join(path: &str, directory: &str) -> String {
    match path.starts_with('/') {
        true => clean(path),
        false => clean(&format!("/{directory}/{path}")),
    }
}

/// `user[:group]`, numbers as numbers and names to be looked up in the files of `input`.
pub(super) fn ownership(text: &str, input: i64) -> pb::ChownOpt {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let option = |name: &str| pb::UserOpt {
        user: Some(match (name, name.parse::<i32>()) {
            ("root", _) => pb::user_opt::User::ById(0),
            (_, Ok(id)) if id >= 0 => pb::user_opt::User::ById(id.unsigned_abs()),
            _ => pb::user_opt::User::ByName(pb::NamedUserOpt {
                name: name.to_owned(),
                input,
            }),
        }),
    };
    pb::ChownOpt {
        user: Some(option(user)),
        group: group.map(option),
    }
}

/// The words that RUN hands to the kernel must be at least one.
pub(super) fn words(line: &CommandLine, image: &ImageConfig) -> Result<Vec<String>, Problem> {
    match image::command(image, line) {
        words if words.is_empty() => Err(Problem::NoArguments),
        words => Ok(words),
    }
}
