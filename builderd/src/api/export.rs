//! The last part of a build: compute what was asked for and give it to where it is to go.

use std::sync::Arc;

use proto::control::SolveRequest;
use proto::exporter::FindExportersRequest;
use tonic::Status;

use super::build::Build;
use super::{caches, status, verify};
use crate::session::{Session, method};
use crate::solver::{AttestRequest, CacheOptions, ExportRequest, Exports, Outcome};

/// Builds an outcome and exports it.
pub(super) async fn run(
    build: &Arc<Build>,
    outcome: &Outcome,
    request: &SolveRequest,
) -> Result<Exports, Status> {
    let caches = caches::exports(request);
    let inline = caches.iter().any(CacheOptions::is_inline);
    let job = build.job();
    let attest = attest(request)?;
    let mut wanted = exporters(request);
    let added = match request.enable_session_exporter {
        true => Some(added_by_session(build, outcome).await?),
        false => None,
    };
    if let Some((_, exporters)) = &added {
        wanted.extend(exporters.iter().cloned());
    }
    verify::run(build, outcome, &request.frontend_attrs);
    let exported = job.export(outcome, &wanted, build.info(), &attest, inline).await;
    let mut exports = exported.map_err(|error| status::of_solve(&error))?;
    let exported = job.export_caches(outcome, &caches).await;
    exports
        .response
        .extend(exported.map_err(|error| status::of_solve(&error))?);
    for (key, value) in &outcome.metadata {
        if let (true, Ok(value)) = (key.starts_with("frontend."), std::str::from_utf8(value)) {
            exports.response.insert(key.clone(), value.to_owned());
        }
    }
    for session in added.iter().flat_map(|(sessions, _)| sessions) {
        let finalized = session.finalize_export(exports.response.clone()).await;
        finalized.map_err(|error| status::of_session(&error))?;
    }
    Ok(exports)
}

/// The sessions that have exporters of their own, and those exporters.
async fn added_by_session(
    build: &Build,
    outcome: &Outcome,
) -> Result<(Vec<Arc<Session>>, Vec<ExportRequest>), Status> {
    let sessions = build.job().sessions().offering(method::FIND_EXPORTERS).await;
    let sessions = sessions.unwrap_or_default();
    let metadata = outcome.metadata.iter();
    let request = FindExportersRequest {
        metadata: metadata
            .map(|(key, value)| (key.clone(), value.clone().into()))
            .collect(),
        refs: outcome
            .references
            .iter()
            .map(|reference| reference.id.to_string())
            .collect(),
    };
    let mut added = Vec::new();
    for session in &sessions {
        let found = session.find_exporters(request.clone()).await;
        let found = found.map_err(|error| status::of_session(&error))?;
        added.extend(found.into_iter().map(|exporter| ExportRequest {
            kind: exporter.r#type,
            attributes: exporter.attrs,
        }));
    }
    Ok((sessions, added))
}

/// What the client wants attested.
pub(super) fn attest(request: &SolveRequest) -> Result<AttestRequest, Status> {
    AttestRequest::parse(&request.frontend_attrs)
        .map_err(|error| Status::invalid_argument(proto::chain(&error)))
}

/// What the client asks for, in its order; the old form counts only when the new one is empty.
pub(super) fn exporters(request: &SolveRequest) -> Vec<ExportRequest> {
    let old = ExportRequest {
        kind: request.exporter_deprecated.clone(),
        attributes: request.exporter_attrs_deprecated.clone(),
    };
    let new = request.exporters.iter().map(|exporter| ExportRequest {
        kind: exporter.r#type.clone(),
        attributes: exporter.attrs.clone(),
    });
    let mut exporters: Vec<ExportRequest> = match (request.exporters.is_empty(), old.kind.is_empty()) {
        (true, false) => vec![old],
        _ => new.collect(),
    };
    // Times are a matter of the build, however it is exported. Words such as `context` are the frontend's.
    let epoch = request.frontend_attrs.get("build-arg:SOURCE_DATE_EPOCH");
    if let Some(epoch) = epoch.filter(|epoch| epoch.is_empty() || epoch.parse::<i64>().is_ok()) {
        for exporter in &mut exporters {
            let attribute = exporter.attributes.entry("source-date-epoch".to_owned());
            attribute.or_insert_with(|| epoch.clone());
        }
    }
    exporters
}
