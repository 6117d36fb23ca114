//! RUN to an exec operation: command, heredocs, mounts, modes.

use std::borrow::Cow;

use dockerfile::expand::{Environment, Expander, Quotes, Unset};
use dockerfile::ignore::clean;
use dockerfile::instruction::{CacheSharing, CommandLine, Mount, MountKind, Network, Run, Security};
use dockerfile::parser::Heredoc;
use proto::pb;

use super::Problem;
use super::copy::inline_document;
use super::image::{self, Layer, commit};
use super::lower::{Lowering, wire_platform};
use super::name::shown;
use super::outline::Wanted;
use super::plan::Step;
use super::stage::{Frame, join, words};
use crate::graph::builder::{Note, Operation, Output};

/// Where a heredoc that is a script of its own is put.
const SCRIPTS: &str = "/dev/pipes/";

/// A mount whose input is an output of the graph.
struct Bound {
    from: Option<Output>,
    mount: pb::Mount,
}

impl Frame {
    pub(super) fn run(&mut self, step: &Step, run: &Run, lowering: &mut Lowering<'_>) -> Result<(), Problem> {
        let devices = run
            .devices
            .iter()
            .map(|text| device(text))
            .collect::<Result<_, _>>()?;
        let mut bound = vec![Bound {
            from: self.root,
            mount: plain_mount("/"),
        }];
        let (mut secrets, mut agents) = (Vec::new(), 0);
        let mut environment = Cow::Borrowed(&self.environment);
        let (words, summary) = self.command(run, &mut bound, lowering)?;
        let mut shown_environment = Cow::Borrowed(&self.environment);
        for (text, source) in run.mounts.iter().zip(&step.sources) {
            let expand = |value: &str| lowering.expander.text(value, &self.environment);
            let mount = Mount::parse(text, expand).map_err(Problem::Mount)?;
            let wanted = |mount: &Mount| Wanted {
                required: mount.required,
                lines: step.command.lines,
            };
            match mount.kind {
                MountKind::Secret => {
                    if let Some(name) = &mount.environment {
                        shown_environment.to_mut().set(name, "****");
                    }
                    let id = secret_id(&mount);
                    self.asked.secret(&id, wanted(&mount));
                    let (file, variable) = secret(&mount, &id);
                    bound.extend(file);
                    secrets.extend(variable);
                }
                MountKind::Ssh => {
                    self.asked
                        .agent(mount.id.as_deref().unwrap_or("default"), wanted(&mount));
                    bound.push(ssh(&mount, agents, environment.to_mut())?);
                    agents += 1;
                }
                _ => bound.push(self.mount(&mount, *source, lowering)?),
            }
        }
        if lowering.attributes.shm_size > 0 {
            let tmpfs_opt = Some(pb::TmpfsOpt {
                size: lowering.attributes.shm_size,
            });
            let mount = pb::Mount {
                mount_type: pb::MountType::Tmpfs.into(),
                tmpfs_opt,
                output: -1,
                ..plain_mount("/dev/shm")
            };
            bound.push(Bound { from: None, mount });
        }

        let lines = step.command.lines;
        let how = Expander {
            quotes: Quotes::Kept,
            unset: Unset::Kept,
            ..lowering.expander
        };
        let code = match summary.is_empty() {
            true => Cow::Borrowed(&step.command.code),
            false => Cow::Owned(format!("{}{summary}", step.command.code)),
        };
        let text = shown(&code, &how, &shown_environment);
        let note = Note {
            name: self
                .prefix
                .next(&text, &self.platform, &self.environment, step.on_build),
            command: Some(step.command.code.clone()),
            lines: Some((lines.first, lines.last)),
            ignore_cache: self.ignore_cache,
            group: None,
            limits: lowering.attributes.limits.clone(),
        };
        let network = match run.network {
            Network::Default => lowering.attributes.network,
            Network::None => pb::NetMode::None,
            Network::Host => pb::NetMode::Host,
        };
        let security = match run.security {
            Security::Sandbox => pb::SecurityMode::Sandbox,
            Security::Insecure => pb::SecurityMode::Insecure,
        };
        let created_by = self.created_by(&words);
        let meta = pb::Meta {
            args: words,
            env: environment.to_pairs(),
            cwd: self.directory.clone(),
            user: self.image.config.user.clone(),
            proxy_env: lowering.proxy.clone(),
            extra_hosts: lowering.attributes.extra_hosts.clone(),
            hostname: lowering.attributes.hostname.clone(),
            ulimit: lowering.attributes.ulimits.clone(),
            cgroup_parent: lowering.attributes.cgroup_parent.clone(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: Vec::new(),
        };
        let (inputs, mounts) = arrange(bound);
        let exec = pb::ExecOp {
            meta: Some(meta),
            mounts,
            network: network.into(),
            security: security.into(),
            secretenv: secrets,
            cdi_devices: devices,
        };
        self.root = Some(lowering.builder.add(Operation {
            kind: pb::op::Op::Exec(exec),
            inputs,
            platform: Some(wire_platform(&self.platform)),
            note,
        }));
        commit(&mut self.history, created_by, Layer::Made);
        Ok(())
    }

    /// The words to run, and what to add to the step's name. A heredoc that is the whole command is a script: with
    /// `#!` a file that is run, else the text for the shell. Any other is left to the shell.
    fn command(
        &self,
        run: &Run,
        bound: &mut Vec<Bound>,
        lowering: &mut Lowering<'_>,
    ) -> Result<(Vec<String>, String), Problem> {
        let (CommandLine::Shell(text), Some(first)) = (&run.command, run.heredocs.first()) else {
            return Ok((words(&run.command, &self.image)?, String::new()));
        };
        if Heredoc::parse(text).is_none() {
            let bodies = run
                .heredocs
                .iter()
                .map(|heredoc| format!("\n{}{}", heredoc.content, heredoc.name));
            let text = format!("{text}{}", bodies.collect::<String>());
            return Ok((image::in_shell(&self.image, &text), String::new()));
        }
        let summary = format!(" ({})", summary(&first.content));
        let body = first.body();
        if !body.starts_with("#!") {
            return Ok((image::in_shell(&self.image, &body), summary));
        }
        let from = lowering
            .builder
            .add(inline_document(&first.name, 0o755, body.into_bytes()));
        let mount = pb::Mount {
            readonly: true,
            output: -1,
            ..plain_mount(SCRIPTS)
        };
        bound.push(Bound {
            from: Some(from),
            mount,
        });
        let script = clean(&format!("{SCRIPTS}{}", first.name));
        Ok((image::in_shell(&self.image, &script), summary))
    }

    /// A mount of files: bind, cache, tmpfs.
    fn mount(
        &self,
        mount: &Mount,
        source: Option<usize>,
        lowering: &mut Lowering<'_>,
    ) -> Result<Bound, Problem> {
        let target = join(&mount.target, &self.directory);
        if target == "/" {
            return Err(Problem::MountTarget(target));
        }
        let mut wire = pb::Mount {
            readonly: mount.read_only,
            ..plain_mount(&target)
        };
        // Nothing that is written into a mount goes anywhere: only the root file system is a result.
        wire.output = -1;
        if mount.kind == MountKind::Tmpfs {
            wire.mount_type = pb::MountType::Tmpfs.into();
            wire.tmpfs_opt = Some(pb::TmpfsOpt {
                size: i64::try_from(mount.size).unwrap_or(i64::MAX),
            });
            return Ok(Bound {
                from: None,
                mount: wire,
            });
        }
        let selector = join(&mount.source, "/");
        let mut from = match (source, mount.kind) {
            (Some(stage), _) => {
                lowering.note_use(stage, &mount.source);
                lowering.finished(stage).ok_or_else(|| Problem::MountFromLater {
                    from: mount.from.clone().unwrap_or_default(),
                    target: mount.target.clone(),
                })?
            }
            (None, MountKind::Cache) => None,
            (None, _) => {
                lowering.context_use.add(&mount.source);
                lowering.context()
            }
        };
        if mount.kind == MountKind::Cache {
            let id = mount.id.clone().unwrap_or_else(|| clean(&mount.target));
            wire.mount_type = pb::MountType::Cache.into();
            wire.cache_opt = Some(pb::CacheOpt {
                id: format!("{}/{id}", lowering.attributes.cache_namespace),
                sharing: match mount.sharing {
                    None | Some(CacheSharing::Shared) => pb::CacheSharingOpt::Shared,
                    Some(CacheSharing::Private) => pb::CacheSharingOpt::Private,
                    Some(CacheSharing::Locked) => pb::CacheSharingOpt::Locked,
                }
                .into(),
            });
        }
        if selector != "/" {
            wire.selector = selector;
        } else if mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some() {
            from = Some(lowering.builder.add(owned_folder(mount, from)));
            wire.selector = "/cache".to_owned();
        }
        Ok(Bound { from, mount: wire })
    }

    /// What the history says of a command: it, and the ARGs that were in scope: `RUN |1 WHO=me /bin/sh -c make # buildkit`.
    fn created_by(&self, words: &[String]) -> String {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &self.args {
            let value = self
                .environment
                .get(name)
                .or(value.as_deref())
                .unwrap_or_default();
            match pairs.iter_mut().find(|(known, _)| known == name) {
                Some(pair) => pair.1 = value,
                None => pairs.push((name, value)),
            }
        }
        let mut text = String::from("RUN ");
        if !pairs.is_empty() {
            text.push_str(&format!("|{} ", pairs.len()));
        }
        for (name, value) in pairs {
            text.extend([name, "=", value, " "]);
        }
        for word in words {
            text.extend([word, " "]);
        }
        text.push_str("# buildkit");
        text
    }
}

/// `NAME[,required]`, or the same as `name=NAME,required=true`.
fn device(text: &str) -> Result<pb::CdiDevice, Problem> {
    let wrong = || Problem::Device(text.to_owned());
    let (mut name, mut required) = (None, false);
    for field in text.split(',') {
        match field.split_once('=') {
            None if field.eq_ignore_ascii_case("required") => required = true,
            Some((key, value)) if key.eq_ignore_ascii_case("required") => {
                required = value.parse().map_err(|_| wrong())?;
            }
            Some((key, value)) if key.eq_ignore_ascii_case("name") && name.is_none() => name = Some(value),
            _ if name.is_none() => name = Some(field),
            _ => return Err(wrong()),
        }
    }
    match name {
        Some(name) if !name.is_empty() => Ok(pb::CdiDevice {
            name: name.to_owned(),
            optional: !required,
        }),
        _ => Err(wrong()),
    }
}

fn plain_mount(destination: &str) -> pb::Mount {
    pb::Mount {
        dest: destination.to_owned(),
        ..pb::Mount::default()
    }
}

/// The folder a cache starts with, for an owner or mode of its own.
fn owned_folder(mount: &Mount, from: Option<Output>) -> Operation {
    let id = |id: Option<u32>| {
        Some(pb::UserOpt {
            user: Some(pb::user_opt::User::ById(id.unwrap_or(0))),
        })
    };
    let mkdir = pb::FileActionMkDir {
        path: "/cache".to_owned(),
        mode: mount
            .mode
            .and_then(|mode| i32::try_from(mode).ok())
            .unwrap_or(0o755),
        make_parents: false,
        owner: Some(pb::ChownOpt {
            user: id(mount.uid),
            group: id(mount.gid),
        }),
        timestamp: -1,
    };
    let action = pb::FileAction {
        input: if from.is_some() { 0 } else { -1 },
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkdir(mkdir)),
    };
    Operation {
        kind: pb::op::Op::File(pb::FileOp {
            actions: vec![action],
        }),
        inputs: from.into_iter().collect(),
        platform: None,
        note: Note {
            name: "[internal] setting cache mount permissions".to_owned(),
            ..Note::default()
        },
    }
}

fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// What the client knows a secret as.
fn secret_id(mount: &Mount) -> String {
    let named = Some(mount.source.clone())
        .filter(|source| !source.is_empty())
        .or_else(|| mount.id.clone());
    named.unwrap_or_else(|| base(&mount.target).to_owned())
}

/// A secret as a file, as a variable, or as both.
fn secret(mount: &Mount, id: &str) -> (Option<Bound>, Option<pb::SecretEnv>) {
    let target = match (mount.target.as_str(), &mount.environment) {
        ("", Some(_)) => None,
        ("", None) => Some(format!("/run/secrets/{}", base(id))),
        (target, _) => Some(target.to_owned()),
    };
    let variable = mount.environment.as_ref().map(|name| pb::SecretEnv {
        id: id.to_owned(),
        name: name.clone(),
        optional: !mount.required,
    });
    let file = target.map(|target| {
        let secret_opt = Some(pb::SecretOpt {
            id: id.to_owned(),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
            mode: mount.mode.unwrap_or(0o400),
            optional: !mount.required,
        });
        let mount_type = pb::MountType::Secret.into();
        Bound {
            from: None,
            mount: pb::Mount {
                mount_type,
                secret_opt,
                output: -1,
                ..plain_mount(&target)
            },
        }
    });
    (file, variable)
}

/// The agent's socket; the first one is what `SSH_AUTH_SOCK` names.
fn ssh(mount: &Mount, number: usize, environment: &mut Environment) -> Result<Bound, Problem> {
    if !mount.source.is_empty() {
        return Err(Problem::SshSource);
    }
    let target = match mount.target.as_str() {
        "" => format!("/run/buildkit/ssh_agent.{number}"),
        target => target.to_owned(),
    };
    if environment.get("SSH_AUTH_SOCK").is_none() {
        environment.set("SSH_AUTH_SOCK", &target);
    }
    let ssh_opt = Some(pb::SshOpt {
        id: mount.id.clone().unwrap_or_default(),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(0o600),
        optional: !mount.required,
    });
    let mount_type = pb::MountType::Ssh.into();
    Ok(Bound {
        from: None,
        mount: pb::Mount {
            mount_type,
            ssh_opt,
            output: -1,
            ..plain_mount(&target)
        },
    })
}

/// Mounts of files in the order of their paths, so that a mount below another comes after it; secrets and sockets last.
/// Each input is listed once.
fn arrange(mut bound: Vec<Bound>) -> (Vec<Output>, Vec<pb::Mount>) {
    fn path(bound: &Bound) -> Option<&str> {
        match bound.mount.mount_type() {
            pb::MountType::Secret | pb::MountType::Ssh => None,
            _ => Some(&bound.mount.dest),
        }
    }
    bound.sort_by(|left, right| match (path(left), path(right)) {
        (Some(left), Some(right)) => left.cmp(right),
        (left, right) => left.is_none().cmp(&right.is_none()),
    });
    let mut inputs: Vec<Output> = Vec::new();
    let mut mounts = Vec::with_capacity(bound.len());
    for Bound { from, mut mount } in bound {
        mount.input = match from {
            None => -1,
            Some(from) => {
                let at = inputs.iter().position(|input| *input == from).unwrap_or_else(|| {
                    inputs.push(from);
                    inputs.len() - 1
                });
                i64::try_from(at).unwrap_or(-1)
            }
        };
        mounts.push(mount);
    }
    (inputs, mounts)
}

/// The first line, and whether there are more.
fn summary(document: &str) -> String {
    let mut lines = document.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() {
        format!("{first}...")
    } else {
        first.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_and_may_be_required() {
        for (text, name, optional) in [
            ("vendor.com/class=x", "vendor.com/class=x", true),
            ("vendor.com/class=x,required", "vendor.com/class=x", false),
            ("name=fast,required=true", "fast", false),
        ] {
            let found = device(text).unwrap();
            assert_eq!((found.name.as_str(), found.optional), (name, optional), "{text}");
        }
        for wrong in ["", "required", "a,b", "a,required=perhaps"] {
            assert!(device(wrong).is_err(), "{wrong:?}");
        }
    }
}
