//! The repository as the rules see it: its crates and their source files.

use std::path::{Path, PathBuf};

/// The crates, each with the crates of this repository that it may depend on.
pub(crate) const CRATES: [(&str, &[&str]); 8] = [
    ("proto", &[]),
    ("binfmt", &[]),
    ("registry", &[]),
    ("dockerfile", &[]),
    ("bake", &[]),
    ("builderd", &["proto", "binfmt", "registry", "dockerfile"]),
    ("client", &["proto", "binfmt", "registry", "dockerfile", "bake"]),
    ("tests", &["proto", "registry"]),
];

pub(crate) fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder
        .parent()
        .expect("the crate is a folder of the repository")
        .to_owned()
}

/// A source file: its path from the repository's root, and its text.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// All Rust files of the crates.
pub(crate) fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for (name, _) in CRATES {
        for part in ["src", "tests", "examples", "benches", "build.rs"] {
            collect(&root().join(name).join(part), &mut found);
        }
    }
    assert!(
        found.len() > 50,
        "only {} source files found: the search is broken",
        found.len()
    );
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(path: &Path, found: &mut Vec<Source>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") && path.is_file() {
        let text = std::fs::read_to_string(path).unwrap();
        found.push(Source {
            path: path.strip_prefix(root()).unwrap().to_owned(),
            text,
        });
    }
}

impl Source {
    /// Lines with their numbers, without what stands in comments.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
    }

    pub(crate) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// Fails with one line for each broken rule.
pub(crate) fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}
