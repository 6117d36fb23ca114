//! `SOURCE_DATE_EPOCH`: a number of seconds, or the name of something that says when it was last changed — the build
//! context, a named context, or a stage that does nothing but fetch.

use dockerfile::address::{Address, file_name};
use dockerfile::expand::{Environment, Expander};
use dockerfile::instruction::{Add, Instruction, Stage};
use dockerfile::{Dockerfile, Lines};
use prost::Message as _;
use proto::pb;

use super::context::Contexts;
use super::copy::UNNAMED;
use super::named::{NamedContext, Source};
use super::remote::{self, GitOptions};
use super::{Attributes, Error, Host, Problem};
use crate::graph::builder::{Note, Operation};

pub(super) const NAME: &str = "SOURCE_DATE_EPOCH";

/// Seconds, or nothing if what is named does not say.
pub(super) async fn find<H: Host>(
    host: &H,
    value: &str,
    file: &Dockerfile,
    scope: &Environment,
    attributes: &Attributes,
    contexts: &Contexts<'_>,
) -> Result<Option<i64>, Error> {
    if value.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = value.parse() {
        return Ok(Some(seconds));
    }
    let Some(source) = source(value, file, scope, attributes, contexts)? else {
        return Ok(None);
    };
    let name = format!("[internal] resolve {NAME} of {value}");
    let time = host.source_time(source, name).await;
    time.map_err(|source| {
        let value = value.to_owned();
        Problem::EpochSource { value, source }.into()
    })
}

fn source(
    value: &str,
    file: &Dockerfile,
    scope: &Environment,
    attributes: &Attributes,
    contexts: &Contexts<'_>,
) -> Result<Option<pb::SourceOp>, Error> {
    if value == "context" {
        return Ok(contexts.fetched().and_then(only_source));
    }
    let platform = &attributes.platforms[0];
    let known = attributes
        .contexts
        .keys()
        .any(|name| name.split("::").next() == Some(value));
    if known && let Some(context) = NamedContext::find(attributes, value, platform)? {
        return Ok(match &context.source {
            Source::Remote(_) | Source::Given(_) => context.remote().and_then(of_operation),
            Source::Input(input) => contexts.input(input).and_then(only_source),
            Source::Scratch | Source::Image(_) | Source::Layout(..) | Source::Local(_) => None,
        });
    }
    let is_meant = |stage: &&Stage| {
        stage
            .name
            .as_deref()
            .is_some_and(|name| name.eq_ignore_ascii_case(value))
    };
    let Some(stage) = file.stages.iter().find(is_meant) else {
        return Err(Problem::Epoch(value.to_owned()).into());
    };
    let mut scope = scope.clone();
    scope.unset(NAME);
    let fetched = fetched_by(stage, scope, &Expander::new(file.escape), attributes);
    fetched
        .map(Some)
        .map_err(|(lines, problem)| Error::at(lines, problem))
}

/// What a stage fetches that does nothing else.
fn fetched_by(
    stage: &Stage,
    mut scope: Environment,
    expander: &Expander,
    attributes: &Attributes,
) -> Result<pb::SourceOp, (Lines, Problem)> {
    let expand = |text: &str, scope: &Environment| {
        let expansion = expander.text(text, scope);
        expansion.map_err(|failed| (stage.lines, Problem::Expansion(failed)))
    };
    let refused = |problem| (stage.lines, Problem::Copy(problem));
    if expand(&stage.base, &scope)? != super::plan::SCRATCH {
        return Err(refused("SOURCE_DATE_EPOCH stage must use FROM scratch"));
    }
    let mut source = None;
    for command in &stage.commands {
        match &command.instruction {
            Instruction::Arg(args) => {
                for arg in args {
                    let value = match (attributes.build_args.get(&arg.name), &arg.default) {
                        (Some(given), _) => given.clone(),
                        (None, Some(default)) => expand(default, &scope)?,
                        (None, None) => continue,
                    };
                    scope.set(&arg.name, &value);
                }
            }
            Instruction::Add(add) if source.is_none() => {
                let address = match (add.files.sources.as_slice(), add.files.documents.as_slice()) {
                    ([address], []) => expand(address, &scope)?,
                    _ => {
                        return Err(refused(
                            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source",
                        ));
                    }
                };
                let checksum = add
                    .checksum
                    .as_deref()
                    .map(|text| expand(text, &scope))
                    .transpose()?;
                source = Some(added(add, &address, checksum).map_err(|problem| (stage.lines, problem))?);
            }
            Instruction::Add(_) => {
                return Err(refused(
                    "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
                ));
            }
            _ => {
                let keyword = command.code.split_whitespace().next().unwrap_or_default();
                return Err((stage.lines, Problem::EpochStage(keyword.to_owned())));
            }
        }
    }
    source.ok_or_else(|| refused("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"))
}

fn added(add: &Add, address: &str, checksum: Option<String>) -> Result<pb::SourceOp, Problem> {
    let parsed = Address::parse(address).map_err(|source| Problem::AddSource {
        source_path: address.to_owned(),
        source,
    })?;
    let operation = match parsed {
        Some(Address::Http(url)) => {
            let name = file_name(&url).unwrap_or_else(|| UNNAMED.to_owned());
            Some(remote::file(&url, &name, checksum.as_deref(), Note::default()))
        }
        Some(Address::Git(reference)) if !reference.like_a_path => {
            let options = GitOptions {
                keep_git_dir: add.keep_git_dir == Some(true),
                checksum,
                ..GitOptions::default()
            };
            Some(remote::repository(&reference, &options, Note::default()))
        }
        _ => None,
    };
    operation.and_then(of_operation).ok_or(Problem::Copy(
        "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD",
    ))
}

fn of_operation(operation: Operation) -> Option<pb::SourceOp> {
    match operation.kind {
        pb::op::Op::Source(source) => Some(source),
        _ => None,
    }
}

/// The source that a definition rests on, if it rests on one alone.
fn only_source(definition: &pb::Definition) -> Option<pb::SourceOp> {
    let ops = definition
        .def
        .iter()
        .filter_map(|bytes| pb::Op::decode(&bytes[..]).ok());
    let mut sources = ops.filter_map(|op| match op.op {
        Some(pb::op::Op::Source(source)) => Some(source),
        _ => None,
    });
    let only = sources.next()?;
    sources.next().is_none().then_some(only)
}
