//! What a step is: everything the runner must know to start one process tree, and how it ended.
//!
//! Paths of layers, upper folders, caches and sockets are absolute and lie inside the state folder, which the daemon
//! and every sandbox see at the same place. Paths inside the step's root are plain strings, resolved within that root.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cgroup::Membership;

/// One process to run on one root file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub root: FileSystem,
    pub mounts: Vec<Mount>,
    pub args: Vec<String>,
    /// `NAME=value`, in the order in which the process will see them.
    pub env: Vec<String>,
    /// Working folder; made if it is missing, owned by the step's user.
    pub cwd: String,
    /// `name|uid[:group|gid]`, looked up in the root's own passwd and group files; empty is root.
    pub user: String,
    pub hostname: Option<String>,
    pub extra_hosts: Vec<ExtraHost>,
    pub network: NetworkMode,
    pub security: SecurityMode,
    pub ulimits: Vec<Ulimit>,
    /// Size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// Devices of the machine that it may use.
    pub devices: Vec<DeviceNode>,
    /// Its only way out, which goes through the daemon to the network that `network` says.
    pub outlet: Option<OutletLink>,
    /// Its cgroup, if that is not its sandbox's.
    pub cgroup: Option<Membership>,
}

/// Where a step with an outlet finds it, on its own loopback interface: above the ports that Linux gives out by itself,
/// and of no service that a step may want to start.
pub const OUTLET_PORT: u16 = 61_873;

/// What the daemon asks the runner for: a socket of this kind.
pub(super) const OUTLET_IPV4: u8 = 4;
pub(super) const OUTLET_IPV6: u8 = 6;

/// The daemon as a step's only way out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutletLink {
    /// The socket of the daemon, in the state folder, that the step's listener is handed to.
    pub socket: PathBuf,
    /// A certificate in PEM that the step shall trust, beside those that its root holds.
    pub authority: String,
}

/// A device that a step finds at `path`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    pub path: String,
    pub block: bool,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Step {
    /// A step with Docker's defaults: root user, `/`, sandbox network and security.
    pub fn new(root: FileSystem, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            root,
            mounts: Vec::new(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
            hostname: None,
            extra_hosts: Vec::new(),
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            ulimits: Vec::new(),
            shm_size: None,
            devices: Vec::new(),
            outlet: None,
            cgroup: None,
        }
    }

    /// Whether it has a network namespace of its own.
    pub fn has_own_network(&self) -> bool {
        self.network == NetworkMode::None || self.outlet.is_some()
    }

    /// Leaves it no way out but `link`, of which its programs are told by the usual variables.
    pub fn leave_through(&mut self, link: OutletLink) {
        let proxy = format!("http://127.0.0.1:{OUTLET_PORT}");
        for (name, value) in [
            ("HTTP_PROXY", proxy.as_str()),
            ("HTTPS_PROXY", &proxy),
            ("NO_PROXY", "127.0.0.1,localhost,::1"),
        ] {
            for name in [name.to_owned(), name.to_ascii_lowercase()] {
                self.env.retain(|variable| !names(variable, &name));
                self.env.push(format!("{name}={value}"));
            }
        }
        self.outlet = Some(link);
    }
}

/// Whether this is the variable of that name.
fn names(variable: &str, name: &str) -> bool {
    variable.split('=').next() == Some(name)
}

/// Layer folders joined by overlayfs; without an upper folder it is read-only.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FileSystem {
    /// Lowest first.
    pub lowers: Vec<PathBuf>,
    pub writable: Option<Writable>,
}

/// Where changes go. Both folders are empty and on one file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Writable {
    pub upper: PathBuf,
    pub work: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Where it appears in the root; missing folders on the way are made and removed again.
    pub destination: String,
    pub source: Source,
    pub read_only: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Source {
    /// A snapshot, or the folder or file at `selector` in it.
    Snapshot {
        files: FileSystem,
        selector: String,
    },
    Tmpfs {
        size: Option<u64>,
    },
    /// A folder of the state folder that outlives the step, such as a cache.
    Folder {
        path: PathBuf,
        selector: String,
    },
    /// A file that exists in memory only and only while the step runs.
    Secret {
        contents: Secret,
        uid: u32,
        gid: u32,
        mode: u32,
    },
    /// A unix socket of the state folder; who may connect is the daemon's matter, through its owner and mode.
    Socket {
        path: PathBuf,
    },
}

/// Bytes that must not be seen in logs.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExtraHost {
    pub host: String,
    pub ip: IpAddr,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in `docker run --ulimit`: `nofile`, `nproc`, `core` …
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The sandbox's own network.
    #[default]
    Default,
    /// A network of its own with nothing in it but loopback.
    None,
    /// The network of the machine.
    Host,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SecurityMode {
    #[default]
    Sandbox,
    /// All capabilities, no seccomp filter, nothing masked.
    Insecure,
}

/// How somebody talks with a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// It reads what is sent to it; else its input is empty.
    pub input: bool,
    /// It has a terminal, which all it writes comes from, as standard output.
    pub terminal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

impl ExitStatus {
    /// As a shell or Docker reports it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The process could not be started; the text says at which point and why.
    #[error("cannot start the step: {0}")]
    Start(String),
    #[error("the step was cancelled")]
    Cancelled,
    #[error("the sandbox went away while the step ran")]
    SandboxLost,
    #[error("cannot describe the step to the runner")]
    Encode(#[source] serde_json::Error),
    #[error(transparent)]
    Sandbox(#[from] super::ExecutorError),
}
