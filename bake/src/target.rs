//! Targets and groups, and how definitions of one name come together.

pub(crate) mod entries;
mod fields;
pub(crate) mod overrides;

mod print;

use std::collections::BTreeMap;

pub use entries::{Attest, CacheEntry, Export, Policy, Resources, Secret, Ssh, attest_of_flag};
use entries::{deduplicated, last_of_each};
pub(crate) use fields::ATTRIBUTES;

/// A named set of targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub description: String,
    pub targets: Option<Vec<String>>,
}

/// One build. Attributes that were not set are absent, so that targets that inherit them can tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    pub name: String,
    pub description: String,
    pub inherits: Option<Vec<String>>,
    pub annotations: Option<Vec<String>>,
    pub attest: Option<Vec<Attest>>,
    pub context: Option<String>,
    pub contexts: Option<BTreeMap<String, String>>,
    pub dockerfile: Option<String>,
    pub dockerfile_inline: Option<String>,
    pub args: Option<BTreeMap<String, Option<String>>>,
    pub labels: Option<BTreeMap<String, Option<String>>>,
    pub tags: Option<Vec<String>>,
    pub cache_from: Option<Vec<CacheEntry>>,
    pub cache_to: Option<Vec<CacheEntry>>,
    pub target: Option<String>,
    pub secrets: Option<Vec<Secret>>,
    pub ssh: Option<Vec<Ssh>>,
    pub platforms: Option<Vec<String>>,
    pub outputs: Option<Vec<Export>>,
    pub pull: Option<bool>,
    pub no_cache: Option<bool>,
    pub network: Option<String>,
    pub no_cache_filter: Option<Vec<String>>,
    pub shm_size: Option<String>,
    pub ulimits: Option<Vec<String>>,
    pub resources: Option<Resources>,
    pub call: Option<String>,
    pub entitlements: Option<Vec<String>>,
    pub extra_hosts: Option<BTreeMap<String, Option<String>>>,
    pub policy: Option<Vec<Policy>>,
    /// Built only because another target uses its result.
    pub linked: bool,
    pub(crate) base: Base,
}

/// The folders that relative contexts are resolved from, if that is the file and not the working folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Base {
    /// Of the file that defines the target.
    pub file: Option<String>,
    /// Of the file that sets `context`.
    pub context: Option<String>,
    /// `target.NAME.context` was taken over as it is.
    pub context_of: Option<String>,
    pub contexts: BTreeMap<String, String>,
    /// The context is the file's folder because nothing sets it.
    pub is_default: bool,
}

impl Target {
    /// Lays another definition over this one.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.base.file.is_some() {
            self.base.file.clone_from(&other.base.file);
            self.base.is_default = other.base.is_default;
        }
        if other.context.is_some() {
            self.context.clone_from(&other.context);
            self.base.context.clone_from(&other.base.context);
            self.base.context_of.clone_from(&other.base.context_of);
        }
        for name in other.contexts.iter().flat_map(BTreeMap::keys) {
            match other.base.contexts.get(name) {
                Some(base) => self.base.contexts.insert(name.clone(), base.clone()),
                None => self.base.contexts.remove(name),
            };
        }
        replace(&mut self.dockerfile, &other.dockerfile);
        replace(&mut self.dockerfile_inline, &other.dockerfile_inline);
        merge_set(&mut self.args, &other.args);
        merge_set(&mut self.labels, &other.labels);
        merge_set(&mut self.extra_hosts, &other.extra_hosts);
        if let Some(contexts) = other.contexts.as_ref().filter(|contexts| !contexts.is_empty()) {
            self.contexts
                .get_or_insert_default()
                .extend(contexts.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        replace(&mut self.tags, &other.tags);
        replace(&mut self.target, &other.target);
        replace(&mut self.call, &other.call);
        append(&mut self.annotations, &other.annotations);
        append(&mut self.attest, &other.attest);
        self.attest = self.attest.take().map(last_of_each);
        append(&mut self.policy, &other.policy);
        append(&mut self.secrets, &other.secrets);
        self.secrets = self.secrets.take().map(last_of_each);
        append(&mut self.ssh, &other.ssh);
        self.ssh = self.ssh.take().map(last_of_each);
        replace(&mut self.platforms, &other.platforms);
        append(&mut self.cache_from, &other.cache_from);
        self.cache_from = self.cache_from.take().map(deduplicated);
        replace(&mut self.cache_to, &other.cache_to);
        replace(&mut self.outputs, &other.outputs);
        replace(&mut self.pull, &other.pull);
        replace(&mut self.no_cache, &other.no_cache);
        replace(&mut self.network, &other.network);
        append(&mut self.no_cache_filter, &other.no_cache_filter);
        replace(&mut self.shm_size, &other.shm_size);
        append(&mut self.ulimits, &other.ulimits);
        if let Some(resources) = &other.resources {
            self.resources.get_or_insert_default().merge(resources);
        }
        if !other.description.is_empty() {
            self.description.clone_from(&other.description);
        }
        append(&mut self.entitlements, &other.entitlements);
        append(&mut self.inherits, &other.inherits);
    }

    /// Nothing twice, nothing empty.
    pub(crate) fn normalize(&mut self) {
        for list in [
            &mut self.annotations,
            &mut self.tags,
            &mut self.platforms,
            &mut self.no_cache_filter,
            &mut self.ulimits,
        ] {
            tidy(list);
        }
        self.attest = self.attest.take().map(last_of_each);
        self.secrets = self.secrets.take().map(last_of_each);
        self.ssh = self.ssh.take().map(last_of_each);
        self.cache_from = self.cache_from.take().map(deduplicated);
        self.cache_to = self.cache_to.take().map(deduplicated);
        self.outputs = self.outputs.take().map(deduplicated);
        if self.network.as_deref() == Some("host") {
            self.entitlements
                .get_or_insert_default()
                .push("network.host".to_owned());
        }
        tidy(&mut self.entitlements);
        if let Some(contexts) = &mut self.contexts {
            contexts.retain(|_, value| !value.is_empty());
        }
    }
}

fn replace<T: Clone>(mine: &mut Option<T>, other: &Option<T>) {
    if other.is_some() {
        mine.clone_from(other);
    }
}

fn append<T: Clone>(mine: &mut Option<Vec<T>>, other: &Option<Vec<T>>) {
    if let Some(other) = other {
        mine.get_or_insert_default().extend_from_slice(other);
    }
}

/// Null leaves alone what is there.
fn merge_set(
    mine: &mut Option<BTreeMap<String, Option<String>>>,
    other: &Option<BTreeMap<String, Option<String>>>,
) {
    for (name, value) in other.iter().flatten() {
        if value.is_some() {
            mine.get_or_insert_default().insert(name.clone(), value.clone());
        }
    }
}

fn tidy(list: &mut Option<Vec<String>>) {
    if let Some(list) = list {
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|text| !text.is_empty() && seen.insert(text.clone()));
    }
}
