//! The daemon as a process.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Running;
use crate::programs;
use crate::waiting::wait_until;

const START: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Daemon {
    pub process: Running,
    folder: PathBuf,
    arguments: Vec<String>,
}

impl Daemon {
    /// Starts the daemon with its state, socket and log below `folder`, and waits until it listens.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = Running::start(&mut command(folder, &arguments), &folder.join("builderd.log"));
        let mut daemon = Self {
            process,
            folder: folder.to_owned(),
            arguments,
        };
        daemon.wait_until_ready();
        daemon
    }

    /// Where clients reach it.
    pub fn address(&self) -> String {
        format!("unix://{}", socket(&self.folder).display())
    }

    pub fn state(&self) -> PathBuf {
        state(&self.folder)
    }

    /// Starts it again after it ended.
    pub fn restart(&mut self) {
        self.process.stop();
        // A socket that is left over must not be taken for the new daemon's.
        let _ = std::fs::remove_file(socket(&self.folder));
        self.process = Running::start(
            &mut command(&self.folder, &self.arguments),
            &self.folder.join("builderd.log"),
        );
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let socket = socket(&self.folder);
        wait_until("the daemon to listen", START, || {
            let ended = self.process.ended();
            assert!(
                ended.is_none(),
                "the daemon ended with {ended:?}:\n{}",
                self.process.log()
            );
            UnixStream::connect(&socket).is_ok()
        });
    }
}

/// How to start the daemon with everything below `folder`.
pub fn command(folder: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(programs::ours("builderd"));
    command
        .arg("--root")
        .arg(state(folder))
        .arg("--addr")
        .arg(format!("unix://{}", socket(folder).display()));
    command.args(arguments);
    command
}

pub fn socket(folder: &Path) -> PathBuf {
    folder.join("builderd.sock")
}

pub fn state(folder: &Path) -> PathBuf {
    folder.join("state")
}
