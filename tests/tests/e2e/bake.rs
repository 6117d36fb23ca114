//! `trimaran bake`: what it prints is what buildx prints, what it refuses it names with its place, and what it builds is
//! pushed.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::needs::{Need, given};
use tests::process::Ended;
use tests::programs;
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/bake")
}

/// Without any variable that the test does not set.
fn bake(folder: &Path) -> Command {
    let mut command = Command::new(programs::ours("trimaran"));
    command.current_dir(folder).env_clear().arg("bake");
    command.env("HOME", "/root");
    command.env("PATH", std::env::var("PATH").unwrap_or_default());
    command
}

/// A line of words as a shell takes it apart, of which only quotes are needed here.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut begun) = (String::new(), None, false);
    for c in line.chars() {
        match (c, quoted) {
            ('\'' | '"', None) => (quoted, begun) = (Some(c), true),
            (c, Some(quote)) if c == quote => quoted = None,
            (' ', None) => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (c, _) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[test]
fn what_is_printed_is_what_buildx_prints() {
    let mut compared = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(golden()).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(calls) = std::fs::read_to_string(folder.join("calls")) else {
            continue;
        };
        for call in calls.lines().filter(|line| !line.is_empty()) {
            let [name, environment, arguments] = call.splitn(3, '|').collect::<Vec<_>>()[..] else {
                panic!("{call:?} in {} is no call", folder.display());
            };
            let mut command = bake(&folder);
            for pair in words(environment) {
                let (variable, value) = pair.split_once('=').unwrap();
                command.env(variable, value);
            }
            let ended = Ended::of(command.args(words(arguments)));
            let expected = std::fs::read_to_string(folder.join(format!("{name}.out"))).unwrap();
            compared += 1;
            if ended.stdout != expected {
                wrong.push(format!(
                    "{}/{name}: {ended}\nexpected:\n{expected}",
                    folder.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 50, "only {compared} calls were compared");
}
