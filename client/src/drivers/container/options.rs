//! The options of the `docker-container` driver.

use std::collections::BTreeMap;

use bollard::models::{HostConfig, RestartPolicy, RestartPolicyNameEnum};

use crate::drivers::{CONTAINER, DriverError, switch};
use crate::size;

const KNOWN: &str = "which has image, network, memory, memory-swap, cpu-quota, cpu-period, cpu-shares, cpuset-cpus, cpuset-mems, cgroup-parent, restart-policy, env.NAME, default-load, provenance-add-gha and allow-untrusted-image";

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// An image to use in place of the one made from the local executable.
    pub image: Option<String>,
    pub network: Option<String>,
    pub environment: Vec<String>,
    pub loads_by_default: bool,
    host: HostConfig,
}

impl Options {
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, DriverError> {
        let mut parsed = Self::default();
        // Restarted with the engine, unless the user stopped it.
        parsed.host.restart_policy = Some(restart_policy("unless-stopped")?);
        for (name, value) in options {
            let host = &mut parsed.host;
            match name.as_str() {
                "image" => parsed.image = Some(value.clone()),
                "network" => parsed.network = Some(value.clone()),
                "memory" => host.memory = Some(bytes("memory", value)?),
                "memory-swap" if value == "-1" => host.memory_swap = Some(-1),
                "memory-swap" => host.memory_swap = Some(bytes("memory-swap", value)?),
                "cpu-quota" => host.cpu_quota = Some(number("cpu-quota", value)?),
                "cpu-period" => host.cpu_period = Some(number("cpu-period", value)?),
                "cpu-shares" => host.cpu_shares = Some(number("cpu-shares", value)?),
                "cpuset-cpus" => host.cpuset_cpus = Some(value.clone()),
                "cpuset-mems" => host.cpuset_mems = Some(value.clone()),
                "cgroup-parent" => host.cgroup_parent = Some(value.clone()),
                "default-load" => parsed.loads_by_default = switch("default-load", value)?,
                // What buildx adds to provenance in a GitHub workflow, which is not made here.
                "provenance-add-gha" => {
                    if switch("provenance-add-gha", value)? {
                        return Err(unsupported(
                            "provenance-add-gha",
                            value,
                            "leave it out or say false",
                        ));
                    }
                }
                // Images are not held against a policy.
                "allow-untrusted-image" => {
                    if !switch("allow-untrusted-image", value)? {
                        return Err(unsupported(
                            "allow-untrusted-image",
                            value,
                            "images are not verified, name a digest with image=NAME@DIGEST",
                        ));
                    }
                }
                "restart-policy" => host.restart_policy = Some(restart_policy(value)?),
                other => match other.strip_prefix("env.") {
                    Some(variable) if !variable.is_empty() => {
                        parsed.environment.push(format!("{variable}={value}"))
                    }
                    _ => {
                        return Err(DriverError::UnknownOption {
                            option: name.clone(),
                            driver: CONTAINER,
                            known: KNOWN,
                        });
                    }
                },
            }
        }
        Ok(parsed)
    }

    pub fn host_config(&self) -> HostConfig {
        self.host.clone()
    }
}

fn unsupported(option: &'static str, value: &str, way_out: &'static str) -> DriverError {
    DriverError::UnsupportedOption {
        option,
        value: value.to_owned(),
        way_out,
    }
}

fn bytes(option: &'static str, value: &str) -> Result<i64, DriverError> {
    size::parse(value).ok_or_else(|| DriverError::OptionValue {
        option,
        value: value.to_owned(),
        expected: "a size such as 512m or 2g",
    })
}

fn number(option: &'static str, value: &str) -> Result<i64, DriverError> {
    value.parse().map_err(|_| DriverError::OptionValue {
        option,
        value: value.to_owned(),
        expected: "a whole number",
    })
}

fn restart_policy(value: &str) -> Result<RestartPolicy, DriverError> {
    let (name, retries) = match value.split_once(':') {
        Some((name, retries)) => (name, Some(number("restart-policy", retries)?)),
        None => (value, None),
    };
    let name = match name {
        "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        _ => {
            return Err(DriverError::OptionValue {
                option: "restart-policy",
                value: value.to_owned(),
                expected: "no, always, unless-stopped or on-failure[:RETRIES]",
            });
        }
    };
    Ok(RestartPolicy {
        name: Some(name),
        maximum_retry_count: retries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<Options, DriverError> {
        Options::parse(
            &options
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    #[test]
    fn options_become_limits_of_the_container() {
        let options = parse(&[
            ("memory", "2g"),
            ("env.A", "b=c"),
            ("network", "bridge"),
            ("cpu-quota", "5"),
        ])
        .unwrap();
        assert_eq!(options.host_config().memory, Some(2 << 30));
        assert_eq!(options.host_config().cpu_quota, Some(5));
        assert_eq!(options.environment, ["A=b=c"]);
        assert_eq!(options.network.as_deref(), Some("bridge"));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (option, value) in [
            ("gpus", "all"),
            ("env.", "x"),
            ("memory", "lots"),
            ("restart-policy", "maybe"),
            ("default-load", "perhaps"),
            ("provenance-add-gha", "true"),
            ("allow-untrusted-image", "false"),
        ] {
            let error = parse(&[(option, value)]).unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
        }
    }
}
