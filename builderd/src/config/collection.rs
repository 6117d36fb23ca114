//! How much the state folder may hold and for how long: `[worker.oci]`'s garbage collection, and `[history]`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use super::ConfigError;
use super::arguments::Serve;
use super::file::Oci;
use crate::filter::Filter;
use crate::store::PrunePolicy;

const GB: u64 = 1_000_000_000;
const MB: u64 = 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);

/// Bytes, or a share of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Space {
    #[default]
    Unset,
    Bytes(u64),
    Percent(u64),
}

impl Space {
    /// Of a disk with so many bytes. A share is rounded up to whole gigabytes, as BuildKit has it.
    fn bytes(self, disk: u64) -> u64 {
        match self {
            Self::Unset => 0,
            Self::Bytes(bytes) => bytes,
            // Of a disk that cannot be asked, little.
            Self::Percent(_) if disk == 0 => 2 * GB,
            Self::Percent(percent) => {
                let share = u128::from(disk) * u128::from(percent) / 100;
                let gibibytes = u64::try_from(share >> 30).unwrap_or(u64::MAX);
                gibibytes.saturating_add(1).saturating_mul(GB)
            }
        }
    }
}

/// A number with a unit of 1024, such as `10GB` or `1.5g`, or a share, such as `20%`.
fn parse_space(text: &str) -> Option<Space> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Space::Unset);
    }
    if let Some(percent) = text.strip_suffix('%') {
        return percent.parse().ok().map(Space::Percent);
    }
    let lower = text.to_ascii_lowercase();
    let end = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim().trim_end_matches('b').trim_end_matches('i');
    let power = ["", "k", "m", "g", "t", "p"]
        .iter()
        .position(|known| *known == unit)?;
    let bytes = number * 1024_f64.powi(i32::try_from(power).ok()?);
    // A float that is too large becomes the largest number.
    (bytes >= 0.0).then_some(Space::Bytes(bytes as u64))
}

impl<'de> Deserialize<'de> for Space {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Space;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of disk space such as 10GB, 20% or a number of bytes")
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<Space, E> {
                let bytes =
                    u64::try_from(bytes).map_err(|_| E::custom("an amount of disk space is negative"))?;
                Ok(if bytes == 0 {
                    Space::Unset
                } else {
                    Space::Bytes(bytes)
                })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Space, E> {
                parse_space(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// Seconds, or a text such as `48h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Age(Duration);

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Age;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 48h, or a number of seconds")
            }

            fn visit_i64<E: Error>(self, seconds: i64) -> Result<Age, E> {
                let seconds = u64::try_from(seconds).map_err(|_| E::custom("a duration is negative"))?;
                Ok(Age(Duration::from_secs(seconds)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Age, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
                if let Ok(seconds) = text.parse() {
                    return Ok(Age(Duration::from_secs(seconds)));
                }
                let nanoseconds = dockerfile::instruction::parse_duration(text).map_err(|_| wrong())?;
                let nanoseconds = u64::try_from(nanoseconds).map_err(|_| wrong())?;
                Ok(Age(Duration::from_nanos(nanoseconds)))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// The section `[history]`: what is not given protects nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    #[serde(default, rename = "maxAge")]
    max_age: Age,
    #[serde(default, rename = "maxEntries")]
    max_entries: u32,
}

impl Default for History {
    fn default() -> Self {
        Self {
            max_age: Age(48 * HOUR),
            max_entries: 50,
        }
    }
}

impl History {
    pub(super) fn limits(&self) -> HistoryLimits {
        HistoryLimits {
            max_age: self.max_age.0,
            max_entries: usize::try_from(self.max_entries).unwrap_or(usize::MAX),
        }
    }
}

/// A build record goes when it is older than this and there are so many newer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    pub max_age: Duration,
    pub max_entries: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        History::default().limits()
    }
}

/// One of `[[worker.oci.gcpolicy]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    #[serde(default)]
    all: bool,
    #[serde(default)]
    filters: Vec<String>,
    #[serde(default, rename = "keepDuration")]
    keep_duration: Age,
    /// The old name of the reserve.
    #[serde(default, rename = "keepBytes")]
    keep_bytes: Space,
    #[serde(default, rename = "reservedSpace")]
    reserved_space: Space,
    #[serde(default, rename = "maxUsedSpace")]
    max_used_space: Space,
    #[serde(default, rename = "minFreeSpace")]
    min_free_space: Space,
}

/// What is removed after builds, before the disk was looked at.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    enabled: bool,
    policies: Vec<Policy>,
    limits: Limits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    reserved: Space,
    most: Space,
    free: Space,
}

/// A policy for this machine's disk, and its filters as they were given.
#[derive(Clone, Debug, Default)]
pub struct GcPolicy {
    pub filters: Vec<String>,
    pub prune: PrunePolicy,
}

impl Collection {
    pub(super) fn resolve(flags: &Serve, file: &Oci) -> Result<Self, ConfigError> {
        let limits = match &flags.oci_worker_gc_keepstorage {
            Some(text) => keep_storage(text).ok_or_else(|| ConfigError::KeepStorage(text.clone()))?,
            None => Limits {
                reserved: file.reserved_space,
                most: file.max_used_space,
                free: file.min_free_space,
            },
        };
        let old = Limits {
            reserved: file.gckeepstorage,
            ..Limits::default()
        };
        let collection = Self {
            enabled: flags.oci_worker_gc.or(file.gc).unwrap_or(true),
            policies: file.gcpolicy.clone(),
            limits: if limits == Limits::default() { old } else { limits },
        };
        // Filters are checked now, for a disk of any size.
        collection.policies(0)?;
        Ok(collection)
    }

    /// The policies for a disk with so many bytes; none if nothing is to be collected.
    pub fn policies(&self, disk: u64) -> Result<Vec<GcPolicy>, ConfigError> {
        if !self.enabled {
            return Ok(Vec::new());
        }
        let policies = match &self.policies[..] {
            [] => self.defaults(disk),
            given => given.to_vec(),
        };
        policies.iter().map(|policy| policy.on(disk)).collect()
    }

    /// BuildKit's: first what is easily made again, then what was not used for long, then whatever is too much.
    fn defaults(&self, disk: u64) -> Vec<Policy> {
        let mut limits = self.limits;
        if limits == Limits::default() {
            let at_most = |percent: u64, bytes: u64| {
                let share = Space::Percent(percent);
                if share.bytes(disk) > bytes {
                    Space::Bytes(bytes)
                } else {
                    share
                }
            };
            limits = Limits {
                reserved: at_most(10, 10 * GB),
                most: at_most(80, 100 * GB),
                free: Space::Percent(20),
            };
        }
        let limited = Policy {
            reserved_space: limits.reserved,
            max_used_space: limits.most,
            min_free_space: limits.free,
            ..Policy::default()
        };
        vec![
            Policy {
                filters: ["source.local", "exec.cachemount", "source.git.checkout"]
                    .map(|kind| format!("type=={kind}"))
                    .to_vec(),
                keep_duration: Age(48 * HOUR),
                max_used_space: Space::Bytes(512 * MB),
                ..Policy::default()
            },
            Policy {
                keep_duration: Age(60 * 24 * HOUR),
                ..limited.clone()
            },
            limited.clone(),
            Policy { all: true, ..limited },
        ]
    }
}

impl Policy {
    fn on(&self, disk: u64) -> Result<GcPolicy, ConfigError> {
        let reserved = match self.reserved_space {
            Space::Unset => self.keep_bytes,
            given => given,
        };
        Ok(GcPolicy {
            filters: self.filters.clone(),
            prune: PrunePolicy {
                filter: Filter::parse(&self.filters)?,
                all: self.all,
                keep_duration: self.keep_duration.0,
                reserved_space: reserved.bytes(disk),
                max_used_space: self.max_used_space.bytes(disk),
                min_free_space: self.min_free_space.bytes(disk),
            },
        })
    }
}

/// `RESERVED[,FREE[,MAXIMUM]]` in megabytes.
fn keep_storage(text: &str) -> Option<Limits> {
    let mut parts = text.splitn(3, ',').map(|part| {
        let megabytes: u64 = part.trim().parse().ok()?;
        Some(Space::Bytes(megabytes.saturating_mul(MB)))
    });
    let mut next = || match parts.next() {
        Some(part) => part,
        None => Some(Space::Unset),
    };
    Some(Limits {
        reserved: next()?,
        free: next()?,
        most: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_written_as_for_buildkit() {
        for (text, space) in [
            ("", Some(Space::Unset)),
            ("20%", Some(Space::Percent(20))),
            ("512", Some(Space::Bytes(512))),
            ("1k", Some(Space::Bytes(1024))),
            ("1.5 GB", Some(Space::Bytes(3 << 29))),
            ("2gib", Some(Space::Bytes(2 << 30))),
            ("2X", None),
            ("x", None),
            ("-1", None),
            ("1.2.3", None),
        ] {
            assert_eq!(parse_space(text), space, "{text}");
        }
        assert_eq!(Space::Percent(10).bytes(0), 2 * GB);
        assert_eq!(Space::Percent(10).bytes(100 << 30), 11 * GB);
    }

    #[test]
    fn keep_storage_is_up_to_three_numbers() {
        let limits = |reserved, free, most| Some(Limits { reserved, most, free });
        let mb = |count: u64| Space::Bytes(count * MB);
        for (text, expected) in [
            ("1000", limits(mb(1000), Space::Unset, Space::Unset)),
            ("1,2", limits(mb(1), mb(2), Space::Unset)),
            ("1,2,3", limits(mb(1), mb(2), mb(3))),
            ("", None),
            ("1,", None),
            ("1,2,3,4", None),
            ("10GB", None),
        ] {
            assert_eq!(keep_storage(text), expected, "{text}");
        }
    }

    #[test]
    fn defaults_follow_the_disk() {
        let collection = Collection {
            enabled: true,
            ..Collection::default()
        };
        let limits = |disk: u64| {
            let policies = collection.policies(disk).unwrap();
            assert_eq!(policies.len(), 4);
            assert!(policies[0].prune.keep_duration == 48 * HOUR && policies[3].prune.all);
            let prune = &policies[2].prune;
            [prune.reserved_space, prune.max_used_space, prune.min_free_space]
        };
        assert_eq!(limits(50 << 30), [6 * GB, 41 * GB, 11 * GB]);
        assert_eq!(limits(1 << 40), [10 * GB, 100 * GB, 205 * GB]);
    }
}
