//! Rules that need values: of variables, of base images, of the ignore file. Those of the text are `dockerfile::lint`'s.

use std::collections::BTreeSet;

use dockerfile::expand::{Environment, Expander, Expansion};
use dockerfile::ignore::{PatternMatcher, clean};
use dockerfile::instruction::{self, Arg, CommandLine, Instruction, Pair};
use dockerfile::lint::{Linter, Rule, Settings, names_a_secret};
use dockerfile::suggest::{Case, hint, nearest};
use dockerfile::{Dockerfile, Lines};
use registry::Reference;

use super::plan::{FoundImage, Stage, Step};
use super::stage::Frame;
use super::{Attributes, Error, Problem};

/// A linter that has seen the text of the file, of which something may be missing.
pub(super) fn start(file: &Dockerfile, complete: bool, attributes: &Attributes) -> Result<Linter, Error> {
    let text = attributes
        .check
        .as_deref()
        .or(file.check.as_deref())
        .unwrap_or_default();
    let settings =
        Settings::parse(text).map_err(|problem| Error::at(Lines::at(1), Problem::CheckOptions(problem)))?;
    let mut linter = Linter::new(settings);
    linter.check(file, complete);
    Ok(linter)
}

/// `FROM ${NAME}` must make sense without build arguments too.
pub(super) fn defaults(linter: &mut Linter, file: &Dockerfile, defaults: &Environment) {
    let expander = Expander::new(file.escape);
    for stage in &file.stages {
        let base = expander.text(&stage.base, defaults);
        if base.is_ok_and(|base| base.parse::<Reference>().is_err()) {
            let message = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                stage.base
            );
            linter.report(
                Rule::InvalidDefaultArgInFrom,
                message,
                stage.lines,
                &stage.comments,
            );
        }
    }
}

/// FROM: variables that nobody declared, platforms that say nothing or too much.
pub(super) fn from(
    linter: &mut Linter,
    file: &Dockerfile,
    globals: &Environment,
    stage: &instruction::Stage,
    base: &Expansion,
    platform: Option<&Expansion>,
) {
    let declared = file
        .global_args
        .iter()
        .flat_map(|declaration| &declaration.args)
        .map(|arg| arg.name.as_str());
    let known: BTreeSet<&str> = globals.names().chain(declared).collect();
    let missing = base
        .missing
        .iter()
        .chain(platform.into_iter().flat_map(|platform| &platform.missing));
    for name in missing.filter(|name| !known.contains(name.as_str())) {
        let hint = hint(name, known.iter().copied(), Case::Sensitive);
        let message = format!("FROM argument '{name}' is not declared{hint}");
        linter.report(Rule::UndefinedArgInFrom, message, stage.lines, &stage.comments);
    }
    let (Some(platform), Some(written)) = (platform, &stage.platform) else {
        return;
    };
    let target = globals.get("TARGETPLATFORM");
    let only_target = platform.used.iter().eq(["TARGETPLATFORM"]) && platform.missing.is_empty();
    if only_target && target == Some(platform.text.as_str()) {
        let message = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        );
        linter.report(
            Rule::RedundantTargetPlatform,
            message,
            stage.lines,
            &stage.comments,
        );
    }
    if platform.used.is_empty()
        && platform.missing.is_empty()
        && let Ok(parsed) = platform.text.parse::<binfmt::Platform>()
    {
        let name = stage.name.as_deref().unwrap_or_default();
        if !name.contains(parsed.os()) && !name.contains(parsed.architecture()) {
            let message = format!(
                "FROM --platform flag should not use constant value {:?}",
                platform.text
            );
            linter.report(
                Rule::FromPlatformFlagConstDisallowed,
                message,
                stage.lines,
                &stage.comments,
            );
        }
    }
}

/// An image that is not for the platform it was asked for.
pub(super) fn base_image(linter: &mut Linter, stage: &Stage, written: &str, found: &FoundImage) {
    let (wanted, image) = (&stage.platform, &found.image);
    if image.os != wanted.os() || image.architecture != wanted.architecture() {
        let actual = image.platform().normalised();
        let message = format!(
            "Base image {written} was pulled with platform \"{actual}\", expected \"{wanted}\" for current build"
        );
        linter.report(Rule::InvalidBaseImagePlatform, message, stage.lines, &[]);
    }
}

/// One instruction, before it is applied.
pub(super) fn step(
    linter: &mut Linter,
    step: &Step,
    frame: &Frame,
    expander: &Expander,
    attributes: &Attributes,
    ignored: &PatternMatcher,
) {
    let command = &step.command;
    let keyword = command.code.split_whitespace().next().unwrap_or_default();
    if let Some(earlier) = frame.replaced_by(&command.instruction) {
        let message = format!(
            "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
        );
        // The one that does not count is to blame.
        linter.report(
            Rule::MultipleInstructionsDisallowed,
            message,
            earlier,
            &command.comments,
        );
    }
    let mut report =
        |rule: Rule, message: String| linter.report(rule, message, command.lines, &command.comments);
    for name in undefined(&command.instruction, frame, expander, attributes) {
        let near = nearest(&name, frame.environment.names(), Case::Sensitive);
        let hint = near.map_or_else(String::new, |near| format!(" (did you mean ${near}?)"));
        report(
            Rule::UndefinedVar,
            format!("Usage of undefined variable '${name}'{hint}"),
        );
    }
    let expand = |text: &str| expander.text(text, &frame.environment).ok();
    match &command.instruction {
        Instruction::Arg(args) => {
            for Arg { name, .. } in args.iter().filter(|arg| names_a_secret(&arg.name)) {
                report(Rule::SecretsUsedInArgOrEnv, secret_message("ARG", name));
            }
        }
        Instruction::Label(pairs) => old_form(&mut report, keyword, pairs),
        Instruction::Env(pairs) => {
            old_form(&mut report, keyword, pairs);
            for pair in pairs.iter().filter(|pair| names_a_secret(&pair.name)) {
                report(Rule::SecretsUsedInArgOrEnv, secret_message("ENV", &pair.name));
            }
        }
        Instruction::Cmd(CommandLine::Shell(_)) | Instruction::Entrypoint(CommandLine::Shell(_))
            if frame.image.config.shell.is_empty() =>
        {
            let message = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            );
            report(Rule::JsonArgsRecommended, message);
        }
        Instruction::Workdir(path) => {
            if let Some(path) = expand(path).filter(|path| !frame.workdir_set && !path.starts_with('/')) {
                let message = format!(
                    "Relative workdir {path:?} can have unexpected results if the base image changes"
                );
                report(Rule::WorkdirRelativePath, message);
            }
        }
        Instruction::Expose(ports) => ports.iter().for_each(|port| expose(&mut report, port)),
        Instruction::Copy(copy) if copy.from.is_none() => {
            let files = copy.files.sources.iter().filter_map(|path| expand(path));
            files.for_each(|path| ignored_source(&mut report, "Copy", &path, ignored));
        }
        Instruction::Add(add) => {
            let files = add.files.sources.iter().filter_map(|path| expand(path));
            files.for_each(|path| ignored_source(&mut report, "Add", &path, ignored));
        }
        _ => {}
    }
}

/// Variables that an instruction names and that nobody has set or declared.
fn undefined(
    instruction: &Instruction,
    frame: &Frame,
    expander: &Expander,
    attributes: &Attributes,
) -> BTreeSet<String> {
    let texts = match instruction {
        // A default that is not used needs no variables.
        Instruction::Arg(args) => args
            .iter()
            .filter(|arg| !attributes.build_args.contains_key(&arg.name))
            .filter_map(|arg| arg.default.as_deref())
            .collect(),
        other => other.expanded_texts(),
    };
    let mut missing = BTreeSet::new();
    for text in texts {
        if let Ok(expansion) = expander.word(text, &frame.environment) {
            missing.extend(expansion.missing);
        }
    }
    missing.retain(|name| !frame.args.iter().any(|(declared, _)| declared == name));
    missing
}

/// `ENV name value`
fn old_form(report: &mut impl FnMut(Rule, String), keyword: &str, pairs: &[Pair]) {
    if pairs.iter().any(|pair| pair.old_form) {
        let message = format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        );
        report(Rule::LegacyKeyValueFormat, message);
    }
}

fn secret_message(keyword: &str, name: &str) -> String {
    format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})")
}

fn expose(report: &mut impl FnMut(Rule, String), port: &str) {
    let protocol = port.split_once('/').map_or("", |(_, protocol)| protocol);
    if protocol != protocol.to_lowercase() {
        let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
        report(Rule::ExposeProtoCasing, message);
    }
    if port.contains(':') {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        );
        report(Rule::ExposeInvalidFormat, message);
    }
}

/// A source that the ignore file hides. With `!` patterns it takes a walk to know, so nothing is said.
fn ignored_source(report: &mut impl FnMut(Rule, String), verb: &str, path: &str, ignored: &PatternMatcher) {
    if ignored.is_empty() || ignored.has_reinclusions() {
        return;
    }
    let path = clean(path);
    let everything = || {
        ignored
            .patterns()
            .iter()
            .any(|pattern| matches!(pattern.text(), "*" | "**" | "**/*"))
    };
    if matches!(path.as_str(), "." | "/") && !everything() {
        return;
    }
    if ignored.matches_or_parent_matches(&path) {
        let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
        report(Rule::CopyIgnoredFile, message);
    }
}
