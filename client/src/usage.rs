//! What daemons keep in their caches: asked for by `du`, removed by `prune`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use proto::control::UsageRecord;
use tonic::transport::Channel;

use crate::commands::{Context, parse_duration};
use crate::gotime;
use crate::instance::{self, Builders};
use crate::progress::units;

#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("bad format of filter \"{text}\" (expected name=value)")]
    NoValue { text: String },
    #[error("\"{key}\" filter expects only one value")]
    SeveralValues { key: String },
    #[error("conflicting filters \"until\" and \"unused-for\"")]
    Conflict,
    #[error("\"{key}\" filter expects a duration (e.g., '24h'): {reason}")]
    NoDuration { key: &'static str, reason: String },
}

/// `--filter`, as daemons take it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// All conditions as one; matches everything if it is empty.
    pub condition: String,
    /// Only what was not used for so long.
    pub unused_for: Duration,
}

impl Filters {
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, FilterError> {
        let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            let (key, value) = text.split_once('=').ok_or_else(|| FilterError::NoValue {
                text: text.to_owned(),
            })?;
            let key = key.trim().to_ascii_lowercase();
            values.entry(key).or_default().insert(value.trim().to_owned());
        }
        let mut filters = Self::default();
        if values.contains_key("until") && values.contains_key("unused-for") {
            return Err(FilterError::Conflict);
        }
        let mut conditions = Vec::new();
        for (key, values) in values {
            let mut values = values.into_iter();
            let (Some(value), None) = (values.next(), values.next()) else {
                return Err(FilterError::SeveralValues { key });
            };
            match key.as_str() {
                "until" | "unused-for" => {
                    let key = if key == "until" { "until" } else { "unused-for" };
                    filters.unused_for =
                        parse_duration(&value).map_err(|reason| FilterError::NoDuration { key, reason })?;
                }
                "id" => conditions.push(format!("id~={value}")),
                key if key.ends_with(['!', '~']) => conditions.push(format!("{key}={value}")),
                key => conditions.push(format!("{key}=={value}")),
            }
        }
        filters.condition = conditions.join(",");
        Ok(filters)
    }

    /// In nanoseconds.
    pub fn unused_for(&self) -> i64 {
        i64::try_from(self.unused_for.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// A daemon of the builder that was chosen, and its version.
#[derive(Clone, Debug)]
pub struct Daemon {
    pub channel: Channel,
    pub version: String,
}

/// The daemons of all nodes, all of which must run: a stopped one has a cache that cannot be looked at.
pub async fn daemons(context: &Context, timeout: Duration) -> anyhow::Result<Vec<Daemon>> {
    let builder = Builders::new(&context.settings)
        .find(context.builder.as_deref())
        .await?;
    let mut daemons = Vec::new();
    for loaded in instance::load(&context.settings, &builder, timeout).await {
        let node = loaded.node.name;
        let state = loaded
            .state
            .map_err(|error| anyhow::Error::from(error).context(format!("node {node} cannot be asked")))?;
        let Some(channel) = state.channel else {
            anyhow::bail!(
                "node {node} of builder \"{name}\" is {condition}: start it with `trimaran inspect {name} --bootstrap`",
                name = builder.name,
                condition = state.condition,
            );
        };
        daemons.push(Daemon {
            channel,
            version: state.info.map(|info| info.version).unwrap_or_default(),
        });
    }
    Ok(daemons)
}

/// How long ago a record was last used; empty if it never was.
pub fn last_used(record: &UsageRecord, now: Timestamp) -> String {
    let time = record
        .last_used_at
        .as_ref()
        .and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
    time.map(|time| format!("{} ago", gotime::age(now.duration_since(time).as_secs())))
        .unwrap_or_default()
}

pub fn created(record: &UsageRecord) -> String {
    let time = record.created_at.unwrap_or_default();
    Timestamp::new(time.seconds, time.nanos)
        .map(gotime::time)
        .unwrap_or_default()
}

pub fn size(record: &UsageRecord) -> String {
    units::decimal(record.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_told_in_the_words_of_daemons() {
        for (texts, condition, seconds) in [
            (&[][..], "", 0),
            (&["type=regular"], "type==regular", 0),
            (&["id=abc", "Mutable=true", "id=abc"], "id~=abc,mutable==true", 0),
            (
                &["description~=RUN", "type!=internal"],
                "description~=RUN,type!=internal",
                0,
            ),
            (&["until=24h"], "", 86400),
            (&["unused-for=1m", "shared=false"], "shared==false", 60),
        ] {
            let filters = Filters::parse(texts.iter().copied()).unwrap();
            assert_eq!(filters.condition, condition);
            assert_eq!(filters.unused_for.as_secs(), seconds);
        }
        for texts in [
            &["type"][..],
            &["type=a", "type=b"],
            &["until=1h", "unused-for=1h"],
            &["until=soon"],
        ] {
            assert!(Filters::parse(texts.iter().copied()).is_err(), "{texts:?}");
        }
    }
}
