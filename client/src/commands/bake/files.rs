//! Where the definition comes from, and what it may see of the world.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use bake::{DEFAULT_FILES, File, World, paths};

use super::{BakeArgs, remote};
use crate::settings::Settings;

/// A definition that is read from files of the working folder, or from a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub remote: Option<String>,
    /// What `BAKE_CMD_CONTEXT` is.
    pub context: String,
}

/// Marks what is local although the definition is not.
pub const LOCAL: &str = "cwd://";
/// Nobody writes one this long; what is this long is something else.
const LARGEST: u64 = 8 << 20;

/// One or two addresses may stand before the names of the targets: of the definition, and of the context.
pub fn split(args: &[String]) -> (Source, Vec<String>) {
    let mut rest = args;
    let mut address = || match rest.split_first() {
        Some((first, others)) if paths::is_remote(first) => {
            rest = others;
            Some(first.clone())
        }
        _ => None,
    };
    let remote = address();
    let context = remote.as_ref().and_then(|_| address());
    let mut targets = rest.to_vec();
    if targets.is_empty() {
        targets.push("default".to_owned());
    }
    let source = Source {
        remote,
        context: context.unwrap_or_else(|| LOCAL.to_owned()),
    };
    (source, targets)
}

pub async fn read(args: &BakeArgs, source: &Source, settings: &Settings) -> anyhow::Result<Vec<File>> {
    let mut names = args.files.clone();
    if names.is_empty() {
        names = names_of_environment(settings)?;
    }
    let (local, elsewhere): (Vec<&str>, Vec<&str>) = names
        .iter()
        .map(String::as_str)
        .partition(|name| name.starts_with(LOCAL) || source.remote.is_none());
    let local: Vec<&str> = local
        .into_iter()
        .map(|name| name.strip_prefix(LOCAL).unwrap_or(name))
        .collect();
    let mut files = Vec::new();
    if let Some(address) = &source.remote {
        files.extend(remote::read(address, &elsewhere, settings).await?);
    }
    if !local.is_empty() || source.remote.is_none() {
        files.extend(read_local(&local)?);
    }
    ensure!(
        !files.is_empty(),
        "couldn't find a bake definition: make one of {} or name a file with --file",
        DEFAULT_FILES.join(", ")
    );
    Ok(files)
}

/// `BUILDX_BAKE_FILE`, a list like `PATH`.
fn names_of_environment(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let Some(list) = settings.get("BUILDX_BAKE_FILE") else {
        return Ok(Vec::new());
    };
    let separator = settings.get("BUILDX_BAKE_PATH_SEPARATOR").unwrap_or(":");
    let names: Vec<String> = list
        .split(separator)
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    for name in names.iter().filter(|name| *name != "-") {
        std::fs::metadata(name).with_context(|| format!("reading {name}, which BUILDX_BAKE_FILE names"))?;
    }
    Ok(names)
}

/// These files, or those of the usual ones that are there.
fn read_local(names: &[&str]) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    if names.is_empty() {
        for name in DEFAULT_FILES {
            match read_file(Path::new(name)) {
                Ok(text) => files.push(file(name, text)?),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("reading {name}")),
            }
        }
        return Ok(files);
    }
    for name in names {
        let bytes = if *name == "-" {
            let mut bytes = Vec::new();
            io::stdin()
                .lock()
                .take(LARGEST + 1)
                .read_to_end(&mut bytes)
                .map(|_| bytes)
        } else {
            read_file(Path::new(name))
        };
        let bytes = bytes.with_context(|| format!("reading {name}"))?;
        files.push(file(name, bytes)?);
    }
    Ok(files)
}

pub fn file(name: &str, bytes: Vec<u8>) -> anyhow::Result<File> {
    let text = String::from_utf8(bytes)
        .ok()
        .with_context(|| format!("reading {name}: a definition is text in UTF-8"))?;
    Ok(File {
        name: name.to_owned(),
        text,
    })
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the definition may see.
pub fn world(args: &BakeArgs, source: &Source, settings: &Settings) -> anyhow::Result<World<'static>> {
    let mut variables = BTreeMap::new();
    for text in args.variables.iter().filter(|text| !text.is_empty()) {
        let (name, value) = text
            .split_once('=')
            .with_context(|| format!("invalid variable \"{text}\", expected key=value"))?;
        ensure!(!name.is_empty(), "invalid variable \"{text}\", key is empty");
        variables.insert(name.to_owned(), value.to_owned());
    }
    let environment = if settings.flag("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP") {
        BTreeMap::new()
    } else {
        settings.all().clone()
    };
    let platform = binfmt::Platform::host().to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(World {
        builtins: BTreeMap::from([
            ("BAKE_CMD_CONTEXT".to_owned(), source.context.clone()),
            ("BAKE_LOCAL_PLATFORM".to_owned(), platform),
        ]),
        variables,
        environment,
        home: settings.home().display().to_string(),
        now: i64::try_from(now.as_secs()).unwrap_or_default(),
        file_relative_paths: settings.flag("BUILDX_BAKE_FILE_RELATIVE_PATHS"),
        read: &|path| read_file(Path::new(path)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_before_targets() {
        let of = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            let (source, targets) = split(&args);
            (
                source.remote.unwrap_or_default(),
                source.context,
                targets.join(" "),
            )
        };
        let texts = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        let (one, two) = ("https://h/x.git", "git@h:y.git");
        assert_eq!(of(&[]), texts("", LOCAL, "default"));
        assert_eq!(of(&["a", one]), texts("", LOCAL, &format!("a {one}")));
        assert_eq!(of(&[one]), texts(one, LOCAL, "default"));
        assert_eq!(of(&[one, two, "a", "b"]), texts(one, two, "a b"));
    }
}
