//! Which crate may use which, and which room of the daemon which.

use crate::repository::{CRATES, Source, assert_none, root, sources};

/// In the order in which a build walks through them: a room uses itself and rooms behind it.
const ROOMS: [&str; 11] = [
    "api",
    "session",
    "frontend",
    "graph",
    "solver",
    "sources",
    "ops",
    "proxy",
    "executor",
    "store",
    "exporters",
];

/// Edges against the order, each with its reason. The graph is the language that all rooms speak.
const EXCEPTIONS: [(&str, &str, &str); 12] = [
    (
        "solver",
        "frontend",
        "a client that brings no graph of its own has the frontend run inside its job",
    ),
    ("solver", "graph", "what is solved"),
    (
        "solver",
        "session",
        "a job belongs to the client that asked for it",
    ),
    ("sources", "graph", "which source is meant"),
    (
        "sources",
        "session",
        "local files and credentials come from the client",
    ),
    ("ops", "graph", "which operation is meant"),
    (
        "ops",
        "sources",
        "a source is an operation, and its errors are the operation's",
    ),
    ("ops", "session", "the agent behind an ssh mount is the client's"),
    (
        "ops",
        "solver",
        "what a policy or a nested build says is the operation's error",
    ),
    (
        "exporters",
        "session",
        "results in folders and archives go back to the client",
    ),
    (
        "exporters",
        "sources",
        "layers of a base image may not be here yet: pushing copies or fetches them",
    ),
    (
        "exporters",
        "store",
        "what is exported lies in the store, which keeps to itself behind all others",
    ),
];

#[test]
fn crates_use_only_crates_below_them() {
    let mut broken = Vec::new();
    for (name, allowed) in CRATES {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for dependency in dependencies.keys() {
                let ours = CRATES.iter().any(|(known, _)| known == dependency);
                if ours && !allowed.contains(&dependency.as_str()) {
                    broken.push(format!("{name} has {dependency} among its {section}"));
                }
            }
        }
    }
    assert_none(&broken, "a crate may use only what ARCHITECTURE.md allows");
}

#[test]
fn rooms_use_only_rooms_behind_them() {
    let mut broken = Vec::new();
    for source in sources() {
        let Some(from) = room_of(&source) else { continue };
        for (line, code) in source.code() {
            for to in ROOMS {
                if uses(code, to) && !allowed(from, to) {
                    broken.push(format!("{}: {from} uses {to}", source.at(line)));
                }
            }
        }
    }
    assert_none(&broken, "a room of the daemon uses only rooms behind it");
}

fn room_of(source: &Source) -> Option<&'static str> {
    let inside = source.path.strip_prefix("builderd/src").ok()?;
    let first = inside.iter().next()?.to_str()?;
    ROOMS
        .into_iter()
        .find(|room| *room == first.trim_end_matches(".rs"))
}

fn allowed(from: &str, to: &str) -> bool {
    let position = |room: &str| ROOMS.iter().position(|known| *known == room);
    position(from) <= position(to)
        || EXCEPTIONS
            .iter()
            .any(|(known_from, known_to, _)| (*known_from, *known_to) == (from, to))
}

/// Whether the line names the room as a path from the crate's root.
fn uses(code: &str, room: &str) -> bool {
    let path = format!("crate::{room}");
    code.match_indices(&path).any(|(at, _)| {
        let next = code[at + path.len()..].chars().next();
        !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
    })
}

#[test]
fn a_use_is_told_from_a_longer_name() {
    assert!(uses("use crate::store::Layer;", "store"));
    assert!(uses("crate::store", "store"));
    assert!(!uses("use crate::stores::Layer;", "store"));
    assert!(!uses("use crate::graph::store;", "store"));
    assert!(allowed("api", "exporters") && allowed("ops", "ops") && !allowed("store", "solver"));
}
