//! The configuration file: BuildKit's `buildkitd.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use registry::client::{ClientCertificate, HostConfig};
use serde::Deserialize;
use toml::Value;

use super::ConfigError;
use super::arguments::HOST_NETWORK;
use super::collection::{History, Policy, Space};
use crate::executor::Resolver;
use crate::executor::cdi::Devices;

/// Every key that BuildKit knows. Those of type [`Value`] do nothing here and are named in a warning.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    debug: bool,
    #[serde(default)]
    trace: bool,
    pub root: Option<PathBuf>,
    #[serde(default, rename = "insecure-entitlements")]
    pub insecure_entitlements: Vec<String>,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    pub grpc: Grpc,
    #[serde(default)]
    pub worker: Workers,
    #[serde(default)]
    pub registry: BTreeMap<String, RegistrySettings>,
    #[serde(default, rename = "proxyNetwork")]
    pub proxy_network: bool,
    otel: Option<Value>,
    pub cdi: Option<Cdi>,
    pub dns: Option<Resolver>,
    pub history: Option<History>,
    frontend: Option<Value>,
    system: Option<Value>,
    #[serde(rename = "provenanceEnvDir")]
    pub provenance_env_dir: Option<PathBuf>,
    cache: Option<Value>,
}

/// Devices of the machine that steps may ask for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cdi {
    #[serde(default)]
    disabled: bool,
    #[serde(default, rename = "specDirs")]
    spec_dirs: Vec<PathBuf>,
    #[serde(default, rename = "autoAllowed")]
    auto_allowed: Vec<String>,
}

impl Cdi {
    pub(super) fn devices(self) -> Devices {
        match (self.disabled, self.spec_dirs.is_empty()) {
            (true, _) => Devices::none(),
            (false, true) => Devices::default().allowing(self.auto_allowed),
            (false, false) => Devices::new(self.spec_dirs, self.auto_allowed),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    #[serde(default)]
    level: String,
    format: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grpc {
    #[serde(default)]
    pub address: Vec<String>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(rename = "debugAddress")]
    debug_address: Option<Value>,
    uid: Option<Value>,
    gid: Option<Value>,
    #[serde(rename = "securityDescriptor")]
    security_descriptor: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workers {
    #[serde(default)]
    pub oci: Oci,
    #[serde(default)]
    pub containerd: Containerd,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Oci {
    pub enabled: Option<bool>,
    #[serde(default)]
    pub platforms: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub gc: Option<bool>,
    snapshotter: Option<Value>,
    rootless: Option<Value>,
    #[serde(rename = "noProcessSandbox")]
    no_process_sandbox: Option<Value>,
    #[serde(default)]
    pub gckeepstorage: Space,
    #[serde(default, rename = "reservedSpace")]
    pub reserved_space: Space,
    #[serde(default, rename = "maxUsedSpace")]
    pub max_used_space: Space,
    #[serde(default, rename = "minFreeSpace")]
    pub min_free_space: Space,
    #[serde(default)]
    pub gcpolicy: Vec<Policy>,
    #[serde(rename = "networkMode")]
    pub network_mode: Option<String>,
    #[serde(rename = "cniConfigPath")]
    cni_config_path: Option<Value>,
    #[serde(rename = "cniBinaryPath")]
    cni_binary_path: Option<Value>,
    #[serde(rename = "cniPoolSize")]
    cni_pool_size: Option<Value>,
    #[serde(rename = "bridgeName")]
    bridge_name: Option<Value>,
    #[serde(rename = "bridgeSubnet")]
    bridge_subnet: Option<Value>,
    binary: Option<Value>,
    #[serde(rename = "proxySnapshotterPath")]
    proxy_snapshotter_path: Option<Value>,
    #[serde(rename = "defaultCgroupParent")]
    pub default_cgroup_parent: Option<String>,
    #[serde(rename = "apparmor-profile")]
    apparmor_profile: Option<Value>,
    selinux: Option<Value>,
    #[serde(rename = "max-parallelism")]
    pub max_parallelism: Option<usize>,
}

/// BuildKit's other worker: nothing of its section is used, and it must not be switched on.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Containerd {
    enabled: Option<Value>,
}

impl Containerd {
    pub(super) fn enabled(&self) -> bool {
        self.enabled == Some(Value::Boolean(true))
    }
}

/// How one registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    /// Hosts to pull from first, in this order.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Plain HTTP.
    #[serde(default)]
    pub http: bool,
    /// Without verification of the certificate.
    #[serde(default)]
    pub insecure: bool,
    /// Files with further authorities.
    #[serde(default)]
    pub ca: Vec<PathBuf>,
    /// Certificates to show to the registry.
    #[serde(default)]
    pub keypair: Vec<KeyPair>,
    #[serde(default)]
    tlsconfigdir: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    pub key: PathBuf,
    pub cert: PathBuf,
}

impl RegistrySettings {
    pub fn host(&self) -> HostConfig {
        HostConfig {
            mirrors: self.mirrors.clone(),
            plain_http: self.http.then_some(true),
            insecure: self.insecure,
            roots: self.ca.clone(),
            client_certificate: self.keypair.first().map(|pair| ClientCertificate {
                certificate: pair.cert.clone(),
                key: pair.key.clone(),
            }),
            ..HostConfig::default()
        }
    }
}

pub(super) fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|message| ConfigError::Parse {
        path: path.to_owned(),
        message,
    })
}

pub(super) fn read_if_there(path: &Path) -> Result<File, ConfigError> {
    match read(path) {
        Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(File::default())
        }
        read => read,
    }
}

pub(super) fn parse(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error| {
        let mut message = error.to_string().trim_end().to_owned();
        if let Some(known) = suggestion(error.message()) {
            message.push_str(&format!("\ndid you mean `{known}`?"));
        }
        message
    })
}

impl File {
    pub(super) fn is_debug(&self) -> bool {
        self.debug || self.trace || matches!(self.log.level.as_str(), "debug" | "trace")
    }

    pub(super) fn without_effect(&self) -> Vec<String> {
        let oci = &self.worker.oci;
        let registries = self
            .registry
            .iter()
            .filter(|(_, settings)| settings.tlsconfigdir.is_some())
            .map(|(name, _)| format!("registry.{name:?}.tlsconfigdir"));
        let network = oci.network_mode.iter().find(|mode| *mode != HOST_NETWORK);
        [
            ("otel", &self.otel),
            ("frontend", &self.frontend),
            ("system", &self.system),
            ("cache", &self.cache),
            ("log.format", &self.log.format),
            ("grpc.debugAddress", &self.grpc.debug_address),
            ("grpc.uid", &self.grpc.uid),
            ("grpc.gid", &self.grpc.gid),
            ("grpc.securityDescriptor", &self.grpc.security_descriptor),
            ("worker.oci.snapshotter", &oci.snapshotter),
            ("worker.oci.rootless", &oci.rootless),
            ("worker.oci.noProcessSandbox", &oci.no_process_sandbox),
            ("worker.oci.cniConfigPath", &oci.cni_config_path),
            ("worker.oci.cniBinaryPath", &oci.cni_binary_path),
            ("worker.oci.cniPoolSize", &oci.cni_pool_size),
            ("worker.oci.bridgeName", &oci.bridge_name),
            ("worker.oci.bridgeSubnet", &oci.bridge_subnet),
            ("worker.oci.binary", &oci.binary),
            ("worker.oci.proxySnapshotterPath", &oci.proxy_snapshotter_path),
            ("worker.oci.apparmor-profile", &oci.apparmor_profile),
            ("worker.oci.selinux", &oci.selinux),
        ]
        .into_iter()
        .filter(|(_, value)| value.is_some())
        .map(|(key, _)| key.to_owned())
        .chain(network.map(|_| "worker.oci.networkMode".to_owned()))
        .chain(registries)
        .collect()
    }
}

/// The known key that an unknown one resembles, from a message such as
/// ``unknown field `a`, expected one of `b`, `c` ``.
fn suggestion(message: &str) -> Option<&str> {
    if !message.starts_with("unknown field") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    quoted
        .map(|known| (distance(unknown, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .map(|(_, known)| known)
}

/// How many letters must be changed, added or removed.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = index;
        let mut last = index + 1;
        for (column, other) in right.iter().enumerate() {
            let above = row.get(column + 1).copied().unwrap_or(last);
            let next = (diagonal + usize::from(letter != *other))
                .min(above + 1)
                .min(last + 1);
            diagonal = above;
            if let Some(cell) = row.get_mut(column) {
                *cell = last;
            }
            last = next;
        }
        if let Some(cell) = row.last_mut() {
            *cell = last;
        }
    }
    row.last().copied().unwrap_or_default()
}
