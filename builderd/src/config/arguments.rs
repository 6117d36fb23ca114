//! The command line, as it is typed. `config.rs` makes settings of it.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::executor::{Choice, runner};

/// The one network mode of workers that has an effect.
pub(super) const HOST_NETWORK: &str = "host";

#[derive(Debug, Parser)]
#[command(
    name = "builderd",
    about = "Builds container images; speaks BuildKit's API",
    disable_version_flag = true
)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: Serve,
    /// Print the version
    #[arg(short = 'v', long)]
    pub version: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start steps inside a sandbox; only the daemon calls this
    #[command(hide = true)]
    Runner(runner::Arguments),
    /// Connect standard input and output to the daemon's socket
    DialStdio(Dial),
    /// Register emulators for other architectures, and tell which platforms run
    Binfmt(binfmt::command::Args),
    /// Look into the running daemon
    Debug {
        #[command(flatten)]
        dial: Dial,
        #[command(subcommand)]
        command: Debug,
    },
}

/// What `buildctl` offers: the commands that drivers run inside the daemon's container.
#[derive(Debug, Parser)]
#[command(name = "buildctl", about = "Talks to the daemon", disable_version_flag = true)]
pub struct Buildctl {
    #[command(flatten)]
    pub dial: Dial,
    /// Print the version
    #[arg(short = 'v', long)]
    pub version: bool,
    #[command(subcommand)]
    pub command: Option<BuildctlCommand>,
}

#[derive(Debug, Subcommand)]
pub enum BuildctlCommand {
    /// Connect standard input and output to the daemon's socket
    DialStdio,
    /// Look into the running daemon
    Debug {
        #[command(subcommand)]
        command: Debug,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Debug {
    /// List the workers and their platforms
    Workers,
}

#[derive(Clone, Debug, Default, Args)]
pub struct Dial {
    /// The daemon's address
    #[arg(long, env = "BUILDKIT_HOST", value_name = "ADDRESS")]
    pub addr: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Address to listen on: unix://PATH or tcp://HOST:PORT; repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub addr: Vec<String>,
    /// Folder for the daemon's state
    #[arg(long, value_name = "FOLDER")]
    pub root: Option<PathBuf>,
    /// Configuration file, in the format of buildkitd.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log what is decided and why
    #[arg(long)]
    pub debug: bool,
    /// Where steps run
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub executor: Choice,
    /// Let builds ask for network.host or security.insecure; repeatable
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub allow_insecure_entitlement: Vec<String>,
    /// Let steps reach the network only through the daemon's proxy, in all builds
    #[arg(long)]
    pub proxy_network: bool,
    /// How many bytes of each step's output are kept and shown, -1 for all [default: 2097152]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub step_log_max_size: Option<i64>,
    /// Certificate for tcp:// addresses
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// Key of the certificate
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Authority that clients' certificates must come from
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// Run steps; there is no other worker
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch)]
    pub oci_worker: Option<bool>,
    /// Labels of the worker, KEY=VALUE; repeatable
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    pub oci_worker_labels: Vec<String>,
    /// Platforms to offer instead of all that run; repeatable
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub oci_worker_platform: Vec<String>,
    /// Remove what was not used for long when the state folder grows too large
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch)]
    pub oci_worker_gc: Option<bool>,
    /// How much of the state folder stays, how much of the disk should be free, and how large the folder may grow,
    /// in megabytes
    #[arg(long, value_name = "RESERVED[,FREE[,MAXIMUM]]")]
    pub oci_worker_gc_keepstorage: Option<String>,
    /// Only `false` is supported
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch)]
    pub containerd_worker: Option<bool>,
    /// Has no effect: snapshots are kept in the daemon's own way
    #[arg(long, value_name = "NAME")]
    pub oci_worker_snapshotter: Option<String>,
    /// Network of steps that ask for none in particular: `host` is the machine's; all others have no effect
    #[arg(long, value_name = "MODE")]
    pub oci_worker_net: Option<String>,
    /// Has no effect: there is no separate runtime
    #[arg(long, value_name = "PATH")]
    pub oci_worker_binary: Option<String>,
    /// Has no effect: rootless operation is found out
    #[arg(long, action = ArgAction::SetTrue)]
    pub rootless: bool,
}

impl Serve {
    /// Flags of buildkitd that were given but do nothing here.
    pub(super) fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        [
            ("oci-worker-snapshotter", self.oci_worker_snapshotter.is_some()),
            (
                "oci-worker-net",
                self.oci_worker_net
                    .as_deref()
                    .is_some_and(|mode| mode != HOST_NETWORK),
            ),
            ("oci-worker-binary", self.oci_worker_binary.is_some()),
            ("rootless", self.rootless),
        ]
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
    }
}

/// Go's spellings of booleans; `auto` is buildkitd's own for its workers.
fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" | "auto" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}
