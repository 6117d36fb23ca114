//! The last part of a build: what was computed goes where the client wants it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use registry::Descriptor;
use serde::Deserialize;

use super::outcome::{Outcome, Reference, References};
use super::{Job, SolveError, inputs};
use crate::exporters::{self, BuildInfo, Context, Response, Results, Target};
use crate::store::Snapshot;

/// Where a result is to go.
#[derive(Clone, Debug, Default)]
pub struct ExportRequest {
    /// BuildKit's name of the exporter: `image`, `oci`, `local` …
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
}

/// What all exports of a build came to.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    /// What the client is told.
    pub response: Response,
    /// What names each image, by the number of its export.
    pub roots: BTreeMap<usize, Descriptor>,
    /// Indexes, manifests and configs.
    pub documents: Vec<Bytes>,
}

/// The metadata `refs.platforms`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Platforms {
    #[serde(default)]
    platforms: Vec<NamedPlatform>,
}

#[derive(Debug, Deserialize)]
struct NamedPlatform {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: registry::Platform,
}

impl Job {
    /// Computes an outcome and exports it, to all requested places one after the other.
    pub async fn export(
        self: &Arc<Self>,
        outcome: &Outcome,
        requests: &[ExportRequest],
        build_info: Option<BuildInfo>,
    ) -> Result<Exports, SolveError> {
        let references: Vec<&Reference> = outcome.references.iter().collect();
        let snapshots = self.evaluate_all(references.iter().copied()).await?;
        let mut exports = Exports::default();
        if requests.is_empty() {
            return Ok(exports);
        }
        let results = results(outcome, snapshots, build_info)?;
        for (number, request) in requests.iter().enumerate() {
            let context = Context {
                images: self.images(),
                sessions: self.sessions(),
                progress: self.progress(),
                number,
            };
            let export = exporters::export(&request.kind, &request.attributes, &results, &context);
            let exported = tokio::select! {
                exported = export => exported,
                () = self.cancellation().cancelled() => return Err(SolveError::Canceled),
            };
            let exported = exported.map_err(|error| SolveError::Export(Arc::new(error)))?;
            exports.response.extend(exported.response);
            exports.roots.extend(exported.root.map(|root| (number, root)));
            exports.documents.extend(exported.documents);
        }
        Ok(exports)
    }
}

fn results(
    outcome: &Outcome,
    snapshots: Vec<Snapshot>,
    build_info: Option<BuildInfo>,
) -> Result<Results, SolveError> {
    let named = match outcome.metadata.get("refs.platforms") {
        Some(text) => {
            serde_json::from_slice::<Platforms>(text)
                .map_err(|error| {
                    SolveError::Request(format!("invalid refs.platforms in the result: {error}"))
                })?
                .platforms
        }
        None => Vec::new(),
    };
    let target = |id: &str, platform, suffix: &str, snapshot| {
        let value = |key: &str| outcome.metadata.get(&format!("{key}{suffix}")).cloned();
        let epoch = value("source.date.epoch").and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        Target {
            id: id.to_owned(),
            platform,
            snapshot,
            config: value("containerimage.config"),
            base_config: value("containerimage.base.config"),
            epoch,
        }
    };
    let targets = match &outcome.references {
        References::One(_) => {
            let host = inputs::to_registry(&binfmt::Platform::host());
            let (id, platform) = match named.into_iter().next() {
                Some(named) => (named.id, named.platform),
                None => (host.to_string(), host),
            };
            vec![target(
                &id,
                platform,
                "",
                snapshots.into_iter().next().unwrap_or_default(),
            )]
        }
        References::Platforms(references) => {
            let mut by_id: BTreeMap<&str, Snapshot> =
                references.keys().map(String::as_str).zip(snapshots).collect();
            if named.len() != by_id.len() {
                return Err(SolveError::Request(format!(
                    "number of platforms does not match references {} {}",
                    named.len(),
                    by_id.len()
                )));
            }
            // In the order in which the platforms were asked for.
            named
                .iter()
                .map(|named| {
                    let snapshot = by_id.remove(named.id.as_str()).ok_or_else(|| {
                        SolveError::Request(format!("refs.platforms names {}, which has no result", named.id))
                    })?;
                    Ok(target(
                        &named.id,
                        named.platform.clone(),
                        &format!("/{}", named.id),
                        snapshot,
                    ))
                })
                .collect::<Result<_, SolveError>>()?
        }
    };
    let multi_platform = matches!(outcome.references, References::Platforms(_));
    Ok(Results {
        targets,
        multi_platform,
        build_info,
        metadata: outcome.metadata.clone(),
    })
}
