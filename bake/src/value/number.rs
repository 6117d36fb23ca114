//! Numbers: whole ones exactly up to 127 bits, others as floating point of which 15 digits are shown.

use std::cmp::Ordering;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Int(i128),
    /// Never a whole number that fits `Int`.
    Float(f64),
}

/// Floats are whole without doubt below this.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Number {
    /// Nothing for what is no number.
    pub fn of(float: f64) -> Option<Self> {
        if !float.is_finite() {
            return None;
        }
        Some(if float.fract() == 0.0 && float.abs() < EXACT {
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
            Self::Int(float as i128)
        } else {
            Self::Float(float)
        })
    }

    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse() {
            return Some(Self::Int(number));
        }
        // Rust also reads words such as "inf"; those have letters that a number has not.
        let number_like = text
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E'));
        let float = number_like.then(|| text.parse().ok()).flatten()?;
        Self::of(float)
    }

    pub fn float(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "what floats are")]
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    pub fn int(self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(number),
            Self::Float(_) => None,
        }
    }

    pub fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (a, b) => a.float().total_cmp(&b.float()),
        }
    }

    fn combine(
        self,
        other: Self,
        exact: fn(i128, i128) -> Option<i128>,
        rough: fn(f64, f64) -> f64,
    ) -> Option<Self> {
        if let (Self::Int(a), Self::Int(b)) = (self, other)
            && let Some(number) = exact(a, b)
        {
            return Some(Self::Int(number));
        }
        Self::of(rough(self.float(), other.float()))
    }

    pub fn add(self, other: Self) -> Option<Self> {
        self.combine(other, i128::checked_add, |a, b| a + b)
    }

    pub fn subtract(self, other: Self) -> Option<Self> {
        self.combine(other, i128::checked_sub, |a, b| a - b)
    }

    pub fn multiply(self, other: Self) -> Option<Self> {
        self.combine(other, i128::checked_mul, |a, b| a * b)
    }

    /// Nothing if the divisor is zero.
    pub fn divide(self, other: Self) -> Option<Self> {
        let exact = |a: i128, b: i128| (a.checked_rem(b)? == 0).then(|| a.checked_div(b))?;
        self.combine(other, exact, |a, b| a / b)
    }

    /// The remainder has the sign of the dividend.
    pub fn modulo(self, other: Self) -> Option<Self> {
        self.combine(other, i128::checked_rem, |a, b| a % b)
    }

    pub fn negate(self) -> Option<Self> {
        Self::Int(0).subtract(self)
    }

    pub fn is_zero(self) -> bool {
        self == Self::Int(0)
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.compare(*other).is_eq()
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => {
                // 0.1 + 0.2 is 0.3 for everybody who is not a floating point unit.
                let rounded = format!("{number:.14e}").parse().unwrap_or(*number);
                write!(f, "{rounded}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_without_noise() {
        let parse = |text| Number::parse(text).unwrap();
        for (number, shown) in [
            (parse("0.1").add(parse("0.2")).unwrap(), "0.3"),
            (parse("10").divide(parse("4")).unwrap(), "2.5"),
            (parse("10").divide(parse("5")).unwrap(), "2"),
            (parse("1e3"), "1000"),
            (
                parse("170141183460469231731687303715884105727"),
                "170141183460469231731687303715884105727",
            ),
            (parse("-7").modulo(parse("3")).unwrap(), "-1"),
            (parse("1.50"), "1.5"),
        ] {
            assert_eq!(number.to_string(), shown);
        }
        assert_eq!(parse("1").divide(parse("0")), None);
        assert_eq!(Number::parse("inf"), None);
        assert_eq!(Number::parse("1x"), None);
    }
}
