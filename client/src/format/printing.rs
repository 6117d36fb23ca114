//! Values as Go's `%v` prints them.

use jiff::{SignedDuration, Timestamp, tz::Offset};

use super::data::{Data, Nil};

/// What `{{.}}` prints.
pub fn printed(data: &Data) -> String {
    match data {
        Data::Nil(Nil::Any) => "<no value>".to_owned(),
        other => plain(other),
    }
}

/// What `%v` prints.
pub fn plain(data: &Data) -> String {
    let mut text = String::new();
    write(&mut text, data, false);
    text
}

/// What `%+v` prints: with the names of fields.
pub fn named(data: &Data) -> String {
    let mut text = String::new();
    write(&mut text, data, true);
    text
}

/// What `print` makes of several values: a space between two of which neither is a text.
pub fn print_all(values: &[Data]) -> String {
    let mut text = String::new();
    let mut after_text = true;
    for value in values {
        let is_text = matches!(value, Data::Text(_));
        if !after_text && !is_text {
            text.push(' ');
        }
        after_text = is_text;
        write(&mut text, value, false);
    }
    text
}

fn write(text: &mut String, data: &Data, names: bool) {
    match data {
        Data::Nil(Nil::Any | Nil::Pointer) => text.push_str("<nil>"),
        Data::Nil(Nil::List) => text.push_str("[]"),
        Data::Nil(Nil::Map) => text.push_str("map[]"),
        Data::Flag(value) => text.push_str(if *value { "true" } else { "false" }),
        Data::Int(number) => text.push_str(&number.to_string()),
        Data::Float(number) => text.push_str(&float(*number)),
        Data::Text(value) => text.push_str(value),
        Data::Time(value) => text.push_str(&time(value)),
        Data::List(items) => {
            text.push('[');
            for (position, item) in items.iter().enumerate() {
                space(text, position);
                write(text, item, names);
            }
            text.push(']');
        }
        Data::Map(map) => {
            text.push_str("map[");
            for (position, (key, value)) in map.entries.iter().enumerate() {
                space(text, position);
                text.push_str(key);
                text.push(':');
                write(text, value, names);
            }
            text.push(']');
        }
        Data::Record(record) => {
            text.push('{');
            let fields = record.fields.iter().filter(|field| !field.name.is_empty());
            for (position, field) in fields.enumerate() {
                space(text, position);
                if names {
                    text.push_str(field.name);
                    text.push(':');
                }
                write(text, &field.value, names);
            }
            text.push('}');
        }
    }
}

fn space(text: &mut String, position: usize) {
    if position > 0 {
        text.push(' ');
    }
}

/// The shortest form that reads back as the same number, with an exponent where Go has one.
pub fn float(number: f64) -> String {
    float_with_exponent(number, |exponent| !(-4..6).contains(&exponent))
}

/// JSON has exponents only far from one.
pub fn json_float(number: f64) -> String {
    let text = float_with_exponent(number, |exponent| !(-6..21).contains(&exponent));
    // 1e-07 is 1e-7 in JSON.
    match text.split_once("e-0") {
        Some((digits, exponent)) => format!("{digits}e-{exponent}"),
        None => text,
    }
}

fn float_with_exponent(number: f64, has_exponent: impl Fn(i32) -> bool) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if number != 0.0 && has_exponent(exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{number}")
}

/// `2024-01-31 12:00:00.5 +0000 UTC`; what is no time is printed as it is.
fn time(text: &str) -> String {
    let Ok(moment) = text.parse::<Timestamp>() else {
        return text.to_owned();
    };
    let offset = offset_of(text);
    let local = offset.to_datetime(moment);
    let mut fraction = format!("{:09}", local.subsec_nanosecond());
    fraction.truncate(fraction.trim_end_matches('0').len());
    let point = if fraction.is_empty() { "" } else { "." };
    let seconds = offset.seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    let zone = format!("{sign}{:02}{:02}", minutes / 60, minutes % 60);
    let name = if text.ends_with(['Z', 'z']) { "UTC" } else { &zone };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{point}{fraction} {zone} {name}",
        local.year(),
        local.month(),
        local.day(),
        local.hour(),
        local.minute(),
        local.second(),
    )
}

/// The zone that a time was written in.
fn offset_of(text: &str) -> Offset {
    let written = text.len().checked_sub(6).and_then(|at| text.get(at..));
    let parsed = written.and_then(|zone| {
        let sign = match zone.as_bytes().first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let (hours, minutes) = zone.get(1..)?.split_once(':')?;
        let minutes: i64 = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
        Offset::UTC
            .checked_add(SignedDuration::from_mins(sign * minutes))
            .ok()
    });
    parsed.unwrap_or(Offset::UTC)
}

#[cfg(test)]
mod tests {
    use super::super::data::{field, map, record};
    use super::*;

    #[test]
    fn values_print_as_in_go() {
        let data = record(
            "T",
            [
                field("A", "a", "x"),
                field("B", "b", Data::list([1_i64, 2])),
                field("C", "c", map([("k", "v")], Data::from(""))),
                field("D", "d", Data::Nil(Nil::Pointer)),
                field("E", "e", Data::Nil(Nil::List)),
            ],
        );
        assert_eq!(plain(&data), "{x [1 2] map[k:v] <nil> []}");
        assert_eq!(named(&data), "{A:x B:[1 2] C:map[k:v] D:<nil> E:[]}");
        assert_eq!(printed(&Data::Nil(Nil::Any)), "<no value>");
    }

    #[test]
    fn numbers_print_as_in_go() {
        for (number, go, json) in [
            (0.0, "0", "0"),
            (5.0, "5", "5"),
            (0.5, "0.5", "0.5"),
            (123_456.0, "123456", "123456"),
            (1_234_567.0, "1.234567e+06", "1234567"),
            (1e21, "1e+21", "1e+21"),
            (1e-7, "1e-07", "1e-7"),
            (0.00001, "1e-05", "0.00001"),
        ] {
            assert_eq!(float(number), go);
            assert_eq!(json_float(number), json);
        }
    }

    #[test]
    fn times_print_as_in_go() {
        for (text, expected) in [
            ("2024-01-31T12:00:00Z", "2024-01-31 12:00:00 +0000 UTC"),
            ("2024-01-31T12:00:00.120Z", "2024-01-31 12:00:00.12 +0000 UTC"),
            ("2024-01-31T12:00:00+05:30", "2024-01-31 12:00:00 +0530 +0530"),
            ("no time", "no time"),
        ] {
            assert_eq!(time(text), expected);
        }
    }
}
