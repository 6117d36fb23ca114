//! Running the `git` program: without the machine's configuration, without prompts, hooks and side doors.
//!
//! Git gets an environment of its own. Everything secret goes through it as configuration, never as an argument, which
//! every user of the machine could read. Dropping the future of a call kills git with all that it has started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Child;

use super::GitError;
use crate::progress::{LogStream, VertexProgress};

/// What git may tell us on its standard output; a listing of a repository with a million files is 100 MiB.
const MAX_OUTPUT: usize = 512 << 20;
/// What is kept of its messages, from the end.
const MAX_MESSAGES: usize = 16 << 10;
/// Variables of the daemon that say how servers are reached.
const PASSED_ON: [&str; 13] = [
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
];
/// What no repository needs and an attacker might like. Nothing is collected as garbage while others may read.
const CONFIGURATION: [(&str, &str); 12] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.logAllRefUpdates", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("safe.directory", "*"),
    ("init.defaultBranch", "master"),
    ("advice.detachedHead", "false"),
    ("fetch.recurseSubmodules", "false"),
    // A server that sends less than a byte per second for this long is given up.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
];

/// The program, and what it is allowed.
#[derive(Clone, Debug)]
pub struct Git {
    pub program: PathBuf,
    /// Ways in which repositories may be reached, in the form of `GIT_ALLOW_PROTOCOL`. Files of the daemon's machine
    /// are not for builds to read.
    pub protocols: &'static str,
    /// How long it may be silent.
    pub patience: Duration,
}

impl Default for Git {
    fn default() -> Self {
        Self {
            program: "git".into(),
            protocols: "http:https:ssh:git",
            patience: Duration::from_secs(600),
        }
    }
}

/// One call of git, in the making. It may hold secrets, so it cannot be printed.
pub(super) struct Call<'a> {
    git: &'a Git,
    command: tokio::process::Command,
    configuration: Vec<(String, String)>,
    log: Option<&'a VertexProgress>,
    patience: Duration,
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Ended {
    status: ExitStatus,
    pub(super) output: Vec<u8>,
    /// The end of what it wrote for people to read.
    pub(super) messages: String,
}

impl Git {
    pub(super) fn call(&self) -> Call<'_> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for (name, value) in [
            ("LC_ALL", "C"),
            ("HOME", "/dev/null"),
            // The daemon may have been started inside of a repository, whose remotes are none of its business.
            ("GIT_DIR", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_LITERAL_PATHSPECS", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_ALLOW_PROTOCOL", self.protocols),
        ] {
            command.env(name, value);
        }
        Call {
            git: self,
            command,
            configuration: Vec::new(),
            log: None,
            patience: self.patience,
        }
    }
}

impl<'a> Call<'a> {
    pub(super) fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments.into_iter().map(Into::into));
        self
    }

    pub(super) fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.command.env(name, value.into());
        self
    }

    pub(super) fn configured(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.configuration.push((key.into(), value.into()));
        self
    }

    /// In this repository, without files checked out.
    pub(super) fn in_repository(self, repository: &Path) -> Self {
        self.environment("GIT_DIR", repository)
    }

    /// With these files checked out.
    pub(super) fn with_files(mut self, files: &Path) -> Self {
        self.command.current_dir(files);
        self.environment("GIT_WORK_TREE", files)
    }

    /// What git writes for people goes to the log of this vertex.
    pub(super) fn logged(mut self, log: &'a VertexProgress) -> Self {
        self.log = Some(log);
        self
    }

    pub(super) fn patience(mut self, patience: Duration) -> Self {
        self.patience = self.patience.min(patience);
        self
    }

    /// Runs it to its end, whatever that is.
    pub(super) async fn run(mut self) -> Result<Ended, GitError> {
        let common = CONFIGURATION.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let configuration: Vec<_> = common.into_iter().chain(self.configuration).collect();
        self.command
            .env("GIT_CONFIG_COUNT", configuration.len().to_string());
        for (number, (key, value)) in configuration.into_iter().enumerate() {
            self.command.env(format!("GIT_CONFIG_KEY_{number}"), key);
            self.command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        let mut child = self.command.spawn().map_err(|source| GitError::Start {
            program: self.git.program.clone(),
            source,
        })?;
        // Helpers of git outlive it when it is killed alone.
        let mut group = Group(child.id());
        let (Some(output), Some(messages)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(GitError::Pipe);
        };
        let mut reading = Reading {
            output: Vec::new(),
            messages: Messages {
                log: self.log,
                line: Vec::new(),
                kept: Vec::new(),
            },
        };
        reading.all(output, messages, self.patience).await?;
        let status = wait(&mut child, self.patience).await?;
        group.0 = None;
        Ok(Ended {
            status,
            output: reading.output,
            messages: reading.messages.finish(),
        })
    }

    /// Runs it to its end, which must be a good one.
    pub(super) async fn succeed(self, doing: impl FnOnce() -> String) -> Result<Vec<u8>, GitError> {
        let ended = self.run().await?;
        if ended.succeeded() {
            Ok(ended.output)
        } else {
            Err(ended.failure(doing()))
        }
    }
}

impl Ended {
    pub(super) fn succeeded(&self) -> bool {
        self.status.success()
    }

    pub(super) fn failure(&self, doing: String) -> GitError {
        let hint = hint(&self.messages);
        GitError::Failed {
            doing,
            messages: summary(&self.messages, self.status),
            hint,
        }
    }
}

async fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus, GitError> {
    match tokio::time::timeout(patience, child.wait()).await {
        Ok(status) => status.map_err(GitError::Wait),
        Err(_) => Err(GitError::Silent { patience }),
    }
}

/// The processes of a call, to be killed with it.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok())
            && let Err(error) = killpg(Pid::from_raw(id), Signal::SIGKILL)
        {
            tracing::debug!(%error, id, "git was gone before it was killed");
        }
    }
}

struct Reading<'a> {
    output: Vec<u8>,
    messages: Messages<'a>,
}

impl Reading<'_> {
    async fn all(
        &mut self,
        mut output: impl AsyncRead + Unpin,
        mut messages: impl AsyncRead + Unpin,
        patience: Duration,
    ) -> Result<(), GitError> {
        let (mut out, mut err) = (vec![0; 64 << 10], vec![0; 8 << 10]);
        let (mut out_ended, mut err_ended) = (false, false);
        while !(out_ended && err_ended) {
            let silence = tokio::time::sleep(patience);
            tokio::select! {
                read = output.read(&mut out), if !out_ended => {
                    let length = read.map_err(GitError::Wait)?;
                    out_ended = length == 0;
                    self.output.extend_from_slice(out.get(..length).unwrap_or_default());
                    if self.output.len() > MAX_OUTPUT {
                        return Err(GitError::TooMuchOutput { limit: MAX_OUTPUT });
                    }
                }
                read = messages.read(&mut err), if !err_ended => {
                    let length = read.map_err(GitError::Wait)?;
                    err_ended = length == 0;
                    self.messages.add(err.get(..length).unwrap_or_default());
                }
                () = silence => return Err(GitError::Silent { patience }),
            }
        }
        Ok(())
    }
}

/// What git writes for people, line by line. Of progress bars, which paint over themselves, only the last state counts.
struct Messages<'a> {
    log: Option<&'a VertexProgress>,
    line: Vec<u8>,
    kept: Vec<u8>,
}

impl Messages<'_> {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => self.line.clear(),
                byte if self.line.len() < MAX_MESSAGES => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        self.line.push(b'\n');
        self.kept.extend_from_slice(&self.line);
        if self.kept.len() > 2 * MAX_MESSAGES {
            self.kept.drain(..self.kept.len() - MAX_MESSAGES);
        }
        let line = std::mem::take(&mut self.line);
        if let Some(log) = self.log {
            log.log(LogStream::Stderr, Bytes::from(line));
        }
    }

    fn finish(mut self) -> String {
        if !self.line.is_empty() {
            self.end_line();
        }
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

/// The lines that say what went wrong, as one.
fn summary(messages: &str, status: ExitStatus) -> String {
    let lines: Vec<&str> = messages
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let telling = |line: &&str| {
        ["fatal: ", "error: ", "remote: ", "ssh: "]
            .iter()
            .any(|start| line.starts_with(start))
            || line.contains("denied")
            || line.contains("verification failed")
    };
    let mut chosen: Vec<&str> = lines.iter().copied().filter(telling).collect();
    chosen.dedup();
    if chosen.is_empty() {
        chosen = lines;
    }
    let from = chosen.len().saturating_sub(4);
    let text = chosen.get(from..).unwrap_or_default().join("; ");
    match text.char_indices().nth(1000) {
        None if text.is_empty() => format!("git ended with {status}"),
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// The way out of failures that have one.
fn hint(messages: &str) -> &'static str {
    let says = |texts: &[&str]| texts.iter().any(|text| messages.contains(text));
    if says(&[
        "terminal prompts disabled",
        "Authentication failed",
        "error: 403",
        "error: 401",
    ]) {
        "; if the repository is private, give the build a token: --secret id=GIT_AUTH_TOKEN"
    } else if says(&[
        "error: 301",
        "error: 302",
        "error: 307",
        "error: 308",
        "unable to update url base",
    ]) {
        "; redirects are not followed with credentials: name the address that the server redirects to"
    } else if says(&["Permission denied (", "Could not read from remote repository"])
        && says(&["publickey", "ssh"])
    {
        "; the keys of an SSH agent are passed on with --ssh default"
    } else if says(&["transport '"]) && says(&["not allowed"]) {
        "; only http, https, ssh and git are allowed"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn failures_are_told_in_one_line() {
        let status = ExitStatus::from_raw(128 << 8);
        for (messages, expected) in [
            ("", "git ended with exit status: 128"),
            ("something\nelse\n", "something; else"),
            (
                "Cloning…\nremote: Not here\nfatal: repository 'x' not found\n",
                "remote: Not here; fatal: repository 'x' not found",
            ),
        ] {
            assert_eq!(summary(messages, status), expected);
        }
        let long = format!("fatal: {}", "ü".repeat(5000));
        assert_eq!(summary(&long, status).chars().count(), 1001);
    }

    #[test]
    fn bars_are_left_out_and_memory_is_bounded() {
        let mut messages = Messages {
            log: None,
            line: Vec::new(),
            kept: Vec::new(),
        };
        messages.add(b"one\nReceiving: 1%\rReceiving: 2%\rReceiving: done.\nla");
        messages.add(b"st");
        assert_eq!(messages.finish(), "one\nReceiving: done.\nlast\n");
        let mut messages = Messages {
            log: None,
            line: Vec::new(),
            kept: Vec::new(),
        };
        for _ in 0..100 {
            messages.add(&[b'x'; 4096]);
            messages.add(b"\n");
        }
        messages.add(&vec![b'y'; 1 << 20]);
        assert!(messages.finish().len() <= 4 * MAX_MESSAGES);
    }

    #[tokio::test]
    async fn git_sees_nothing_of_the_machine_and_its_helpers_die_with_it() {
        let temp = tempfile::tempdir().unwrap();
        let script = temp.path().join("git");
        std::fs::write(
            &script,
            "#!/bin/sh\nif [ \"$1\" = env ]; then env; else sleep 1000 & echo $! > \"$1\"; wait; fi\n",
        )
        .unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let git = Git {
            program: script,
            ..Git::default()
        };
        let call = git.call().arguments(["env"]).configured("a.b", "secret");
        let environment = String::from_utf8(call.run().await.unwrap().output).unwrap();
        for line in [
            "HOME=/dev/null",
            "GIT_ALLOW_PROTOCOL=http:https:ssh:git",
            "GIT_CONFIG_VALUE_12=secret",
        ] {
            assert!(environment.lines().any(|other| other == line), "{environment}");
        }
        assert!(!environment.contains("CARGO"), "{environment}");

        let note = temp.path().join("helper");
        let written = async {
            while !std::fs::read_to_string(&note).is_ok_and(|text| text.ends_with('\n')) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = git.call().arguments([&note]).run() => panic!("{ended:?}"),
            () = written => {}
        }
        let helper: i32 = std::fs::read_to_string(&note).unwrap().trim().parse().unwrap();
        let gone = async {
            let state = || std::fs::read_to_string(format!("/proc/{helper}/stat")).unwrap_or_default();
            while !(state().is_empty() || state().contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();

        let call = git.call().arguments([&note]).patience(Duration::from_millis(1));
        let error = call.run().await.unwrap_err();
        assert!(matches!(error, GitError::Silent { .. }), "{error:?}");
    }
}
