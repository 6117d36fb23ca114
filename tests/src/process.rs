//! Programs that a test starts: run to their end, or kept running and ended with the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::waiting::{wait_for, wait_until};

/// What a program that ended leaves.
#[derive(Debug)]
pub struct Ended {
    command: String,
    /// None if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn of(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        let output = command
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        Self::from_output(shown, output)
    }

    /// What a program left that somebody else ran; `command` is how it is named if it did wrong.
    #[expect(clippy::needless_pass_by_value, reason = "an output is of no other use")]
    pub fn from_output(command: String, output: std::process::Output) -> Self {
        Self {
            command,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Asserts that it failed with 1, as what a user asked for that cannot be done.
    #[track_caller]
    pub fn failed(self) -> Self {
        assert_eq!(self.code, Some(1), "{self}");
        self
    }

    /// Asserts that all these texts are in what it printed, in any order.
    #[track_caller]
    pub fn said(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                self.stdout.contains(text) || self.stderr.contains(text),
                "{text:?} is missing in {self}"
            );
        }
        self
    }

    #[track_caller]
    pub fn did_not_say(self, text: &str) -> Self {
        assert!(
            !self.stdout.contains(text) && !self.stderr.contains(text),
            "{text:?} is in {self}"
        );
        self
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            code,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "{command}\nended with {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---"
        )
    }
}

/// A program that runs until it is ended, with its output in a file.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program; what it prints goes to the end of `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let shown = format!("{command:?}");
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log's folder is there");
        let errors = output.try_clone().expect("a file can be shared");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    pub fn send(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(id), signal);
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of process {} ({})", self.child.id(), self.log.display());
        wait_for(&what, limit, || self.ended())
    }

    /// Waits until its output has the text.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) {
        let what = format!("{text:?} in {}", self.log.display());
        wait_until(&what, limit, || {
            let log = self.log();
            let ended = self.ended();
            assert!(
                ended.is_none() || log.contains(text),
                "ended with {ended:?} before {text:?}:\n{log}"
            );
            log.contains(text)
        });
    }

    /// Ends it as an operator does; after a while as the kernel does.
    pub fn stop(&mut self) {
        self.send(Signal::SIGTERM);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while self.ended().is_none() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// Ends it without a chance to clean up.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
