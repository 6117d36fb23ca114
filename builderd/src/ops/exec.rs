//! RUN: one process on a snapshot, in a sandbox.
//!
//! Every mount of the operation that has an output gets a draft layer of its own; what the process leaves there
//! becomes a layer on top of the mount's input. A step that fails or is cancelled leaves nothing.

mod caches;
mod content;
mod secrets;
mod ssh;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use proto::pb;
use tokio_util::sync::CancellationToken;

use super::OpError;
use super::remains::{Remains, Remnant};
use crate::executor::cgroup::Limits;
use crate::executor::step::{
    ExtraHost, FileSystem, Mount, NetworkMode, OutletLink, SecurityMode, Source, Step, StepError, Stream,
    Ulimit, Writable,
};
use crate::executor::{Sandboxes, cdi};
use crate::progress::{LogStream, VertexProgress};
use crate::store::{LayerDraft, NewLayer, Snapshot, Store};

pub use caches::Caches;
pub use content::{bases, content_key};
pub use secrets::Secrets;
pub use ssh::Agents;

/// What the clients lend to a step while it runs.
#[derive(Debug, Default)]
pub struct Lent {
    pub secrets: Secrets,
    pub agents: Agents,
    pub caches: Caches,
    pub devices: cdi::Given,
}

/// What a step finds programs by when neither image nor Dockerfile say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of the daemon a step works with.
#[derive(Debug)]
pub struct Surroundings<'a> {
    pub store: &'a Store,
    pub sandboxes: &'a Sandboxes,
    pub progress: &'a VertexProgress,
    pub cancel: &'a CancellationToken,
    /// Its only way out, if it shall have one.
    pub outlet: Option<OutletLink>,
    /// What the step may use of the machine.
    pub limits: Limits,
}

/// Runs the operation to its end; dropping the future kills the process.
pub async fn run(
    op: &pb::ExecOp,
    inputs: &[Snapshot],
    lent: Arc<Lent>,
    surroundings: &Surroundings<'_>,
    remains: &mut Remains,
) -> Result<Vec<Snapshot>, OpError> {
    let Surroundings {
        store,
        sandboxes,
        progress,
        cancel,
        ref outlet,
        ref limits,
    } = *surroundings;
    let mut plan = Plan::of(op, inputs, &lent, store)?;
    if let Some(link) = outlet {
        plan.step.leave_through(link.clone());
    }
    let parent = op.meta.as_ref().map_or("", |meta| &meta.cgroup_parent);
    let membership = sandboxes.confine(parent, limits).await?;
    plan.step.cgroup.clone_from(&membership);
    let command = plan.step.args.join(" ");
    let output = |stream: Stream, bytes: Bytes| {
        let stream = match stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
        };
        progress.log(stream, bytes);
    };
    let status = match sandboxes.run(plan.step, lent, output, cancel).await {
        Ok(status) => status,
        Err(StepError::Cancelled) => return Err(OpError::Canceled),
        Err(source) => {
            *remains = left(op, inputs, plan.outputs);
            return Err(OpError::Step { command, source });
        }
    };
    let code = status.code();
    let expected = op
        .meta
        .as_ref()
        .map(|meta| &meta.valid_exit_codes[..])
        .unwrap_or_default();
    let success = if expected.is_empty() {
        code == 0
    } else {
        expected.contains(&code)
    };
    if !success {
        *remains = left(op, inputs, plan.outputs);
        let out_of_memory = membership.is_some_and(|membership| membership.ran_out_of_memory());
        return Err(match out_of_memory {
            true => OpError::OutOfMemory {
                command,
                code,
                limit: (limits.memory > 0).then_some(limits.memory),
            },
            false => OpError::Exit { command, code },
        });
    }
    let mut outputs = Vec::new();
    // A writable mount without an output had its draft for the step alone.
    for planned in plan.outputs.into_iter().filter(|planned| planned.output >= 0) {
        let Planned {
            output: number,
            input,
            draft,
            ..
        } = planned;
        let snapshot = match draft {
            Some(draft) => {
                let store = store.clone();
                let description = command.clone();
                let layer = store
                    .pool()
                    .clone()
                    .run(move || {
                        store.commit(
                            draft,
                            NewLayer {
                                description,
                                ..NewLayer::default()
                            },
                        )
                    })
                    .await??;
                input.with(layer)
            }
            None => input,
        };
        outputs.push((number, snapshot));
    }
    outputs.sort_by_key(|(number, _)| *number);
    Ok(outputs.into_iter().map(|(_, snapshot)| snapshot).collect())
}

/// What a failed step leaves: its mounts as they were, or as it changed them.
fn left(op: &pb::ExecOp, inputs: &[Snapshot], planned: Vec<Planned>) -> Remains {
    let input = |mount: &pb::Mount| {
        let input = usize::try_from(mount.input).ok()?;
        inputs.get(input).cloned()
    };
    let untouched = op.mounts.iter().map(|mount| input(mount).map(Remnant::Untouched));
    let mut mounts: Vec<Option<Remnant>> = untouched.collect();
    for planned in planned {
        if let (Some(mount), Some(draft)) = (mounts.get_mut(planned.mount), planned.draft)
            && op.mounts[planned.mount].mount_type() == pb::MountType::Bind
        {
            *mount = Some(Remnant::written(planned.input, draft));
        }
    }
    Remains {
        inputs: op.mounts.iter().map(input).collect(),
        mounts,
        action: None,
        unreadable: None,
    }
}

/// A step that is described and not run, for a container that a client keeps.
pub(crate) struct Prepared {
    pub(crate) step: Step,
    /// What its mounts are made of, which has to live as long as the container.
    pub(crate) props: Props,
}

#[derive(Debug)]
pub(crate) struct Props {
    _drafts: Vec<LayerDraft>,
    _agents: Vec<ssh::Socket>,
    _lent: Lent,
}

pub(crate) fn prepare(
    op: &pb::ExecOp,
    inputs: &[Snapshot],
    lent: Lent,
    store: &Store,
    outlet: Option<OutletLink>,
) -> Result<Prepared, OpError> {
    let mut plan = Plan::of(op, inputs, &lent, store)?;
    plan.step.outlet = outlet;
    let drafts = plan.outputs.into_iter().filter_map(|planned| planned.draft);
    Ok(Prepared {
        step: plan.step,
        props: Props {
            _drafts: drafts.collect(),
            _agents: plan.agents,
            _lent: lent,
        },
    })
}

/// A process among the mounts and names of a prepared step.
pub(crate) fn process(
    home: &Step,
    meta: pb::Meta,
    op: &pb::ExecOp,
    secrets: &Secrets,
) -> Result<Step, OpError> {
    let mut env = environment(&meta);
    env.extend(secrets.variables(op)?);
    let mut step = Step {
        args: meta.args,
        env,
        cwd: Some(meta.cwd)
            .filter(|cwd| !cwd.is_empty())
            .unwrap_or_else(|| "/".to_owned()),
        user: meta.user,
        security: security(op)?,
        ..home.clone()
    };
    if let Some(link) = step.outlet.take() {
        step.leave_through(link);
    }
    Ok(step)
}

/// What becomes of a mount.
struct Planned {
    mount: usize,
    /// Negative if it is no result.
    output: i64,
    input: Snapshot,
    /// None if it is read-only.
    draft: Option<LayerDraft>,
}

struct Plan {
    step: Step,
    outputs: Vec<Planned>,
    /// They answer as long as the step runs.
    agents: Vec<ssh::Socket>,
}

impl Plan {
    fn of(op: &pb::ExecOp, inputs: &[Snapshot], lent: &Lent, store: &Store) -> Result<Self, OpError> {
        let meta = op.meta.clone().unwrap_or_default();
        let mut root = None;
        let mut mounts = Vec::new();
        let mut outputs = Vec::new();
        let mut agents = Vec::new();
        for (number, mount) in op.mounts.iter().enumerate() {
            let mount = &placed(mount, &meta.cwd);
            let is_root = mount.dest == "/";
            let input = usize::try_from(mount.input)
                .ok()
                .and_then(|i| inputs.get(i))
                .cloned()
                .unwrap_or_default();
            match pb::MountType::try_from(mount.mount_type) {
                Ok(pb::MountType::Bind) => {
                    let draft = if mount.readonly {
                        None
                    } else {
                        Some(store.draft()?)
                    };
                    let files = FileSystem {
                        lowers: lowers(store, &input),
                        writable: draft.as_ref().map(|d| Writable {
                            upper: d.upper(),
                            work: d.work(),
                        }),
                    };
                    if is_root {
                        root = Some(files);
                    } else {
                        let source = Source::Snapshot {
                            files,
                            selector: mount.selector.clone(),
                        };
                        mounts.push(Mount {
                            destination: mount.dest.clone(),
                            source,
                            read_only: mount.readonly,
                        });
                    }
                    outputs.push(Planned {
                        mount: number,
                        output: mount.output,
                        input,
                        draft,
                    });
                }
                Ok(pb::MountType::Tmpfs) => {
                    let size = mount
                        .tmpfs_opt
                        .as_ref()
                        .and_then(|opt| u64::try_from(opt.size).ok());
                    let source = Source::Tmpfs {
                        size: size.filter(|size| *size > 0),
                    };
                    mounts.push(Mount {
                        destination: mount.dest.clone(),
                        source,
                        read_only: false,
                    });
                }
                Ok(pb::MountType::Secret) => mounts.extend(lent.secrets.mount(mount)),
                Ok(pb::MountType::Cache) => mounts.push(lent.caches.mount(number, mount, store)?),
                Ok(pb::MountType::Ssh) => {
                    if let Some((mount, socket)) = lent.agents.mount(mount, store)? {
                        mounts.push(mount);
                        agents.push(socket);
                    }
                }
                Err(_) => {
                    return Err(OpError::Unsupported(format!(
                        "mount type {} is not known",
                        mount.mount_type
                    )));
                }
            }
        }
        let root = root.ok_or_else(|| OpError::Unsupported("a step needs a root file system".into()))?;
        let mut env = environment(&meta);
        env.extend(lent.devices.env.iter().cloned());
        env.extend(lent.secrets.variables(op)?);
        mounts.extend(lent.devices.mounts.iter().cloned());
        let step = Step {
            mounts,
            env,
            cwd: if meta.cwd.is_empty() {
                "/".to_owned()
            } else {
                meta.cwd
            },
            user: meta.user,
            hostname: Some(meta.hostname).filter(|name| !name.is_empty()),
            extra_hosts: extra_hosts(&meta.extra_hosts)?,
            network: network(op)?,
            security: security(op)?,
            ulimits: meta
                .ulimit
                .into_iter()
                .map(|limit| Ulimit {
                    name: limit.name,
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
            devices: lent.devices.nodes.clone(),
            ..Step::new(root, meta.args)
        };
        Ok(Self {
            step,
            outputs,
            agents,
        })
    }
}

/// A mount whose place is absolute: in the operation it may be below the working folder.
fn placed(mount: &pb::Mount, cwd: &str) -> pb::Mount {
    let mut mount = mount.clone();
    if !mount.dest.starts_with('/') {
        mount.dest = format!("/{}/{}", cwd.trim_matches('/'), mount.dest);
    }
    mount
}

/// The limits that come with an operation.
pub fn limits(metadata: &pb::OpMetadata) -> Limits {
    let Some(limits) = &metadata.linux_resources else {
        return Limits::default();
    };
    Limits {
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        cpu_shares: limits.cpu_shares,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
    }
}

/// The network that the operation asks for.
pub fn network(op: &pb::ExecOp) -> Result<NetworkMode, OpError> {
    match pb::NetMode::try_from(op.network) {
        Ok(pb::NetMode::Unset) => Ok(NetworkMode::Default),
        Ok(pb::NetMode::Host) => Ok(NetworkMode::Host),
        Ok(pb::NetMode::None) => Ok(NetworkMode::None),
        Err(_) => Err(OpError::Unsupported(format!(
            "invalid network mode: {}",
            op.network
        ))),
    }
}

/// The privileges that the operation asks for.
pub fn security(op: &pb::ExecOp) -> Result<SecurityMode, OpError> {
    match pb::SecurityMode::try_from(op.security) {
        Ok(pb::SecurityMode::Sandbox) => Ok(SecurityMode::Sandbox),
        Ok(pb::SecurityMode::Insecure) => Ok(SecurityMode::Insecure),
        Err(_) => Err(OpError::Unsupported(format!(
            "invalid security mode {}",
            op.security
        ))),
    }
}

/// The folders of a snapshot, lowest first. Images often have a layer twice, the empty one above all, and overlayfs
/// refuses that; the upper occurrence hides the lower one completely.
fn lowers(store: &Store, snapshot: &Snapshot) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let topmost = snapshot.layers().iter().rev().filter(|layer| seen.insert(*layer));
    let mut folders: Vec<PathBuf> = topmost.map(|layer| store.layer_folder(layer)).collect();
    folders.reverse();
    folders
}

/// The step's own variables, then proxies in both spellings; a default `PATH` where there is none.
fn environment(meta: &pb::Meta) -> Vec<String> {
    let mut env = meta.env.clone();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.to_owned());
    }
    if let Some(proxy) = &meta.proxy_env {
        for (name, value) in [
            ("HTTP_PROXY", &proxy.http_proxy),
            ("HTTPS_PROXY", &proxy.https_proxy),
            ("FTP_PROXY", &proxy.ftp_proxy),
            ("NO_PROXY", &proxy.no_proxy),
            ("ALL_PROXY", &proxy.all_proxy),
        ] {
            if !value.is_empty() {
                env.push(format!("{name}={value}"));
                env.push(format!("{}={value}", name.to_ascii_lowercase()));
            }
        }
    }
    env
}

fn extra_hosts(hosts: &[pb::HostIp]) -> Result<Vec<ExtraHost>, OpError> {
    hosts
        .iter()
        .map(|host| match host.ip.parse() {
            Ok(ip) => Ok(ExtraHost {
                host: host.host.clone(),
                ip,
            }),
            Err(_) => Err(OpError::Unsupported(format!(
                "{} is not an address (host {})",
                host.ip, host.host
            ))),
        })
        .collect()
}
