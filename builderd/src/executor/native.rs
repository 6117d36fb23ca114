//! Sandboxes without a container engine: the runner is a child of the daemon.
//!
//! The runner gives itself new mount, PID and cgroup namespaces; its network is the daemon's. Its connection is its
//! standard input, so that nothing of it is reachable by name. It dies with the daemon.

use std::process::Stdio;

use tokio::net::UnixStream;
use tokio::process::Command;

use super::sandbox::{Keeper, Sandbox};
use super::{Config, ExecutorError};

pub(super) async fn start(config: &Config) -> Result<Sandbox, ExecutorError> {
    let scratch = config.scratch()?;
    let (ours, theirs) = UnixStream::pair().map_err(ExecutorError::Socket)?;
    let theirs = theirs.into_std().map_err(ExecutorError::Socket)?;
    theirs.set_nonblocking(false).map_err(ExecutorError::Socket)?;
    let child = Command::new(&config.program)
        // The program goes by its descriptor, and what it is called decides what it is.
        .arg0("builderd")
        .arg("runner")
        .arg("--state")
        .arg(&config.state)
        .arg("--scratch")
        .arg(scratch.path())
        .arg("--own-namespaces")
        .args(config.resolver.arguments())
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| ExecutorError::Spawn {
            program: config.program.clone(),
            source,
        })?;
    Sandbox::connect(ours, Keeper::Child(child, scratch)).await
}
