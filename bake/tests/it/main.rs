//! Definitions from outside: what is wrong with them, what they may cost, and that no text whatever breaks the reader.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod limits;
mod mistakes;
mod random;
mod speed;

use std::collections::BTreeMap;
use std::io;

use bake::{Definition, Error, File, Selection, World};

/// A world with these variables in its environment and these files.
pub(crate) fn load_with(
    files: &[(&str, &str)],
    environment: &[(&str, &str)],
    others: &[(&str, &str)],
) -> Result<Definition, Error> {
    let files: Vec<File> = files
        .iter()
        .map(|(name, text)| File {
            name: (*name).to_owned(),
            text: (*text).to_owned(),
        })
        .collect();
    let read = |path: &str| {
        others
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, text)| text.as_bytes().to_vec())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    let world = World {
        builtins: BTreeMap::from([("BAKE_LOCAL_PLATFORM".to_owned(), "linux/amd64".to_owned())]),
        variables: BTreeMap::new(),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        home: "/root".to_owned(),
        now: 1_700_000_000,
        file_relative_paths: false,
        read: &read,
    };
    Definition::load(&files, &world)
}

pub(crate) fn load(name: &str, text: &str) -> Result<Definition, Error> {
    load_with(&[(name, text)], &[], &[])
}

pub(crate) fn select(
    definition: &Definition,
    names: &[&str],
    overrides: &[&str],
) -> Result<Selection, Error> {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    definition.select(&owned(names), &owned(overrides), &BTreeMap::new())
}
