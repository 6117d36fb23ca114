//! `--filter` of `history ls`: told to the daemon in its own syntax, and applied here as well for daemons that do not
//! know filters.

use jiff::Timestamp;
use proto::control::BuildHistoryRecord;

use super::{HistoryError, timestamp};
use crate::commands::parse_duration;

/// The longest come first: `<=` begins like `<`.
const OPERATORS: [&str; 6] = ["!=", "<=", ">=", "=", "<", ">"];

/// One condition on a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    key: Key,
    operator: &'static str,
    value: Value,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Ref,
    Repository,
    Status,
    StartedAt,
    CompletedAt,
    Duration,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    /// Seconds since the epoch.
    Time(i64),
    Nanoseconds(i128),
}

impl Filter {
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, HistoryError> {
        let wrong = |reason: String| HistoryError::Filter {
            text: text.to_owned(),
            reason,
        };
        let (at, operator) = OPERATORS
            .iter()
            .filter_map(|operator| Some((text.find(operator)?, *operator)))
            .min_by_key(|(at, operator)| (*at, std::cmp::Reverse(operator.len())))
            .ok_or_else(|| wrong("write KEY=VALUE, KEY!=VALUE or KEY>VALUE".to_owned()))?;
        let (key, value) = (&text[..at], &text[at + operator.len()..]);
        let key = match key {
            "ref" => Key::Ref,
            "repository" => Key::Repository,
            "status" => Key::Status,
            "startedAt" => Key::StartedAt,
            "completedAt" => Key::CompletedAt,
            "duration" => Key::Duration,
            other => {
                return Err(wrong(format!(
                    "\"{other}\" is not supported, use ref, repository, status, startedAt, completedAt or duration"
                )));
            }
        };
        let is_equality = matches!(operator, "=" | "!=");
        let value = match key {
            Key::Ref | Key::Repository | Key::Status if is_equality => Value::Text(value.to_owned()),
            Key::Ref | Key::Repository | Key::Status => {
                return Err(wrong("compare it with = or !=".to_owned()));
            }
            _ if is_equality => return Err(wrong("compare it with <, <=, > or >=".to_owned())),
            Key::Duration => {
                let duration = parse_duration(value).map_err(wrong)?;
                Value::Nanoseconds(i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX))
            }
            Key::StartedAt | Key::CompletedAt => Value::Time(point_in_time(value, now).ok_or_else(|| {
                wrong(format!(
                    "\"{value}\" is neither an age like 24h nor a time like 2025-01-31T12:00:00Z"
                ))
            })?),
        };
        Ok(Self {
            key,
            operator,
            value,
            text: text.to_owned(),
        })
    }

    /// As daemons write it.
    pub fn for_daemon(&self) -> String {
        let name = match self.key {
            Key::Ref => "ref",
            Key::Repository => "repository",
            Key::Status => "status",
            Key::StartedAt => "startedAt",
            Key::CompletedAt => "completedAt",
            Key::Duration => "duration",
        };
        let operator = match (self.operator, self.key) {
            ("=", Key::Status) => "==",
            ("=", _) => "~=",
            (other, _) => other,
        };
        let value = &self.text[name.len() + self.operator.len()..];
        format!("{name}{operator}{value}")
    }

    pub fn matches(&self, record: &BuildHistoryRecord) -> bool {
        match &self.value {
            Value::Text(wanted) => {
                let found = match self.key {
                    Key::Ref => record.r#ref.clone(),
                    Key::Repository => repository(record),
                    _ => status(record).to_owned(),
                };
                match (self.operator, self.key) {
                    ("!=", _) => found != *wanted,
                    (_, Key::Status) => found == *wanted,
                    _ => found.contains(wanted.as_str()),
                }
            }
            Value::Time(wanted) => {
                let time = match self.key {
                    Key::StartedAt => &record.created_at,
                    _ => &record.completed_at,
                };
                let seconds = time.as_ref().map_or(0, |time| time.seconds);
                self.compares(seconds.into(), (*wanted).into())
            }
            Value::Nanoseconds(wanted) => self.compares(duration(record).unwrap_or_default(), *wanted),
        }
    }

    fn compares(&self, found: i128, wanted: i128) -> bool {
        match self.operator {
            ">=" => found >= wanted,
            "<=" => found <= wanted,
            ">" => found > wanted,
            _ => found < wanted,
        }
    }
}

/// All conditions as one: a line of comma-separated values.
pub fn line_for_daemon(filters: &[Filter]) -> Option<String> {
    let fields: Vec<String> = filters
        .iter()
        .map(|filter| {
            let text = filter.for_daemon();
            if text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') {
                format!("\"{}\"", text.replace('"', "\"\""))
            } else {
                text
            }
        })
        .collect();
    (!fields.is_empty()).then(|| fields.join(","))
}

/// An age, or a time.
fn point_in_time(text: &str, now: Timestamp) -> Option<i64> {
    if let Ok(age) = parse_duration(text) {
        return now.as_second().checked_sub(i64::try_from(age.as_secs()).ok()?);
    }
    Some(text.parse::<Timestamp>().ok()?.as_second())
}

fn repository(record: &BuildHistoryRecord) -> String {
    let attributes = &record.frontend_attrs;
    match (attributes.get("vcs:source"), attributes.get("context")) {
        (Some(source), _) => source.clone(),
        (None, Some(context)) => super::name::git_remote(context).unwrap_or_default(),
        (None, None) => String::new(),
    }
}

fn status(record: &BuildHistoryRecord) -> &'static str {
    match (&record.completed_at, &record.error) {
        (None, _) => "running",
        (Some(_), None) => "completed",
        (Some(_), Some(error)) if error.message.contains("context canceled") => "canceled",
        (Some(_), Some(_)) => "error",
    }
}

/// Nanoseconds from start to end.
pub fn duration(record: &BuildHistoryRecord) -> Option<i128> {
    let start = timestamp(record.created_at.as_ref()?)?;
    let end = timestamp(record.completed_at.as_ref()?)?;
    Some(end.as_nanosecond() - start.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2025-01-31T12:00:00Z".parse().unwrap()
    }

    fn record() -> BuildHistoryRecord {
        let time = |seconds| {
            Some(prost_types::Timestamp {
                seconds: now().as_second() + seconds,
                nanos: 0,
            })
        };
        BuildHistoryRecord {
            r#ref: "abcdef".to_owned(),
            frontend_attrs: [("vcs:source".to_owned(), "https://example.org/r.git".to_owned())].into(),
            created_at: time(-3600),
            completed_at: time(-3500),
            ..BuildHistoryRecord::default()
        }
    }

    #[test]
    fn filters_match_and_are_translated() {
        for (text, daemon, matches) in [
            ("status=completed", "status==completed", true),
            ("status=error", "status==error", false),
            ("status!=error", "status!=error", true),
            ("ref=bcd", "ref~=bcd", true),
            ("repository=example.org", "repository~=example.org", true),
            ("startedAt>2h", "startedAt>2h", true),
            ("startedAt>30m", "startedAt>30m", false),
            (
                "completedAt<=2025-01-31T11:01:40Z",
                "completedAt<=2025-01-31T11:01:40Z",
                true,
            ),
            ("duration>=100s", "duration>=100s", true),
            ("duration<1m30s", "duration<1m30s", false),
        ] {
            let filter = Filter::parse(text, now()).unwrap();
            assert_eq!(filter.for_daemon(), daemon);
            assert_eq!(filter.matches(&record()), matches, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        for text in [
            "",
            "status",
            "status>x",
            "duration=3s",
            "duration>soon",
            "startedAt<yesterday",
            "color=red",
        ] {
            assert!(Filter::parse(text, now()).is_err(), "{text}");
        }
    }

    #[test]
    fn several_filters_are_one_line() {
        let filters: Vec<Filter> = ["status=error", "ref=a,b"]
            .iter()
            .map(|text| Filter::parse(text, now()).unwrap())
            .collect();
        assert_eq!(line_for_daemon(&filters).unwrap(), "status==error,\"ref~=a,b\"");
        assert_eq!(line_for_daemon(&[]), None);
    }
}
