//! `format` and `formatlist`: verbs as in C and Go.

use super::{Arguments, Fault, Function, LARGEST, Outcome};
use crate::value::convert::{convert, text};
use crate::value::shape::Shape;
use crate::value::{Number, Value, json};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("format", &["format"], |a| {
        Ok(Value::String(format(&a.text(0)?, &a.values[1..])?))
    })
    .and_others("args")
    .with_null(),
    Function::new("formatlist", &["format"], format_list)
        .and_others("args")
        .with_null(),
];

fn format_list(arguments: &Arguments<'_>) -> Outcome {
    let pattern = arguments.text(0)?;
    let rest = &arguments.values[1..];
    if rest.is_empty() {
        return Ok(Value::List(vec![Value::String(format(&pattern, rest)?)]));
    }
    let mut count = None;
    for (at, value) in rest.iter().enumerate() {
        let Some(elements) = value.elements() else {
            continue;
        };
        if count.is_some_and(|count| count != elements.len()) {
            return Err(Fault::of(at + 1, "all list arguments must have the same length"));
        }
        count = Some(elements.len());
    }
    (0..count.unwrap_or(1))
        .map(|row| {
            let cells: Vec<Value> = rest
                .iter()
                .map(|value| value.elements().map_or(value, |elements| &elements[row]).clone())
                .collect();
            Ok(Value::String(format(&pattern, &cells)?))
        })
        .collect::<Result<_, Fault>>()
        .map(Value::List)
}

#[derive(Debug, Default)]
struct Verb {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
    letter: char,
}

fn format(pattern: &str, arguments: &[Value]) -> Result<String, Fault> {
    let mut out = String::new();
    let mut rest = pattern.chars().peekable();
    let mut next = 0;
    let mut used = 0;
    let mut jumped = false;
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(c) = rest.next_if(|c| matches!(c, '-' | '+' | ' ' | '0' | '#')) {
            match c {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                ' ' => verb.space = true,
                '0' => verb.zero = true,
                _ => verb.sharp = true,
            }
        }
        verb.width = digits(&mut rest).unwrap_or_default();
        if rest.next_if_eq(&'.').is_some() {
            verb.precision = Some(digits(&mut rest).unwrap_or_default());
        }
        if verb.width.max(verb.precision.unwrap_or_default()) > LARGEST {
            return Err(Fault::of(0, "width or precision is too large"));
        }
        if rest.next_if_eq(&'[').is_some() {
            let mut text = String::new();
            while let Some(c) = rest.next_if(|c| *c != ']') {
                text.push(c);
            }
            rest.next();
            next = text
                .parse::<usize>()
                .ok()
                .and_then(|number| number.checked_sub(1))
                .ok_or_else(|| Fault::of(0, format!("invalid argument index \"{text}\"")))?;
            jumped = true;
        }
        verb.letter = rest
            .next()
            .ok_or_else(|| Fault::of(0, "unexpected end of the format string after %"))?;
        if verb.letter == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = arguments.get(next) else {
            return Err(Fault::of(
                0,
                format!(
                    "not enough arguments for \"%{}\" at argument {}",
                    verb.letter,
                    next + 1
                ),
            ));
        };
        out.push_str(&verb.show(value).map_err(|why| Fault::of(next + 1, why))?);
        next += 1;
        used = used.max(next);
    }
    if used < arguments.len() && !jumped {
        return Err(Fault::of(
            used + 1,
            format!("too many arguments; only {used} used by format string"),
        ));
    }
    Ok(out)
}

fn digits(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number: Option<usize> = None;
    while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
        rest.next();
        let digit = usize::try_from(digit).unwrap_or_default();
        number = Some(
            number
                .unwrap_or_default()
                .saturating_mul(10)
                .saturating_add(digit),
        );
    }
    number
}

impl Verb {
    fn show(&self, value: &Value) -> Result<String, String> {
        match self.letter {
            'v' => Ok(self.pad(&match value {
                value if self.sharp => json::encode(value),
                Value::String(text) => self.cut(text),
                value => json::encode(value),
            })),
            't' => match convert(value.clone(), &Shape::Bool)? {
                Value::Bool(flag) => Ok(self.pad(&flag.to_string())),
                _ => Err("bool required".to_owned()),
            },
            's' => {
                let text = text(value).ok_or("string required")?;
                Ok(self.pad(&self.cut(&text)))
            }
            'q' => {
                let mut quoted = String::new();
                json::quote(&text(value).ok_or("string required")?, &mut quoted);
                Ok(self.pad(&quoted))
            }
            'b' | 'd' | 'o' | 'x' | 'X' => {
                let number = self.number(value)?;
                let whole = match number {
                    Number::Int(number) => number,
                    #[expect(clippy::cast_possible_truncation, reason = "cut as Go does")]
                    Number::Float(number) => number as i128,
                };
                let digits = whole.unsigned_abs();
                let digits = match self.letter {
                    'b' => format!("{digits:b}"),
                    'o' => format!("{digits:o}"),
                    'x' => format!("{digits:x}"),
                    'X' => format!("{digits:X}"),
                    _ => digits.to_string(),
                };
                Ok(self.signed(whole < 0, &digits))
            }
            'e' | 'E' | 'f' | 'g' | 'G' => {
                let number = self.number(value)?.float();
                Ok(self.signed(number < 0.0, &self.float(number.abs())))
            }
            other => Err(format!("unsupported format verb \"{other}\"")),
        }
    }

    fn number(&self, value: &Value) -> Result<Number, String> {
        match convert(value.clone(), &Shape::Number)? {
            Value::Number(number) => Ok(number),
            _ => Err(format!("number required for %{}", self.letter)),
        }
    }

    fn float(&self, number: f64) -> String {
        let exponential = |precision: usize| {
            let text = format!("{number:.precision$e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        };
        let text = match self.letter {
            'f' => format!("{number:.*}", self.precision.unwrap_or(6)),
            'e' | 'E' => exponential(self.precision.unwrap_or(6)),
            _ => match Number::of(number) {
                Some(number) => number.to_string(),
                None => number.to_string(),
            },
        };
        if self.letter.is_ascii_uppercase() {
            text.to_uppercase()
        } else {
            text
        }
    }

    fn cut(&self, text: &str) -> String {
        match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        }
    }

    fn signed(&self, negative: bool, digits: &str) -> String {
        let sign = match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        let missing = self.width.saturating_sub(sign.len() + digits.chars().count());
        if self.zero && !self.minus {
            return format!("{sign}{}{digits}", "0".repeat(missing));
        }
        self.pad(&format!("{sign}{digits}"))
    }

    fn pad(&self, text: &str) -> String {
        let blanks = " ".repeat(self.width.saturating_sub(text.chars().count()));
        if self.minus {
            format!("{text}{blanks}")
        } else {
            format!("{blanks}{text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_those_of_go() {
        let shown = |pattern: &str, values: &[Value]| format(pattern, values).unwrap();
        let (five, half) = (Value::int(5), Value::Number(Number::Float(0.5)));
        for (pattern, values, expected) in [
            ("%s-%d", vec![Value::text("a"), five.clone()], "a-5"),
            (
                "%05d|%-4d|%+d",
                vec![five.clone(), five.clone(), five.clone()],
                "00005|5   |+5",
            ),
            (
                "%x %X %b %o",
                vec![Value::int(255), Value::int(255), five.clone(), Value::int(8)],
                "ff FF 101 10",
            ),
            (
                "%f %.2f %e",
                vec![half.clone(), half.clone(), half.clone()],
                "0.500000 0.50 5.000000e-01",
            ),
            (
                "%q %v %#v",
                vec![Value::text("a\"b"), Value::text("c"), Value::text("d")],
                "\"a\\\"b\" c \"d\"",
            ),
            ("%[2]s%[1]s", vec![Value::text("a"), Value::text("b")], "ba"),
            ("100%% %t", vec![Value::Bool(true)], "100% true"),
            (
                "%5s|%-5s|%.1s",
                vec![Value::text("ab"), Value::text("ab"), Value::text("ab")],
                "   ab|ab   |a",
            ),
        ] {
            assert_eq!(shown(pattern, &values), expected, "{pattern}");
        }
        for (pattern, values) in [
            ("%d", vec![]),
            ("a", vec![five]),
            ("%z", vec![half]),
            ("%", vec![]),
        ] {
            assert!(format(pattern, &values).is_err(), "{pattern}");
        }
    }
}
