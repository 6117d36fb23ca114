//! Settings of the daemon: flags over the environment over the configuration file over defaults, resolved once.
//!
//! Nobody else reads flags, environment or the file. The file is `buildkitd.toml`; keys that have no meaning here are
//! named in a warning when the daemon starts, unknown ones are errors.

pub mod arguments;
mod collection;
mod file;
pub mod provenance;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use arguments::Serve;
use binfmt::Platform;
pub use collection::{Collection, GcPolicy, HistoryLimits};
pub use file::RegistrySettings;

use crate::executor;
use crate::executor::cdi::Devices;
use crate::listen::{Address, AddressError};
use crate::progress::LogLimit;

/// BuildKit's variable for how many bytes of a step's output are kept.
const STEP_LOG: &str = "BUILDKIT_STEP_LOG_MAX_SIZE";

#[derive(Clone, Debug)]
pub struct Settings {
    pub addresses: Vec<Address>,
    pub tls: Option<TlsFiles>,
    pub root: PathBuf,
    pub debug: bool,
    pub executor: executor::Choice,
    pub entitlements: Vec<Entitlement>,
    pub registries: BTreeMap<String, RegistrySettings>,
    /// Platforms to offer; empty for all that run.
    pub platforms: Vec<Platform>,
    pub labels: BTreeMap<String, String>,
    /// Devices of the machine that steps may ask for.
    pub devices: Devices,
    /// How steps resolve names.
    pub resolver: executor::Resolver,
    /// Steps that ask for no network of another kind have the machine's.
    pub default_is_host: bool,
    /// The cgroup that steps run below if they name no other.
    pub cgroup_parent: Option<String>,
    /// Steps reach the network only through the daemon's proxy, whatever clients ask for.
    pub proxy_network: bool,
    /// Steps that may run at the same time; the daemon's own choice if unset.
    pub steps_at_once: Option<NonZeroUsize>,
    pub log_limit: LogLimit,
    /// What is removed when it takes too much space.
    pub collection: Collection,
    pub history: HistoryLimits,
    /// JSON files whose fields the provenance of every build tells.
    pub provenance_folder: PathBuf,
    /// Keys and flags that were given but do nothing here.
    pub without_effect: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Clients must show a certificate of this authority.
    pub authority: Option<PathBuf>,
}

/// What clients may ask for beyond the ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entitlement {
    NetworkHost,
    SecurityInsecure,
    /// Whatever devices the machine has.
    Device,
}

impl Entitlement {
    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
            Self::Device => "device",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::NetworkHost, Self::SecurityInsecure, Self::Device]
            .into_iter()
            .find(|entitlement| entitlement.name() == text)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {message}", path.display())]
    Parse { path: PathBuf, message: String },
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("unknown entitlement {0:?}; known are network.host, security.insecure and device")]
    Entitlement(String),
    #[error(transparent)]
    Platform(#[from] binfmt::ParsePlatformError),
    #[error("label {0:?} is not of the form key=value")]
    Label(String),
    #[error(
        "invalid value {0:?} of --oci-worker-gc-keepstorage: expected RESERVED[,FREE[,MAXIMUM]] in megabytes"
    )]
    KeepStorage(String),
    #[error("invalid filter of a garbage collection policy")]
    Filter(#[from] crate::filter::FilterError),
    #[error("invalid worker.oci.defaultCgroupParent")]
    CgroupParent(#[from] executor::cgroup::CgroupError),
    #[error("{given} needs {missing} too")]
    Tls {
        given: &'static str,
        missing: &'static str,
    },
    #[error("the OCI worker is switched off, and builderd has no other; leave --oci-worker=false out")]
    NoWorker,
    #[error(
        "the containerd worker is not supported; leave --containerd-worker=true out, builderd brings its own"
    )]
    Containerd,
}

/// Under which of its names the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledAs {
    Builderd,
    Buildkitd,
    Buildctl,
    Binfmt,
}

impl CalledAs {
    pub fn of(program: &Path) -> Self {
        match program.file_name().and_then(|name| name.to_str()) {
            Some("buildkitd") => Self::Buildkitd,
            Some("buildctl") => Self::Buildctl,
            Some("binfmt") => Self::Binfmt,
            _ => Self::Builderd,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Builderd => "builderd",
            Self::Buildkitd => "buildkitd",
            Self::Buildctl => "buildctl",
            Self::Binfmt => "binfmt",
        }
    }

    /// Existing set-ups look for a `buildkitd` where BuildKit puts it.
    fn folder(self) -> &'static str {
        match self {
            Self::Builderd | Self::Binfmt => "builderd",
            Self::Buildkitd | Self::Buildctl => "buildkit",
        }
    }

    fn socket(self) -> &'static str {
        match self {
            Self::Builderd | Self::Binfmt => "builderd.sock",
            Self::Buildkitd | Self::Buildctl => "buildkitd.sock",
        }
    }

    /// Where the daemon listens unless told otherwise.
    pub fn default_socket(self) -> PathBuf {
        runtime_folder().join(self.folder()).join(self.socket())
    }

    fn default_config(self) -> PathBuf {
        let name = if self == Self::Builderd {
            "builderd.toml"
        } else {
            "buildkitd.toml"
        };
        match user_folder("XDG_CONFIG_HOME", ".config") {
            Some(folder) => folder.join(self.folder()).join(name),
            None => Path::new("/etc").join(self.folder()).join(name),
        }
    }

    fn default_root(self) -> PathBuf {
        match user_folder("XDG_DATA_HOME", ".local/share") {
            Some(folder) => folder.join(self.folder()),
            None => Path::new("/var/lib").join(self.folder()),
        }
    }
}

impl Settings {
    pub fn resolve(called_as: CalledAs, flags: &Serve) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => file::read(path)?,
            None => file::read_if_there(&called_as.default_config())?,
        };
        let mut without_effect = file.without_effect();
        without_effect.extend(flags.without_effect().map(|flag| format!("--{flag}")));

        if flags.oci_worker == Some(false) || file.worker.oci.enabled == Some(false) {
            return Err(ConfigError::NoWorker);
        }
        if flags.containerd_worker == Some(true) || file.worker.containerd.enabled() {
            return Err(ConfigError::Containerd);
        }

        let addresses = first_given([&flags.addr[..], &file.grpc.address[..]]);
        let addresses = if addresses.is_empty() {
            vec![Address::Unix(called_as.default_socket())]
        } else {
            addresses
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?
        };
        let mut entitlements: Vec<Entitlement> = first_given([
            &flags.allow_insecure_entitlement[..],
            &file.insecure_entitlements[..],
        ])
        .iter()
        .map(|text| Entitlement::parse(text).ok_or_else(|| ConfigError::Entitlement(text.clone())))
        .collect::<Result<_, _>>()?;
        // Which builds may use which device is for the clients to say.
        entitlements.push(Entitlement::Device);
        let mut labels = file.worker.oci.labels.clone();
        for label in &flags.oci_worker_labels {
            let (key, value) = label
                .split_once('=')
                .ok_or_else(|| ConfigError::Label(label.clone()))?;
            labels.insert(key.to_owned(), value.to_owned());
        }
        let variable = std::env::var(STEP_LOG).unwrap_or_default();
        let log_limit = log_limit(flags.step_log_max_size, &variable).unwrap_or_else(|| {
            without_effect.push(format!("{STEP_LOG}={variable}"));
            LogLimit::default()
        });
        Ok(Self {
            addresses,
            tls: tls(flags, &file)?,
            root: flags
                .root
                .clone()
                .or_else(|| file.root.clone())
                .unwrap_or_else(|| called_as.default_root()),
            debug: flags.debug || file.is_debug(),
            executor: flags.executor,
            entitlements,
            platforms: first_given([&flags.oci_worker_platform[..], &file.worker.oci.platforms[..]])
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
            labels,
            devices: file.cdi.unwrap_or_default().devices(),
            resolver: file.dns.unwrap_or_default(),
            default_is_host: flags
                .oci_worker_net
                .as_ref()
                .or(file.worker.oci.network_mode.as_ref())
                .is_some_and(|mode| mode == arguments::HOST_NETWORK),
            cgroup_parent: cgroup_parent(&file.worker.oci)?,
            proxy_network: flags.proxy_network || file.proxy_network,
            steps_at_once: file.worker.oci.max_parallelism.and_then(NonZeroUsize::new),
            log_limit,
            collection: Collection::resolve(flags, &file.worker.oci)?,
            history: file.history.unwrap_or_default().limits(),
            provenance_folder: file
                .provenance_env_dir
                .clone()
                .unwrap_or_else(|| PathBuf::from("/etc/buildkit/provenance.d")),
            registries: file.registry,
            without_effect,
        })
    }
}

fn cgroup_parent(worker: &file::Oci) -> Result<Option<String>, ConfigError> {
    let parent = worker.default_cgroup_parent.clone();
    let parent = parent.filter(|parent| !parent.is_empty());
    parent.as_deref().map_or(Ok(()), executor::cgroup::check_parent)?;
    Ok(parent)
}

/// `None` if the variable is no number. What somebody set for another program does not keep this one from starting.
fn log_limit(flag: Option<i64>, variable: &str) -> Option<LogLimit> {
    let bytes = match (flag, variable) {
        (Some(bytes), _) => bytes,
        (None, "") => return Some(LogLimit::default()),
        (None, variable) => variable.parse().ok()?,
    };
    // Negative ones are no limit.
    Some(LogLimit(usize::try_from(bytes).unwrap_or(usize::MAX)))
}

fn tls(flags: &Serve, file: &file::File) -> Result<Option<TlsFiles>, ConfigError> {
    let pick = |flag: &Option<PathBuf>, file: &Option<PathBuf>| flag.clone().or_else(|| file.clone());
    let certificate = pick(&flags.tlscert, &file.grpc.tls.cert);
    let key = pick(&flags.tlskey, &file.grpc.tls.key);
    let authority = pick(&flags.tlscacert, &file.grpc.tls.ca);
    match (certificate, key, authority) {
        (Some(certificate), Some(key), authority) => Ok(Some(TlsFiles {
            certificate,
            key,
            authority,
        })),
        (None, None, None) => Ok(None),
        (Some(_), None, _) => Err(ConfigError::Tls {
            given: "a TLS certificate",
            missing: "its key",
        }),
        (None, Some(_), _) => Err(ConfigError::Tls {
            given: "a TLS key",
            missing: "its certificate",
        }),
        (None, None, Some(_)) => Err(ConfigError::Tls {
            given: "an authority for clients",
            missing: "a certificate and its key",
        }),
    }
}

fn first_given<const N: usize>(lists: [&[String]; N]) -> &[String] {
    lists
        .into_iter()
        .find(|list| !list.is_empty())
        .unwrap_or_default()
}

/// Where a user's daemon keeps things; `None` for root, whose folders are the system's.
fn user_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let folder = std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(below_home)))
}

fn runtime_folder() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run");
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        Some(folder) => folder.into(),
        None => std::env::temp_dir().join(format!("user-{}", rustix::process::geteuid().as_raw())),
    }
}

#[cfg(test)]
mod tests;
