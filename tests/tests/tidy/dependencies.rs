//! What the programs are built from: licences, crates that are banned, crates that are there twice.
//!
//! The rules are in `deny.toml`, in cargo-deny's format; what is checked is the graph that cargo really builds.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Deserialize;

use crate::repository::{CRATES, assert_none, root};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "that sources is read is the check of what it says")]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: Deny,
    deny: Vec<Named>,
    skip: Vec<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "both have one value: reading them is the check")]
struct Sources {
    unknown_registry: Deny,
    unknown_git: Deny,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Deny {
    Deny,
}

/// "name" or "name@version", and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "crate")]
    package: String,
    reason: String,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    /// What cargo shows for packages that are not from the registry: a path or an address.
    origin: Option<String>,
    license: String,
}

fn rules() -> Rules {
    toml::from_str(&std::fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap()
}

/// Every package that takes part in building the workspace on this system, tests included.
fn packages() -> BTreeSet<Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--edges",
            "normal,build,dev",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}|{l}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = String::from_utf8(output.stdout).unwrap();
    let packages: BTreeSet<Package> = listed
        .lines()
        .filter(|line| !line.is_empty())
        .map(package)
        .collect();
    assert!(
        packages.len() > 100,
        "only {} packages found: the search is broken",
        packages.len()
    );
    packages
}

/// Reads a line like `name v1.2.3 (origin) (*)|MIT OR Apache-2.0 (*)`.
fn package(line: &str) -> Package {
    let (package, license) = line.split_once('|').unwrap_or_else(|| panic!("{line:?}"));
    let mut words = package.split(' ');
    let name = words.next().unwrap_or_default().to_owned();
    let version = words
        .next()
        .unwrap_or_default()
        .trim_start_matches('v')
        .to_owned();
    let origin = words
        .find(|word| !matches!(*word, "(*)" | "(proc-macro)"))
        .map(str::to_owned);
    Package {
        name,
        version,
        origin,
        license: license.trim_end_matches("(*)").trim().to_owned(),
    }
}

#[test]
fn licences_are_ones_that_we_may_ship() {
    let allowed = rules().licenses.allow;
    let broken: Vec<String> = packages()
        .iter()
        .filter(|package| !is_allowed(&package.license, &allowed))
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.license))
        .collect();
    assert_none(&broken, "licences that deny.toml does not allow");
}

#[test]
fn banned_crates_are_absent() {
    let rules = rules();
    let packages = packages();
    let broken: Vec<String> = rules
        .bans
        .deny
        .iter()
        .filter(|ban| packages.iter().any(|package| package.name == ban.package))
        .map(|ban| format!("{}: {}", ban.package, ban.reason))
        .collect();
    assert_none(&broken, "banned crates");
}

#[test]
fn each_crate_is_there_once_unless_somebody_said_why() {
    let Bans {
        multiple_versions: Deny::Deny,
        skip,
        ..
    } = rules().bans;
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        versions.entry(package.name).or_default().insert(package.version);
    }
    let mut broken = Vec::new();
    let mut used = BTreeSet::new();
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let is_skipped = |version: &&String| {
            skip.iter()
                .any(|skip| skip.package == format!("{name}@{version}"))
        };
        used.extend(
            versions
                .iter()
                .filter(is_skipped)
                .map(|version| format!("{name}@{version}")),
        );
        let unexplained = versions.iter().filter(|version| !is_skipped(version)).count();
        if unexplained > 1 {
            broken.push(format!(
                "{name}: {}",
                versions.iter().cloned().collect::<Vec<_>>().join(", ")
            ));
        }
    }
    assert_none(&broken, "crates in several versions");
    let unused: Vec<String> = skip
        .iter()
        .filter(|skip| !used.contains(&skip.package))
        .map(|skip| format!("{} ({})", skip.package, skip.reason))
        .collect();
    assert_none(&unused, "skips in deny.toml that nothing needs any more");
}

#[test]
fn everything_else_comes_from_the_registry() {
    let foreign: Vec<String> = packages()
        .into_iter()
        .filter(|package| package.origin.is_some() && !CRATES.iter().any(|(name, _)| *name == package.name))
        .map(|package| {
            format!(
                "{} {}: {}",
                package.name,
                package.version,
                package.origin.unwrap_or_default()
            )
        })
        .collect();
    assert_none(&foreign, "packages from elsewhere");
}

/// Whether an SPDX expression can be met with allowed licences alone. "/" is how "OR" used to be written.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = any_of(&mut rest, allowed);
    !words.is_empty() && rest.is_empty() && met
}

fn any_of(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = all_of(words, allowed);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        met |= all_of(words, allowed);
    }
    met
}

fn all_of(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = any_of(words, allowed);
            let [")", rest @ ..] = *words else { return false };
            *words = rest;
            met
        }
        [license, "WITH", exception, rest @ ..] => {
            *words = rest;
            allowed.contains(&format!("{license} WITH {exception}"))
        }
        [license, rest @ ..] => {
            *words = rest;
            allowed.contains(*license)
        }
        [] => false,
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed: BTreeSet<String> = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND (GPL-3.0 OR ISC)", true),
        ("(MIT AND GPL-3.0) OR ISC", true),
        ("GPL-3.0 AND MIT OR GPL-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("(MIT", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn packages_are_read_as_cargo_prints_them() {
    let read = package("tests v0.1.0 (/somewhere/tests) (*)|Apache-2.0 (*)");
    assert_eq!((read.name.as_str(), read.version.as_str()), ("tests", "0.1.0"));
    assert_eq!(
        (read.origin.as_deref(), read.license.as_str()),
        (Some("(/somewhere/tests)"), "Apache-2.0")
    );
    assert_eq!(package("serde_derive v1.0.1 (proc-macro)|MIT").origin, None);
}
