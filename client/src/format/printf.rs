//! `printf`, with Go's verbs and flags.

use super::data::Data;
use super::printing;

/// Wider is taken for a mistake, as Go does.
const WIDEST: usize = 1_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    zero: bool,
    space: bool,
    width: usize,
    precision: Option<usize>,
}

pub fn format(format: &str, values: &[Data]) -> String {
    let mut text = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let (spec, after) = spec(after);
        let mut characters = after.chars();
        match characters.next() {
            None => text.push_str("%!(NOVERB)"),
            Some('%') => text.push('%'),
            Some(verb) if spec.width > WIDEST || spec.precision.is_some_and(|count| count > WIDEST) => {
                text.push_str("%!(BADWIDTH)");
                if let Some(value) = values.next() {
                    text.push_str(&formatted(value, verb, Spec::default()));
                }
            }
            Some(verb) => match values.next() {
                Some(value) => text.push_str(&formatted(value, verb, spec)),
                None => text.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
        rest = characters.as_str();
    }
    text.push_str(rest);
    let extra: Vec<String> = values
        .map(|value| format!("{}={}", value.type_name(), printing::plain(value)))
        .collect();
    if !extra.is_empty() {
        text.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    text
}

/// What stands between `%` and the verb.
fn spec(text: &str) -> (Spec, &str) {
    let mut spec = Spec::default();
    let mut rest = text;
    while let Some(flag) = rest.chars().next() {
        match flag {
            '-' => spec.minus = true,
            '+' => spec.plus = true,
            '#' => spec.sharp = true,
            '0' => spec.zero = true,
            ' ' => spec.space = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    (spec.width, rest) = number(rest);
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = number(after);
        spec.precision = Some(precision);
        rest = after;
    }
    (spec, rest)
}

fn number(text: &str) -> (usize, &str) {
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let number = if digits.is_empty() {
        0
    } else {
        digits.parse().unwrap_or(usize::MAX)
    };
    (number, rest)
}

fn formatted(value: &Data, verb: char, spec: Spec) -> String {
    let text = match (verb, value) {
        ('T', value) => value.type_name().to_owned(),
        // Verbs reach into lists.
        (verb, Data::List(items)) if verb != 'v' => {
            let items: Vec<String> = items.iter().map(|item| formatted(item, verb, spec)).collect();
            return format!("[{}]", items.join(" "));
        }
        ('v', value) if spec.plus => printing::named(value),
        ('v', Data::Text(text)) if spec.sharp => format!("{text:?}"),
        ('v', Data::Int(number)) => return padded_number(&number.to_string(), spec),
        ('v', value) => printing::plain(value),
        ('s', Data::Text(text)) => cut(text, spec.precision),
        ('s', Data::Time(_)) => printing::plain(value),
        ('q', Data::Text(text)) => quoted(&cut(text, spec.precision)),
        ('x', Data::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('X', Data::Text(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
        ('t', Data::Flag(value)) => value.to_string(),
        ('d' | 'b' | 'o' | 'x' | 'X', Data::Int(number)) => {
            return padded_number(&integer(*number, verb, spec), spec);
        }
        ('c', Data::Int(number)) => character(*number).to_string(),
        ('q', Data::Int(number)) => format!("{:?}", character(*number)),
        ('U', Data::Int(number)) => format!("U+{number:04X}"),
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Data::Float(number)) => {
            return padded_number(&float(*number, verb, spec), spec);
        }
        (verb, value) => format!("%!{verb}({}={})", value.type_name(), printing::plain(value)),
    };
    padded(&text, spec)
}

fn cut(text: &str, precision: Option<usize>) -> String {
    match precision {
        Some(count) => text.chars().take(count).collect(),
        None => text.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    // Go escapes what does not print; so does Rust, in other words for some.
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_ascii_control() => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(control)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn character(number: i64) -> char {
    u32::try_from(number)
        .ok()
        .and_then(char::from_u32)
        .unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn integer(number: i64, verb: char, spec: Spec) -> String {
    let size = number.unsigned_abs();
    let (prefix, digits) = match verb {
        'b' => ("0b", format!("{size:b}")),
        'o' => ("0", format!("{size:o}")),
        'x' => ("0x", format!("{size:x}")),
        'X' => ("0X", format!("{size:X}")),
        _ => ("", size.to_string()),
    };
    let digits = match spec.precision {
        Some(count) => format!("{digits:0>count$}"),
        None => digits,
    };
    let sign = if number < 0 { "-" } else { "" };
    let prefix = if spec.sharp { prefix } else { "" };
    format!("{sign}{prefix}{digits}")
}

fn float(number: f64, verb: char, spec: Spec) -> String {
    let precision = spec.precision.unwrap_or(6);
    match verb {
        'e' | 'E' => {
            let text = format!("{number:.precision$e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or_default();
            let sign = if exponent < 0 { '-' } else { '+' };
            let text = format!("{digits}e{sign}{:02}", exponent.abs());
            if verb == 'E' { text.to_uppercase() } else { text }
        }
        'f' | 'F' => format!("{number:.precision$}"),
        _ => printing::float(number),
    }
}

/// With the sign that was asked for, and zeros behind it.
fn padded_number(text: &str, spec: Spec) -> String {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None if spec.plus => ("+", text),
        None if spec.space => (" ", text),
        None => ("", text),
    };
    if spec.zero && !spec.minus && spec.precision.is_none() {
        let width = spec.width.saturating_sub(sign.len());
        return format!("{sign}{digits:0>width$}");
    }
    padded(&format!("{sign}{digits}"), spec)
}

fn padded(text: &str, spec: Spec) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    let padding = std::iter::repeat_n(' ', missing);
    if spec.minus {
        text.chars().chain(padding).collect()
    } else {
        padding.chain(text.chars()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_and_flags_are_those_of_go() {
        let text = Data::from("a\"b");
        let number = Data::Int(-42);
        let list = Data::list(["x", "y"]);
        for (template, values, expected) in [
            ("%s|%q", vec![text.clone(), text.clone()], r#"a"b|"a\"b""#),
            (
                "%5d|%-5d|%05d",
                vec![number.clone(), number.clone(), number.clone()],
                "  -42|-42  |-0042",
            ),
            (
                "%x %X %#x %o %b",
                vec![
                    Data::Int(255),
                    Data::Int(255),
                    Data::Int(255),
                    Data::Int(8),
                    Data::Int(5),
                ],
                "ff FF 0xff 10 101",
            ),
            (
                "%6.2f|%g|%e",
                vec![Data::Float(2.71), Data::Float(0.5), Data::Float(1500.0)],
                "  2.71|0.5|1.500000e+03",
            ),
            (
                "%v %v %t",
                vec![list.clone(), Data::Flag(true), Data::Flag(false)],
                "[x y] true false",
            ),
            ("%q %T", vec![list.clone(), number.clone()], r#"["x" "y"] int"#),
            ("%+d% d", vec![Data::Int(1), Data::Int(2)], "+1 2"),
            (
                "%.2s|%-4s|%4s",
                vec![Data::from("abc"), Data::from("ab"), Data::from("ab")],
                "ab|ab  |  ab",
            ),
            ("%d%%", vec![Data::Int(5)], "5%"),
            ("%d", vec![Data::from("hi")], "%!d(string=hi)"),
            ("%s", vec![], "%!s(MISSING)"),
            ("x", vec![Data::Int(1)], "x%!(EXTRA int=1)"),
            ("%", vec![], "%!(NOVERB)"),
            ("%99999999999999999999d", vec![Data::Int(1)], "%!(BADWIDTH)1"),
        ] {
            assert_eq!(format(template, &values), expected, "{template}");
        }
    }
}
