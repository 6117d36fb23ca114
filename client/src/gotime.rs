//! Times and durations as Go's programs print them, so that tables read like those of buildx.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// How long ago, roughly: `3 seconds`, `About a minute`, `2 weeks`.
pub fn age(seconds: i64) -> String {
    let minutes = seconds / MINUTE;
    // Hours are rounded to the nearest, the rest is cut.
    let hours = (seconds + HOUR / 2).div_euclid(HOUR);
    match (seconds, minutes, hours) {
        (..1, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., ..48) => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / HOUR / 24 / 365),
    }
}

/// How long something took, as the lists of builds show it: `1.4s`, `2m  5s`.
pub fn took(nanoseconds: i128) -> String {
    let seconds = nanoseconds as f64 / 1e9;
    if nanoseconds < i128::from(MINUTE) * 1_000_000_000 {
        format!("{seconds:.1}s")
    } else {
        let whole = nanoseconds / 1_000_000_000;
        format!("{}m {:2}s", whole / 60, whole % 60)
    }
}

/// A duration as Go's `%v` has it: `1h0m5s`, `1.5s`, `250ms`.
pub fn duration(nanoseconds: i64) -> String {
    let magnitude = nanoseconds.unsigned_abs();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let fraction = |unit: u64| {
        let digits = format!("{:09}", (magnitude % unit) * (1_000_000_000 / unit));
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            String::new()
        } else {
            format!(".{digits}")
        }
    };
    let text = match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => format!("{magnitude}ns"),
        1_000..1_000_000 => format!("{}{}µs", magnitude / 1_000, fraction(1_000)),
        1_000_000..1_000_000_000 => format!("{}{}ms", magnitude / 1_000_000, fraction(1_000_000)),
        _ => {
            let whole = magnitude / 1_000_000_000;
            let seconds = format!("{}{}s", whole % 60, fraction(1_000_000_000));
            match (whole / 3600, whole / 60 % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// A time in UTC as Go's `%v` has it: `2024-05-01 12:00:00.25 +0000 UTC`.
pub fn time(time: Timestamp) -> String {
    let second = time.strftime("%Y-%m-%d %H:%M:%S");
    let digits = format!("{:09}", time.subsec_nanosecond().unsigned_abs());
    match digits.trim_end_matches('0') {
        "" => format!("{second} +0000 UTC"),
        digits => format!("{second}.{digits} +0000 UTC"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_rough() {
        for (seconds, text) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (125, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (14 * 24 * HOUR, "2 weeks"),
            (60 * 24 * HOUR, "2 months"),
            (800 * 24 * HOUR, "2 years"),
        ] {
            assert_eq!(age(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (65_000_000_000, "1m5s"),
            (3_605_000_000_001, "1h0m5.000000001s"),
            (-2_000_000_000, "-2s"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
        for (nanoseconds, text) in [
            (1_440_000_000, "1.4s"),
            (59_990_000_000, "60.0s"),
            (65_900_000_000, "1m  5s"),
            (3_600_000_000_000, "60m  0s"),
        ] {
            assert_eq!(took(nanoseconds), text);
        }
    }

    #[test]
    fn times_keep_only_the_fraction_they_have() {
        let at = |text: &str| time(text.parse().unwrap());
        assert_eq!(at("2024-05-01T12:00:00Z"), "2024-05-01 12:00:00 +0000 UTC");
        assert_eq!(at("2024-05-01T12:00:00.25Z"), "2024-05-01 12:00:00.25 +0000 UTC");
    }
}
