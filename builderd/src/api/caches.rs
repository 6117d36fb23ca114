//! The caches that a build is to import and to export, as its client says.

use std::collections::BTreeMap;

use proto::control::{CacheOptionsEntry, SolveRequest};
use proto::gateway;

use crate::solver::CacheOptions;

pub(super) fn imports(request: &SolveRequest) -> Vec<CacheOptions> {
    let Some(cache) = &request.cache else {
        return Vec::new();
    };
    let old = cache.import_refs_deprecated.iter().map(|name| registry(name));
    cache.imports.iter().map(options).chain(old).collect()
}

pub(super) fn exports(request: &SolveRequest) -> Vec<CacheOptions> {
    let Some(cache) = &request.cache else {
        return Vec::new();
    };
    let mut exports: Vec<CacheOptions> = cache.exports.iter().map(options).collect();
    if !cache.export_ref_deprecated.is_empty() {
        let mut old = registry(&cache.export_ref_deprecated);
        old.attributes.extend(cache.export_attrs_deprecated.clone());
        exports.push(old);
    }
    exports
}

/// What a frontend that runs on the client's side adds.
pub(super) fn of_frontend(entries: Vec<gateway::CacheOptionsEntry>) -> Vec<CacheOptions> {
    let entries = entries.into_iter();
    entries
        .map(|entry| CacheOptions {
            kind: entry.r#type,
            attributes: entry.attrs,
        })
        .collect()
}

fn options(entry: &CacheOptionsEntry) -> CacheOptions {
    CacheOptions {
        kind: entry.r#type.clone(),
        attributes: entry.attrs.clone(),
    }
}

fn registry(name: &str) -> CacheOptions {
    CacheOptions {
        kind: "registry".to_owned(),
        attributes: BTreeMap::from([("ref".to_owned(), name.to_owned())]),
    }
}
