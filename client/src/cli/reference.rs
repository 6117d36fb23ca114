//! `docs/reference.md`: the help of every command, so that a changed flag cannot go unseen.

use std::path::Path;

use clap::{Command, CommandFactory as _};

use super::Cli;

const INTRODUCTION: &str = "# Reference\n\nWhat `--help` says of every command. `UPDATE_REFERENCE=1 cargo test -p client reference` writes this file.\n";

fn reference() -> String {
    let mut cli = Cli::command().term_width(110);
    cli.build();
    let mut text = INTRODUCTION.to_owned();
    describe(&mut cli, &mut text);
    text
}

fn describe(command: &mut Command, text: &mut String) {
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    text.push_str(&format!(
        "\n## {name}\n\n```text\n{}\n```\n",
        lines.join("\n").trim_end()
    ));
    for command in visible(command) {
        describe(command, text);
    }
}

fn visible(command: &mut Command) -> impl Iterator<Item = &mut Command> {
    command
        .get_subcommands_mut()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

#[test]
fn the_reference_is_what_the_commands_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
    let reference = reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference,
        "docs/reference.md is out of date: run UPDATE_REFERENCE=1 cargo test -p client reference"
    );
}

/// What people start with shows how.
const WITH_EXAMPLES: [&str; 10] = [
    "build",
    "create",
    "use",
    "inspect",
    "ls",
    "rm",
    "stop",
    "dial-stdio",
    "binfmt",
    "completion",
];

#[test]
fn every_command_teaches() {
    fn check(command: &mut Command, depth: usize) {
        let help = command.render_long_help().to_string();
        let name = command.get_name().to_owned();
        assert!(command.get_about().is_some(), "{name} has no purpose");
        let has_example = help.contains("Examples:") || depth != 1 || !WITH_EXAMPLES.contains(&name.as_str());
        assert!(has_example, "{name} has no example");
        for command in visible(command) {
            check(command, depth + 1);
        }
    }
    let mut cli = Cli::command();
    cli.build();
    check(&mut cli, 0);
}
