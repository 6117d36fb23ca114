//! What stands in the lists of a target as text or as an object: caches, outputs, secrets, and the like.

use std::collections::BTreeMap;

use crate::csv;

/// `type=provenance,mode=max`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attest {
    pub kind: String,
    pub disabled: bool,
    pub attributes: BTreeMap<String, String>,
}

/// `type=registry,ref=NAME`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
}

/// `type=local,dest=PATH`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    pub kind: String,
    pub destination: String,
    pub attributes: BTreeMap<String, String>,
}

/// `id=NAME,src=PATH`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secret {
    pub id: String,
    pub file: String,
    pub variable: String,
}

/// `default=PATH,PATH`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ssh {
    pub id: String,
    pub paths: Vec<String>,
}

/// `filename=PATH,strict=true`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub files: Vec<String>,
    pub reset: bool,
    pub disabled: bool,
    pub strict: Option<bool>,
    pub log_level: Option<String>,
}

/// Limits of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub memory: Option<String>,
    pub memory_swap: Option<String>,
    pub cpu_shares: Option<i64>,
    pub cpu_period: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
}

/// Of entries with one name, the last counts and stands where the first stood.
pub(crate) trait Named {
    fn key(&self) -> &str;
}

impl Named for Attest {
    fn key(&self) -> &str {
        &self.kind
    }
}

impl Named for Secret {
    fn key(&self) -> &str {
        &self.id
    }
}

impl Named for Ssh {
    fn key(&self) -> &str {
        &self.id
    }
}

pub(crate) fn last_of_each<T: Named>(entries: Vec<T>) -> Vec<T> {
    let mut kept: Vec<T> = Vec::with_capacity(entries.len());
    for entry in entries {
        match kept.iter_mut().find(|known| known.key() == entry.key()) {
            Some(known) => *known = entry,
            None => kept.push(entry),
        }
    }
    kept
}

/// Without equal entries. A later one gives way to the last entry of the list, as in buildx, whose order others see.
pub(crate) fn deduplicated<T: PartialEq>(mut entries: Vec<T>) -> Vec<T> {
    for at in (0..entries.len().saturating_sub(1)).rev() {
        let equal = (at + 1..entries.len()).find(|&later| entries[later] == entries[at]);
        if let Some(later) = equal {
            entries.swap_remove(later);
        }
    }
    entries
}

/// Go's idea of a boolean.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn pair(field: &str) -> Result<(&str, &str), String> {
    field
        .split_once('=')
        .ok_or_else(|| format!("invalid value {field}"))
}

fn boolean(field: &str, value: &str) -> Result<bool, String> {
    parse_bool(value).ok_or_else(|| format!("invalid value {field}, expected true or false"))
}

impl Attest {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut attest = Self::default();
        for field in csv::fields(text, ',')? {
            let (key, value) = pair(&field)?;
            match key.trim().to_lowercase().as_str() {
                "type" => value.clone_into(&mut attest.kind),
                "disabled" => attest.disabled = boolean(&field, value)?,
                _ => {
                    attest.attributes.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        if attest.kind.is_empty() {
            return Err("attestation type not specified".to_owned());
        }
        Ok(attest)
    }

    pub(crate) fn of(mut entries: BTreeMap<String, String>) -> Result<Self, String> {
        let kind = entries.remove("type").unwrap_or_default();
        let disabled = match entries.remove("disabled") {
            Some(text) => boolean("disabled", &text)?,
            None => false,
        };
        Ok(Self {
            kind,
            disabled,
            attributes: entries,
        })
    }

    /// As a flag of `build` takes it.
    pub fn flag(&self) -> String {
        let disabled = self.disabled.then_some(("disabled", "true"));
        csv::join(
            [("type", self.kind.as_str())]
                .into_iter()
                .chain(disabled)
                .chain(pairs(&self.attributes)),
        )
    }
}

fn pairs(attributes: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
}

/// `--sbom=false` and the like as an entry of `attest`.
pub fn attest_of_flag(kind: &str, value: &str) -> String {
    match parse_bool(value) {
        Some(wanted) => format!("type={kind},disabled={}", !wanted),
        None => format!("type={kind},{value}"),
    }
}

impl CacheEntry {
    fn parse(text: &str) -> Result<Self, String> {
        let fields = csv::fields(text, ',')?;
        if let [reference] = fields.as_slice()
            && !reference.contains('=')
        {
            return Ok(Self {
                kind: "registry".to_owned(),
                attributes: BTreeMap::from([("ref".to_owned(), reference.clone())]),
            });
        }
        let mut entry = Self::default();
        for field in fields {
            let (key, value) = pair(&field)?;
            match key.to_lowercase().as_str() {
                "type" => value.clone_into(&mut entry.kind),
                key => {
                    entry.attributes.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        if entry.kind.is_empty() {
            return Err(format!("type required for \"{text}\""));
        }
        Ok(entry)
    }

    /// Several references may stand in one text.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        if text.contains('=') {
            return Ok(vec![Self::parse(text)?]);
        }
        csv::fields(text, ',')?
            .iter()
            .map(|reference| Self::parse(reference))
            .collect()
    }

    pub(crate) fn of(mut entries: BTreeMap<String, String>) -> Result<Self, String> {
        let kind = entries.remove("type").unwrap_or_default();
        if kind.is_empty() {
            return Err(format!("type required for {entries:?}"));
        }
        Ok(Self {
            kind,
            attributes: entries,
        })
    }

    /// As a flag of `build` takes it.
    pub fn flag(&self) -> String {
        csv::join(
            [("type", self.kind.as_str())]
                .into_iter()
                .chain(pairs(&self.attributes)),
        )
    }
}

impl Export {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fields = csv::fields(text, ',')?;
        let mut export = Self::default();
        if let [only] = fields.as_slice()
            && only == text
            && !only.starts_with("type=")
        {
            let kind = if only == "-" { "tar" } else { "local" };
            return Ok(Self {
                kind: kind.to_owned(),
                destination: only.clone(),
                ..Self::default()
            });
        }
        for field in fields {
            let (key, value) = pair(&field)?;
            match key.to_lowercase().trim() {
                "type" => value.clone_into(&mut export.kind),
                "dest" => value.clone_into(&mut export.destination),
                key => {
                    export.attributes.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        export.checked()
    }

    pub(crate) fn of(mut entries: BTreeMap<String, String>) -> Result<Self, String> {
        Self {
            kind: entries.remove("type").unwrap_or_default(),
            destination: entries.remove("dest").unwrap_or_default(),
            attributes: entries,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, String> {
        if self.kind.is_empty() {
            return Err("type is required for output".to_owned());
        }
        Ok(self)
    }

    /// As a flag of `build` takes it.
    pub fn flag(&self) -> String {
        let destination = Some(("dest", self.destination.as_str())).filter(|(_, value)| !value.is_empty());
        csv::join(
            [("type", self.kind.as_str())]
                .into_iter()
                .chain(destination)
                .chain(pairs(&self.attributes)),
        )
    }
}

impl Secret {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut secret = Self::default();
        let mut is_variable = false;
        for field in csv::fields(text, ',')? {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
            match key.to_lowercase().as_str() {
                "type" => match value {
                    "file" => {}
                    "env" => is_variable = true,
                    _ => return Err(format!("unsupported secret type \"{value}\", use file or env")),
                },
                "id" => value.clone_into(&mut secret.id),
                "source" | "src" => value.clone_into(&mut secret.file),
                "env" => value.clone_into(&mut secret.variable),
                key => return Err(format!("unexpected key '{key}' in '{field}'")),
            }
        }
        if is_variable && secret.variable.is_empty() {
            secret.variable = std::mem::take(&mut secret.file);
        }
        Ok(secret)
    }

    /// As a flag of `build` takes it.
    pub fn flag(&self) -> String {
        let pairs = [("id", &self.id), ("src", &self.file), ("env", &self.variable)];
        csv::join(
            pairs
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| (key, value.as_str())),
        )
    }
}

impl Ssh {
    pub(crate) fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((id, paths)) => Self {
                id: id.to_owned(),
                paths: paths.split(',').map(str::to_owned).collect(),
            },
            None => Self {
                id: text.to_owned(),
                paths: Vec::new(),
            },
        }
    }

    /// As a flag of `build` takes it.
    pub fn flag(&self) -> String {
        if self.paths.is_empty() {
            return self.id.clone();
        }
        format!("{}={}", self.id, self.paths.join(","))
    }
}

impl Policy {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut policy = Self::default();
        for field in csv::fields(text, ',')? {
            let (key, value) = pair(&field)?;
            policy.set(key.trim().to_lowercase().as_str(), value, &field)?;
        }
        Ok(policy)
    }

    pub(crate) fn of(entries: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut policy = Self::default();
        for (key, value) in entries.iter().filter(|(_, value)| !value.is_empty()) {
            policy.set(key, value, &format!("{key}={value}"))?;
        }
        Ok(policy)
    }

    fn set(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        match key {
            "filename" if !value.is_empty() => self.files.push(value.to_owned()),
            "reset" => self.reset = boolean(field, value)?,
            "disabled" => self.disabled = boolean(field, value)?,
            "strict" => self.strict = Some(boolean(field, value)?),
            "log-level" => self.log_level = Some(value.to_owned()),
            _ => return Err(format!("invalid value {field}")),
        }
        Ok(())
    }
}

impl Resources {
    /// One limit by its name.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || {
            value
                .parse()
                .map(Some)
                .map_err(|_| format!("invalid value {value} for int64 key resources.{name}"))
        };
        let text = Some(value.to_owned());
        match name {
            "memory" => self.memory = text,
            "memory-swap" => self.memory_swap = text,
            "cpu-shares" => self.cpu_shares = number()?,
            "cpu-period" => self.cpu_period = number()?,
            "cpu-quota" => self.cpu_quota = number()?,
            "cpuset-cpus" => self.cpuset_cpus = text,
            "cpuset-mems" => self.cpuset_mems = text,
            _ => return Err(format!("unknown resources key {name}")),
        }
        Ok(())
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, value) in other.pairs() {
            // What was parsed once can be set again.
            let _ = self.set(name, &value);
        }
    }

    /// The limits that are set, in the order of the manual.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let number = |number: Option<i64>| number.map(|number| number.to_string());
        [
            ("memory", self.memory.clone()),
            ("memory-swap", self.memory_swap.clone()),
            ("cpu-shares", number(self.cpu_shares)),
            ("cpu-period", number(self.cpu_period)),
            ("cpu-quota", number(self.cpu_quota)),
            ("cpuset-cpus", self.cpuset_cpus.clone()),
            ("cpuset-mems", self.cpuset_mems.clone()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_what_their_flags_take() {
        assert_eq!(
            CacheEntry::parse_all("a/b:c,d").unwrap(),
            [
                CacheEntry::parse("type=registry,ref=a/b:c").unwrap(),
                CacheEntry::parse("type=registry,ref=d").unwrap()
            ]
        );
        assert_eq!(Export::parse("out").unwrap().flag(), "type=local,dest=out");
        assert_eq!(Export::parse("-").unwrap().flag(), "type=tar,dest=-");
        assert_eq!(Secret::parse("type=env,id=a,src=B").unwrap().flag(), "id=a,env=B");
        assert_eq!(Ssh::parse("default=a,b").flag(), "default=a,b");
        assert_eq!(attest_of_flag("sbom", "false"), "type=sbom,disabled=true");
        assert_eq!(
            attest_of_flag("provenance", "mode=max"),
            "type=provenance,mode=max"
        );
        for wrong in ["x=y", "type=x,y"] {
            assert!(CacheEntry::parse_all(wrong).is_err());
        }
        for wrong in ["x=y,z=w", "type=x,y"] {
            assert!(Export::parse(wrong).is_err());
        }
        assert!(Secret::parse("id=a,what=b").unwrap_err().contains("what"));
    }

    #[test]
    fn duplicates_give_way_to_the_last() {
        assert_eq!(deduplicated(vec![1, 2, 1, 3]), [1, 2, 3]);
        assert_eq!(deduplicated(vec![1, 1, 2, 3]), [1, 3, 2]);
        assert!(deduplicated(Vec::<u8>::new()).is_empty());
    }
}
