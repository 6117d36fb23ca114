//! Typed instructions and stages.
//!
//! Values are as written: variables are expanded by the frontend, which knows what they stand for at each step. What
//! can be judged without values (counts, names, flags) is judged here.

mod duration;
mod flags;
mod mount;
mod read;

pub use crate::parser::split::Pair;
pub use duration::parse_duration;
pub use mount::{CacheSharing, Mount, MountError, MountKind};

use std::sync::Arc;

use crate::parser::{EmptyContinuation, Heredoc, Lines, ParseError};

/// A whole Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    pub escape: char,
    /// The value of `# check=`.
    pub check: Option<String>,
    /// ARGs above the first FROM.
    pub global_args: Vec<GlobalArg>,
    pub stages: Vec<Stage>,
    pub empty_continuations: Vec<EmptyContinuation>,
}

/// One ARG instruction above the first FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalArg {
    pub args: Vec<Arg>,
    pub lines: Lines,
    pub comments: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Lower-cased.
    pub name: Option<String>,
    /// The image or stage it starts from.
    pub base: String,
    pub platform: Option<String>,
    /// The FROM instruction as written.
    pub code: String,
    pub lines: Lines,
    pub comments: Vec<String>,
    /// Shared: every platform that the file is built for takes them.
    pub commands: Vec<Arc<Command>>,
}

/// An instruction of a stage and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub instruction: Instruction,
    /// As written, continuation lines joined.
    pub code: String,
    pub lines: Lines,
    pub comments: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    Add(Add),
    Arg(Vec<Arg>),
    Cmd(CommandLine),
    Copy(Copy),
    Entrypoint(CommandLine),
    Env(Vec<Pair>),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<Pair>),
    Maintainer(String),
    /// The trigger as text, with its heredocs.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    pub name: String,
    pub default: Option<String>,
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// For the shell of the stage.
    Shell(String),
    Exec(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub command: CommandLine,
    pub heredocs: Vec<Heredoc>,
    /// `--mount` values, in order; see [`Mount::parse`].
    pub mounts: Vec<String>,
    pub network: Network,
    pub security: Security,
    /// `--device` values.
    pub devices: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    #[default]
    Default,
    None,
    Host,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    #[default]
    Sandbox,
    Insecure,
}

/// What COPY and ADD have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Paths and, for ADD, URLs.
    pub sources: Vec<String>,
    pub documents: Vec<Heredoc>,
    pub destination: String,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub link: bool,
    pub excludes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub files: Transfer,
    pub from: Option<String>,
    pub parents: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    pub files: Transfer,
    pub keep_git_dir: Option<bool>,
    pub checksum: Option<String>,
    pub unpack: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    None,
    Test { command: CommandLine, timing: Timing },
}

/// Nanoseconds, 0 for the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i32,
}

impl Instruction {
    /// The texts in which variables are replaced before the instruction is applied; ARG defaults included.
    pub fn expanded_texts(&self) -> Vec<&str> {
        fn pairs(pairs: &[Pair]) -> Vec<&str> {
            pairs
                .iter()
                .flat_map(|pair| [pair.name.as_str(), pair.value.as_str()])
                .collect()
        }
        fn files(files: &Transfer) -> Vec<&str> {
            let optional = files.chown.iter().chain(&files.chmod);
            optional
                .chain(&files.sources)
                .chain([&files.destination])
                .map(String::as_str)
                .collect()
        }
        match self {
            Self::Add(add) => files(&add.files),
            Self::Arg(args) => args.iter().filter_map(|arg| arg.default.as_deref()).collect(),
            Self::Copy(copy) => files(&copy.files),
            Self::Env(list) | Self::Label(list) => pairs(list),
            Self::Volume(list) => list.iter().map(String::as_str).collect(),
            Self::StopSignal(text) | Self::User(text) | Self::Workdir(text) => vec![text],
            Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Expose(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::Onbuild(_)
            | Self::Run(_)
            | Self::Shell(_) => Vec::new(),
        }
    }
}

/// Reads a Dockerfile.
pub fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    let (file, problem) = parse_until_error(text)?;
    problem.map_or(Ok(file), Err)
}

/// Reads a Dockerfile up to the first instruction that cannot be understood, so that something can be said about those
/// above it. An error alone is about the lines themselves, such as a heredoc that does not end.
pub fn parse_until_error(text: &str) -> Result<(Dockerfile, Option<ParseError>), ParseError> {
    read::dockerfile(text)
}

/// Reads the text of an ONBUILD trigger, which is one instruction that may stand in a stage.
pub fn parse_trigger(text: &str) -> Result<Command, ParseError> {
    read::trigger(text)
}

#[cfg(test)]
mod tests;
