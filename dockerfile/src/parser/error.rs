//! Why a Dockerfile was refused, and where. The words are BuildKit's: people search for them.

use std::fmt;

use crate::expand::ExpansionFailed;

/// Lines of the Dockerfile, counted from 1, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lines {
    pub first: u32,
    pub last: u32,
}

impl Lines {
    pub fn at(line: u32) -> Self {
        Self {
            first: line,
            last: line,
        }
    }
}

/// A problem and its place.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct ParseError {
    pub lines: Lines,
    pub problem: Problem,
}

impl ParseError {
    pub(crate) fn new(lines: Lines, problem: Problem) -> Self {
        Self { lines, problem }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            // These are about the file, not about a line of it.
            problem @ (Problem::NoInstructions | Problem::NoStages) => problem.fmt(f),
            problem => write!(
                f,
                "dockerfile parse error on line {}: {problem}",
                self.lines.first
            ),
        }
    }
}

impl std::error::Error for ParseError {}

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum Problem {
    #[error("file with no instructions")]
    NoInstructions,
    #[error("dockerfile contains no stages to build")]
    NoStages,
    #[error("invalid escape token '{0}' does not match ` or \\")]
    EscapeToken(String),
    #[error("only one {0} parser directive can be used")]
    RepeatedDirective(String),
    #[error("unterminated heredoc")]
    UnterminatedHeredoc,
    #[error("unknown instruction: {keyword}{hint}")]
    UnknownInstruction { keyword: String, hint: String },
    #[error("no build stage in current context")]
    NoStageYet,
    #[error("unknown flag: --{flag}{hint}")]
    UnknownFlag { flag: String, hint: String },
    #[error("duplicate flag specified: --{0}")]
    RepeatedFlag(String),
    #[error("missing a value on flag: --{0}")]
    FlagWithoutValue(String),
    #[error("expecting boolean value for flag --{flag}, not: {value}")]
    FlagNotBoolean { flag: String, value: String },
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    #[error("{0} requires the arguments to be in JSON form")]
    NotJson(&'static str),
    #[error("{0} requires at least one argument")]
    AtLeastOneArgument(&'static str),
    #[error("{0} requires exactly one argument")]
    ExactlyOneArgument(&'static str),
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    #[error("invalid name for build stage: {0:?}, name can't start with a number or contain symbols")]
    StageName(String),
    #[error("{0} must have two arguments")]
    KeyWithoutValue(&'static str),
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NoEqualSign(String),
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    ChainedOnbuild,
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnbuildTrigger(String),
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNoneArguments,
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthcheckWithoutCommand,
    #[error("Unknown type {0:?} in HEALTHCHECK (try CMD)")]
    HealthcheckType(String),
    #[error("time: {what} {text:?}")]
    Duration { what: &'static str, text: String },
    #[error("Interval {0:?} cannot be less than 1ms")]
    ShortInterval(&'static str),
    #[error("--retries cannot be negative ({0})")]
    NegativeRetries(i64),
    #[error("invalid value {0:?} for --retries")]
    Retries(String),
    #[error("invalid network mode {0:?}")]
    NetworkMode(String),
    #[error("security {0:?} is not valid")]
    SecurityMode(String),
    #[error("{0}")]
    Mount(crate::instruction::MountError),
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    VariableFrom,
    #[error("{0}")]
    Expansion(ExpansionFailed),
}
