//! Caches that are asked for through attributes of a frontend.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::CacheOptions;

/// A list of caches of any kind, as JSON.
const IMPORTS: &str = "cache-imports";
/// The older attribute: names in registries, with commas between them.
const FROM: &str = "cache-from";

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attributes: Option<BTreeMap<String, String>>,
}

/// The caches to import that a frontend is asked to use.
pub(in crate::solver) fn imports(
    attributes: &BTreeMap<String, String>,
) -> Result<Vec<CacheOptions>, serde_json::Error> {
    let value = |key: &str| attributes.get(key).filter(|value| !value.is_empty());
    let listed: Vec<Entry> = match value(IMPORTS) {
        Some(json) => serde_json::from_str::<Option<_>>(json)?.unwrap_or_default(),
        None => Vec::new(),
    };
    let listed = listed.into_iter().map(|entry| CacheOptions {
        kind: entry.kind,
        attributes: entry.attributes.unwrap_or_default(),
    });
    let named = value(FROM).into_iter().flat_map(|names| names.split(','));
    let named = named.filter(|name| !name.is_empty()).map(|name| CacheOptions {
        kind: "registry".to_owned(),
        attributes: BTreeMap::from([("ref".to_owned(), name.to_owned())]),
    });
    Ok(listed.chain(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Vec<String>, serde_json::Error> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let found = imports(&pairs.iter().map(owned).collect())?;
        let shown = |cache: &CacheOptions| format!("{} {}", cache.kind, cache.name());
        Ok(found.iter().map(shown).collect())
    }

    #[test]
    fn both_ways_to_ask_for_a_cache_count() {
        let json = r#"[{"Type":"local","Attrs":{"src":"there"}},{"Type":"gha"}]"#;
        assert_eq!(
            of(&[(IMPORTS, json), (FROM, "a/b:1,,c")]).unwrap(),
            ["local there", "gha gha", "registry a/b:1", "registry c"]
        );
        assert!(of(&[(IMPORTS, "null"), (FROM, "")]).unwrap().is_empty());
        assert!(of(&[]).unwrap().is_empty());
        assert!(of(&[(IMPORTS, "none")]).is_err());
    }
}
