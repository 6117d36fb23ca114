//! A service as a target.

use std::collections::BTreeMap;

use super::yaml::Yaml;
use super::{Variables, dotenv};
use crate::paths;
use crate::selection::sanitize;
use crate::target::entries::{deduplicated, last_of_each, parse_bool};
use crate::target::{Attest, CacheEntry, Export, Secret, Ssh, Target, attest_of_flag};
use crate::world::World;

/// Nothing for a service that is not built.
pub(super) fn target(
    service: &Yaml,
    secrets: &BTreeMap<String, Yaml>,
    variables: &Variables,
    world: &World<'_>,
) -> Result<Option<Target>, String> {
    let Some(build) = service.get("build") else {
        return Ok(None);
    };
    let text = |key: &str| {
        build
            .get(key)
            .and_then(Yaml::text)
            .filter(|text| !text.is_empty())
    };
    let list = |key: &str| match build.get(key) {
        Some(Yaml::List(list)) => Some(list.iter().filter_map(Yaml::text).collect::<Vec<_>>()),
        _ => None,
    };
    let map = |key: &str| match build.get(key) {
        Some(Yaml::Map(map)) => Some(map),
        _ => None,
    };
    let flag = |key: &str| -> Result<Option<bool>, String> {
        match build.get(key) {
            None => Ok(None),
            Some(value) => {
                let text = value.text().unwrap_or_default();
                let flag =
                    parse_bool(&text).ok_or_else(|| format!("build.{key}: invalid boolean \"{text}\""))?;
                // Only what is asked for is said.
                Ok(flag.then_some(true))
            }
        }
    };
    let caches = |key: &str| -> Result<Option<Vec<CacheEntry>>, String> {
        let Some(texts) = list(key) else { return Ok(None) };
        let entries: Result<Vec<_>, _> = texts.iter().map(|text| CacheEntry::parse_all(text)).collect();
        Ok(Some(entries?.concat()))
    };
    let mut target = Target {
        context: Some(local(&text("context").unwrap_or_else(|| ".".to_owned()), world)),
        dockerfile: text("dockerfile"),
        dockerfile_inline: text("dockerfile_inline"),
        target: text("target"),
        network: text("network"),
        tags: list("tags"),
        platforms: list("platforms"),
        no_cache_filter: list("no_cache_filter"),
        cache_from: caches("cache_from")?,
        cache_to: caches("cache_to")?,
        no_cache: flag("no_cache")?,
        pull: flag("pull")?,
        ..Target::default()
    };
    target.contexts = map("additional_contexts").map(|contexts| {
        contexts
            .iter()
            .map(|(name, value)| {
                (
                    name.clone(),
                    named_context(&value.text().unwrap_or_default(), world),
                )
            })
            .collect()
    });
    target.labels = map("labels").map(|labels| {
        let value = |value: &Yaml| Some(value.text().unwrap_or_default());
        labels
            .iter()
            .map(|(name, label)| (name.clone(), value(label)))
            .collect()
    });
    target.extra_hosts = map("extra_hosts").map(|hosts| {
        hosts
            .iter()
            .map(|(host, address)| (host.clone(), address.text()))
            .collect()
    });
    if let Some(args) = map("args") {
        let environment = environment(service, variables, world)?;
        let value = |name: &String, value: &Yaml| {
            value
                .text()
                .or_else(|| environment.get(name).or_else(|| variables.get(name)).cloned())
        };
        let resolved = args
            .iter()
            .filter_map(|(name, arg)| Some((name.clone(), Some(value(name, arg)?))));
        target.args = Some(resolved.collect());
    }
    if let Some(size) = text("shm_size") {
        target.shm_size =
            Some(shown_size(parse_size(&size).ok_or_else(|| {
                format!("build.shm_size: invalid size: '{size}'")
            })?));
    }
    if let Some(limits) = map("ulimits") {
        target.ulimits = Some(limits.iter().map(ulimit).collect::<Result<_, _>>()?);
    }
    target.ssh = map("ssh").map(|keys| {
        keys.iter()
            .map(|(id, path)| Ssh {
                id: id.clone(),
                paths: path.text().into_iter().collect(),
            })
            .collect()
    });
    if let Some(names) = list("secrets") {
        let found: Result<Vec<_>, _> = names.iter().map(|name| secret(name, secrets, world)).collect();
        target.secrets = Some(found?);
    }
    let attests = [("sbom", text("sbom")), ("provenance", text("provenance"))];
    for (kind, value) in attests {
        if let Some(value) = value {
            let attest = Attest::parse(&attest_of_flag(kind, &value))?;
            target.attest.get_or_insert_default().push(attest);
        }
    }
    if let Some(extension) = build.get("x-bake") {
        extend(&mut target, extension, world)?;
    }
    if target.tags.as_ref().is_none_or(Vec::is_empty)
        && let Some(image) = service.get("image").and_then(Yaml::text)
    {
        target.tags = Some(vec![image]);
    }
    Ok(Some(target))
}

/// A path as compose has it: cleaned, with the home folder filled in.
fn local(path: &str, world: &World<'_>) -> String {
    if path.contains("://") || paths::is_remote(path) {
        return path.to_owned();
    }
    match path.strip_prefix("~/") {
        Some(rest) => paths::join(&world.home, rest),
        None => paths::clean(path),
    }
}

fn named_context(value: &str, world: &World<'_>) -> String {
    match value.split_once(':') {
        Some(("service" | "target", name)) => format!("target:{}", sanitize(name)),
        _ => local(value, world),
    }
}

/// What is set for the service when it runs.
fn environment(service: &Yaml, variables: &Variables, world: &World<'_>) -> Result<Variables, String> {
    let mut environment = Variables::new();
    let files = match service.get("env_file") {
        Some(Yaml::List(list)) => list.clone(),
        Some(other) => vec![other.clone()],
        None => Vec::new(),
    };
    for file in files {
        let path = file
            .text()
            .or_else(|| file.get("path").and_then(Yaml::text))
            .ok_or("env_file: a path is required")?;
        let required = file.get("required") != Some(&Yaml::Bool(false));
        match (world.read)(&local(&path, world)) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                environment.extend(dotenv::parse(&text, variables).map_err(|why| format!("{path}: {why}"))?);
            }
            Err(error) if required => return Err(format!("env file {path} not found: {error}")),
            Err(_) => {}
        }
    }
    if let Some(Yaml::Map(entries)) = service.get("environment") {
        for (name, value) in entries {
            match value.text().or_else(|| variables.get(name).cloned()) {
                Some(value) => environment.insert(name.clone(), value),
                None => environment.remove(name),
            };
        }
    }
    Ok(environment)
}

fn secret(name: &str, secrets: &BTreeMap<String, Yaml>, world: &World<'_>) -> Result<Secret, String> {
    let declared = secrets.get(name);
    let field = |key: &str| declared.and_then(|secret| secret.get(key)).and_then(Yaml::text);
    if field("external").is_some_and(|value| value != "false") {
        return Err(format!(
            "unsupported external secret {name}: give it a file or an environment variable"
        ));
    }
    Ok(Secret {
        id: name.to_owned(),
        file: field("file").map(|path| local(&path, world)).unwrap_or_default(),
        variable: field("environment").unwrap_or_default(),
    })
}

fn ulimit((name, value): (&String, &Yaml)) -> Result<String, String> {
    let number = |value: Option<&Yaml>| {
        let text = value.and_then(Yaml::text).unwrap_or_default();
        text.parse::<i64>()
            .map_err(|_| format!("build.ulimits.{name}: invalid limit \"{text}\""))
    };
    let (soft, hard) = match value {
        Yaml::Map(_) => (number(value.get("soft"))?, number(value.get("hard"))?),
        single => (number(Some(single))?, number(Some(single))?),
    };
    Ok(format!("{name}={soft}:{hard}"))
}

/// What compose has no words for.
fn extend(target: &mut Target, extension: &Yaml, world: &World<'_>) -> Result<(), String> {
    // A list, or words in one text.
    let texts = |key: &str| -> Vec<String> {
        match extension.get(key) {
            Some(Yaml::List(list)) => list
                .iter()
                .filter_map(Yaml::text)
                .filter(|text| !text.is_empty())
                .collect(),
            Some(other) => other
                .text()
                .map(|text| text.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            None => Vec::new(),
        }
    };
    let flag = |key: &str| match extension.get(key) {
        Some(Yaml::Bool(flag)) => Ok(Some(*flag)),
        None => Ok(None),
        Some(_) => Err(format!("build.x-bake.{key} must be true or false")),
    };
    let caches = |key: &str| -> Result<Vec<CacheEntry>, String> {
        let entries: Result<Vec<_>, _> = texts(key)
            .iter()
            .map(|text| CacheEntry::parse_all(text))
            .collect();
        Ok(entries?.concat())
    };
    add_texts(&mut target.tags, texts("tags"));
    add_texts(&mut target.platforms, texts("platforms"));
    add_texts(&mut target.no_cache_filter, texts("no-cache-filter"));
    add(&mut target.cache_from, caches("cache-from")?, deduplicated);
    add(&mut target.cache_to, caches("cache-to")?, deduplicated);
    let secrets: Result<Vec<_>, _> = texts("secret").iter().map(|text| Secret::parse(text)).collect();
    add(&mut target.secrets, secrets?, last_of_each);
    let ssh = texts("ssh").iter().map(|text| Ssh::parse(text)).collect();
    add(&mut target.ssh, ssh, |mut keys| {
        keys = last_of_each(keys);
        keys.sort_by(|a: &Ssh, b: &Ssh| (&a.id, &a.paths).cmp(&(&b.id, &b.paths)));
        keys
    });
    let outputs: Result<Vec<_>, _> = texts("output").iter().map(|text| Export::parse(text)).collect();
    add(&mut target.outputs, outputs?, deduplicated);
    if let Some(pull) = flag("pull")? {
        target.pull = Some(pull);
    }
    if let Some(no_cache) = flag("no-cache")? {
        target.no_cache = Some(no_cache);
    }
    if let Some(Yaml::Map(contexts)) = extension.get("contexts") {
        let known = target.contexts.get_or_insert_default();
        for (name, value) in contexts {
            let value = value.text().unwrap_or_default();
            let value = match value.split_once(':') {
                Some(("service" | "target", _)) => named_context(&value, world),
                _ => value,
            };
            known.entry(name.clone()).or_insert(value);
        }
    }
    Ok(())
}

fn add<T>(mine: &mut Option<Vec<T>>, others: Vec<T>, settle: impl Fn(Vec<T>) -> Vec<T>) {
    if !others.is_empty() {
        let mut all = mine.take().unwrap_or_default();
        all.extend(others);
        *mine = Some(settle(all));
    }
}

fn add_texts(mine: &mut Option<Vec<String>>, others: Vec<String>) {
    add(mine, others, |texts| {
        let mut seen = std::collections::BTreeSet::new();
        texts
            .into_iter()
            .filter(|text| seen.insert(text.clone()))
            .collect()
    });
}

/// `128m`, `1gb`, `65536`: units are powers of 1024.
fn parse_size(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim().to_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let exponent = ["", "k", "m", "g", "t", "p"]
        .iter()
        .position(|known| *known == unit)?;
    let bytes = number * 1024_f64.powi(i32::try_from(exponent).ok()?);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be in range"
    )]
    (0.0..9e18).contains(&bytes).then_some(bytes as u64)
}

/// Four digits and a unit.
fn shown_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = match size {
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{size:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{}", UNITS[unit])
}
