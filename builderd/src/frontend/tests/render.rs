//! Definitions as text: one operation per line, inputs by line number, default values left out.

use std::fmt::Write;

use prost::Message;
use proto::pb;

use crate::graph::digest_of;

pub(super) fn render(definition: &pb::Definition) -> String {
    let digests: Vec<String> = definition.def.iter().map(|bytes| digest_of(bytes)).collect();
    let mut out = String::new();
    for (at, bytes) in definition.def.iter().enumerate() {
        let op = pb::Op::decode(&bytes[..]).unwrap();
        let input = |input: &pb::Input| {
            let from = digests[..at]
                .iter()
                .position(|digest| *digest == input.digest)
                .unwrap();
            if input.index == 0 {
                format!("#{from}")
            } else {
                format!("#{from}.{}", input.index)
            }
        };
        let inputs: Vec<String> = op.inputs.iter().map(input).collect();
        write!(out, "#{at} ").unwrap();
        if let Some(platform) = &op.platform {
            let variant = if platform.variant.is_empty() {
                String::new()
            } else {
                format!("/{}", platform.variant)
            };
            write!(out, "<{}/{}{variant}> ", platform.os, platform.architecture).unwrap();
        }
        match &op.op {
            None => writeln!(out, "head {}", inputs.join(" ")).unwrap(),
            Some(pb::op::Op::Source(source)) => {
                let attrs: Vec<String> = source
                    .attrs
                    .iter()
                    .map(|(key, value)| format!(" {key}={value}"))
                    .collect();
                writeln!(out, "{}{}", source.identifier, attrs.concat()).unwrap();
            }
            Some(pb::op::Op::Exec(exec)) => exec_text(&mut out, exec, &inputs),
            Some(pb::op::Op::File(file)) => file_text(&mut out, file, &inputs),
            Some(other) => writeln!(out, "{other:?}").unwrap(),
        }
        if let Some(metadata) = definition.metadata.get(&digests[at]) {
            let name = metadata
                .description
                .get("llb.customname")
                .map_or("", String::as_str);
            let lines = definition
                .source
                .iter()
                .filter_map(|source| source.locations.get(&digests[at]));
            let lines: Vec<String> = lines
                .flat_map(|locations| &locations.locations)
                .flat_map(|location| &location.ranges)
                .map(|range| range.start.unwrap().line.to_string())
                .collect();
            let lines = if lines.is_empty() {
                String::new()
            } else {
                format!(" @{}", lines.join(","))
            };
            let fresh = if metadata.ignore_cache { " (no cache)" } else { "" };
            writeln!(out, "   {name}{lines}{fresh}").unwrap();
        }
    }
    shorten(&out)
}

/// Eight digits tell digests apart well enough.
fn shorten(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        out.push_str(&format!("sha256:{}…{}", &part[..8], &part[64..]));
    }
    out
}

fn index(at: i64, inputs: &[String]) -> String {
    match usize::try_from(at) {
        Err(_) => "scratch".to_owned(),
        Ok(at) if at < inputs.len() => inputs[at].clone(),
        Ok(at) => format!("action {}", at - inputs.len()),
    }
}

fn exec_text(out: &mut String, exec: &pb::ExecOp, inputs: &[String]) {
    let meta = exec.meta.as_ref().unwrap();
    write!(out, "exec {:?} in {} env {:?}", meta.args, meta.cwd, meta.env).unwrap();
    for (name, value) in [("user", &meta.user), ("hostname", &meta.hostname)] {
        if !value.is_empty() {
            write!(out, " {name} {value}").unwrap();
        }
    }
    if exec.network != 0 {
        write!(out, " network {:?}", exec.network()).unwrap();
    }
    if let Some(proxy) = &meta.proxy_env {
        write!(out, " proxy {:?}", proxy.http_proxy).unwrap();
    }
    for variable in &exec.secretenv {
        write!(out, " secret {}={}", variable.name, variable.id).unwrap();
    }
    writeln!(out).unwrap();
    for mount in &exec.mounts {
        write!(
            out,
            "   mount {} {:?} {}",
            mount.dest,
            mount.mount_type(),
            index(mount.input, inputs)
        )
        .unwrap();
        if !mount.selector.is_empty() {
            write!(out, " at {}", mount.selector).unwrap();
        }
        if let Some(cache) = &mount.cache_opt {
            write!(out, " id {} {:?}", cache.id, cache.sharing()).unwrap();
        }
        if let Some(secret) = &mount.secret_opt {
            write!(
                out,
                " id {} mode {:o} optional {}",
                secret.id, secret.mode, secret.optional
            )
            .unwrap();
        }
        if let Some(tmpfs) = &mount.tmpfs_opt {
            write!(out, " size {}", tmpfs.size).unwrap();
        }
        let output = if mount.output < 0 {
            String::new()
        } else {
            format!(" -> {}", mount.output)
        };
        writeln!(out, "{}{output}", if mount.readonly { " readonly" } else { "" }).unwrap();
    }
}

fn file_text(out: &mut String, file: &pb::FileOp, inputs: &[String]) {
    writeln!(out, "file").unwrap();
    for action in &file.actions {
        write!(out, "   on {}: ", index(action.input, inputs)).unwrap();
        match action.action.as_ref().unwrap() {
            pb::file_action::Action::Copy(copy) => {
                write!(
                    out,
                    "copy {} from {} to {}",
                    copy.src,
                    index(action.secondary_input, inputs),
                    copy.dest
                )
                .unwrap();
                for (name, flag) in [
                    ("follow", copy.follow_symlink),
                    ("contents", copy.dir_copy_contents),
                    ("unpack", copy.attempt_unpack_docker_compatibility),
                    ("parents", copy.create_dest_path),
                    ("wildcard", copy.allow_wildcard),
                    ("empty", copy.allow_empty_wildcard),
                ] {
                    if flag {
                        write!(out, " {name}").unwrap();
                    }
                }
                for (name, list) in [
                    ("include", &copy.include_patterns),
                    ("exclude", &copy.exclude_patterns),
                    ("required", &copy.required_paths),
                ] {
                    if !list.is_empty() {
                        write!(out, " {name} {list:?}").unwrap();
                    }
                }
                if copy.mode != -1 || !copy.mode_str.is_empty() {
                    write!(out, " mode {:o}{}", copy.mode, copy.mode_str).unwrap();
                }
                owner(out, copy.owner.as_ref(), inputs);
            }
            pb::file_action::Action::Mkdir(mkdir) => {
                write!(out, "mkdir {} mode {:o}", mkdir.path, mkdir.mode).unwrap();
                owner(out, mkdir.owner.as_ref(), inputs);
            }
            pb::file_action::Action::Mkfile(file) => {
                let text = String::from_utf8_lossy(&file.data);
                write!(out, "mkfile {} mode {:o} {text:?}", file.path, file.mode).unwrap();
            }
            other => write!(out, "{other:?}").unwrap(),
        }
        writeln!(out, "{}", if action.output < 0 { "" } else { " -> 0" }).unwrap();
    }
}

fn owner(out: &mut String, owner: Option<&pb::ChownOpt>, inputs: &[String]) {
    let side = |option: Option<&pb::UserOpt>| match option.and_then(|option| option.user.as_ref()) {
        None => String::new(),
        Some(pb::user_opt::User::ById(id)) => id.to_string(),
        Some(pb::user_opt::User::ByName(named)) => {
            format!("{} in {}", named.name, index(named.input, inputs))
        }
    };
    if let Some(owner) = owner {
        write!(
            out,
            " owner {}:{}",
            side(owner.user.as_ref()),
            side(owner.group.as_ref())
        )
        .unwrap();
    }
}
