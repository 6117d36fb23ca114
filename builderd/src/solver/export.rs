//! The last part of a build: what was computed goes where the client wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use registry::{Descriptor, ImageConfig};
use serde::Deserialize;

use super::attest::{AttestRequest, Told};
use super::outcome::{Outcome, Reference, References};
use super::provenance::Options;
use super::{Job, SolveError, inputs, remote};
use crate::exporters::{self, BuildInfo, Context, Response, Results, Target, compatibility, has_sbom};
use crate::store::{Compression, Snapshot};

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
    /// What each result was made from, by the names of platforms.
    pub provenance: BTreeMap<String, Bytes>,
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
        attest: &AttestRequest,
        inline_cache: bool,
    ) -> Result<Exports, SolveError> {
        let references: Vec<&Reference> = outcome.references.iter().collect();
        let snapshots = self.evaluate_all(references.iter().copied()).await?;
        let mut exports = Exports::default();
        let mut results = results(outcome, snapshots, build_info)?;
        for target in &mut results.targets {
            if let Some(attested) = outcome.attestations.get(&target.id) {
                target.attestations = self.handed_in(attested).await?;
            }
        }
        let platforms: Vec<(String, registry::Platform)> = results
            .targets
            .iter()
            .map(|target| (target.id.clone(), target.platform.clone()))
            .collect();
        let told: Vec<Told<'_>> = platforms
            .iter()
            .map(|(id, platform)| Told {
                id,
                platform,
                // Nothing is told of scratch.
                reference: outcome
                    .references
                    .find(id)
                    .filter(|reference| reference.edge.is_some()),
            })
            .collect();
        let failed = |error| SolveError::Attest(Arc::new(error));
        if let Some(sbom) = &attest.sbom
            && !results
                .targets
                .iter()
                .any(|target| has_sbom(&target.attestations))
        {
            let listed = self.sboms(sbom, &told).await?;
            for (target, sbom) in results.targets.iter_mut().zip(listed) {
                target.attestations.extend(sbom);
            }
        }
        if let Some(wanted) = &attest.provenance {
            let made = self.provenance(&wanted.options, &told, outcome).map_err(failed)?;
            for (target, provenance) in results.targets.iter_mut().zip(made) {
                let attestation = provenance.map(|provenance| wanted.attestation(provenance));
                target.attestations.extend(attestation);
            }
        }
        if inline_cache {
            for target in &mut results.targets {
                self.add_inline_cache(outcome, target).await?;
            }
        }
        for (number, request) in requests.iter().enumerate() {
            let context = Context {
                images: self.images(),
                sessions: self.sessions(),
                progress: self.progress(),
                number,
            };
            let version = self.notes().compatibility();
            let attributes = compatibility::attributes(version, &request.kind, &request.attributes, &results)
                .map_err(|error| SolveError::Export(Arc::new(error)))?;
            let export = exporters::export(&request.kind, &attributes, &results, &context);
            let exported = tokio::select! {
                exported = export => exported,
                () = self.cancellation().cancelled() => return Err(SolveError::Canceled),
            };
            let exported = exported.map_err(|error| SolveError::Export(Arc::new(error)))?;
            exports.response.extend(exported.response);
            exports.roots.extend(exported.root.map(|root| (number, root)));
            exports.documents.extend(exported.documents);
        }
        let made = self
            .provenance(&Options::default(), &told, outcome)
            .map_err(failed)?;
        let context = Context {
            images: self.images(),
            sessions: self.sessions(),
            progress: self.progress(),
            number: 0,
        };
        for ((id, _), provenance) in platforms.iter().zip(made) {
            let Some(provenance) = provenance else { continue };
            let bytes = provenance
                .to_json(&context, Compression::default())
                .map_err(|error| SolveError::Export(Arc::new(exporters::ExportError::Write(error))))?;
            exports.provenance.insert(id.clone(), bytes.into());
        }
        Ok(exports)
    }

    /// Puts the records of a result into the config of its image.
    async fn add_inline_cache(
        self: &Arc<Self>,
        outcome: &Outcome,
        target: &mut Target,
    ) -> Result<(), SolveError> {
        let reference = match &outcome.references {
            References::One(one) => one.as_ref(),
            References::Platforms(platforms) => platforms.get(&target.id),
        };
        let Some(reference) = reference else {
            return Ok(());
        };
        let Some(records) = self.inline_cache(reference, &target.snapshot).await? else {
            return Ok(());
        };
        let failed = |error: serde_json::Error| {
            SolveError::Request(format!("invalid image config in the result: {error}"))
        };
        let mut config = match &target.config {
            Some(bytes) => ImageConfig::parse(bytes).map_err(failed)?,
            None => ImageConfig::for_platform(&target.platform),
        };
        config.other.insert(remote::INLINE.to_owned(), records.into());
        target.config = Some(config.to_bytes().map_err(failed)?);
        Ok(())
    }
}

fn results(
    outcome: &Outcome,
    snapshots: Vec<Snapshot>,
    build_info: Option<BuildInfo>,
) -> Result<Results, SolveError> {
    let mut named = match outcome.metadata.get("refs.platforms") {
        Some(text) => {
            serde_json::from_slice::<Platforms>(text)
                .map_err(|error| {
                    SolveError::Request(format!("invalid refs.platforms in the result: {error}"))
                })?
                .platforms
        }
        None => Vec::new(),
    };
    // A platform that was asked for twice has one result.
    let mut ids = BTreeSet::new();
    named.retain(|named| ids.insert(named.id.clone()));
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
            attestations: Vec::new(),
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
