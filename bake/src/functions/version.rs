//! `semvercmp`: whether a version satisfies a constraint such as `>= 1.2, < 3`, `^1.4`, `~2.1`, `1.x || 3.0 - 3.4`.

use std::cmp::Ordering;

use super::{Arguments, Fault, Function, Outcome};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[Function::new("semvercmp", &["version", "constraint"], compare)];

fn compare(arguments: &Arguments<'_>) -> Outcome {
    let text = arguments.text(0)?;
    let version = Partial::parse(&text)
        .filter(|version| !version.wild)
        .ok_or_else(|| Fault::of(0, format!("invalid semantic version \"{text}\"")))?;
    let constraint = arguments.text(1)?;
    let mut satisfied = false;
    for alternative in constraint.split("||") {
        let parts =
            parts(alternative).ok_or_else(|| Fault::of(1, format!("improper constraint: {constraint}")))?;
        satisfied |= parts.iter().all(|part| part.allows(&version));
    }
    Ok(Value::Bool(satisfied))
}

/// A version of which the end may be missing or a wildcard.
#[derive(Clone, Debug)]
struct Partial {
    numbers: [u64; 3],
    /// How many of them were given.
    given: usize,
    wild: bool,
    pre: Vec<String>,
}

impl Partial {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split_once('+').map_or(text, |(before, _)| before);
        let (core, pre) = match text.split_once('-') {
            Some((core, pre)) => (core, pre.split('.').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        let mut version = Self {
            numbers: [0; 3],
            given: 0,
            wild: false,
            pre,
        };
        let identifier =
            |text: &String| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !version.pre.iter().all(identifier) {
            return None;
        }
        for part in core.split('.') {
            if matches!(part, "x" | "X" | "*") {
                version.wild = true;
                continue;
            }
            if version.given == 3 || version.wild {
                return None;
            }
            let digits = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
            version.numbers[version.given] = digits.then(|| part.parse().ok()).flatten()?;
            version.given += 1;
        }
        Some(version)
    }

    fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                // A release comes after what came before it.
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => {
                    let unequal = self
                        .pre
                        .iter()
                        .zip(&other.pre)
                        .map(|(a, b)| identifier_order(a, b))
                        .find(|order| order.is_ne());
                    unequal.unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
                }
            }
        })
    }

    /// The first version after all that begin with the first `count` numbers.
    fn after(&self, count: usize) -> Self {
        let mut next = Self {
            numbers: [0; 3],
            given: 3,
            wild: false,
            pre: Vec::new(),
        };
        next.numbers[..count].copy_from_slice(&self.numbers[..count]);
        if let Some(last) = next.numbers[..count].last_mut() {
            *last = last.saturating_add(1);
        }
        next
    }
}

fn identifier_order(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

#[derive(Debug)]
struct Part {
    operator: String,
    version: Partial,
}

/// All of which must hold.
fn parts(text: &str) -> Option<Vec<Part>> {
    if let Some((from, to)) = text.split_once(" - ") {
        let part = |operator: &str, text: &str| {
            Some(Part {
                operator: operator.to_owned(),
                version: Partial::parse(text.trim())?,
            })
        };
        return Some(vec![part(">=", from)?, part("<=", to)?]);
    }
    let mut parts = Vec::new();
    let mut rest = text.trim_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest
            .find(|c| !matches!(c, '=' | '!' | '<' | '>' | '~' | '^'))
            .unwrap_or(rest.len());
        let (operator, after) = rest.split_at(end);
        let after = after.trim_start();
        let end = after.find([' ', ',']).unwrap_or(after.len());
        if !matches!(
            operator,
            "" | "=" | "!=" | "<" | ">" | "<=" | "=<" | ">=" | "=>" | "~" | "~>" | "^"
        ) {
            return None;
        }
        parts.push(Part {
            operator: operator.to_owned(),
            version: Partial::parse(&after[..end])?,
        });
        rest = after[end..].trim_start_matches([' ', ',']);
    }
    (!parts.is_empty()).then_some(parts)
}

impl Part {
    fn allows(&self, version: &Partial) -> bool {
        let wanted = &self.version;
        // Versions before a release are meant only by those who name one.
        if !version.pre.is_empty() && wanted.pre.is_empty() {
            return false;
        }
        let at_least = version.order(wanted).is_ge();
        let below = |count: usize| count == 0 || version.order(&wanted.after(count)).is_lt();
        let begins = at_least && (wanted.given == 3 || below(wanted.given));
        let is_exact = wanted.given == 3;
        match self.operator.as_str() {
            "" | "=" if is_exact => version.order(wanted).is_eq(),
            "" | "=" => begins,
            "!=" if is_exact => version.order(wanted).is_ne(),
            "!=" => !begins,
            "<" => version.order(wanted).is_lt(),
            ">" if is_exact => version.order(wanted).is_gt(),
            ">" => at_least && !below(wanted.given),
            ">=" | "=>" => at_least,
            "<=" | "=<" if is_exact => version.order(wanted).is_le(),
            "<=" | "=<" => below(wanted.given),
            "~" | "~>" => at_least && below(wanted.given.min(2)),
            // Up to the first number that is not zero.
            _ => {
                let first = wanted.numbers.iter().position(|number| *number > 0);
                let count = first.map_or(wanted.given, |at| at + 1);
                at_least && below(count.min(wanted.given.max(1)).min(3))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_read_as_everywhere() {
        let satisfies = |version: &str, constraint: &str| {
            let version = Partial::parse(version).unwrap();
            constraint.split("||").any(|alternative| {
                parts(alternative)
                    .unwrap()
                    .iter()
                    .all(|part| part.allows(&version))
            })
        };
        for (version, constraint, expected) in [
            ("1.2.3", ">= 1.2, < 3", true),
            ("v1.2.3", "1.2", true),
            ("1.3.0", "1.2", false),
            ("1.2.3", "1.2.x", true),
            ("1.9.0", "^1.2", true),
            ("2.0.0", "^1.2", false),
            ("0.2.9", "^0.2.3", true),
            ("0.3.0", "^0.2.3", false),
            ("0.0.4", "^0.0.3", false),
            ("1.2.9", "~1.2.3", true),
            ("1.3.0", "~1.2.3", false),
            ("1.9.0", "~1", true),
            ("1.4.5", "1.2 - 1.4.5", true),
            ("2.0.0", "1.x || >=2", true),
            ("1.2.3-beta", ">=1.0", false),
            ("1.2.3-beta.2", ">=1.2.3-beta.1", true),
            ("1.2.3", "!=1.2.3", false),
            ("3.0.0", ">2", true),
            ("2.1.0", ">2", false),
            ("4", "*", true),
        ] {
            assert_eq!(satisfies(version, constraint), expected, "{version} {constraint}");
        }
        assert!(parts("what").is_none() && Partial::parse("1.2.3.4").is_none());
    }
}
