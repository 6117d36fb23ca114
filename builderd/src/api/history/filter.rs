//! Which builds a client asks for: `status==error,startedAt>24h`.
//!
//! Parts of one filter, separated by commas, must all hold; of several filters one is enough. Times are ages
//! (`24h`) or dates; the other fields are compared as in every filter.

use std::time::SystemTime;

use proto::control::BuildHistoryRecord;
use tonic::Code;

use crate::filter::{Filter, FilterError, Value};
use crate::progress::CANCELED;

#[derive(Debug, thiserror::Error)]
pub(super) enum BadFilter {
    #[error("invalid time {0:?}: expected an age such as 24h, or a date such as 2026-01-02T15:04:05Z")]
    Time(String),
    #[error("invalid duration {0:?}: expected a text such as 1h30m")]
    Duration(String),
    #[error(transparent)]
    Part(#[from] FilterError),
}

#[derive(Debug, Default)]
pub(super) struct Filters(Vec<One>);

#[derive(Debug)]
struct One {
    numbers: Vec<Comparison>,
    rest: Filter,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Started,
    Completed,
    Duration,
}

#[derive(Debug)]
struct Comparison {
    field: Field,
    operator: &'static str,
    number: i128,
}

impl Filters {
    pub(super) fn parse(filters: &[String]) -> Result<Self, BadFilter> {
        let filters = filters.iter().filter(|filter| !filter.is_empty());
        Ok(Self(
            filters
                .map(|filter| One::parse(filter))
                .collect::<Result<_, _>>()?,
        ))
    }

    pub(super) fn match_record(&self, record: &BuildHistoryRecord) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|one| {
                one.numbers.iter().all(|number| number.matches(record))
                    && one.rest.matches(|field| value(record, field))
            })
    }
}

impl One {
    fn parse(filter: &str) -> Result<Self, BadFilter> {
        let (mut numbers, mut rest) = (Vec::new(), Vec::new());
        for part in parts(filter) {
            match Comparison::parse(&part)? {
                Some(number) => numbers.push(number),
                None => rest.push(part),
            }
        }
        let rest = if rest.is_empty() {
            Filter::default()
        } else {
            Filter::parse(&[rest.join(",")])?
        };
        Ok(Self { numbers, rest })
    }
}

impl Comparison {
    /// `None` for what is no comparison of a time.
    fn parse(part: &str) -> Result<Option<Self>, BadFilter> {
        let Some((field, operator, value)) = [">=", "<=", ">", "<"].into_iter().find_map(|operator| {
            let (field, value) = part.split_once(operator)?;
            Some((field.trim(), operator, value.trim()))
        }) else {
            return Ok(None);
        };
        let duration = || dockerfile::instruction::parse_duration(value).ok();
        let (field, number) = match field {
            "startedAt" => (Field::Started, time(value, duration())?),
            "completedAt" => (Field::Completed, time(value, duration())?),
            "duration" => {
                let duration = duration().ok_or_else(|| BadFilter::Duration(value.to_owned()))?;
                (Field::Duration, duration.into())
            }
            _ => return Ok(None),
        };
        Ok(Some(Self {
            field,
            operator,
            number,
        }))
    }

    fn matches(&self, record: &BuildHistoryRecord) -> bool {
        let nanoseconds =
            |time: &prost_types::Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let started = record.created_at.as_ref();
        let completed = record.completed_at.as_ref();
        // Times count in whole seconds.
        let number = match self.field {
            Field::Started => started.map(|time| i128::from(time.seconds)),
            Field::Completed => completed.map(|time| i128::from(time.seconds)),
            Field::Duration => started
                .zip(completed)
                .map(|(started, completed)| nanoseconds(completed) - nanoseconds(started)),
        };
        let number = number.unwrap_or(0);
        match self.operator {
            ">=" => number >= self.number,
            "<=" => number <= self.number,
            ">" => number > self.number,
            _ => number < self.number,
        }
    }
}

/// Seconds since 1970.
fn time(text: &str, age: Option<i64>) -> Result<i128, BadFilter> {
    if let Some(age) = age {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = i128::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(i128::MAX);
        return Ok((now - i128::from(age)).div_euclid(1_000_000_000));
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| BadFilter::Time(text.to_owned()))?;
    Ok(time.as_second().into())
}

/// Splits a line of comma-separated values; one that has a comma stands in quotes.
fn parts(line: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = line;
    loop {
        let mut part = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (before, after) = quoted.split_once('"').unwrap_or((quoted, ""));
                part.push_str(before);
                match after.strip_prefix('"') {
                    Some(after) => {
                        part.push('"');
                        quoted = after;
                    }
                    None => {
                        rest = after;
                        break;
                    }
                }
            }
        }
        let (before, after) = match rest.split_once(',') {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        part.push_str(before);
        parts.push(part);
        match after {
            Some(after) => rest = after,
            None => return parts,
        }
    }
}

fn value(record: &BuildHistoryRecord, field: &str) -> Value {
    match field {
        "ref" => Value::text(&*record.r#ref),
        "status" => Value::text(match (&record.completed_at, &record.error) {
            (None, _) => "running",
            (Some(_), None) => "completed",
            (Some(_), Some(error)) => {
                if error.code == i32::from(Code::Cancelled) || error.message.contains(CANCELED) {
                    "canceled"
                } else {
                    "error"
                }
            }
        }),
        "repository" => match record.frontend_attrs.get("vcs:source") {
            Some(source) => Value::text(&**source),
            None => record
                .frontend_attrs
                .get("context")
                .and_then(|context| repository(context))
                .map_or(Value::Absent, Value::text),
        },
        _ => Value::Absent,
    }
}

/// The repository of a context that is one.
fn repository(context: &str) -> Option<&str> {
    let is_remote = ["https://", "http://", "ssh://", "git://", "git@"]
        .iter()
        .any(|start| context.starts_with(start));
    let end = context.find(['#', '?']).unwrap_or(context.len());
    is_remote.then(|| &context[..end])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;
    use proto::rpc;

    use super::*;

    fn record(reference: &str, age: u64, took: Option<u64>, attribute: (&str, &str)) -> BuildHistoryRecord {
        let started = SystemTime::now() - Duration::from_secs(age);
        BuildHistoryRecord {
            r#ref: reference.to_owned(),
            frontend_attrs: BTreeMap::from([(attribute.0.to_owned(), attribute.1.to_owned())]),
            created_at: Some(started.into()),
            completed_at: took.map(|took| (started + Duration::from_secs(took)).into()),
            ..BuildHistoryRecord::default()
        }
    }

    #[test]
    fn filters_mean_what_they_mean_to_buildkit() {
        let error = |code: Code, message: &str| {
            Some(rpc::Status {
                code: code.into(),
                message: message.to_owned(),
                details: Vec::new(),
            })
        };
        const HOUR: u64 = 3600;
        let records = [
            record("old", 24 * HOUR, Some(60), ("", "")),
            record(
                "runs",
                23 * HOUR,
                None,
                ("context", "https://example.com/repo.git#main"),
            ),
            record("long", 22 * HOUR, Some(600), ("vcs:source", "testrepo")),
            BuildHistoryRecord {
                error: error(Code::Unknown, "exit code: 1"),
                ..record("failed", 10, Some(1), ("context", "."))
            },
            BuildHistoryRecord {
                error: error(Code::Cancelled, "context canceled"),
                ..record("stopped", 5, Some(1), ("", ""))
            },
        ];
        for (filters, meant) in [
            (&[][..], &["old", "runs", "long", "failed", "stopped"][..]),
            (&[""], &["old", "runs", "long", "failed", "stopped"]),
            (&["ref==old"], &["old"]),
            (&["ref~=^(old|long)$"], &["old", "long"]),
            (&["status==running"], &["runs"]),
            (&["status==error", "status==canceled"], &["failed", "stopped"]),
            (&["status==completed,duration>5m"], &["long"]),
            (&["repository==https://example.com/repo.git"], &["runs"]),
            (&["repository!=testrepo,status==completed"], &["old"]),
            (&["startedAt>1h"], &["failed", "stopped"]),
            (&["startedAt<=23h30m"], &["old"]),
            (&["startedAt<2001-01-01T00:00:00Z"], &[]),
            (&["completedAt>1h"], &["failed", "stopped"]),
            (&["\"ref~=old,|long\""], &["old", "long"]),
        ] {
            let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            // A quoted part with a comma is two parts to the language of filters.
            let Ok(parsed) = Filters::parse(&filters) else {
                assert!(filters[0].starts_with('"'));
                continue;
            };
            let found: Vec<&str> = records
                .iter()
                .filter(|record| parsed.match_record(record))
                .map(|record| record.r#ref.as_str())
                .collect();
            assert_eq!(found, meant, "{filters:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (filter, text) in [
            (
                "startedAt>yesterday",
                "invalid time \"yesterday\": expected an age such as 24h, or a date such as 2026-01-02T15:04:05Z",
            ),
            (
                "duration<x",
                "invalid duration \"x\": expected a text such as 1h30m",
            ),
            (
                "ref+foo",
                "filter \"ref+foo\": expected an operator (==, != or ~=) at character 4",
            ),
        ] {
            let error = Filters::parse(&[filter.to_owned()]).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn quotes_keep_commas_together() {
        assert_eq!(parts("a,\"b,c\",\"d\"\"e\",f\"g"), ["a", "b,c", "d\"e", "f\"g"]);
        assert_eq!(parts(""), [""]);
        assert_eq!(parts("\"open"), ["open"]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "(\\PC|[\"'\\\\=!~,<>]|startedAt|duration)*") {
            if let Ok(filters) = Filters::parse(&[text]) {
                filters.match_record(&record("a", 1, None, ("context", "é#")));
            }
        }
    }
}
