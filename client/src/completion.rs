//! Completion on the command line: what could come next, for the shells and for Docker's own completion.
//!
//! A shell that has read the script of `trimaran completion` runs this program for every completion, with the variable
//! `COMPLETE` set. The candidates are those of the arguments' definitions, and names that only a running program knows.

use std::ffi::OsString;

use clap::CommandFactory as _;
use clap_complete::engine::{self, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use crate::cli::Cli;
use crate::drivers;
use crate::instance::Builders;
use crate::settings::Settings;

/// The variable that scripts set.
pub const VARIABLE: &str = "COMPLETE";
/// Cobra's word for "these are all, do not offer files".
const NO_FILES: &str = ":4";

/// Answers a shell that asks for candidates. Returns whether one asked.
pub fn answer(words: &[OsString]) -> Result<bool, clap::Error> {
    let folder = std::env::current_dir().ok();
    CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .try_complete(words.iter().cloned(), folder.as_deref())
}

/// The script by which a shell asks.
pub fn script(shell: &str, program: &str) -> std::io::Result<Option<String>> {
    let shells = Shells::builtins();
    let Some(completer) = shells.completer(shell) else {
        return Ok(None);
    };
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, program, program, program, &mut script)?;
    Ok(Some(String::from_utf8_lossy(&script).into_owned()))
}

/// The answer to Docker, which asks plugins as Cobra does: a candidate a line, then a directive.
pub fn for_docker(words: Vec<OsString>, with_help: bool) -> std::io::Result<String> {
    let folder = std::env::current_dir().ok();
    let last = words.len().saturating_sub(1);
    let candidates = engine::complete(&mut Cli::command(), words, last, folder.as_deref())?;
    let mut text = String::new();
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        text.push_str(&candidate.get_value().to_string_lossy());
        if let Some(help) = candidate.get_help().filter(|_| with_help) {
            let help = help.to_string();
            text.push('\t');
            text.push_str(help.lines().next().unwrap_or_default());
        }
        text.push('\n');
    }
    Ok(format!("{text}{NO_FILES}\n"))
}

/// The builders there are.
pub fn builders() -> Vec<CompletionCandidate> {
    let names = Builders::new(&Settings::from_environment()).names();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// The drivers there are.
pub fn drivers() -> Vec<CompletionCandidate> {
    drivers::NAMES.into_iter().map(CompletionCandidate::new).collect()
}
