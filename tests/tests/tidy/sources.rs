//! Rules about single files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::repository::{Source, assert_none, root, sources};

const LONGEST: usize = 800;
const SAYS_NOTHING: [&str; 6] = ["utils", "util", "helpers", "common", "misc", "types"];

#[test]
fn files_have_a_subject_and_a_size_that_can_be_read() {
    let mut broken = Vec::new();
    for source in sources() {
        let path = source.path.display();
        let lines = source.text.lines().count();
        if lines > LONGEST {
            broken.push(format!("{path} has {lines} lines, more than {LONGEST}"));
        }
        let stem = source
            .path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if stem == "mod" {
            broken.push(format!("{path}: a room is room.rs beside room/, not room/mod.rs"));
        }
        if SAYS_NOTHING.contains(&stem) || stem == "manager" {
            broken.push(format!("{path}: the name {stem:?} says nothing"));
        }
        if !source.text.starts_with("//!") && !matches!(stem, "build" | "tests") {
            broken.push(format!("{path} does not open with what it is for"));
        }
    }
    assert_none(&broken, "files");
}

#[test]
fn reminders_name_what_they_wait_for() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut broken = Vec::new();
    for source in sources() {
        for (at, line) in source.text.lines().enumerate() {
            for mark in marks {
                if line
                    .find(mark)
                    .is_some_and(|found| !line[found + mark.len()..].starts_with("(#"))
                {
                    broken.push(format!("{}: {mark} without a reference", source.at(at + 1)));
                }
            }
        }
    }
    assert_none(&broken, "reminders");
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let attribute = concat!("#[al", "low(");
    let inner = concat!("#![al", "low(");
    let mut broken = Vec::new();
    for source in sources() {
        for (line, code) in source.code() {
            if code.contains(attribute) || code.contains(inner) {
                broken.push(source.at(line));
            }
        }
    }
    assert_none(&broken, "write #[expect(lint, reason = \"…\")]");
}

#[test]
fn unsafe_code_stays_in_its_files() {
    let opt_in = concat!("expect(uns", "afe_code");
    let mut broken = Vec::new();
    for source in sources() {
        let is_sys = source.path.file_name().is_some_and(|name| name == "sys.rs");
        for (line, code) in source.code() {
            if !is_sys && code.contains(opt_in) {
                broken.push(source.at(line));
            }
        }
    }
    assert_none(&broken, "unsafe code belongs into a sys.rs");
}

/// The order of a hash map differs from run to run, so that what is written with one has another digest each time.
#[test]
fn nothing_with_a_random_order_is_serialised() {
    let mut broken = Vec::new();
    for source in sources() {
        let mut derives = false;
        let mut inside = false;
        for (line, code) in source.code() {
            if code.trim_start().starts_with("#[derive(") && code.contains("Serialize") {
                derives = true;
            }
            if derives && (code.contains("struct ") || code.contains("enum ")) {
                (derives, inside) = (false, true);
            }
            if inside && (code.contains("HashMap<") || code.contains("HashSet<")) {
                broken.push(source.at(line));
            }
            if inside && (code.starts_with('}') || code.trim_end().ends_with(");")) {
                inside = false;
            }
        }
    }
    assert_none(&broken, "serialised types use BTreeMap or Vec");
}

/// A file that no `mod` names is not compiled, and its tests never run.
#[test]
fn every_file_is_part_of_a_program() {
    let all = sources();
    let mut reached = BTreeSet::new();
    for source in &all {
        if is_crate_root(&source.path) {
            reach(&all, source, &mut reached);
        }
    }
    let forgotten = all.iter().filter(|source| !reached.contains(&source.path));
    let forgotten: Vec<String> = forgotten
        .map(|source| source.path.display().to_string())
        .collect();
    assert_none(&forgotten, "files that no `mod` names");
}

fn is_crate_root(path: &Path) -> bool {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    matches!(
        parts.as_slice(),
        [_, "build.rs"]
            | [_, "src", "lib.rs" | "main.rs"]
            | [_, "src", "bin", _]
            | [_, "tests" | "examples" | "benches", _]
            | [_, "tests" | "examples" | "benches", _, "main.rs"]
    )
}

fn reach(all: &[Source], source: &Source, reached: &mut BTreeSet<PathBuf>) {
    if !reached.insert(source.path.clone()) {
        return;
    }
    let folder = source.path.parent().expect("every source lies in a folder");
    let stem = source.path.file_stem().expect("every source has a name");
    let children = if is_crate_root(&source.path) {
        folder.to_owned()
    } else {
        folder.join(stem)
    };
    for (_, code) in source.code() {
        let Some(name) = declared_module(code) else {
            continue;
        };
        if let Some(child) = all
            .iter()
            .find(|source| source.path == children.join(format!("{name}.rs")))
        {
            reach(all, child, reached);
        }
    }
}

/// The name in `mod name;`, with or without a visibility.
fn declared_module(code: &str) -> Option<&str> {
    let code = code.trim().strip_suffix(';')?;
    let code = match code.strip_prefix("pub") {
        Some(rest) => rest.trim_start_matches(|c: char| c != ' '),
        None => code,
    };
    let name = code.trim_start().strip_prefix("mod ")?;
    name.chars()
        .all(|c| c.is_alphanumeric() || c == '_')
        .then_some(name)
}

#[test]
fn module_declarations_are_recognised() {
    for (code, name) in [
        ("mod a;", Some("a")),
        ("    pub mod b_2;", Some("b_2")),
        ("pub(crate) mod c;", Some("c")),
        ("mod tests {", None),
        ("use mod_a;", None),
        ("let x = modulo;", None),
    ] {
        assert_eq!(declared_module(code), name, "{code}");
    }
}

#[test]
fn scripts_can_be_executed() {
    use std::os::unix::fs::PermissionsExt as _;

    let scripts = std::fs::read_dir(root().join("scripts"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for script in scripts.chain([root().join(".ci/run")]) {
        let mode = std::fs::metadata(&script).unwrap().permissions().mode();
        assert!(mode & 0o111 != 0, "{} cannot be executed", script.display());
    }
}
