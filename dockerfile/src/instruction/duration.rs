//! Go's duration texts: `1h2m3.5s`, `300ms`, `-1.5h`.

use crate::parser::Problem;

const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, Problem> {
    let problem = |what| Problem::Duration {
        what,
        text: text.to_owned(),
    };
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(problem("invalid duration"));
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|ch: char| !ch.is_ascii_digit() && ch != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        if !number.contains(|ch: char| ch.is_ascii_digit()) {
            return Err(problem("invalid duration"));
        }
        let number: f64 = number.parse().map_err(|_| problem("invalid duration"))?;
        let end = after
            .find(|ch: char| ch.is_ascii_digit() || ch == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(problem("missing unit in duration"));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(problem("unknown unit in duration"));
        };
        nanoseconds += number * scale;
        rest = after;
    }
    // 2^63 nanoseconds are 292 years.
    if nanoseconds >= 9.2e18 {
        return Err(problem("invalid duration"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked above")]
    Ok((sign * nanoseconds).round() as i64)
}
