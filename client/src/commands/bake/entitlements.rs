//! A definition may come from somebody else: what it wants to reach beyond the working folder must be allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use bake::{Selection, Target, paths};

use super::files::Source;
use super::inputs::Inputs;
use crate::output;
use crate::settings::Settings;

/// What `--allow` names.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    network_host: bool,
    security_insecure: bool,
    devices: bool,
    ssh: bool,
    local_delete: bool,
    read: Vec<String>,
    write: Vec<String>,
}

/// What is wanted and was not allowed.
#[derive(Debug, Default)]
struct Missing {
    /// The flags that allow it, and what it is.
    powers: Vec<(String, String)>,
    /// The same, of files and sockets.
    files: Vec<(String, String)>,
}

impl Granted {
    pub fn parse(texts: &[String]) -> anyhow::Result<Self> {
        let mut granted = Self::default();
        for text in texts {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            let path = || value.to_owned();
            match key {
                "network.host" => granted.network_host = true,
                "security.insecure" => granted.security_insecure = true,
                "device" => granted.devices = true,
                "ssh" => granted.ssh = true,
                "buildx.local.delete" => granted.local_delete = true,
                "fs" => {
                    granted.read.push(path());
                    granted.write.push(path());
                }
                "fs.read" => granted.read.push(path()),
                "fs.write" => granted.write.push(path()),
                // Images are what is made here anyway.
                "image" | "image.push" | "image.load" => {}
                other => bail!(
                    "unknown entitlement key \"{other}\": use network.host, security.insecure, device, ssh, fs, fs.read or fs.write"
                ),
            }
        }
        Ok(granted)
    }

    /// Asks the user, or fails, if targets want more than is allowed.
    pub fn check(
        &self,
        selection: &Selection,
        inputs: &BTreeMap<String, Inputs>,
        source: &Source,
        settings: &Settings,
    ) -> anyhow::Result<()> {
        let missing = self.missing(selection, inputs)?;
        if missing.powers.is_empty() && missing.files.is_empty() {
            return Ok(());
        }
        let checks_files = checks_files(source, settings)?;
        if !checks_files && missing.powers.is_empty() {
            return Ok(());
        }
        missing.tell();
        if checks_files && settings.get("BUILDX_BAKE_ENTITLEMENTS_FS").is_none() && !missing.files.is_empty()
        {
            output::note("Set BUILDX_BAKE_ENTITLEMENTS_FS=0 to do without checks of files.\n");
        }
        if std::io::stdin().is_terminal() && confirmed() {
            return Ok(());
        }
        bail!("additional privileges requested")
    }

    fn missing(&self, selection: &Selection, inputs: &BTreeMap<String, Inputs>) -> anyhow::Result<Missing> {
        let grants = &selection.grants;
        let mut missing = Missing::default();
        let mut power = |flag: &str, what: &str| {
            let entry = (flag.to_owned(), what.to_owned());
            if !missing.powers.contains(&entry) {
                missing.powers.push(entry);
            }
        };
        for entitlement in selection
            .targets
            .values()
            .flat_map(|target| target.entitlements.iter().flatten())
        {
            match entitlement
                .split_once('=')
                .map_or(entitlement.as_str(), |(key, _)| key)
            {
                "network.host" if !self.network_host && !grants.network_host => {
                    power("network.host", "reach the host's network from steps");
                }
                "security.insecure" if !self.security_insecure && !grants.security_insecure => {
                    power(
                        "security.insecure",
                        "run privileged steps, which can change the machine",
                    );
                }
                "device" if !self.devices => power("device", "use devices of the machine"),
                _ => {}
            }
        }
        let deletes = |target: &Target| {
            target.outputs.iter().flatten().any(|output| {
                output.kind == "local" && output.attributes.get("mode").is_some_and(|mode| mode == "delete")
            })
        };
        if !self.local_delete && selection.targets.values().any(deletes) {
            power(
                "buildx.local.delete",
                "delete stale files from local output folders",
            );
        }
        let agent = |target: &Target| target.ssh.iter().flatten().any(|ssh| ssh.paths.is_empty());
        if !self.ssh && selection.targets.values().any(agent) {
            missing
                .files
                .push(("ssh".to_owned(), "use the default SSH agent".to_owned()));
        }
        let here = std::env::current_dir().context("finding the working folder")?;
        let mut read = BTreeSet::new();
        let mut write = BTreeSet::new();
        for (name, target) in &selection.targets {
            if let Some(inputs) = inputs.get(name) {
                read.extend(read_by(target, inputs));
            }
            write.extend(written_by(target));
        }
        let allowed = |own: &[String], more: &[String]| {
            let mut all = vec![here.display().to_string()];
            all.extend(own.iter().chain(more).cloned());
            all
        };
        let read = outside(&read, &allowed(&self.read, &grants.read));
        let write = outside(&write, &allowed(&self.write, &grants.write));
        let here = std::fs::canonicalize(&here).unwrap_or(here);
        for path in read.union(&write) {
            let shown = relative(path, &here);
            let (flag, verb) = match (read.contains(path), write.contains(path)) {
                (true, true) => ("fs", "read and write"),
                (true, false) => ("fs.read", "read"),
                _ => ("fs.write", "write"),
            };
            missing
                .files
                .push((format!("{flag}={shown}"), format!("{verb} {shown}")));
        }
        Ok(missing)
    }
}

impl Missing {
    fn tell(&self) {
        output::note("The definition asks for more than it is allowed to:\n");
        for (_, what) in self.powers.iter().chain(&self.files) {
            output::note(&format!(" - {what}"));
        }
        let flags: Vec<String> = self
            .powers
            .iter()
            .chain(&self.files)
            .map(|(flag, _)| format!("--allow={flag}"))
            .collect();
        output::note(&format!("\nAllow it with \"{}\".\n", flags.join(" ")));
    }
}

fn confirmed() -> bool {
    output::note("Allow it this time? [y/N]");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim().eq_ignore_ascii_case("y")
}

/// Whether files are looked at: not if the user has said so.
fn checks_files(source: &Source, settings: &Settings) -> anyhow::Result<bool> {
    let flag = |name: &str| match settings.get(name) {
        None => Ok(None),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
        Some(other) => bail!("failed to parse {name} value \"{other}\", use 0 or 1"),
    };
    if let Some(wanted) = flag("BUILDX_BAKE_ENTITLEMENTS_FS")? {
        return Ok(wanted);
    }
    let remote_allowed = source.remote.is_some() && flag("BAKE_ALLOW_REMOTE_FS_ACCESS")? == Some(true);
    Ok(!remote_allowed)
}

fn read_by(target: &Target, inputs: &Inputs) -> Vec<String> {
    let mut found = Vec::new();
    if !paths::is_remote(&inputs.context) {
        found.push(inputs.context.clone());
        found.push(inputs.dockerfile.clone());
    } else if inputs.dockerfile.starts_with('/') {
        found.push(inputs.dockerfile.clone());
    }
    let schemes = ["target:", "docker-image:"];
    let is_local =
        |path: &&String| !paths::is_remote(path) && !schemes.iter().any(|scheme| path.starts_with(scheme));
    found.extend(
        inputs
            .contexts
            .values()
            .filter(is_local)
            .map(|path| path.strip_prefix("oci-layout://").unwrap_or(path).to_owned()),
    );
    found.extend(local_caches(&target.cache_from, "src"));
    let files = target.secrets.iter().flatten().map(|secret| secret.file.clone());
    found.extend(files.filter(|file| !file.is_empty()));
    found.extend(target.ssh.iter().flatten().flat_map(|ssh| ssh.paths.clone()));
    found
}

fn written_by(target: &Target) -> Vec<String> {
    let destinations = target
        .outputs
        .iter()
        .flatten()
        .map(|output| output.destination.clone());
    let mut found: Vec<String> = destinations
        .filter(|path| !path.is_empty() && path != "-")
        .collect();
    found.extend(local_caches(&target.cache_to, "dest"));
    found
}

fn local_caches<'a>(
    entries: &'a Option<Vec<bake::target::CacheEntry>>,
    attribute: &'a str,
) -> impl Iterator<Item = String> + 'a {
    entries
        .iter()
        .flatten()
        .filter(|entry| entry.kind == "local")
        .filter_map(move |entry| entry.attributes.get(attribute).cloned())
}

/// Those of the paths that lie in none of the folders, without those that lie in others of them.
fn outside(wanted: &BTreeSet<String>, allowed: &[String]) -> BTreeSet<PathBuf> {
    if allowed.iter().any(|path| path == "*") {
        return BTreeSet::new();
    }
    let allowed: Vec<PathBuf> = allowed.iter().map(|path| resolved(Path::new(path))).collect();
    // In order, so that a folder comes before what lies in it.
    let real: BTreeSet<PathBuf> = wanted
        .iter()
        .map(|path| resolved(Path::new(path)))
        .filter(|path| !allowed.iter().any(|folder| path.starts_with(folder)))
        .map(|path| existing(&path))
        .collect();
    let mut missing: BTreeSet<PathBuf> = BTreeSet::new();
    for path in real {
        if !missing.iter().any(|folder| path.starts_with(folder)) {
            missing.insert(path);
        }
    }
    missing
}

/// Where a path leads, as the system would follow it; what is not there yet is taken as it is written.
fn resolved(path: &Path) -> PathBuf {
    let mut real = PathBuf::from("/");
    for component in std::path::absolute(path).as_deref().unwrap_or(path).components() {
        match component {
            Component::ParentDir => drop(real.pop()),
            Component::Normal(name) => {
                real.push(name);
                if let Ok(found) = std::fs::canonicalize(&real) {
                    real = found;
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    real
}

/// The part of the path that is there.
fn existing(path: &Path) -> PathBuf {
    let mut ancestors = path.ancestors();
    ancestors.find(|path| path.exists()).unwrap_or(path).to_owned()
}

/// Seen from the folder, unless it is far away.
fn relative(path: &Path, here: &Path) -> String {
    if let Ok(inside) = path.strip_prefix(here) {
        return inside.display().to_string();
    }
    let parent = here.parent().unwrap_or(here);
    match path.strip_prefix(parent) {
        Ok(rest) if rest.as_os_str().is_empty() => "..".to_owned(),
        Ok(rest) => format!("../{}", rest.display()),
        Err(_) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_is_found_behind_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        for name in ["here/sub", "there/inner"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("there"), root.join("here/link")).unwrap();
        let at = |name: &str| root.join(name).display().to_string();
        let wanted = BTreeSet::from([
            at("here/sub/new"),
            at("here/link/inner"),
            at("there"),
            at("here/../there"),
        ]);
        let allowed = [at("here")];
        assert_eq!(outside(&wanted, &allowed), BTreeSet::from([root.join("there")]));
        assert!(outside(&wanted, &[at("here"), at("there")]).is_empty());
        assert!(outside(&wanted, &["*".to_owned()]).is_empty());
        let new = BTreeSet::from([at("here/new/../../out")]);
        assert_eq!(outside(&new, &allowed), BTreeSet::from([root.clone()]));
        assert!(outside(&new, &[at("out")]).is_empty());
        assert_eq!(relative(&root.join("there"), &root.join("here")), "../there");
        assert_eq!(relative(&root.join("here/sub"), &root.join("here")), "sub");
    }

    #[test]
    fn unknown_entitlements_are_named() {
        let parse = |text: &str| Granted::parse(&[text.to_owned()]);
        assert!(parse("fs.read=..").is_ok());
        assert!(parse("what=x").unwrap_err().to_string().contains("\"what\""));
    }
}
