//! The program of a step: where it is found, and what it is started with.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::identity::Identity;
use super::mounting::{Doing, SetupError};
use crate::executor::step::Step;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes the program, and returns only if that failed.
pub(super) fn execute(step: &Step, identity: &Identity) -> Result<std::convert::Infallible, SetupError> {
    let text = |text: &str| {
        CString::new(text)
            .map_err(io::Error::other)
            .doing(|| "preparing its arguments".into())
    };
    let mut environment = step
        .env
        .iter()
        .map(|pair| text(pair))
        .collect::<Result<Vec<_>, _>>()?;
    if !step.env.iter().any(|pair| pair.starts_with("HOME=")) {
        environment.push(text(&format!("HOME={}", identity.home))?);
    }
    let arguments = step
        .args
        .iter()
        .map(|argument| text(argument))
        .collect::<Result<Vec<_>, _>>()?;
    let name = step.args.first().map(String::as_str).unwrap_or_default();
    let mut refusal = nix::errno::Errno::ENOENT;
    for candidate in candidates(name, &step.env) {
        let path = CString::new(candidate.as_os_str().as_bytes())
            .map_err(io::Error::other)
            .doing(|| "preparing its path".into())?;
        match nix::unistd::execve(&path, &arguments, &environment) {
            Ok(never) => return Ok(never),
            // As execvp: what is found but may not run is the better message.
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => {}
            Err(other) => refusal = other,
        }
    }
    let what = if name.contains('/') || refusal != nix::errno::Errno::ENOENT {
        return Err(SetupError::new(format!("exec {name:?}"), refusal));
    } else {
        "executable file not found in $PATH"
    };
    Err(SetupError::new(
        format!("exec {name:?}"),
        io::Error::new(io::ErrorKind::NotFound, what),
    ))
}

fn candidates(name: &str, env: &[String]) -> Vec<PathBuf> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains('/') {
        return vec![name.into()];
    }
    let path = env
        .iter()
        .rev()
        .find_map(|pair| pair.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(|folder| Path::new(if folder.is_empty() { "." } else { folder }).join(name))
        .collect()
}
