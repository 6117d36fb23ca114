//! `--set PATTERN.KEY[.NAME][+]=VALUE`: the last word on a target.

use std::collections::BTreeMap;

use super::entries::{Attest, CacheEntry, Export, Policy, Secret, Ssh, attest_of_flag, parse_bool};
use super::{Target, entries};
use crate::pattern;

/// What the user has allowed by naming it on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    pub read: Vec<String>,
    pub write: Vec<String>,
    pub network_host: bool,
    pub security_insecure: bool,
}

/// What is said for one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Override {
    value: String,
    values: Vec<String>,
    append: bool,
}

/// By target and key.
pub(crate) type Overrides = BTreeMap<String, BTreeMap<String, Override>>;

/// Keys of which several values may be given.
const LISTS: [&str; 14] = [
    "output",
    "cache-to",
    "cache-from",
    "tags",
    "platform",
    "secrets",
    "ssh",
    "attest",
    "entitlements",
    "network",
    "annotations",
    "policy",
    "no-cache-filter",
    "ulimits",
];

/// What is said for which target. `NAME` alone, for an argument, takes the value from the environment.
pub(crate) fn parse(
    texts: &[String],
    targets: &[&str],
    environment: &BTreeMap<String, String>,
) -> Result<Overrides, String> {
    let mut overrides = Overrides::new();
    for text in texts {
        let (left, value) = match text.split_once('=') {
            Some((left, value)) => (left, Some(value)),
            None => (text.as_str(), None),
        };
        let (left, append) = match left.strip_suffix('+') {
            Some(left) => (left, true),
            None => (left, false),
        };
        let mut parts = left.splitn(3, '.');
        let pattern = parts.next().unwrap_or_default();
        let Some(key) = parts.next() else {
            return Err(format!("invalid override key {left}, expected target.name"));
        };
        let name = parts.next();
        if value.is_none() && key != "args" {
            return Err(format!("invalid override {text}, expected target.name=value"));
        }
        if matches!(key, "args" | "contexts" | "resources" | "secret") && name.is_none() {
            return Err(format!("invalid key {left}, {key} requires name"));
        }
        if append && matches!(key, "resources" | "secret") {
            return Err(format!("invalid key {left}+, {key} does not support append"));
        }
        let value = match value {
            Some(value) => value,
            None => match environment.get(name.unwrap_or_default()) {
                Some(value) => value,
                None => continue,
            },
        };
        let whole = left.split_once('.').map_or("", |(_, key)| key);
        for target in pattern::select(pattern, targets)? {
            let entry = overrides
                .entry(target.to_owned())
                .or_default()
                .entry(whole.to_owned())
                .or_default();
            if LISTS.contains(&key) {
                entry.append = append;
                entry.values.push(value.to_owned());
            }
            value.clone_into(&mut entry.value);
        }
    }
    Ok(overrides)
}

impl Target {
    pub(crate) fn apply(
        &mut self,
        overrides: &BTreeMap<String, Override>,
        grants: &mut Grants,
    ) -> Result<(), String> {
        // What is pushed and loaded depends on which outputs there are.
        let last = |key: &str| match key {
            "push" => 1,
            "load" => 2,
            _ => 0,
        };
        let mut ordered: Vec<_> = overrides.iter().collect();
        ordered.sort_by_key(|(key, _)| last(key));
        for (key, given) in ordered {
            self.apply_one(key, given, grants)?;
        }
        let named = |secret: &Secret| {
            let whole = format!("secret.{}", secret.id);
            overrides.contains_key(&whole)
                || overrides.get("secrets").is_some_and(|given| {
                    given
                        .values
                        .iter()
                        .any(|text| Secret::parse(text).is_ok_and(|given| given.id == secret.id))
                })
        };
        let files = self.secrets.iter().flatten().filter(|secret| named(secret));
        grants.read.extend(
            files
                .map(|secret| secret.file.clone())
                .filter(|file| !file.is_empty()),
        );
        Ok(())
    }

    fn apply_one(&mut self, key: &str, given: &Override, grants: &mut Grants) -> Result<(), String> {
        let value = given.value.as_str();
        let (key, name) = match key.split_once('.') {
            Some((key, name)) => (key, Some(name)),
            None => (key, None),
        };
        let name = || name.ok_or_else(|| format!("invalid format for {key}, expecting {key}.<name>=<value>"));
        let text = || Some(value.to_owned());
        let flag = || {
            parse_bool(value)
                .map(Some)
                .ok_or_else(|| format!("invalid value {value} for boolean key {key}"))
        };
        let wrong = |why: String| format!("invalid value for {key}: {why}");
        match key {
            "context" => {
                self.context = text();
                self.base.context = None;
            }
            "dockerfile" => self.dockerfile = text(),
            "args" => set(&mut self.args, name()?, value),
            "labels" => set(&mut self.labels, name()?, value),
            "extra-hosts" => set(&mut self.extra_hosts, name()?, value),
            "contexts" => {
                let name = name()?.to_owned();
                self.base.contexts.remove(&name);
                self.contexts
                    .get_or_insert_default()
                    .insert(name, value.to_owned());
            }
            "tags" => list(&mut self.tags, given.values.clone(), given.append),
            "platform" => list(&mut self.platforms, given.values.clone(), given.append),
            "no-cache-filter" => list(&mut self.no_cache_filter, given.values.clone(), given.append),
            "ulimits" => list(&mut self.ulimits, given.values.clone(), given.append),
            "annotations" => list(&mut self.annotations, given.values.clone(), true),
            "policy" => list(
                &mut self.policy,
                each(&given.values, |text| Ok(vec![Policy::parse(text)?]))?,
                given.append,
            ),
            "cache-from" => {
                list(
                    &mut self.cache_from,
                    each(&given.values, CacheEntry::parse_all)?,
                    given.append,
                );
                grants.read.extend(local(&self.cache_from, "src"));
            }
            "cache-to" => {
                list(
                    &mut self.cache_to,
                    each(&given.values, CacheEntry::parse_all)?,
                    given.append,
                );
                grants.write.extend(local(&self.cache_to, "dest"));
            }
            "target" => self.target = text(),
            "call" => self.call = text(),
            "secret" => self.replace_secret(name()?, value)?,
            "secrets" => {
                let secrets = each(&given.values, |text| Ok(vec![Secret::parse(text)?])).map_err(wrong)?;
                list(&mut self.secrets, secrets, given.append);
            }
            "ssh" => {
                list(
                    &mut self.ssh,
                    given.values.iter().map(|text| Ssh::parse(text)).collect(),
                    given.append,
                );
                grants
                    .read
                    .extend(self.ssh.iter().flatten().flat_map(|ssh| ssh.paths.clone()));
            }
            "output" => {
                let outputs = each(&given.values, |text| Ok(vec![Export::parse(text)?])).map_err(wrong)?;
                list(&mut self.outputs, outputs, given.append);
                let destinations = self
                    .outputs
                    .iter()
                    .flatten()
                    .map(|output| output.destination.clone());
                grants.write.extend(destinations.filter(|path| !path.is_empty()));
            }
            "entitlements" => {
                list(&mut self.entitlements, given.values.clone(), true);
                grants.network_host |= given.values.iter().any(|value| value == "network.host");
                grants.security_insecure |= given.values.iter().any(|value| value == "security.insecure");
            }
            "attest" => {
                let attests = each(&given.values, |text| Ok(vec![Attest::parse(text)?])).map_err(wrong)?;
                list(&mut self.attest, attests, true);
                self.attest = self.attest.take().map(entries::last_of_each);
            }
            "no-cache" => self.no_cache = flag()?,
            "pull" => self.pull = flag()?,
            "shm-size" => self.shm_size = text(),
            "network" => self.network = text(),
            "resources" => self.resources.get_or_insert_default().set(name()?, value)?,
            "push" => self.push(flag()? == Some(true)),
            "load" => self.load(flag()? == Some(true)),
            other => return Err(format!("unknown key: {other}")),
        }
        Ok(())
    }

    fn replace_secret(&mut self, id: &str, value: &str) -> Result<(), String> {
        let secret = self
            .secrets
            .iter_mut()
            .flatten()
            .find(|secret| secret.id == id)
            .ok_or_else(|| format!("secret \"{id}\" must be declared before it can be overridden"))?;
        let next = Secret::parse(value)?;
        if !next.id.is_empty() && next.id != id {
            return Err(format!(
                "secret override id \"{}\" does not match declared secret \"{id}\"",
                next.id
            ));
        }
        secret.file = next.file;
        secret.variable = next.variable;
        Ok(())
    }

    /// `--push`: images that are made are pushed; one is made if nothing else is.
    fn push(&mut self, wanted: bool) {
        let outputs = self.outputs.get_or_insert_default();
        if !wanted {
            outputs.retain(|output| output.kind != "registry");
        }
        for output in outputs.iter_mut().filter(|output| output.kind == "image") {
            output.attributes.insert("push".to_owned(), wanted.to_string());
        }
        if wanted && outputs.iter().all(|output| output.kind == "docker") {
            outputs.push(Export {
                kind: "image".to_owned(),
                attributes: BTreeMap::from([("push".to_owned(), "true".to_owned())]),
                ..Export::default()
            });
        }
    }

    /// `--load`: unless files are made, the image also goes into the engine.
    fn load(&mut self, wanted: bool) {
        let outputs = self.outputs.get_or_insert_default();
        let loads = |output: &Export| output.kind == "docker" && output.destination.is_empty();
        let is_image =
            |output: &Export| matches!(output.kind.as_str(), "docker" | "image" | "registry" | "oci");
        if wanted && !outputs.iter().any(loads) && outputs.iter().all(is_image) {
            outputs.push(Export {
                kind: "docker".to_owned(),
                ..Export::default()
            });
        }
    }
}

/// The flags of the command line that are short for `--set`.
#[derive(Clone, Debug, Default)]
pub struct Shorthands {
    pub push: bool,
    pub load: bool,
    pub call: Option<String>,
    pub no_cache: Option<bool>,
    pub pull: Option<bool>,
    pub sbom: Option<String>,
    pub provenance: Option<String>,
    pub policy: Vec<String>,
}

impl Shorthands {
    /// In the form of `--set`.
    pub fn overrides(&self) -> Vec<String> {
        let mut texts = Vec::new();
        if self.push {
            texts.push("*.push=true".to_owned());
        }
        if self.load {
            texts.push("*.load=true".to_owned());
        }
        texts.extend(self.call.iter().map(|call| format!("*.call={call}")));
        texts.extend(self.no_cache.iter().map(|flag| format!("*.no-cache={flag}")));
        texts.extend(self.pull.iter().map(|flag| format!("*.pull={flag}")));
        let attests = [("sbom", &self.sbom), ("provenance", &self.provenance)];
        for (kind, value) in attests {
            texts.extend(
                value
                    .iter()
                    .map(|value| format!("*.attest={}", attest_of_flag(kind, value))),
            );
        }
        texts.extend(self.policy.iter().map(|policy| format!("*.policy+={policy}")));
        texts
    }
}

fn set(map: &mut Option<BTreeMap<String, Option<String>>>, name: &str, value: &str) {
    map.get_or_insert_default()
        .insert(name.to_owned(), Some(value.to_owned()));
}

fn list<T>(mine: &mut Option<Vec<T>>, given: Vec<T>, append: bool) {
    if append {
        mine.get_or_insert_default().extend(given);
    } else {
        *mine = Some(given);
    }
}

/// Empty texts clear a list.
fn each<T>(texts: &[String], parse: impl Fn(&str) -> Result<Vec<T>, String>) -> Result<Vec<T>, String> {
    let mut all = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        all.extend(parse(text)?);
    }
    Ok(all)
}

fn local<'a>(entries: &'a Option<Vec<CacheEntry>>, attribute: &'a str) -> impl Iterator<Item = String> + 'a {
    entries
        .iter()
        .flatten()
        .filter(|entry| entry.kind == "local")
        .filter_map(move |entry| entry.attributes.get(attribute).cloned())
}
