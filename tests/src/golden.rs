//! Outputs of the tools that ours stand in for, recorded once and compared byte for byte ever since.
//!
//! With `TRIMARAN_RECORD_<TOOL>=/path/to/tool`, a test runs that tool in place of ours and writes down what it says:
//! `tests/golden/README.md` tells which versions that were.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Ended;

/// Where outputs are kept: `tests/golden/<tool>/<subject>`.
pub fn folder(tool: &str, subject: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(tool)
        .join(subject)
}

/// The tool to be recorded, if that is what is wanted.
pub fn recorded_tool(tool: &str) -> Option<PathBuf> {
    std::env::var_os(format!("TRIMARAN_RECORD_{}", tool.to_uppercase())).map(PathBuf::from)
}

/// One output to compare: what is printed, with all that differs from run to run replaced.
#[derive(Debug)]
pub struct Case<'a> {
    pub tool: &'a str,
    pub subject: &'a str,
    pub name: &'a str,
}

impl Case<'_> {
    fn path(&self) -> PathBuf {
        folder(self.tool, self.subject).join(format!("{}.txt", self.name))
    }

    /// Runs the command, and compares or records what it prints on standard output, and on standard error if it fails.
    /// Returns the difference, if there is one.
    pub fn compare(&self, command: &mut Command, normal: impl Fn(&str) -> String) -> Option<String> {
        let ended = Ended::of(command);
        let mut text = normal(&ended.stdout);
        if ended.code != Some(0) {
            text.push_str(&format!(
                "exit {:?}\n{}",
                ended.code.unwrap_or(-1),
                normal(&ended.stderr)
            ));
        }
        let path = self.path();
        if recorded_tool(self.tool).is_some() {
            let folder = path.parent().expect("golden files are in folders");
            std::fs::create_dir_all(folder).expect("the repository can be written");
            std::fs::write(&path, &text).expect("the repository can be written");
            return None;
        }
        let expected = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: record it first", path.display()));
        (text != expected).then(|| {
            format!(
                "--- {} {command:?}\n--- expected\n{expected}\n--- found\n{text}",
                self.name
            )
        })
    }
}
