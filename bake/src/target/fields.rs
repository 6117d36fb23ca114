//! The attributes of a target between values of the expression language and their types.

use std::collections::BTreeMap;

use super::entries::{Attest, CacheEntry, Export, Policy, Resources, Secret, Ssh};
use super::{Group, Target};
use crate::value::Value;
use crate::value::convert::{convert, text};
use crate::value::shape::Shape;

/// What a `target` block may set, besides `matrix` and `name`.
pub(crate) const ATTRIBUTES: [&str; 29] = [
    "description",
    "inherits",
    "annotations",
    "attest",
    "context",
    "contexts",
    "dockerfile",
    "dockerfile-inline",
    "args",
    "labels",
    "tags",
    "cache-from",
    "cache-to",
    "target",
    "secret",
    "ssh",
    "platforms",
    "output",
    "pull",
    "no-cache",
    "network",
    "no-cache-filter",
    "shm-size",
    "ulimits",
    "resources",
    "call",
    "entitlements",
    "extra-hosts",
    "policy",
];

type Texts = BTreeMap<String, String>;
type Nullable = BTreeMap<String, Option<String>>;

impl Target {
    /// Sets an attribute, or says what is wrong with the value. Unknown names are ignored.
    pub(crate) fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        match name {
            "description" => self.description = optional_text(value)?.unwrap_or_default(),
            "inherits" => self.inherits = texts(value)?,
            "annotations" => self.annotations = texts(value)?,
            "attest" => {
                self.attest = list(
                    value,
                    |text| Ok(vec![Attest::parse(text)?]),
                    |e| Attest::of(strings(e)?),
                )?
            }
            "context" => self.context = optional_text(value)?,
            "contexts" => self.contexts = text_map(value)?,
            "dockerfile" => self.dockerfile = optional_text(value)?,
            "dockerfile-inline" => self.dockerfile_inline = optional_text(value)?,
            "args" => self.args = nullable_map(value)?,
            "labels" => self.labels = nullable_map(value)?,
            "tags" => self.tags = texts(value)?,
            "cache-from" => {
                self.cache_from = list(value, CacheEntry::parse_all, |e| CacheEntry::of(strings(e)?))?
            }
            "cache-to" => {
                self.cache_to = list(value, CacheEntry::parse_all, |e| CacheEntry::of(strings(e)?))?
            }
            "target" => self.target = optional_text(value)?,
            "secret" => self.secrets = list(value, |text| Ok(vec![Secret::parse(text)?]), secret)?,
            "ssh" => self.ssh = list(value, |text| Ok(vec![Ssh::parse(text)]), ssh)?,
            "platforms" => self.platforms = texts(value)?,
            "output" => {
                self.outputs = list(
                    value,
                    |text| Ok(vec![Export::parse(text)?]),
                    |e| Export::of(strings(e)?),
                )?
            }
            "pull" => self.pull = flag(value)?,
            "no-cache" => self.no_cache = flag(value)?,
            "network" => self.network = optional_text(value)?,
            "no-cache-filter" => self.no_cache_filter = texts(value)?,
            "shm-size" => self.shm_size = optional_text(value)?,
            "ulimits" => self.ulimits = texts(value)?,
            "resources" => self.resources = resources(value)?,
            "call" => self.call = optional_text(value)?,
            "entitlements" => self.entitlements = texts(value)?,
            "extra-hosts" => self.extra_hosts = nullable_map(value)?,
            "policy" => {
                self.policy = list(
                    value,
                    |text| Ok(vec![Policy::parse(text)?]),
                    |e| Policy::of(&strings(e)?),
                )?
            }
            _ => {}
        }
        Ok(())
    }

    /// What `target.NAME.ATTRIBUTE` is.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        let list = |texts: &Option<Vec<String>>| match texts {
            Some(texts) => Value::List(texts.iter().map(Value::text).collect()),
            None => Value::Null,
        };
        let text = |text: &Option<String>| text.as_ref().map_or(Value::Null, Value::text);
        let flag = |flag: Option<bool>| flag.map_or(Value::Null, Value::Bool);
        let nullable = |map: &Option<Nullable>| match map {
            Some(map) => Value::Map(
                map.iter()
                    .map(|(key, value)| (key.clone(), text(value)))
                    .collect(),
            ),
            None => Value::Null,
        };
        Some(match name {
            "name" => Value::text(&self.name),
            "description" => Value::text(&self.description),
            "inherits" => list(&self.inherits),
            "annotations" => list(&self.annotations),
            "attest" => maps(&self.attest, |attest| {
                let mut entries = attest.attributes.clone();
                entries.insert("type".to_owned(), attest.kind.clone());
                if attest.disabled {
                    entries.insert("disabled".to_owned(), "true".to_owned());
                }
                entries
            }),
            "context" => text(&self.context),
            "contexts" => match &self.contexts {
                Some(map) => Value::Map(text_values(map.clone())),
                None => Value::Null,
            },
            "dockerfile" => text(&self.dockerfile),
            "dockerfile-inline" => text(&self.dockerfile_inline),
            "args" => nullable(&self.args),
            "labels" => nullable(&self.labels),
            "tags" => list(&self.tags),
            "cache-from" => maps(&self.cache_from, cache_entries),
            "cache-to" => maps(&self.cache_to, cache_entries),
            "target" => text(&self.target),
            "secret" => maps(&self.secrets, |secret| {
                Texts::from([
                    ("id".to_owned(), secret.id.clone()),
                    ("src".to_owned(), secret.file.clone()),
                    ("env".to_owned(), secret.variable.clone()),
                ])
            }),
            "ssh" => Value::List(
                self.ssh
                    .iter()
                    .flatten()
                    .map(|ssh| {
                        Value::Object(BTreeMap::from([
                            ("id".to_owned(), Value::text(&ssh.id)),
                            (
                                "paths".to_owned(),
                                Value::List(ssh.paths.iter().map(Value::text).collect()),
                            ),
                        ]))
                    })
                    .collect(),
            ),
            "platforms" => list(&self.platforms),
            "output" => maps(&self.outputs, |export| {
                let mut entries = export.attributes.clone();
                entries.insert("type".to_owned(), export.kind.clone());
                entries.insert("dest".to_owned(), export.destination.clone());
                entries
            }),
            "pull" => flag(self.pull),
            "no-cache" => flag(self.no_cache),
            "network" => text(&self.network),
            "no-cache-filter" => list(&self.no_cache_filter),
            "shm-size" => text(&self.shm_size),
            "ulimits" => list(&self.ulimits),
            "resources" => match &self.resources {
                Some(resources) => Value::Object(
                    resources
                        .pairs()
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), Value::text(value)))
                        .collect(),
                ),
                None => Value::Null,
            },
            "call" => text(&self.call),
            "entitlements" => list(&self.entitlements),
            "extra-hosts" => nullable(&self.extra_hosts),
            "policy" => Value::List(Vec::new()),
            _ => return None,
        })
    }
}

impl Group {
    /// Sets an attribute, or says what is wrong with the value.
    pub(crate) fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        match name {
            "description" => self.description = optional_text(value)?.unwrap_or_default(),
            "targets" => self.targets = texts(value)?,
            _ => {}
        }
        Ok(())
    }

    /// What `group.NAME.ATTRIBUTE` is.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        match name {
            "name" => Some(Value::text(&self.name)),
            "description" => Some(Value::text(&self.description)),
            "targets" => Some(match &self.targets {
                Some(targets) => Value::List(targets.iter().map(Value::text).collect()),
                None => Value::Null,
            }),
            _ => None,
        }
    }
}

fn cache_entries(entry: &CacheEntry) -> Texts {
    let mut entries = entry.attributes.clone();
    entries.insert("type".to_owned(), entry.kind.clone());
    entries
}

fn text_values(texts: Texts) -> BTreeMap<String, Value> {
    texts
        .into_iter()
        .map(|(key, value)| (key, Value::String(value)))
        .collect()
}

fn maps<T>(entries: &Option<Vec<T>>, map: impl Fn(&T) -> Texts) -> Value {
    Value::List(
        entries
            .iter()
            .flatten()
            .map(|entry| Value::Map(text_values(map(entry))))
            .collect(),
    )
}

fn optional_text(value: Value) -> Result<Option<String>, String> {
    Ok(match convert(value, &Shape::String)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

fn flag(value: Value) -> Result<Option<bool>, String> {
    Ok(match convert(value, &Shape::Bool)? {
        Value::Bool(flag) => Some(flag),
        _ => None,
    })
}

pub(crate) fn texts(value: Value) -> Result<Option<Vec<String>>, String> {
    let value = convert(value, &Shape::List(Box::new(Shape::String)))?;
    let Some(elements) = value.elements() else {
        return Ok(None);
    };
    elements
        .iter()
        .enumerate()
        .map(|(at, element)| text(element).ok_or_else(|| format!("element {at}: a string is required")))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn nullable_map(value: Value) -> Result<Option<Nullable>, String> {
    match convert(value, &Shape::Map(Box::new(Shape::String)))? {
        Value::Map(entries) => Ok(Some(
            entries
                .into_iter()
                .map(|(key, value)| (key, text(&value)))
                .collect(),
        )),
        _ => Ok(None),
    }
}

fn text_map(value: Value) -> Result<Option<Texts>, String> {
    let Some(map) = nullable_map(value)? else {
        return Ok(None);
    };
    map.into_iter()
        .map(|(key, value)| match value {
            Some(value) => Ok((key, value)),
            None => Err(format!("element \"{key}\": a string is required")),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// A list of texts and objects; empty texts say nothing.
fn list<T>(
    value: Value,
    parse: impl Fn(&str) -> Result<Vec<T>, String>,
    read: impl Fn(&BTreeMap<String, Value>) -> Result<T, String>,
) -> Result<Option<Vec<T>>, String> {
    let elements = match value {
        Value::Null => return Ok(None),
        Value::List(elements) | Value::Tuple(elements) => elements,
        _ => return Err("list required".to_owned()),
    };
    let mut result = Vec::with_capacity(elements.len());
    for element in &elements {
        match element {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => result.extend(parse(text)?),
            Value::Map(entries) | Value::Object(entries) => result.push(read(entries)?),
            other => return Err(format!("string or object required, not {}", other.kind())),
        }
    }
    Ok(Some(result))
}

/// Null says nothing.
fn strings(entries: &BTreeMap<String, Value>) -> Result<Texts, String> {
    let mut result = Texts::new();
    for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
        let value = text(value).ok_or_else(|| format!("element \"{key}\": string required"))?;
        result.insert(key.clone(), value);
    }
    Ok(result)
}

fn secret(entries: &BTreeMap<String, Value>) -> Result<Secret, String> {
    let mut texts = strings(entries)?;
    let mut take = |key: &str| texts.remove(key).unwrap_or_default();
    Ok(Secret {
        id: take("id"),
        file: take("src"),
        variable: take("env"),
    })
}

fn ssh(entries: &BTreeMap<String, Value>) -> Result<Ssh, String> {
    let id = entries.get("id").cloned().unwrap_or(Value::Null);
    let paths = entries.get("paths").cloned().unwrap_or(Value::Null);
    Ok(Ssh {
        id: optional_text(id)?.unwrap_or_default(),
        paths: texts(paths)?.unwrap_or_default(),
    })
}

fn resources(value: Value) -> Result<Option<Resources>, String> {
    let entries = match value {
        Value::Null => return Ok(None),
        Value::Map(entries) | Value::Object(entries) => entries,
        _ => return Err("object required".to_owned()),
    };
    let mut resources = Resources::default();
    for (name, value) in strings(&entries)? {
        resources.set(&name, &value)?;
    }
    Ok(Some(resources))
}
