//! What one step may use of memory and processors, and what that is in the files of either kind of cgroups.

/// Zero and empty stand for no limit of that kind; where it says so, -1 lifts one that would be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In bytes, or -1.
    pub memory: i64,
    /// Of memory and swap together, in bytes, or -1.
    pub memory_swap: i64,
    /// Weight among others, 1024 being the usual one.
    pub cpu_shares: u64,
    /// In microseconds, as is the quota that may be used of it.
    pub cpu_period: u64,
    /// Or -1.
    pub cpu_quota: i64,
    /// Lists of numbers such as `0-2,4`.
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid limit {name}={value} of a step: expected {expected}")]
pub struct LimitError {
    name: &'static str,
    value: String,
    expected: &'static str,
}

/// One file of a cgroup, and what is written to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) file: &'static str,
    pub(super) value: String,
}

/// The kernel's own, which a quota without a period is of.
const DEFAULT_PERIOD: u64 = 100_000;

/// Bounds of shares, and of the weight that takes their place.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
const WEIGHT: std::ops::RangeInclusive<u64> = 1..=10_000;

impl Limits {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn check(&self) -> Result<(), LimitError> {
        let refuse = |name, value: String, expected| {
            Err(LimitError {
                name,
                value,
                expected,
            })
        };
        let amounts = [
            ("memory", self.memory),
            ("memswap", self.memory_swap),
            ("cpuquota", self.cpu_quota),
        ];
        if let Some((name, value)) = amounts.into_iter().find(|(_, value)| *value < -1) {
            return refuse(name, value.to_string(), "a positive number, or -1 for no limit");
        }
        if self.memory_swap > 0 && self.memory_swap < self.memory.max(1) {
            let expected = "at least as much as memory, which it includes";
            return refuse("memswap", self.memory_swap.to_string(), expected);
        }
        if self.memory_swap > 0 && self.memory <= 0 {
            let expected = "a limit of memory beside it";
            return refuse("memswap", self.memory_swap.to_string(), expected);
        }
        for (name, list) in [
            ("cpusetcpus", &self.cpuset_cpus),
            ("cpusetmems", &self.cpuset_mems),
        ] {
            if !is_list(list) {
                return refuse(name, format!("{list:?}"), "numbers and ranges such as 0-2,4");
            }
        }
        Ok(())
    }

    /// For the old hierarchies, in the order in which the kernel takes them.
    pub(super) fn split(&self) -> Vec<Setting> {
        let number = |controller, file, value: i64| {
            (value != 0).then(|| Setting {
                controller,
                file,
                value: value.to_string(),
            })
        };
        let count = |controller, file, value: u64| {
            (value != 0).then(|| Setting {
                controller,
                file,
                value: value.to_string(),
            })
        };
        [
            number("memory", "memory.limit_in_bytes", self.memory),
            number("memory", "memory.memsw.limit_in_bytes", self.memory_swap),
            count("cpu", "cpu.shares", self.cpu_shares),
            count("cpu", "cpu.cfs_period_us", self.cpu_period),
            number("cpu", "cpu.cfs_quota_us", self.cpu_quota),
        ]
        .into_iter()
        .flatten()
        .chain(self.sets())
        .collect()
    }

    /// For the one hierarchy of cgroup2.
    pub(super) fn unified(&self) -> Vec<Setting> {
        let set = |controller, file, value: Option<String>| {
            value.map(|value| Setting {
                controller,
                file,
                value,
            })
        };
        let amount = |value: i64| match value {
            0 => None,
            -1 => Some("max".to_owned()),
            value => Some(value.to_string()),
        };
        // There it is swap alone.
        let swap = match (self.memory, self.memory_swap) {
            (-1, 0) => -1,
            (_, swap @ (0 | -1)) => swap,
            (memory, both) => both - memory.max(0),
        };
        let swap = match self.memory_swap > 0 && swap == 0 {
            true => Some("0".to_owned()),
            false => amount(swap),
        };
        let period = match self.cpu_period {
            0 => DEFAULT_PERIOD,
            period => period,
        };
        let bandwidth = match (self.cpu_quota, self.cpu_period) {
            (0, 0) => None,
            (0 | -1, _) => Some(format!("max {period}")),
            (quota, _) => Some(format!("{quota} {period}")),
        };
        [
            set("memory", "memory.max", amount(self.memory)),
            set("memory", "memory.swap.max", swap),
            set(
                "cpu",
                "cpu.weight",
                (self.cpu_shares != 0).then(|| weight(self.cpu_shares).to_string()),
            ),
            set("cpu", "cpu.max", bandwidth),
        ]
        .into_iter()
        .flatten()
        .chain(self.sets())
        .collect()
    }

    /// The same in both.
    fn sets(&self) -> impl Iterator<Item = Setting> {
        let set = |file, list: &str| {
            (!list.is_empty()).then(|| Setting {
                controller: "cpuset",
                file,
                value: list.to_owned(),
            })
        };
        [
            set("cpuset.cpus", &self.cpuset_cpus),
            set("cpuset.mems", &self.cpuset_mems),
        ]
        .into_iter()
        .flatten()
    }
}

/// Whether a text is a list of numbers and ranges, or empty.
pub fn is_list(text: &str) -> bool {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten()
    };
    let part = |part: &str| match part.split_once('-') {
        Some((first, last)) => match (number(first), number(last)) {
            (Some(first), Some(last)) => first <= last,
            _ => false,
        },
        None => number(part).is_some(),
    };
    text.is_empty() || text.split(',').all(|each| part(each.trim()))
}

/// What shares are as a weight, as runc has it: a curve through the bounds of both and through their defaults.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "both are small positive numbers"
)]
fn weight(shares: u64) -> u64 {
    if shares <= *SHARES.start() {
        return *WEIGHT.start();
    }
    if shares >= *SHARES.end() {
        return *WEIGHT.end();
    }
    let bits = (shares as f64).log2();
    let exponent = (bits * bits + 125.0 * bits) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(settings: &[Setting]) -> Vec<String> {
        let line = |setting: &Setting| format!("{}={}", setting.file, setting.value);
        settings.iter().map(line).collect()
    }

    #[test]
    fn limits_become_files() {
        let all = Limits {
            memory: 100,
            memory_swap: 150,
            cpu_shares: 1024,
            cpu_period: 50_000,
            cpu_quota: 25_000,
            cpuset_cpus: "0-1".into(),
            cpuset_mems: "0".into(),
        };
        all.check().unwrap();
        assert_eq!(
            shown(&all.split()),
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=150",
                "cpu.shares=1024",
                "cpu.cfs_period_us=50000",
                "cpu.cfs_quota_us=25000",
                "cpuset.cpus=0-1",
                "cpuset.mems=0"
            ]
        );
        assert_eq!(
            shown(&all.unified()),
            [
                "memory.max=100",
                "memory.swap.max=50",
                "cpu.weight=100",
                "cpu.max=25000 50000",
                "cpuset.cpus=0-1",
                "cpuset.mems=0"
            ]
        );
        assert!(Limits::default().is_empty() && Limits::default().unified().is_empty());
    }

    #[test]
    fn what_is_left_open_is_left_to_the_kernel() {
        for (limits, files) in [
            (
                Limits {
                    memory: -1,
                    ..Limits::default()
                },
                &["memory.max=max", "memory.swap.max=max"][..],
            ),
            (
                Limits {
                    memory: 7,
                    memory_swap: -1,
                    ..Limits::default()
                },
                &["memory.max=7", "memory.swap.max=max"],
            ),
            (
                Limits {
                    memory: 7,
                    memory_swap: 7,
                    ..Limits::default()
                },
                &["memory.max=7", "memory.swap.max=0"],
            ),
            (
                Limits {
                    cpu_quota: 5000,
                    ..Limits::default()
                },
                &["cpu.max=5000 100000"],
            ),
            (
                Limits {
                    cpu_period: 5000,
                    ..Limits::default()
                },
                &["cpu.max=max 5000"],
            ),
            (
                Limits {
                    cpu_quota: -1,
                    ..Limits::default()
                },
                &["cpu.max=max 100000"],
            ),
        ] {
            limits.check().unwrap();
            assert_eq!(shown(&limits.unified()), files);
        }
    }

    #[test]
    fn shares_become_weights_within_bounds() {
        let weights = [0, 2, 1024, 2048, 262_144, u64::MAX].map(weight);
        assert_eq!(weights, [1, 1, 100, 174, 10_000, 10_000]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (limits, refusal) in [
            (
                Limits {
                    memory: -2,
                    ..Limits::default()
                },
                "invalid limit memory=-2 of a step: expected a positive number, or -1 for no limit",
            ),
            (
                Limits {
                    memory: 9,
                    memory_swap: 8,
                    ..Limits::default()
                },
                "invalid limit memswap=8 of a step: expected at least as much as memory, which it includes",
            ),
            (
                Limits {
                    memory_swap: 8,
                    ..Limits::default()
                },
                "invalid limit memswap=8 of a step: expected a limit of memory beside it",
            ),
            (
                Limits {
                    cpuset_cpus: "0\n1".into(),
                    ..Limits::default()
                },
                "invalid limit cpusetcpus=\"0\\n1\" of a step: expected numbers and ranges such as 0-2,4",
            ),
        ] {
            assert_eq!(limits.check().unwrap_err().to_string(), refusal);
        }
        for list in ["0", "0-3", "0,2, 4-5", ""] {
            assert!(is_list(list), "{list}");
        }
        for list in ["a", "3-1", "-1", "1-", "+1", "0,,1", "99999999999", "0\u{0}"] {
            assert!(!is_list(list), "{list:?}");
        }
    }
}
