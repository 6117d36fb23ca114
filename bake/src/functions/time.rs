//! Dates: RFC 3339 in, any form out.

use std::collections::BTreeMap;

use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use super::{Arguments, Fault, Function, Outcome};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("timestamp", &[], |a| {
        let now = Timestamp::from_second(a.world.now).map_err(|error| Fault::from(error.to_string()))?;
        Ok(Value::String(Moment::utc(now).rfc3339()))
    }),
    Function::new("timeadd", &["timestamp", "duration"], |a| {
        let moment = Moment::parse(&a.text(0)?).map_err(|why| Fault::of(0, why))?;
        let duration = duration(&a.text(1)?).ok_or_else(|| {
            Fault::of(
                1,
                format!(
                    "{:?} is not a valid duration, write it like 1h30m",
                    a.text(1).unwrap_or_default()
                ),
            )
        })?;
        let moved = moment
            .timestamp()
            .and_then(|timestamp| timestamp.checked_add(duration))
            .map_err(|error| Fault::of(1, error.to_string()))?;
        Ok(Value::String(Moment::at(moved, moment.offset).rfc3339()))
    }),
    Function::new("formatdate", &["format", "time"], |a| {
        let moment = Moment::parse(&a.text(1)?).map_err(|why| Fault::of(1, why))?;
        format(&a.text(0)?, &moment)
    }),
    Function::new("formattimestamp", &["format", "time"], |a| {
        let moment = match a.value(1) {
            Value::String(text) => Moment::parse(text).map_err(|why| Fault::of(1, why))?,
            Value::Number(_) => unix(a, 1)?,
            _ => {
                return Err(Fault::of(
                    1,
                    "must be a string timestamp or a unix timestamp number",
                ));
            }
        };
        let pattern = a.text(0)?;
        if pattern == "X" {
            let timestamp = moment
                .timestamp()
                .map_err(|error| Fault::of(1, error.to_string()))?;
            return Ok(Value::String(timestamp.as_second().to_string()));
        }
        format(&pattern, &moment)
    }),
    Function::new("unixtimestampparse", &["unix_timestamp"], |a| {
        let moment = unix(a, 0)?;
        let (date, time) = (moment.civil.date(), moment.civil.time());
        let week = date.iso_week_date();
        let numbers = [
            ("year", i128::from(date.year())),
            ("year_day", i128::from(date.day_of_year())),
            ("day", i128::from(date.day())),
            ("month", i128::from(date.month())),
            ("weekday", i128::from(date.weekday().to_sunday_zero_offset())),
            ("hour", i128::from(time.hour())),
            ("minute", i128::from(time.minute())),
            ("second", i128::from(time.second())),
            ("iso_year", i128::from(week.year())),
            ("iso_week", i128::from(week.week())),
        ];
        let texts = [
            ("month_name", month_name(date).to_owned()),
            ("weekday_name", weekday_name(date).to_owned()),
            ("rfc3339", moment.rfc3339()),
        ];
        let mut entries = BTreeMap::new();
        entries.extend(numbers.map(|(name, number)| (name.to_owned(), Value::int(number))));
        entries.extend(texts.map(|(name, text)| (name.to_owned(), Value::String(text))));
        Ok(Value::Object(entries))
    }),
];

/// A time of day somewhere.
struct Moment {
    civil: DateTime,
    offset: Offset,
}

impl Moment {
    fn utc(timestamp: Timestamp) -> Self {
        Self::at(timestamp, Offset::UTC)
    }

    fn at(timestamp: Timestamp, offset: Offset) -> Self {
        Self {
            civil: offset.to_datetime(timestamp),
            offset,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("\"{text}\" is not a valid RFC3339 timestamp");
        let (civil, zone) = text.split_at_checked(19).ok_or_else(invalid)?;
        if civil.as_bytes().get(10) != Some(&b'T') {
            return Err(invalid());
        }
        // Parts of seconds change nothing that can be shown.
        let zone = match zone.strip_prefix('.') {
            Some(rest) => rest.trim_start_matches(|c: char| c.is_ascii_digit()),
            None => zone,
        };
        let seconds = match zone {
            "Z" => 0,
            zone => {
                let negative = match zone.chars().next() {
                    Some('+') => false,
                    Some('-') => true,
                    _ => return Err(invalid()),
                };
                let (hours, minutes) = zone[1..].split_once(':').ok_or_else(invalid)?;
                let number = |text: &str| {
                    let digits = text.len() == 2 && text.chars().all(|c| c.is_ascii_digit());
                    digits
                        .then(|| text.parse::<i32>().ok())
                        .flatten()
                        .ok_or_else(invalid)
                };
                let seconds = number(hours)? * 3600 + number(minutes)? * 60;
                if negative { -seconds } else { seconds }
            }
        };
        Ok(Self {
            civil: civil.parse().map_err(|_| invalid())?,
            offset: Offset::from_seconds(seconds).map_err(|_| invalid())?,
        })
    }

    fn timestamp(&self) -> Result<Timestamp, jiff::Error> {
        self.offset.to_timestamp(self.civil)
    }

    fn zone(&self, separator: &str) -> String {
        let seconds = self.offset.seconds();
        let sign = if seconds < 0 { '-' } else { '+' };
        let minutes = seconds.abs() / 60;
        format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
    }

    fn rfc3339(&self) -> String {
        let zone = if self.offset.is_zero() {
            "Z".to_owned()
        } else {
            self.zone(":")
        };
        format!("{}{zone}", self.civil.strftime("%Y-%m-%dT%H:%M:%S"))
    }
}

fn unix(arguments: &Arguments<'_>, at: usize) -> Result<Moment, Fault> {
    let seconds: i64 = arguments
        .int(at)
        .map_err(|_| Fault::of(at, "unix timestamp must be an integer"))?;
    Timestamp::from_second(seconds)
        .map(Moment::utc)
        .map_err(|error| Fault::of(at, error.to_string()))
}

fn month_name(date: Date) -> &'static str {
    const NAMES: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let at = usize::try_from(date.month() - 1).unwrap_or_default();
    NAMES.get(at).copied().unwrap_or_default()
}

fn weekday_name(date: Date) -> &'static str {
    const NAMES: [&str; 7] = [
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
    ];
    let at = usize::try_from(date.weekday().to_sunday_zero_offset()).unwrap_or_default();
    NAMES.get(at).copied().unwrap_or_default()
}

/// Letters are verbs, quoted text and everything else stands for itself.
fn format(pattern: &str, moment: &Moment) -> Outcome {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if c == '\'' {
            let (text, after) = quoted(&rest[1..]).ok_or_else(|| Fault::of(0, "unterminated literal '"))?;
            out.push_str(&text);
            rest = after;
        } else if c.is_ascii_alphabetic() {
            let end = rest.find(|other| other != c).unwrap_or(rest.len());
            let (verb, after) = rest.split_at(end);
            out.push_str(&verb_text(verb, moment)?);
            rest = after;
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(Value::String(out))
}

/// Two quotes mean one.
fn quoted(mut rest: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        text.push_str(part);
        let Some(next) = after.strip_prefix('\'') else {
            return Some((text, after));
        };
        text.push('\'');
        rest = next;
    }
}

fn verb_text(verb: &str, moment: &Moment) -> Result<String, Fault> {
    let (date, time) = (moment.civil.date(), moment.civil.time());
    let twelve = (time.hour() + 11) % 12 + 1;
    let half = if time.hour() < 12 { "AM" } else { "PM" };
    let is_utc = moment.offset.is_zero();
    Ok(match verb {
        "YYYY" => format!("{:04}", date.year()),
        "YY" => format!("{:02}", date.year().rem_euclid(100)),
        "MMMM" => month_name(date).to_owned(),
        "MMM" => month_name(date)[..3].to_owned(),
        "MM" => format!("{:02}", date.month()),
        "M" => date.month().to_string(),
        "DD" => format!("{:02}", date.day()),
        "D" => date.day().to_string(),
        "EEEE" => weekday_name(date).to_owned(),
        "EEE" => weekday_name(date)[..3].to_owned(),
        "hh" => format!("{:02}", time.hour()),
        "h" => time.hour().to_string(),
        "HH" => format!("{twelve:02}"),
        "H" => twelve.to_string(),
        "AA" => half.to_owned(),
        "aa" => half.to_lowercase(),
        "mm" => format!("{:02}", time.minute()),
        "m" => time.minute().to_string(),
        "ss" => format!("{:02}", time.second()),
        "s" => time.second().to_string(),
        "ZZZZZ" => moment.zone(":"),
        "ZZZZ" => moment.zone(""),
        "ZZZ" if is_utc => "UTC".to_owned(),
        "ZZZ" => moment.zone(""),
        "Z" if is_utc => "Z".to_owned(),
        "Z" => moment.zone(":"),
        other => {
            return Err(Fault::of(
                0,
                format!("invalid date format verb \"{other}\": put literal text between single quotes"),
            ));
        }
    })
}

/// As Go writes durations: `-1h30m`, `1.5s`.
fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    SignedDuration::try_from_secs_f64(if negative { -seconds } else { seconds }).ok()
}
