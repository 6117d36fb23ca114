//! The frontend attributes of a build, sorted into what people ask for.

use std::collections::BTreeMap;

use binfmt::Platform;

pub type Pairs = Vec<(String, String)>;

#[derive(Debug, Default)]
pub struct Attributes {
    pub target: String,
    pub platforms: Vec<String>,
    pub keep_git_dir: bool,
    pub named_contexts: Pairs,
    pub build_args: Pairs,
    pub labels: Pairs,
    pub settings: Settings,
    /// What could not be understood.
    pub errors: Vec<String>,
}

/// How the build was set up.
#[derive(Debug, Default)]
pub struct Settings {
    pub network: String,
    pub extra_hosts: Vec<String>,
    pub hostname: String,
    pub cgroup_parent: String,
    pub image_resolve_mode: String,
    pub multi_platform: bool,
    pub no_cache: bool,
    pub no_cache_filter: Vec<String>,
    /// The other ones, in the order in which they are shown, with their title and their name in templates. All are
    /// there; most are empty.
    pub texts: Vec<Text>,
    /// Attributes that have no title.
    pub rest: Pairs,
}

#[derive(Debug)]
pub struct Text {
    pub title: &'static str,
    pub name: &'static str,
    pub value: String,
    /// The value as people read it.
    pub shown: String,
}

/// Attribute, title, name in templates.
const TEXTS: [(&str, &str, &str); 13] = [
    ("shm-size", "Shm Size", "ShmSize"),
    ("ulimit", "Resource Limits", "Ulimit"),
    ("memory", "Memory", "Memory"),
    ("memswap", "Memory Swap", "MemorySwap"),
    ("cpushares", "CPU Shares", "CPUShares"),
    ("cpuperiod", "CPU Period", "CPUPeriod"),
    ("cpuquota", "CPU Quota", "CPUQuota"),
    ("cpusetcpus", "CPUSet CPUs", "CPUSetCPUs"),
    ("cpusetmems", "CPUSet Mems", "CPUSetMems"),
    (
        "build-arg:BUILDKIT_CACHE_MOUNT_NS",
        "Cache Mount Namespace",
        "CacheMountNS",
    ),
    (
        "build-arg:BUILDKIT_DOCKERFILE_CHECK",
        "Dockerfile Check Config",
        "DockerfileCheckConfig",
    ),
    (
        "build-arg:SOURCE_DATE_EPOCH",
        "Source Date Epoch",
        "SourceDateEpoch",
    ),
    (
        "build-arg:SANDBOX_HOSTNAME",
        "Sandbox Hostname",
        "SandboxHostname",
    ),
];

/// Attributes that are shown elsewhere or not at all.
const KNOWN: [&str; 5] = ["vcs:", "build-arg:", "label:", "context:", "attest:"];

impl Attributes {
    pub fn read(mut raw: BTreeMap<String, String>) -> Self {
        let mut errors = Vec::new();
        let target = raw.remove("target").unwrap_or_default();
        let platforms = raw.remove("platform").map_or_else(Vec::new, |text| {
            let parsed: Result<Vec<Platform>, _> = text.split(',').map(str::parse).collect();
            match parsed {
                Ok(platforms) => platforms.iter().map(ToString::to_string).collect(),
                Err(error) => {
                    errors.push(format!("failed to parse {text}: ({error})"));
                    Vec::new()
                }
            }
        });
        let mut flag = |raw: &mut BTreeMap<String, String>, key: &str| {
            let text = raw.remove(key)?;
            match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
                _ => {
                    errors.push(format!("failed to parse {text}: (it is neither true nor false)"));
                    None
                }
            }
        };
        let keep_git_dir = flag(&mut raw, "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR").unwrap_or_default();
        let named_contexts = with_prefix(&raw, "context:");
        let build_args = with_prefix(&raw, "build-arg:");
        let labels = with_prefix(&raw, "label:");
        let multi_platform = flag(&mut raw, "build-arg:BUILDKIT_MULTI_PLATFORM");
        let multi_platform = flag(&mut raw, "multi-platform")
            .or(multi_platform)
            .unwrap_or_default();
        let mut take = |key: &str| raw.remove(key).unwrap_or_default();
        let (network, hostname) = (take("force-network-mode"), take("hostname"));
        let (cgroup_parent, image_resolve_mode) = (take("cgroup-parent"), take("image-resolve-mode"));
        let texts = TEXTS
            .iter()
            .map(|&(key, title, name)| {
                let value = take(key);
                let shown = match name {
                    "Memory" | "MemorySwap" => human_bytes(&value),
                    _ => value.clone(),
                };
                Text {
                    title,
                    name,
                    value,
                    shown,
                }
            })
            .collect();
        let extra_hosts = raw.remove("add-hosts").map_or_else(Vec::new, |text| {
            text.split(',')
                .map(|field| field.trim_matches('"').to_owned())
                .collect()
        });
        let no_cache = raw.remove("no-cache");
        let settings = Settings {
            network,
            extra_hosts,
            hostname,
            cgroup_parent,
            image_resolve_mode,
            multi_platform,
            no_cache: no_cache.as_ref().is_some_and(String::is_empty),
            no_cache_filter: no_cache
                .iter()
                .filter(|stages| !stages.is_empty())
                .flat_map(|stages| stages.split(',').map(str::to_owned))
                .collect(),
            texts,
            rest: raw
                .into_iter()
                .filter(|(key, _)| !KNOWN.iter().any(|known| key.starts_with(known)))
                .collect(),
        };
        Self {
            target,
            platforms,
            keep_git_dir,
            named_contexts,
            build_args,
            labels,
            settings,
            errors,
        }
    }
}

fn with_prefix(raw: &BTreeMap<String, String>, prefix: &str) -> Pairs {
    raw.iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())))
        .collect()
}

/// A number of bytes with a unit; anything else, such as -1 for no limit, as it is.
fn human_bytes(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(count) if count >= 0 => crate::progress::units::binary(count),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_sorted_into_what_they_mean() {
        let raw = [
            ("platform", "linux/arm64/v8,linux/amd64"),
            ("build-arg:A", "1"),
            ("build-arg:BUILDKIT_MULTI_PLATFORM", "x"),
            ("label:l", "2"),
            ("context:base", "target:base"),
            ("no-cache", "one,two"),
            ("memory", "1073741824"),
            ("memswap", "-1"),
            ("unheard", "of"),
            ("vcs:source", "elsewhere"),
        ];
        let raw = raw
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let attributes = Attributes::read(raw);
        assert_eq!(attributes.platforms, ["linux/arm64", "linux/amd64"]);
        assert_eq!(attributes.build_args.len(), 2);
        assert_eq!(attributes.errors.len(), 1);
        assert_eq!(attributes.settings.no_cache_filter, ["one", "two"]);
        assert_eq!(
            attributes.settings.rest,
            [("unheard".to_owned(), "of".to_owned())]
        );
        let shown = |name| {
            let mut texts = attributes.settings.texts.iter();
            texts.find(|text| text.name == name).unwrap().shown.clone()
        };
        assert_eq!(
            (shown("Memory"), shown("MemorySwap")),
            ("1GiB".to_owned(), "-1".to_owned())
        );
    }
}
