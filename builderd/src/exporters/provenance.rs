//! Provenance of one result: a predicate that is complete but for what only exporting it shows.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Context;
use crate::store::{Compression, Snapshot};

const BUILD_TYPE_02: &str = "https://mobyproject.org/buildkit@v1";

/// Which version of the predicate is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slsa {
    V02,
    V1,
}

impl Slsa {
    pub fn predicate_type(self) -> &'static str {
        match self {
            Self::V02 => "https://slsa.dev/provenance/v0.2",
            Self::V1 => "https://slsa.dev/provenance/v1",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Provenance {
    /// In the form of version 1, without the end of the build and layers.
    pub predicate: Value,
    pub slsa: Slsa,
    /// The numbers of the steps by their digests; empty if layers are not told.
    pub steps: BTreeMap<String, usize>,
    /// The results of steps, as `step0:0`.
    pub layers: BTreeMap<String, Snapshot>,
}

impl Provenance {
    /// The predicate, once it is known which layers have become blobs.
    pub fn to_json(&self, context: &Context<'_>, compression: Compression) -> serde_json::Result<Vec<u8>> {
        let mut predicate = self.predicate.clone();
        if let Some(metadata) = predicate
            .pointer_mut("/runDetails/metadata")
            .and_then(Value::as_object_mut)
        {
            metadata.insert("finishedOn".to_owned(), jiff::Timestamp::now().to_string().into());
            let layers: Map<String, Value> = self
                .layers
                .iter()
                .filter_map(|(step, snapshot)| {
                    Some((step.clone(), json!([blobs(snapshot, context, compression)?])))
                })
                .collect();
            if let (false, Some(buildkit)) = (
                layers.is_empty(),
                metadata
                    .get_mut("buildkit_metadata")
                    .and_then(Value::as_object_mut),
            ) {
                buildkit.insert("layers".to_owned(), layers.into());
            }
        }
        match self.slsa {
            Slsa::V1 => serde_json::to_vec_pretty(&predicate),
            Slsa::V02 => serde_json::to_vec_pretty(&version_02(&mut predicate)),
        }
    }
}

/// The blobs of a snapshot; none if one of them was never made.
fn blobs(snapshot: &Snapshot, context: &Context<'_>, compression: Compression) -> Option<Vec<Value>> {
    let layers = snapshot.layers();
    if layers.is_empty() {
        return None;
    }
    let told = layers.iter().map(|layer| {
        let came_as = context.images.blobs_of(layer).into_iter().next();
        let store = context.images.store();
        let blob = store.known_blob(layer, compression, came_as.as_ref()).ok()??;
        let descriptor = &blob.descriptor;
        Some(json!({
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest.to_string(),
            "size": descriptor.size,
        }))
    });
    told.collect()
}

/// The same in the words of version 0.2.
fn version_02(predicate: &mut Value) -> Value {
    let mut take = |path: &str| predicate.pointer_mut(path).map(Value::take).unwrap_or_default();
    let source = take("/buildDefinition/externalParameters/configSource");
    let mut config = Map::new();
    for (from, to) in [("uri", "uri"), ("digest", "digest"), ("path", "entryPoint")] {
        if let Some(value) = source.get(from) {
            config.insert(to.to_owned(), value.clone());
        }
    }
    let mut environment = take("/buildDefinition/internalParameters");
    let mut build_config = None;
    if let Some(environment) = environment.as_object_mut() {
        build_config = environment.remove("buildConfig");
        let platform = environment.remove("builderPlatform").unwrap_or_default();
        environment.insert("platform".to_owned(), platform);
    }
    let metadata = take("/runDetails/metadata");
    let of = |key: &str| metadata.get(key).cloned().unwrap_or_default();
    let complete = |key: &str| {
        let told = metadata.pointer(&format!("/buildkit_completeness/{key}"));
        told.cloned().unwrap_or_default()
    };
    let mut told = json!({
        "builder": take("/runDetails/builder"),
        "buildType": BUILD_TYPE_02,
        "materials": take("/buildDefinition/resolvedDependencies"),
        "invocation": {
            "configSource": config,
            "parameters": take("/buildDefinition/externalParameters/request"),
            "environment": environment,
        },
        "metadata": {
            "buildInvocationID": of("invocationId"),
            "buildStartedOn": of("startedOn"),
            "buildFinishedOn": of("finishedOn"),
            "completeness": {
                "parameters": complete("request"),
                "environment": true,
                "materials": complete("resolvedDependencies"),
            },
            "reproducible": of("buildkit_reproducible"),
            "https://mobyproject.org/buildkit@v1#hermetic": of("buildkit_hermetic"),
            "https://mobyproject.org/buildkit@v1#metadata": of("buildkit_metadata"),
        },
    });
    if let (Some(config), Some(told)) = (build_config, told.as_object_mut()) {
        told.insert("buildConfig".to_owned(), config);
    }
    told
}
