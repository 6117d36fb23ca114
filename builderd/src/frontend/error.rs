//! Why a Dockerfile could not be turned into a graph, and which lines of it are to blame.

use std::fmt;
use std::sync::Arc;

use binfmt::ParsePlatformError;
use dockerfile::address::GitReferenceError;
use dockerfile::expand::ExpansionFailed;
use dockerfile::ignore::PatternError;
use dockerfile::instruction::MountError;
use dockerfile::lint::SettingsError;
use dockerfile::{Lines, ParseError};
use proto::errdefs::{Detail, Named};
use proto::pb;
use registry::digest::DigestError;
use registry::reference::ReferenceError;

use super::HostError;

/// A problem, and its place if it has one.
#[derive(Debug)]
pub struct Error {
    pub problem: Problem,
    /// Boxed, since every step of the frontend hands errors on by value.
    pub location: Option<Box<Location>>,
}

/// Lines of a source text.
#[derive(Clone, Debug)]
pub struct Location {
    pub lines: Vec<Lines>,
    pub source: Option<Arc<pb::SourceInfo>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("failed to parse target platform {text}")]
    TargetPlatform {
        text: String,
        #[source]
        source: ParsePlatformError,
    },
    #[error("invalid value {value:?} for {key}: {expected}")]
    Attribute {
        key: String,
        value: String,
        expected: &'static str,
    },
    #[error("conflicting config: returning multiple target platforms is not allowed")]
    SeveralPlatforms,
    #[error("invalid nil input definition to definition op: input {0} is empty")]
    EmptyInput(String),
    #[error("invalid SOURCE_DATE_EPOCH: {0}")]
    Epoch(String),
    #[error("SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {0} instruction")]
    EpochStage(String),
    #[error("failed to resolve SOURCE_DATE_EPOCH {value}")]
    EpochSource {
        value: String,
        #[source]
        source: HostError,
    },
    #[error("unsupported request {0}")]
    UnknownRequest(String),
    #[error("unsupported frontend capability {0}")]
    UnknownCapability(String),
    #[error("failed to write the answer")]
    WriteAnswer(#[source] serde_json::Error),
    #[error("invalid device {0:?}: write --device=NAME[,required]")]
    Device(String),
    /// The text is for another frontend, which whoever asked this one can run.
    #[error("frontend image {image} is needed for this Dockerfile")]
    Syntax { image: String, command_line: String },
    #[error("invalid build context")]
    Address(#[source] GitReferenceError),
    #[error("{0:?} is neither a git repository nor an http address, so it cannot be a build context")]
    NotAContext(String),
    #[error("failed to read downloaded context")]
    ReadContext(#[source] HostError),
    #[error("failed to read dockerfile")]
    ReadDockerfile(#[source] HostError),
    #[error("failed to read dockerfile: open {0}: no such file or directory")]
    NoDockerfile(String),
    #[error("failed to read dockerfile: {0} is not UTF-8 text")]
    NotText(String),
    #[error("the Dockerfile cannot be empty")]
    EmptyDockerfile,
    #[error("failed to parse dockerignore patterns: {0}")]
    IgnorePattern(PatternError),
    #[error("{0}")]
    Parse(ParseError),
    #[error("{0}")]
    Expansion(ExpansionFailed),
    #[error("{0}")]
    Mount(MountError),
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    #[error("empty platform value from expression {text}{hint}")]
    BlankPlatform { text: String, hint: String },
    #[error("failed to parse platform {text}: {problem}: invalid argument{hint}")]
    StagePlatform {
        text: String,
        problem: ParsePlatformError,
        hint: String,
    },
    #[error("failed to parse stage name {name:?}: {problem}")]
    StageName { name: String, problem: ReferenceError },
    #[error("invalid context name {name}: {problem}")]
    ContextName {
        name: String,
        problem: Box<ReferenceError>,
    },
    #[error("invalid context specifier {value} for {name}")]
    ContextSpecifier { name: String, value: String },
    #[error(
        "a policy puts {0} in the place of this image, which is none of a registry: give the image as a named context, or change the policy"
    )]
    NoImage(String),
    #[error("policies put something else in the place of this image again and again, {0} last")]
    PolicyCircle(String),
    #[error("context {name} names no digest of an image in its OCI layout: {value:?}")]
    LayoutDigest { name: String, value: String },
    #[error(
        "unsupported context source {kind} for {name}: give it as a folder, docker-image://, the result of a target, or the address of a repository or file"
    )]
    ContextSource { kind: String, name: String },
    #[error("invalid input {input} for {name}")]
    ContextInput { input: String, name: String },
    #[error("failed to parse input metadata {input}")]
    InputMetadata {
        input: String,
        #[source]
        source: HostError,
    },
    #[error("failed to load context {name}")]
    ReadNamedContext {
        name: String,
        #[source]
        source: HostError,
    },
    #[error("target stage {name:?} could not be found{hint}")]
    NoTarget { name: String, hint: String },
    #[error("invalid stage index {0}")]
    StageIndex(i64),
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    #[error("cannot copy from stage {from:?}, it needs to be defined before current stage {stage:?}")]
    CopyFromLater { from: String, stage: String },
    #[error(
        "cannot mount from stage {from:?} to {target:?}, stage needs to be defined before current command"
    )]
    MountFromLater { from: String, target: String },
    #[error("{written}")]
    ResolveImage {
        written: String,
        #[source]
        source: HostError,
    },
    #[error("failed to parse image config")]
    ImageConfig(#[source] serde_json::Error),
    #[error("failed to write image config")]
    WriteImageConfig(#[source] serde_json::Error),
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Chmod(String),
    #[error("{0}")]
    Copy(&'static str),
    #[error("invalid source {source_path:?}")]
    AddSource {
        source_path: String,
        #[source]
        source: GitReferenceError,
    },
    #[error("invalid checksum")]
    Checksum(#[source] DigestError),
    #[error("checksum mismatch {flag:?} != {address:?}")]
    Checksums { flag: String, address: String },
    #[error("invalid mount target {0:?}")]
    MountTarget(String),
    #[error("ssh does not support source")]
    SshSource,
    #[error("arguments are required")]
    NoArguments,
    #[error("{0}")]
    Port(String),
    #[error("failed to parse check options: {0}")]
    CheckOptions(SettingsError),
    #[error("lint violation found for rules: {0}")]
    Violation(String),
    #[error("invalid signal: {0}")]
    Signal(String),
}

impl Error {
    pub(super) fn at(lines: Lines, problem: Problem) -> Self {
        Self {
            problem,
            location: Some(Box::new(Location {
                lines: vec![lines],
                source: None,
            })),
        }
    }

    /// A base image that could not be looked up. Without lines it was not asked for by an instruction.
    pub(super) fn resolving(lines: Option<Lines>, written: String, source: HostError) -> Self {
        let problem = Problem::ResolveImage { written, source };
        Self {
            location: lines.map(|lines| {
                Box::new(Location {
                    lines: vec![lines],
                    source: None,
                })
            }),
            problem,
        }
    }

    /// The same error, knowing which text its lines belong to.
    pub(super) fn in_source(mut self, source: &Arc<pb::SourceInfo>) -> Self {
        if let Some(location) = &mut self.location {
            location.source = Some(Arc::clone(source));
        }
        self
    }

    /// The request or the capability is not one of this frontend's.
    pub fn is_unknown(&self) -> bool {
        matches!(
            self.problem,
            Problem::UnknownRequest(_) | Problem::UnknownCapability(_)
        )
    }

    /// What the client is told besides the words.
    pub fn detail(&self) -> Option<Detail> {
        let named = |name: &String| Named { name: name.clone() };
        match &self.problem {
            Problem::UnknownRequest(name) => Some(Detail::Subrequest(named(name))),
            Problem::UnknownCapability(name) => Some(Detail::FrontendCap(named(name))),
            _ => self.excerpt().map(Detail::Source),
        }
    }

    /// The place, if the error is about lines of the Dockerfile.
    fn excerpt(&self) -> Option<proto::errdefs::Source> {
        let location = self.location.as_ref()?;
        let info = location.source.as_ref()?;
        let position = |line: u32| proto::errdefs::Position {
            line: i32::try_from(line).unwrap_or(i32::MAX),
            character: 0,
        };
        let lines = location.lines.iter().flat_map(|lines| lines.first..=lines.last);
        Some(proto::errdefs::Source {
            info: info.as_ref().into(),
            ranges: lines
                .map(|line| proto::errdefs::Range {
                    start: position(line),
                    end: position(line),
                })
                .collect(),
        })
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            location: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.problem)
    }
}
