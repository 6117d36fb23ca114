//! What the daemon says it can do. A capability is a promise: clients send what depends on it without asking again,
//! and do without what is not listed.

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
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "resolveimage",
    "resolveimage.resolvemode",
    "source.metaresolver",
    "source.metaresolver.http.checksumrequest",
];

/// Of the Dockerfile frontend, as requests name them in `frontend.caps`.
pub(super) const FRONTEND: &[&str] = &[
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
];

/// Of operations, sources and exporters.
pub(super) const OPERATIONS: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.image.checksum",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.subdir",
    "source.git.checksum",
    "source.git.skipsubmodules",
    "source.git.mtime",
    "source.git.fetchbycommit",
    "exec.secretenv",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.secret",
    "exec.mount.ssh",
    "source.http",
    "source.http.auth",
    "source.http.checksum",
    "source.http.perm",
    // Its name has been misspelt since it is there.
    "soruce.http.uidgid",
    "source.http.header",
    "source.policy.session",
    "exec.meta.base",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.copy.includeexcludepatterns",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "mergeop",
    "diffop",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "exporter.image.annotations",
    "exporter.multiple",
    "exporter.sourcedateepoch",
    "gc.freespacefilter",
    "history.filter",
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
