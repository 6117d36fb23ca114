//! A daemon of the user's own, as a background process of this machine: the embedded default.
//!
//! Below the configuration folder, `local/<node>/` holds its state, its log and `pid`, the process id. The socket is
//! in the user's runtime folder where there is one, as its path has to be short. A lock is held while the daemon is
//! started or stopped, so that two commands never start two. Before a process is signalled, its command line is
//! compared with ours: a process id may have been given to somebody else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stream::{self, Opener};
use super::{Condition, DriverError, State, executable};
use crate::builders::{Content, Node, daemon_files, write_atomically};
use crate::daemon;
use crate::progress::{self, Work};
use crate::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Local {
    settings: Settings,
    folder: PathBuf,
    socket: PathBuf,
    flags: Vec<String>,
    files: std::collections::BTreeMap<String, Content>,
}

impl Local {
    pub fn new(settings: &Settings, node: &Node) -> Result<Self, DriverError> {
        if let Some(option) = node.driver_opts.keys().next() {
            return Err(DriverError::UnknownOption {
                option: option.clone(),
                driver: super::LOCAL,
                known: "which has none",
            });
        }
        let folder = settings.config_folder().join("local").join(&node.name);
        Ok(Self {
            settings: settings.clone(),
            socket: socket_path(settings, &folder, &node.name),
            folder,
            flags: node.daemon_flags.clone(),
            files: node.files.clone(),
        })
    }

    pub fn opener(&self) -> Opener {
        Opener::Unix(self.socket.clone())
    }

    pub async fn condition(&self) -> Condition {
        if daemon::answers(stream::channel(self.opener())).await {
            Condition::Running
        } else if self.process().is_some() {
            Condition::Starting
        } else if self.folder.join("state").exists() {
            Condition::Stopped
        } else {
            Condition::Inactive
        }
    }

    pub async fn boot(&self, progress: &progress::Sender, bracket: &str) -> Result<(), DriverError> {
        let work = Work::begin(progress, &format!("[{bracket}] starting builderd")).await;
        let result = self.start().await;
        work.end(result).await
    }

    async fn start(&self) -> Result<(), DriverError> {
        let _lock = self.lock().await?;
        let channel = stream::channel(self.opener());
        let mut child = None;
        if self.process().is_none() {
            child = Some(self.spawn()?);
        }
        let ready = daemon::wait_until_ready(channel, PATIENCE);
        tokio::pin!(ready);
        loop {
            tokio::select! {
                ready = &mut ready => {
                    return if ready { Ok(()) } else {
                        Err(DriverError::NotReady { seconds: PATIENCE.as_secs(), log: self.log().display().to_string() })
                    };
                }
                () = tokio::time::sleep(PAUSE) => {
                    if let Some(child) = &mut child
                        && let Ok(Some(_)) = child.try_wait()
                    {
                        return Err(DriverError::DaemonEnded { log: self.log().display().to_string(), tail: self.log_tail() });
                    }
                }
            }
        }
    }

    fn spawn(&self) -> Result<std::process::Child, DriverError> {
        let executable = executable::find(&self.settings)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.log())
            .map_err(self.file("opening", &self.log()))?;
        let error_log = log.try_clone().map_err(self.file("opening", &self.log()))?;
        let mut command = Command::new(&executable);
        command
            .arg("--addr")
            .arg(format!("unix://{}", self.socket.display()))
            .arg("--root")
            .arg(self.folder.join("state"));
        if let Some(config) = self.files.get(daemon_files::CONFIG) {
            let path = self.folder.join(daemon_files::CONFIG);
            write_atomically(&path, &config.0).map_err(self.file("writing", &path))?;
            command.arg("--config").arg(path);
        }
        command
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(error_log)
            // Not in our process group: Ctrl-C in the terminal must not end the daemon.
            .process_group(0);
        let child = command.spawn().map_err(self.file("starting", &executable))?;
        let path = self.folder.join("pid");
        write_atomically(&path, child.id().to_string().as_bytes()).map_err(self.file("writing", &path))?;
        Ok(child)
    }

    /// The running daemon of this node.
    fn process(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.folder.join("pid")).ok()?;
        let process: i32 = text.trim().parse().ok().filter(|&process| process > 1)?;
        let command = fs::read(format!("/proc/{process}/cmdline")).ok()?;
        let socket = self.socket.display().to_string();
        let is_ours = String::from_utf8_lossy(&command)
            .split('\0')
            .any(|argument| argument.ends_with(&socket));
        is_ours.then(|| Pid::from_raw(process))
    }

    pub async fn stop(&self) -> Result<(), DriverError> {
        if !self.folder.exists() {
            return Ok(());
        }
        let _lock = self.lock().await?;
        let Some(process) = self.process() else {
            return Ok(());
        };
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // It may end by itself meanwhile: then there is nobody to signal.
            let _ = kill(process, signal);
            let deadline = tokio::time::Instant::now() + STOP_PATIENCE;
            while self.process().is_some() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(PAUSE).await;
            }
            if self.process().is_none() {
                break;
            }
        }
        // Leftovers of a process that is gone; the next start makes them anew.
        let _ = fs::remove_file(self.folder.join("pid"));
        let _ = fs::remove_file(&self.socket);
        Ok(())
    }

    pub async fn remove(&self, state: State) -> Result<(), DriverError> {
        self.stop().await?;
        if state == State::Keep || !self.folder.exists() {
            return Ok(());
        }
        fs::remove_dir_all(&self.folder).map_err(self.file("removing", &self.folder))
    }

    /// Waits for the lock without blocking the runtime.
    async fn lock(&self) -> Result<File, DriverError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(self.file("creating", &self.folder))?;
        if let Some(parent) = self.socket.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(self.file("creating", parent))?;
        }
        let path = self.folder.join(".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(self.file("opening", &path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
                Err(fs::TryLockError::Error(source)) => return Err(self.file("locking", &path)(source)),
            }
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.log())?;
            let start = file.metadata()?.len().saturating_sub(2048);
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn file(&self, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DriverError + use<> {
        let path = path.display().to_string();
        move |source| DriverError::File { action, path, source }
    }
}

/// Socket addresses hold 108 bytes: the runtime folder is preferred, and a deep configuration folder is avoided.
fn socket_path(settings: &Settings, folder: &Path, node: &str) -> PathBuf {
    use sha2::Digest as _;
    // Two configuration folders may have nodes of the same name.
    let hash = &hex::encode(sha2::Sha256::digest(folder.as_os_str().as_encoded_bytes()))[..8];
    match settings.runtime_folder() {
        Some(runtime) => runtime.join("trimaran").join(format!("{node}-{hash}.sock")),
        None if folder.as_os_str().len() < 80 => folder.join("builderd.sock"),
        None => std::env::temp_dir()
            .join(format!("trimaran-{}", nix::unistd::getuid()))
            .join(format!("{hash}.sock")),
    }
}
