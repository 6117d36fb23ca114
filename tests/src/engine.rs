//! A Docker engine that a test has to itself and may restart.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::process::{Ended, Running};
use crate::waiting::wait_until;

const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Engine {
    process: Running,
    folder: PathBuf,
    bridge: String,
}

impl Engine {
    /// Starts one with all it keeps below `folder` and a network bridge of its own.
    pub fn start(folder: &Path) -> Self {
        // Interface names are short; two engines at once must not share one.
        let bridge = format!("trm{}", std::process::id() % 100_000);
        let number = std::process::id() % 250;
        Ended::of(Command::new("ip").args(["link", "add", "name", &bridge, "type", "bridge"])).succeeded();
        let address = format!("10.213.{number}.1/24");
        Ended::of(Command::new("ip").args(["address", "add", &address, "dev", &bridge])).succeeded();
        Ended::of(Command::new("ip").args(["link", "set", &bridge, "up"])).succeeded();
        let process = Running::start(&mut command(folder, &bridge), &folder.join("dockerd.log"));
        let engine = Self {
            process,
            folder: folder.to_owned(),
            bridge,
        };
        engine.wait_until_ready();
        engine
    }

    /// What DOCKER_HOST has to be.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    pub fn restart(&mut self) {
        self.end();
        let log = self.folder.join("dockerd.log");
        self.process = Running::start(&mut command(&self.folder, &self.bridge), &log);
        self.wait_until_ready();
    }

    /// Ends the engine in its own time: it gives containers fifteen seconds, and killed it would leave its containerd.
    fn end(&mut self) {
        self.process.send(Signal::SIGTERM);
        self.process.wait(START);
    }

    fn wait_until_ready(&self) {
        let host = self.host();
        wait_until("the engine to answer", START, || {
            Ended::of(Command::new("docker").args(["--host", &host, "version"])).code == Some(0)
        });
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Containers first: they would outlive an engine that is killed.
        let host = self.host();
        let listed = Ended::of(Command::new("docker").args(["--host", &host, "ps", "--all", "--quiet"]));
        let ids: Vec<&str> = listed.stdout.split_whitespace().collect();
        if !ids.is_empty() {
            Ended::of(
                Command::new("docker")
                    .args(["--host", &host, "rm", "--force"])
                    .args(ids),
            );
        }
        self.end();
        Ended::of(Command::new("ip").args(["link", "delete", &self.bridge]));
    }
}

fn command(folder: &Path, bridge: &str) -> Command {
    let below = |name: &str| folder.join(name).into_os_string();
    let mut command = Command::new("dockerd");
    command
        .arg("--data-root")
        .arg(below("docker"))
        .arg("--exec-root")
        .arg(below("exec"));
    command.arg("--pidfile").arg(below("docker.pid"));
    command
        .arg("--host")
        .arg(format!("unix://{}", folder.join("docker.sock").display()));
    // Rules of the packet filter are the machine's; nothing here needs to leave it.
    command.args([
        "--bridge",
        bridge,
        "--iptables=false",
        "--ip6tables=false",
        "--ip-masq=false",
    ]);
    command
}
