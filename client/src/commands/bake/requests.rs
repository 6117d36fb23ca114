//! A target as the flags of `build`.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use bake::target::Secret;
use bake::{Target, paths};

use super::inputs::Inputs;
use crate::build::call::Call;
use crate::build::request::Flags;

pub fn flags(target: &Target, inputs: &Inputs, secrets: &[Secret]) -> anyhow::Result<Flags> {
    refuse_unsupported(target)?;
    let texts = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let pairs = |map: &Option<BTreeMap<String, Option<String>>>| {
        map.iter()
            .flatten()
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
            .collect()
    };
    let mut inline = target.dockerfile_inline.clone();
    if inline.is_none() && paths::is_remote(&inputs.context) && inputs.dockerfile.starts_with('/') {
        // A Dockerfile from here for a context from elsewhere, of which the builder can only be told.
        let text = std::fs::read_to_string(&inputs.dockerfile)
            .with_context(|| format!("reading {}", inputs.dockerfile))?;
        inline = Some(text);
    }
    Ok(Flags {
        context: inputs.context.clone(),
        file: inline.is_none().then(|| inputs.dockerfile.clone()),
        tags: texts(&target.tags),
        platforms: texts(&target.platforms),
        build_args: pairs(&target.args),
        build_contexts: inputs
            .contexts
            .iter()
            .map(|(name, path)| format!("{name}={path}"))
            .collect(),
        labels: pairs(&target.labels),
        annotations: texts(&target.annotations),
        target: target.target.clone(),
        outputs: each(&target.outputs, bake::target::Export::flag),
        push: false,
        load: false,
        no_cache: target.no_cache == Some(true),
        no_cache_filter: texts(&target.no_cache_filter),
        pull: target.pull == Some(true),
        network: target.network.clone(),
        add_hosts: pairs(&target.extra_hosts),
        ulimits: texts(&target.ulimits),
        shm_size: target.shm_size.clone(),
        cgroup_parent: None,
        allow: texts(&target.entitlements),
        secrets: target
            .secrets
            .iter()
            .flatten()
            .chain(secrets)
            .map(Secret::flag)
            .collect(),
        cache_from: each(&target.cache_from, bake::target::CacheEntry::flag),
        cache_to: each(&target.cache_to, bake::target::CacheEntry::flag),
        ssh: each(&target.ssh, bake::target::Ssh::flag),
        attests: each(&target.attest, bake::target::Attest::flag),
        dockerfile_inline: inline,
        linked: target.linked,
        call: Call::parse(target.call.as_deref().unwrap_or_default())?,
    })
}

fn each<T>(list: &Option<Vec<T>>, flag: fn(&T) -> String) -> Vec<String> {
    list.iter().flatten().map(flag).collect()
}

fn refuse_unsupported(target: &Target) -> anyhow::Result<()> {
    let asks = |policy: &bake::target::Policy| !policy.disabled;
    ensure!(
        !target.policy.iter().flatten().any(asks),
        "policy is not supported yet: build without it"
    );
    ensure!(
        target.resources.is_none(),
        "resources is not supported yet: limit the builder itself by the driver options memory= and cpu-quota="
    );
    Ok(())
}
