//! The predicate of SLSA provenance, made of what was captured.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::capture::{Capture, Gaps, Subject, Unfetched};
use super::steps::Steps;
use super::{Environment, Notes};
use crate::exporters::{Provenance, Slsa};
use crate::version;

const BUILD_TYPE: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
/// What a build without a wish gets.
const NEWEST_COMPATIBILITY: i64 = 30;
/// Told only if everything is told: they may hold what is nobody's business.
const PRIVATE: [&str; 2] = ["build-arg:", "label:"];

/// What provenance is to tell; from the attribute `attest:provenance`.
#[derive(Clone, Debug)]
pub struct Options {
    pub slsa: Slsa,
    /// With the steps, their sources and layers, and all arguments.
    pub max: bool,
    pub reproducible: bool,
    /// Refuse to tell anything if something was used that cannot be named.
    pub complete_materials: bool,
    pub builder_id: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slsa: Slsa::V1,
            max: true,
            reproducible: false,
            complete_materials: false,
            builder_id: String::new(),
        }
    }
}

impl Options {
    /// What makes a list of materials incomplete is an error if it must not be.
    pub(in crate::solver) fn predicate(
        &self,
        subject: Subject<'_>,
        results: &BTreeSet<Arc<str>>,
        notes: &Notes,
        environment: &Environment,
    ) -> Result<Provenance, Gaps> {
        let mut capture = Capture::of(subject, results, notes);
        if self.complete_materials && !capture.is_complete() {
            return Err(capture.into_gaps());
        }
        let mut metadata = Map::new();
        let versions = vcs(&mut capture);
        let mut buildkit = Map::new();
        if !versions.is_empty() {
            buildkit.insert("vcs".to_owned(), json!(versions));
        }
        if capture.proxied {
            let mut network = json!({ "mode": "proxy" });
            if !capture.unfetched.is_empty() {
                let told: Vec<Value> = capture.unfetched.iter().map(Unfetched::to_json).collect();
                network["proxy"] = json!({ "incomplete": told });
            }
            buildkit.insert("network".to_owned(), network);
        }
        let frontend = capture.asked.frontend.clone();
        let mut internal: Map<String, Value> = environment.clone().into_iter().collect();
        internal.insert(
            "builderPlatform".to_owned(),
            binfmt::Platform::host().to_string().into(),
        );
        if frontend == "dockerfile.v0" {
            internal.insert(
                "dockerfileVersion".to_owned(),
                version::message().dockerfile_version.into(),
            );
        }
        let mut steps = Steps::default();
        if self.max {
            steps = Steps::of(subject.definition);
            let config = json!({ "llbDefinition": steps.list, "digestMapping": steps.mapping() });
            internal.insert("buildConfig".to_owned(), config);
            if let Some(sources) = steps.sources(subject.definition) {
                buildkit.insert("source".to_owned(), sources);
            }
        }
        let (request, whole) = self.request(&capture, notes);
        metadata.insert("invocationId".to_owned(), notes.invocation.clone().into());
        metadata.insert("startedOn".to_owned(), notes.started.to_string().into());
        metadata.insert("buildkit_metadata".to_owned(), buildkit.into());
        metadata.insert(
            "buildkit_hermetic".to_owned(),
            (capture.is_complete() && !capture.network).into(),
        );
        metadata.insert(
            "buildkit_completeness".to_owned(),
            json!({
                "request": whole && !frontend.is_empty(),
                "resolvedDependencies": capture.is_complete(),
            }),
        );
        metadata.insert("buildkit_reproducible".to_owned(), self.reproducible.into());
        let predicate = json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "configSource": capture.asked.source, "request": request },
                "internalParameters": internal,
                "resolvedDependencies": capture.sources.materials(),
            },
            "runDetails": { "builder": { "id": self.builder_id }, "metadata": metadata },
        });
        Ok(Provenance {
            predicate,
            slsa: self.slsa,
            steps: steps.numbers,
            layers: BTreeMap::new(),
        })
    }

    /// The request as it is told, and whether that is all of it.
    fn request(&self, capture: &Capture, notes: &Notes) -> (Value, bool) {
        let mut request = capture.asked.request();
        if let Some(root) = &capture.root {
            request.insert("root".to_owned(), root.to_json());
        }
        let named = |list: &BTreeMap<String, bool>| -> Vec<Value> {
            let named = list.iter().map(|(id, optional)| match optional {
                true => json!({ "id": id, "optional": true }),
                false => json!({ "id": id }),
            });
            named.collect()
        };
        for (key, list) in [("secrets", &capture.secrets), ("ssh", &capture.ssh)] {
            if !list.is_empty() {
                request.insert(key.to_owned(), named(list).into());
            }
        }
        let mut request = Value::Object(request);
        let whole = self.max || !scrub(&mut request);
        if let Some(request) = request.as_object_mut() {
            if !capture.sources.local.is_empty() {
                let locals = capture.sources.local.iter();
                let locals: Vec<Value> = locals.map(|name| json!({ "name": name })).collect();
                request.insert("locals".to_owned(), locals.into());
            }
            let version = match notes.compatibility() {
                0 => NEWEST_COMPATIBILITY,
                version => version,
            };
            request.insert("compatibilityVersion".to_owned(), version.into());
        }
        (request, whole)
    }
}

/// Takes the facts about the version control out of the arguments.
fn vcs(capture: &mut Capture) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    capture
        .asked
        .arguments
        .retain(|key, value| match key.strip_prefix("vcs:") {
            Some(name) => {
                if !value.is_empty() {
                    let value = match name {
                        "source" => super::request::redacted(value),
                        _ => value.clone(),
                    };
                    found.insert(name.to_owned(), value);
                }
                false
            }
            None => true,
        });
    found
}

/// Takes private arguments out of a request and those it came from; says whether there were any.
fn scrub(request: &mut Value) -> bool {
    let Some(request) = request.as_object_mut() else {
        return false;
    };
    request.remove("secrets");
    request.remove("ssh");
    let mut scrubbed = false;
    if let Some(arguments) = request.get_mut("args").and_then(Value::as_object_mut) {
        let before = arguments.len();
        arguments.retain(|key, _| !PRIVATE.iter().any(|prefix| key.starts_with(prefix)));
        scrubbed |= arguments.len() < before;
    }
    let inputs = request.get_mut("inputs").and_then(Value::as_object_mut);
    let mut others: Vec<&mut Value> = inputs.into_iter().flat_map(Map::values_mut).collect();
    // Borrowed apart: `inputs` and `root` are different fields.
    for other in &mut others {
        scrubbed |= other.get_mut("request").is_some_and(scrub);
    }
    if let Some(root) = request.get_mut("root").and_then(|root| root.get_mut("request")) {
        scrubbed |= scrub(root);
    }
    scrubbed
}
