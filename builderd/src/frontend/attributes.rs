//! The attributes of a build request, read once into typed settings.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use binfmt::Platform;
use proto::pb;

use super::{CAPABILITIES, Error, Problem, Request, epoch};
use crate::executor::cgroup::is_list;

/// Where base images may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResolveMode {
    #[default]
    Default,
    ForcePull,
    PreferLocal,
}

impl ResolveMode {
    /// As the attribute of an image source.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::ForcePull => "pull",
            Self::PreferLocal => "local",
        }
    }
}

/// Which stages run whether cached or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoCache {
    Nothing,
    Everything,
    Stages(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct Attributes {
    pub(super) filename: String,
    pub(super) target: Option<String>,
    /// Never empty, no platform twice.
    pub(super) platforms: Vec<Platform>,
    pub(super) build_platform: Platform,
    pub(super) multi_platform: bool,
    pub(super) build_args: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
    /// Packages of the result will be listed.
    pub(super) scanned: bool,
    pub(super) no_cache: NoCache,
    pub(super) resolve_mode: ResolveMode,
    pub(super) extra_hosts: Vec<pb::HostIp>,
    pub(super) network: pb::NetMode,
    pub(super) hostname: String,
    pub(super) shm_size: i64,
    pub(super) ulimits: Vec<pb::Ulimit>,
    /// The cgroup that steps run below; empty for the daemon's choice.
    pub(super) cgroup_parent: String,
    /// What each step may use of the machine.
    pub(super) limits: Option<Arc<pb::LinuxResources>>,
    pub(super) cache_namespace: String,
    /// Sources by name, with `::<platform>` if they are for one only.
    pub(super) contexts: BTreeMap<String, String>,
    /// What is known of inputs besides their files.
    pub(super) input_metadata: BTreeMap<String, String>,
    /// Which rules to check, if not as the file says.
    pub(super) check: Option<String>,
    /// What `SOURCE_DATE_EPOCH` comes to, once that is known; inside nothing if what it names does not say.
    pub(super) epoch: Option<Option<i64>>,
    /// A frontend was asked for on the command line or is running already: `# syntax=` says nothing new.
    pub(super) syntax_settled: bool,
}

impl Attributes {
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        let all = &request.attributes;
        let get = |key: &str| all.get(key).map(String::as_str).filter(|value| !value.is_empty());
        refuse_unsupported(request)?;
        // Nothing can be read from these; other inputs may well be scratch.
        let empty = |name: &&str| {
            request
                .inputs
                .get(*name)
                .is_some_and(|input| input.def.is_empty())
        };
        if let Some(name) = ["context", "dockerfile"].iter().find(|name| empty(name)) {
            return Err(Problem::EmptyInput((*name).to_owned()).into());
        }
        let platforms = platforms(get("platform"), &request.build_platform)?;
        let multi_platform = match get("build-arg:BUILDKIT_MULTI_PLATFORM").or_else(|| get("multi-platform"))
        {
            None => platforms.len() > 1,
            Some(value) => boolean("multi-platform", value)?,
        };
        if platforms.len() > 1 && !multi_platform {
            return Err(Problem::SeveralPlatforms.into());
        }
        Ok(Self {
            filename: get("filename").unwrap_or("Dockerfile").to_owned(),
            target: get("target").map(str::to_owned),
            platforms,
            build_platform: request.build_platform.clone(),
            multi_platform,
            build_args: with_prefix(all, "build-arg:"),
            labels: with_prefix(all, "label:"),
            scanned: all.contains_key("attest:sbom") || all.contains_key("build-arg:BUILDKIT_ATTEST_SBOM"),
            no_cache: match all.get("no-cache").map(String::as_str) {
                None => NoCache::Nothing,
                Some("") => NoCache::Everything,
                Some(stages) => NoCache::Stages(stages.split(',').map(str::to_lowercase).collect()),
            },
            resolve_mode: match get("image-resolve-mode") {
                None | Some("default") => ResolveMode::Default,
                Some("pull") => ResolveMode::ForcePull,
                Some("local") => ResolveMode::PreferLocal,
                Some(value) => return Err(invalid("image-resolve-mode", value, "default, pull or local")),
            },
            extra_hosts: get("add-hosts").map_or(Ok(Vec::new()), extra_hosts)?,
            network: match get("force-network-mode") {
                None | Some("sandbox") => pb::NetMode::Unset,
                Some("host") => pb::NetMode::Host,
                Some("none") => pb::NetMode::None,
                Some(value) => return Err(invalid("force-network-mode", value, "none, host or sandbox")),
            },
            hostname: get("build-arg:BUILDKIT_SANDBOX_HOSTNAME")
                .or_else(|| get("hostname"))
                .unwrap_or("")
                .to_owned(),
            shm_size: get("shm-size").map_or(Ok(0), |value| number("shm-size", value))?,
            ulimits: get("ulimit").map_or(Ok(Vec::new()), ulimits)?,
            cgroup_parent: get("cgroup-parent").unwrap_or("").to_owned(),
            limits: limits(get)?,
            contexts: with_prefix(all, "context:"),
            input_metadata: with_prefix(all, "input-metadata:"),
            cache_namespace: get("build-arg:BUILDKIT_CACHE_MOUNT_NS").unwrap_or("").to_owned(),
            check: get("build-arg:BUILDKIT_DOCKERFILE_CHECK").map(str::to_owned),
            epoch: None,
            syntax_settled: all.contains_key("cmdline"),
        })
    }

    /// The same with what `SOURCE_DATE_EPOCH` comes to in place of what was given for it.
    pub(super) fn with_epoch(&self, epoch: Option<i64>) -> Self {
        let mut all = self.clone();
        if all.build_args.remove(epoch::NAME).is_some()
            && let Some(seconds) = epoch
        {
            all.build_args.insert(epoch::NAME.to_owned(), seconds.to_string());
        }
        all.epoch = Some(epoch);
        all
    }

    pub(super) fn ignores_cache(&self, stage: Option<&str>) -> bool {
        match &self.no_cache {
            NoCache::Nothing => false,
            NoCache::Everything => true,
            NoCache::Stages(stages) => stage.is_some_and(|stage| stages.iter().any(|other| other == stage)),
        }
    }
}

/// Things a request may ask for that would be wrong to pass over in silence.
fn refuse_unsupported(request: &Request) -> Result<(), Error> {
    for (key, value) in &request.attributes {
        if key == "frontend.caps" {
            let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
            // `+forward` allows another frontend to know it, but there is none behind this one.
            let mut names = names.map(|name| name.strip_suffix("+forward").unwrap_or(name));
            if let Some(unknown) = names.find(|name| !CAPABILITIES.contains(name)) {
                return Err(Problem::UnknownCapability(unknown.to_owned()).into());
            }
        }
    }
    Ok(())
}

fn with_prefix(all: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    all.iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())))
        .collect()
}

fn invalid(key: &str, value: &str, expected: &'static str) -> Error {
    Problem::Attribute {
        key: key.to_owned(),
        value: value.to_owned(),
        expected,
    }
    .into()
}

fn platforms(list: Option<&str>, build_platform: &Platform) -> Result<Vec<Platform>, Error> {
    let Some(list) = list else {
        return Ok(vec![build_platform.clone()]);
    };
    let mut platforms = Vec::new();
    for text in list.split(',') {
        let parsed: Result<Platform, _> = text.parse();
        let platform = parsed.map_err(|source| Problem::TargetPlatform {
            text: text.to_owned(),
            source,
        })?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

fn boolean(key: &str, value: &str) -> Result<bool, Error> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid(key, value, "true or false")),
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Error> {
    value.parse().map_err(|_| invalid(key, value, "a number"))
}

/// What the attributes say of memory and processors; of the numbers none may be zero.
fn limits<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Arc<pb::LinuxResources>>, Error> {
    fn positive<T: std::str::FromStr + Default + PartialOrd>(
        key: &str,
        value: Option<&str>,
    ) -> Result<T, Error> {
        let Some(value) = value else {
            return Ok(T::default());
        };
        let number = value.parse().ok().filter(|number| *number > T::default());
        number.ok_or_else(|| invalid(key, value, "a positive number"))
    }
    let list = |key: &str| match get(key) {
        Some(value) if !is_list(value) => Err(invalid(key, value, "numbers and ranges such as 0-2,4")),
        value => Ok(value.unwrap_or_default().to_owned()),
    };
    let limits = pb::LinuxResources {
        memory: positive("memory", get("memory"))?,
        memory_swap: match get("memswap") {
            Some("-1") => -1,
            value => positive("memswap", value)
                .map_err(|_| invalid("memswap", value.unwrap_or_default(), "a positive number, or -1"))?,
        },
        cpu_shares: positive("cpushares", get("cpushares"))?,
        cpu_period: positive("cpuperiod", get("cpuperiod"))?,
        cpu_quota: positive("cpuquota", get("cpuquota"))?,
        cpuset_cpus: list("cpusetcpus")?,
        cpuset_mems: list("cpusetmems")?,
    };
    Ok(Some(limits)
        .filter(|limits| *limits != pb::LinuxResources::default())
        .map(Arc::new))
}

/// `host=ip,…`
fn extra_hosts(list: &str) -> Result<Vec<pb::HostIp>, Error> {
    let entry = |entry: &str| {
        let (host, ip) = entry
            .split_once('=')
            .ok_or_else(|| invalid("add-hosts", entry, "host=ip"))?;
        let ip: IpAddr = ip.parse().map_err(|_| invalid("add-hosts", entry, "host=ip"))?;
        Ok(pb::HostIp {
            host: host.to_lowercase(),
            ip: ip.to_string(),
        })
    };
    list.split(',')
        .map(|text| text.trim_matches('"'))
        .map(entry)
        .collect()
}

/// `name=soft[:hard],…`
fn ulimits(list: &str) -> Result<Vec<pb::Ulimit>, Error> {
    let limit = |entry: &str| {
        let (name, values) = entry
            .split_once('=')
            .ok_or_else(|| invalid("ulimit", entry, "name=soft[:hard]"))?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        Ok(pb::Ulimit {
            name: name.to_owned(),
            soft: number("ulimit", soft)?,
            hard: number("ulimit", hard)?,
        })
    };
    list.split(',')
        .map(|text| text.trim_matches('"'))
        .map(limit)
        .collect()
}
