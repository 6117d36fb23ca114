//! Short forms become long ones, so that files can be laid over each other.

use std::collections::BTreeMap;

use super::yaml::Yaml;

/// What `build` may say.
const BUILD: [&str; 25] = [
    "additional_contexts",
    "args",
    "cache_from",
    "cache_to",
    "context",
    "dockerfile",
    "dockerfile_inline",
    "entitlements",
    "extra_hosts",
    "isolation",
    "labels",
    "network",
    "no_cache",
    "no_cache_filter",
    "platforms",
    "privileged",
    "provenance",
    "pull",
    "sbom",
    "secrets",
    "shm_size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];

pub(super) fn services(services: &mut Yaml) -> Result<(), String> {
    let entries = match services {
        Yaml::Map(entries) => entries,
        Yaml::Null => return Ok(()),
        _ => return Err("services must be a mapping".to_owned()),
    };
    for (name, entry) in entries {
        service(entry).map_err(|why| format!("services.{name}{why}"))?;
    }
    Ok(())
}

fn service(service: &mut Yaml) -> Result<(), String> {
    let entries = match service {
        Yaml::Map(entries) => entries,
        Yaml::Null => {
            *service = Yaml::Map(BTreeMap::new());
            return Ok(());
        }
        _ => return Err(" must be a mapping".to_owned()),
    };
    entries.retain(|key, _| {
        matches!(
            key.as_str(),
            "image" | "build" | "environment" | "env_file" | "extends"
        )
    });
    if let Some(environment) = entries.get_mut("environment") {
        *environment = pairs(environment, ".environment")?;
    }
    if let Some(build) = entries.get_mut("build") {
        build_of(build).map_err(|why| format!(".build{why}"))?;
    }
    Ok(())
}

fn build_of(build: &mut Yaml) -> Result<(), String> {
    if let Some(context) = build.text() {
        *build = Yaml::Map(BTreeMap::from([("context".to_owned(), Yaml::Text(context))]));
    }
    let entries = match build {
        Yaml::Map(entries) => entries,
        Yaml::Null => return Ok(()),
        _ => return Err(" must be a string or a mapping".to_owned()),
    };
    for (key, value) in entries {
        if key.starts_with("x-") {
            continue;
        }
        if !BUILD.contains(&key.as_str()) {
            return Err(format!(" additional properties '{key}' not allowed"));
        }
        let way = format!(".{key}");
        match key.as_str() {
            "args" | "labels" | "additional_contexts" => *value = pairs(value, &way)?,
            "extra_hosts" => *value = hosts(value, &way)?,
            "ssh" => *value = ssh(value, &way)?,
            "secrets" => *value = secrets(value, &way)?,
            "tags" | "platforms" | "cache_from" | "cache_to" | "no_cache_filter" | "entitlements" => {
                if let Some(text) = value.text() {
                    *value = Yaml::List(vec![Yaml::Text(text)]);
                }
                if !matches!(value, Yaml::List(_) | Yaml::Null) {
                    return Err(format!("{way} must be a array"));
                }
            }
            "ulimits" => {
                if !matches!(value, Yaml::Map(_) | Yaml::Null) {
                    return Err(format!("{way} must be a mapping"));
                }
            }
            _ => {
                if !matches!(value, Yaml::Null) && value.text().is_none() {
                    return Err(format!("{way} must be a string"));
                }
            }
        }
    }
    Ok(())
}

/// `["A=b", "C"]` or `{A: b, C: null}`.
fn pairs(value: &Yaml, way: &str) -> Result<Yaml, String> {
    let scalar = |value: &Yaml| match value {
        Yaml::Null => Some(Yaml::Null),
        value => value.text().map(Yaml::Text),
    };
    let mut map = BTreeMap::new();
    match value {
        Yaml::Null => {}
        Yaml::Map(entries) => {
            for (key, value) in entries {
                let value = scalar(value).ok_or_else(|| format!("{way}.{key} must be a string"))?;
                map.insert(key.clone(), value);
            }
        }
        Yaml::List(list) => {
            for entry in list {
                let text = entry
                    .text()
                    .ok_or_else(|| format!("{way} must be a list of strings or a mapping"))?;
                match text.split_once('=') {
                    Some((key, value)) => map.insert(key.to_owned(), Yaml::Text(value.to_owned())),
                    None => map.insert(text, Yaml::Null),
                };
            }
        }
        _ => return Err(format!("{way} must be a list of strings or a mapping")),
    }
    Ok(Yaml::Map(map))
}

/// `["host:ip", "host=ip"]` or a mapping; one host may have several addresses.
fn hosts(value: &Yaml, way: &str) -> Result<Yaml, String> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    match value {
        Yaml::List(list) => {
            for entry in list {
                let text = entry
                    .text()
                    .ok_or_else(|| format!("{way} must be a list of strings"))?;
                let (host, address) =
                    text.split_once('=')
                        .or_else(|| text.split_once(':'))
                        .ok_or_else(|| {
                            format!("{way}: invalid extra_hosts entry \"{text}\", expected host:ip")
                        })?;
                let address = address.trim_start_matches('[').trim_end_matches(']');
                map.entry(host.to_owned()).or_default().push(address.to_owned());
            }
        }
        Yaml::Map(entries) => {
            for (host, addresses) in entries {
                let list = match addresses {
                    Yaml::List(list) => list.iter().filter_map(Yaml::text).collect(),
                    other => other.text().into_iter().collect(),
                };
                map.insert(host.clone(), list);
            }
        }
        Yaml::Null => {}
        _ => return Err(format!("{way} must be a list or a mapping")),
    }
    let joined = map
        .into_iter()
        .map(|(host, addresses)| (host, Yaml::Text(addresses.join(","))));
    Ok(Yaml::Map(joined.collect()))
}

/// `["default", "id=path"]` or a mapping.
fn ssh(value: &Yaml, way: &str) -> Result<Yaml, String> {
    if let Some(text) = value.text() {
        return Ok(Yaml::Map(BTreeMap::from([(text, Yaml::Null)])));
    }
    pairs(value, way)
}

/// Names, or mappings with a `source`.
fn secrets(value: &Yaml, way: &str) -> Result<Yaml, String> {
    let list = match value {
        Yaml::List(list) => list,
        Yaml::Null => return Ok(Yaml::Null),
        _ => return Err(format!("{way} must be a list")),
    };
    let mut sources = Vec::new();
    for entry in list {
        let source = entry
            .text()
            .or_else(|| entry.get("source").and_then(Yaml::text))
            .ok_or_else(|| format!("{way}: a secret needs a source"))?;
        sources.push(Yaml::Text(source));
    }
    Ok(Yaml::List(sources))
}

/// Lays one value over another: mappings by key, lists one behind the other without what is there already.
pub(super) fn merge(under: Yaml, over: Yaml) -> Yaml {
    match (under, over) {
        (under, Yaml::Null) => under,
        (Yaml::Map(mut entries), Yaml::Map(others)) => {
            for (key, value) in others {
                let known = entries.remove(&key).unwrap_or(Yaml::Null);
                entries.insert(key, merge(known, value));
            }
            Yaml::Map(entries)
        }
        (Yaml::List(mut list), Yaml::List(others)) => {
            for value in others {
                if !list.contains(&value) {
                    list.push(value);
                }
            }
            Yaml::List(list)
        }
        (_, over) => over,
    }
}
