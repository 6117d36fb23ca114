//! Entries to typed instructions.

use std::sync::Arc;

use super::flags::{Flags, Kind};
use super::{
    Add, Arg, Command, CommandLine, Copy, Dockerfile, GlobalArg, Healthcheck, Instruction, Mount, Network,
    Run, Security, Stage, Timing, Transfer, parse_duration,
};
use crate::expand::{Environment, Expander};
use crate::parser::{Entry, Heredoc, Lines, ParseError, Problem, read, split};
use crate::suggest::{Case, hint};

const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

pub(super) fn dockerfile(text: &str) -> Result<(Dockerfile, Option<ParseError>), ParseError> {
    let source = read(text)?;
    let mut file = Dockerfile {
        escape: source.escape,
        check: source.check,
        global_args: Vec::new(),
        stages: Vec::new(),
        empty_continuations: source.empty_continuations,
    };
    for entry in source.entries {
        let lines = entry.lines;
        if let Err(problem) = file.add(entry) {
            return Ok((file, Some(ParseError::new(lines, problem))));
        }
    }
    if file.stages.is_empty() {
        let last = file.global_args.last().map_or(Lines::at(1), |arg| arg.lines);
        return Ok((file, Some(ParseError::new(last, Problem::NoStages))));
    }
    Ok((file, None))
}

impl Dockerfile {
    fn add(&mut self, entry: Entry) -> Result<(), Problem> {
        if entry.keyword.eq_ignore_ascii_case("from") {
            self.stages.push(stage(entry)?);
            return Ok(());
        }
        let command = command(entry, self.escape)?;
        match (self.stages.last_mut(), command.instruction) {
            (Some(stage), instruction) => {
                let command = Command {
                    instruction,
                    ..command
                };
                stage.commands.push(Arc::new(command));
            }
            (None, Instruction::Arg(args)) => self.global_args.push(GlobalArg {
                args,
                lines: command.lines,
                comments: command.comments,
            }),
            (None, _) => return Err(Problem::NoStageYet),
        }
        Ok(())
    }
}

pub(super) fn trigger(text: &str) -> Result<Command, ParseError> {
    let source = read(text)?;
    let [entry] = <[Entry; 1]>::try_from(source.entries).map_err(|entries| {
        let lines = entries.get(1).map_or(Lines::at(1), |entry| entry.lines);
        ParseError::new(
            lines,
            Problem::OnbuildTrigger("a list of instructions".to_owned()),
        )
    })?;
    let lines = entry.lines;
    check_trigger(&entry.keyword).map_err(|problem| ParseError::new(lines, problem))?;
    command(entry, source.escape).map_err(|problem| ParseError::new(lines, problem))
}

fn stage(entry: Entry) -> Result<Stage, Problem> {
    let words = split::blanks(&entry.rest);
    let (base, name) = match words.as_slice() {
        [base] => (base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
        _ => return Err(Problem::FromArguments),
    };
    let flags = Flags::read(&entry.flags, &[("platform", Kind::Text)])?;
    Ok(Stage {
        name,
        base: base.clone(),
        platform: flags.text("platform"),
        code: entry.code,
        lines: entry.lines,
        comments: entry.comments,
        commands: Vec::new(),
    })
}

fn stage_name(name: &str) -> Result<String, Problem> {
    let lower = name.to_lowercase();
    let letters = |ch: char| ch.is_ascii_lowercase() || ch.is_ascii_digit() || matches!(ch, '-' | '_' | '.');
    if lower.starts_with(|ch: char| ch.is_ascii_lowercase()) && lower.chars().all(letters) {
        return Ok(lower);
    }
    Err(Problem::StageName(name.to_owned()))
}

fn command(entry: Entry, escape: char) -> Result<Command, Problem> {
    let instruction = instruction(&entry, escape)?;
    Ok(Command {
        instruction,
        code: entry.code,
        lines: entry.lines,
        comments: entry.comments,
    })
}

fn instruction(entry: &Entry, escape: char) -> Result<Instruction, Problem> {
    let rest = entry.rest.as_str();
    let keyword = entry.keyword.to_ascii_uppercase();
    // Instructions without flags; the others read theirs below.
    if !matches!(keyword.as_str(), "ADD" | "COPY" | "RUN" | "HEALTHCHECK")
        && INSTRUCTIONS.contains(&keyword.as_str())
    {
        Flags::none(&entry.flags)?;
    }
    Ok(match keyword.as_str() {
        "ADD" => Instruction::Add(add(entry)?),
        "ARG" => Instruction::Arg(args(rest, escape)?),
        "CMD" => Instruction::Cmd(command_line(rest)?),
        "COPY" => Instruction::Copy(copy(entry)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command_line(rest)?),
        "ENV" => Instruction::Env(split::pairs(rest, escape, "ENV")?),
        "EXPOSE" => Instruction::Expose(expose(rest)?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(entry)?),
        "LABEL" => Instruction::Label(split::pairs(rest, escape, "LABEL")?),
        "MAINTAINER" => Instruction::Maintainer(one(rest, "MAINTAINER")?),
        "ONBUILD" => Instruction::Onbuild(onbuild(entry, escape)?),
        "RUN" => Instruction::Run(run(entry)?),
        "SHELL" => Instruction::Shell(shell(rest)?),
        "STOPSIGNAL" => Instruction::StopSignal(one(rest, "STOPSIGNAL")?),
        "USER" => Instruction::User(one(rest, "USER")?),
        "VOLUME" => Instruction::Volume(volume(rest)?),
        "WORKDIR" => Instruction::Workdir(one(rest, "WORKDIR")?),
        _ => {
            let hint = hint(&entry.keyword, INSTRUCTIONS, Case::Insensitive);
            return Err(Problem::UnknownInstruction {
                keyword: entry.keyword.clone(),
                hint,
            });
        }
    })
}

fn one(rest: &str, instruction: &'static str) -> Result<String, Problem> {
    if rest.is_empty() {
        return Err(Problem::ExactlyOneArgument(instruction));
    }
    Ok(rest.to_owned())
}

fn command_line(rest: &str) -> Result<CommandLine, Problem> {
    Ok(match split::json_list(rest)? {
        Some(args) => CommandLine::Exec(args),
        None => CommandLine::Shell(rest.to_owned()),
    })
}

/// A JSON list, or words at blanks.
fn list(rest: &str) -> Result<Vec<String>, Problem> {
    Ok(split::json_list(rest)?.unwrap_or_else(|| split::blanks(rest)))
}

fn args(rest: &str, escape: char) -> Result<Vec<Arg>, Problem> {
    let words = split::words(rest, escape);
    if words.is_empty() {
        return Err(Problem::AtLeastOneArgument("ARG"));
    }
    let arg = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(Problem::BlankName("ARG")),
        Some((name, value)) => Ok(Arg {
            name: name.to_owned(),
            default: Some(value.to_owned()),
        }),
        None => Ok(Arg {
            name: word,
            default: None,
        }),
    };
    words.into_iter().map(arg).collect()
}

fn expose(rest: &str) -> Result<Vec<String>, Problem> {
    let mut ports = split::blanks(rest);
    if ports.is_empty() {
        return Err(Problem::AtLeastOneArgument("EXPOSE"));
    }
    ports.sort();
    Ok(ports)
}

fn volume(rest: &str) -> Result<Vec<String>, Problem> {
    let volumes = list(rest)?;
    if volumes.is_empty() {
        return Err(Problem::AtLeastOneArgument("VOLUME"));
    }
    let volume = |volume: String| match volume.trim() {
        "" => Err(Problem::EmptyVolume),
        trimmed => Ok(trimmed.to_owned()),
    };
    volumes.into_iter().map(volume).collect()
}

fn shell(rest: &str) -> Result<Vec<String>, Problem> {
    match split::json_list(rest)? {
        Some(words) if words.is_empty() => Err(Problem::AtLeastOneArgument("SHELL")),
        Some(words) => Ok(words),
        None if rest.is_empty() => Err(Problem::AtLeastOneArgument("SHELL")),
        None => Err(Problem::NotJson("SHELL")),
    }
}

fn onbuild(entry: &Entry, escape: char) -> Result<String, Problem> {
    if entry.rest.is_empty() {
        return Err(Problem::AtLeastOneArgument("ONBUILD"));
    }
    let (keyword, _, _) = split::instruction(&entry.rest, escape);
    check_trigger(keyword)?;
    let mut text = entry.rest.clone();
    for heredoc in &entry.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}

fn check_trigger(keyword: &str) -> Result<(), Problem> {
    match keyword.to_ascii_uppercase().as_str() {
        "ONBUILD" => Err(Problem::ChainedOnbuild),
        keyword @ ("MAINTAINER" | "FROM") => Err(Problem::OnbuildTrigger(keyword.to_owned())),
        _ => Ok(()),
    }
}

fn run(entry: &Entry) -> Result<Run, Problem> {
    let known = [
        ("mount", Kind::List),
        ("network", Kind::Text),
        ("security", Kind::Text),
        ("device", Kind::List),
    ];
    let flags = Flags::read(&entry.flags, &known)?;
    let mounts = flags.list("mount");
    for mount in &mounts {
        Mount::source_stage(mount).map_err(Problem::Mount)?;
    }
    let network = match flags.text("network").as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => return Err(Problem::NetworkMode(other.to_owned())),
    };
    let security = match flags.text("security").as_deref() {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(other) => return Err(Problem::SecurityMode(other.to_owned())),
    };
    Ok(Run {
        command: command_line(&entry.rest)?,
        heredocs: entry.heredocs.clone(),
        mounts,
        network,
        security,
        devices: flags.list("device"),
    })
}

const TRANSFER_FLAGS: [(&str, Kind); 4] = [
    ("chown", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Bool),
    ("exclude", Kind::List),
];

fn copy(entry: &Entry) -> Result<Copy, Problem> {
    let known = [
        &TRANSFER_FLAGS[..],
        &[("from", Kind::Text), ("parents", Kind::Bool)],
    ]
    .concat();
    let (files, flags) = transfer(entry, "COPY", &known)?;
    let from = flags.text("from");
    if let Some(from) = &from {
        // The stage has to be known before any variable is.
        let expanded = Expander::new('\\')
            .text(from, &Environment::new())
            .map_err(Problem::Expansion)?;
        if expanded != *from {
            return Err(Problem::VariableFrom);
        }
    }
    Ok(Copy {
        files,
        from,
        parents: flags.switch("parents") == Some(true),
    })
}

fn add(entry: &Entry) -> Result<Add, Problem> {
    let more = [
        ("keep-git-dir", Kind::Bool),
        ("checksum", Kind::Text),
        ("unpack", Kind::Bool),
    ];
    let known = [&TRANSFER_FLAGS[..], &more].concat();
    let (files, flags) = transfer(entry, "ADD", &known)?;
    Ok(Add {
        files,
        keep_git_dir: flags.switch("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.switch("unpack"),
    })
}

fn transfer(
    entry: &Entry,
    instruction: &'static str,
    known: &[(&'static str, Kind)],
) -> Result<(Transfer, Flags), Problem> {
    let mut words = list(&entry.rest)?;
    let destination = words
        .pop()
        .filter(|_| !words.is_empty())
        .ok_or(Problem::NoDestination(instruction))?;
    let flags = Flags::read(&entry.flags, known)?;
    if Heredoc::parse(&destination).is_some() {
        return Err(Problem::HeredocDestination(instruction));
    }
    let mut sources = Vec::new();
    let mut documents = Vec::new();
    for word in words {
        let opened = Heredoc::parse(&word);
        match opened.and_then(|opened| entry.heredocs.iter().find(|heredoc| heredoc.name == opened.name)) {
            Some(heredoc) => documents.push(heredoc.clone()),
            None => sources.push(word),
        }
    }
    let files = Transfer {
        sources,
        documents,
        destination,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link") == Some(true),
        excludes: flags.list("exclude"),
    };
    Ok((files, flags))
}

fn healthcheck(entry: &Entry) -> Result<Healthcheck, Problem> {
    let known =
        ["interval", "timeout", "start-period", "start-interval", "retries"].map(|name| (name, Kind::Text));
    let flags = Flags::read(&entry.flags, &known)?;
    let (kind, rest) = entry
        .rest
        .split_once(char::is_whitespace)
        .unwrap_or((&entry.rest, ""));
    let rest = rest.trim_start();
    match kind.to_uppercase().as_str() {
        "" => Err(Problem::AtLeastOneArgument("HEALTHCHECK")),
        "NONE" if rest.is_empty() => Ok(Healthcheck::None),
        "NONE" => Err(Problem::HealthcheckNoneArguments),
        "CMD" => {
            let command = command_line(rest)?;
            if rest.is_empty() || command == CommandLine::Exec(Vec::new()) {
                return Err(Problem::HealthcheckWithoutCommand);
            }
            Ok(Healthcheck::Test {
                command,
                timing: timing(&flags)?,
            })
        }
        other => Err(Problem::HealthcheckType(other.to_owned())),
    }
}

fn timing(flags: &Flags) -> Result<Timing, Problem> {
    let interval = |name: &'static str| match flags.text(name) {
        None => Ok(0),
        Some(text) => match parse_duration(&text)? {
            nanoseconds if nanoseconds != 0 && nanoseconds < 1_000_000 => Err(Problem::ShortInterval(name)),
            nanoseconds => Ok(nanoseconds),
        },
    };
    let retries = match flags.text("retries") {
        None => 0,
        Some(text) => match text.parse::<i32>() {
            Ok(retries) if retries < 0 => return Err(Problem::NegativeRetries(retries.into())),
            Ok(retries) => retries,
            Err(_) => return Err(Problem::Retries(text)),
        },
    };
    Ok(Timing {
        interval: interval("interval")?,
        timeout: interval("timeout")?,
        start_period: interval("start-period")?,
        start_interval: interval("start-interval")?,
        retries,
    })
}
