//! What the daemon says it can do. A capability is a promise: clients send what depends on it without asking again,
//! and do without what is not listed. Those of operations stand with the graph, which refuses what needs others.

use proto::caps::ApiCap;

/// Of the gateway, `LLBBridge`.
pub(super) const GATEWAY: &[&str] = &[
    "solve.base",
    "solve.inlinereturn",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "reference.attestations",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.signals",
    "gateway.exec.secretenv",
    "gateway.exec.filesystem",
    "resolveimage",
    "resolveimage.resolvemode",
    "source.metaresolver",
    "source.metaresolver.http.checksumrequest",
    "source.metaresolver.image.attestations",
];

pub(super) fn list(ids: &[&str]) -> Vec<ApiCap> {
    ids.iter()
        .map(|id| ApiCap {
            id: (*id).to_owned(),
            enabled: true,
            ..ApiCap::default()
        })
        .collect()
}
