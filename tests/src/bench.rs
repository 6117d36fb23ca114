//! Benchmarks of whole builds: the same client drives any daemon that speaks BuildKit's API, so that two of them can be
//! compared on one machine in one run.
//!
//! What counts is what a user waits for, from the start of the client to its end. Each row is measured several times,
//! the daemons in turn, and the median is shown.

mod content;
mod rows;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::daemon::Daemon;
use crate::process::Running;
use crate::programs;
use crate::registry::Registry;

pub use rows::Row;
pub use table::{median, print};

/// A daemon to measure.
#[derive(Debug)]
pub struct Endpoint {
    pub name: String,
    pub address: String,
    /// Known of daemons that the benchmark started.
    pub process: Option<u32>,
}

/// What all rows use: a registry with a base image, a folder, and the client's configuration.
#[derive(Debug)]
pub struct Bench {
    registry: Registry,
    folder: tempfile::TempDir,
    /// Daemons that end with the benchmark.
    _started: Vec<Started>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held so that they run until the benchmark ends")]
enum Started {
    Ours(Daemon),
    Theirs(Running),
}

impl Bench {
    /// Measures these endpoints, written NAME=ADDRESS; without any, a daemon of ours and, where it is installed, a
    /// `buildkitd`, both started for the purpose.
    pub fn new(endpoints: &[String], daemon_arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let registry = Registry::start(folder.path());
        registry.push_base();
        let mut started = Vec::new();
        let mut measured = Vec::new();
        for endpoint in endpoints {
            let (name, address) = endpoint
                .split_once('=')
                .context("write endpoints as NAME=ADDRESS")?;
            measured.push(Endpoint {
                name: name.to_owned(),
                address: address.to_owned(),
                process: None,
            });
        }
        if measured.is_empty() {
            let daemon = Daemon::start(folder.path(), daemon_arguments);
            measured.push(Endpoint {
                name: "trimaran".to_owned(),
                address: daemon.address(),
                process: Some(daemon.process.id()),
            });
            started.push(Started::Ours(daemon));
            if programs::installed("buildkitd").is_some() {
                let (daemon, address) = start_buildkitd(folder.path());
                measured.push(Endpoint {
                    name: "buildkit".to_owned(),
                    address,
                    process: Some(daemon.id()),
                });
                started.push(Started::Theirs(daemon));
            }
        }
        let bench = Self {
            registry,
            folder,
            _started: started,
            endpoints: measured,
        };
        for endpoint in &bench.endpoints {
            bench.run(&[
                "create",
                "--name",
                &endpoint.name,
                "--driver",
                "remote",
                &endpoint.address,
            ])?;
        }
        Ok(bench)
    }

    /// The full name of an image in the registry that rows push to.
    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.address())
    }

    fn context(&self, name: &str, dockerfile: &str) -> anyhow::Result<PathBuf> {
        let context = self.folder.path().join(name);
        std::fs::create_dir_all(&context)?;
        std::fs::write(
            context.join("Dockerfile"),
            dockerfile.replace("@base@", &self.image("base")),
        )?;
        Ok(context)
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::ours("trimaran"));
        command
            .args(arguments)
            .env("HOME", self.folder.path().join("home"));
        command
    }

    /// Runs the client and says how long that took.
    fn run(&self, arguments: &[&str]) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let output = self.client(arguments).output().context("starting the client")?;
        let taken = started.elapsed();
        if !output.status.success() {
            bail!(
                "{arguments:?} failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(taken)
    }

    fn build(&self, endpoint: &Endpoint, context: &Path, arguments: &[&str]) -> anyhow::Result<Duration> {
        let mut all = vec!["build", "--progress=plain", "--builder", &endpoint.name];
        all.extend(arguments);
        let context = context.to_str().context("temporary folders have plain names")?;
        all.push(context);
        self.run(&all)
    }
}

fn start_buildkitd(folder: &Path) -> (Running, String) {
    let socket = folder.join("buildkitd.sock");
    let address = format!("unix://{}", socket.display());
    let mut command = Command::new("buildkitd");
    command.args([
        "--oci-worker=true",
        "--containerd-worker=false",
        "--config",
        "/dev/null",
        "--addr",
        &address,
    ]);
    command.arg("--root").arg(folder.join("buildkit"));
    let mut daemon = Running::start(&mut command, &folder.join("buildkitd.log"));
    crate::waiting::wait_until("buildkitd to listen", Duration::from_secs(30), || {
        assert!(daemon.ended().is_none(), "{}", daemon.log());
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    (daemon, address)
}
