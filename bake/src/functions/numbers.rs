//! Arithmetic.

use super::{Arguments, Fault, Function, Outcome};
use crate::value::{Number, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("absolute", &["num"], |a| {
        let number = a.number(0)?;
        let is_negative = number.compare(Number::Int(0)).is_lt();
        finite(if is_negative {
            number.negate()
        } else {
            Some(number)
        })
    }),
    Function::new("add", &["a", "b"], |a| finite(a.number(0)?.add(a.number(1)?))),
    Function::new("subtract", &["a", "b"], |a| {
        finite(a.number(0)?.subtract(a.number(1)?))
    }),
    Function::new("multiply", &["a", "b"], |a| {
        finite(a.number(0)?.multiply(a.number(1)?))
    }),
    Function::new("divide", &["a", "b"], |a| {
        if a.number(1)?.is_zero() {
            return Err(Fault::of(1, "divide by zero"));
        }
        finite(a.number(0)?.divide(a.number(1)?))
    }),
    Function::new("modulo", &["a", "b"], |a| {
        if a.number(1)?.is_zero() {
            return Err(Fault::of(1, "divide by zero"));
        }
        finite(a.number(0)?.modulo(a.number(1)?))
    }),
    Function::new("negate", &["num"], |a| finite(a.number(0)?.negate())),
    Function::new("ceil", &["num"], |a| round(a, f64::ceil)),
    Function::new("floor", &["num"], |a| round(a, f64::floor)),
    Function::new("int", &["num"], |a| round(a, f64::trunc)),
    Function::new("signum", &["num"], |a| {
        let order = a.number(0)?.compare(Number::Int(0));
        Ok(Value::int(order as i8))
    }),
    Function::new("log", &["num", "base"], |a| {
        finite(Number::of(a.number(0)?.float().ln() / a.number(1)?.float().ln()))
    }),
    Function::new("pow", &["num", "power"], pow),
    Function::new("max", &[], |a| extreme(a, std::cmp::Ordering::Greater)).and_others("numbers"),
    Function::new("min", &[], |a| extreme(a, std::cmp::Ordering::Less)).and_others("numbers"),
    Function::new("parseint", &["number", "base"], parse_int),
];

fn finite(number: Option<Number>) -> Outcome {
    number
        .map(Value::Number)
        .ok_or_else(|| "the result is no finite number".into())
}

fn round(arguments: &Arguments<'_>, rounding: fn(f64) -> f64) -> Outcome {
    match arguments.number(0)? {
        whole @ Number::Int(_) => Ok(Value::Number(whole)),
        Number::Float(number) => finite(Number::of(rounding(number))),
    }
}

fn pow(arguments: &Arguments<'_>) -> Outcome {
    let (number, power) = (arguments.number(0)?, arguments.number(1)?);
    let exact = match (number, power) {
        (Number::Int(number), Number::Int(power)) => u32::try_from(power)
            .ok()
            .and_then(|power| number.checked_pow(power)),
        _ => None,
    };
    match exact {
        Some(number) => Ok(Value::int(number)),
        None => finite(Number::of(number.float().powf(power.float()))),
    }
}

fn extreme(arguments: &Arguments<'_>, wanted: std::cmp::Ordering) -> Outcome {
    let mut best: Option<Number> = None;
    for at in arguments.from(0) {
        let number = arguments.number(at)?;
        if best.is_none_or(|best| number.compare(best) == wanted) {
            best = Some(number);
        }
    }
    best.map(Value::Number)
        .ok_or_else(|| "must pass at least one number".into())
}

fn parse_int(arguments: &Arguments<'_>) -> Outcome {
    let text = arguments.text(0)?;
    let base: u32 = arguments.int(1)?;
    if !(2..=62).contains(&base) {
        return Err(Fault::of(
            1,
            "base must be a whole number between 2 and 62 inclusive",
        ));
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let value = digits.chars().try_fold(0_i128, |value, c| {
        let digit = digit(c, base).filter(|digit| *digit < base)?;
        value
            .checked_mul(i128::from(base))?
            .checked_add(i128::from(digit))
    });
    match value {
        Some(value) if !digits.is_empty() => Ok(Value::int(if negative { -value } else { value })),
        _ => Err(Fault::of(
            0,
            format!("cannot parse \"{text}\" as a base {base} integer"),
        )),
    }
}

/// Up to base 36 the case of a letter says nothing; beyond, capitals come last.
fn digit(c: char, base: u32) -> Option<u32> {
    match c {
        'A'..='Z' if base > 36 => Some(36 + u32::from(c) - u32::from('A')),
        _ => c.to_digit(36),
    }
}
