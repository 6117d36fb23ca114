//! Symbolic modes as `chmod` takes them: `u=rwX,go=rX`, `+x`, `g=u`, and octal numbers.
//!
//! There is no umask: a clause without `ugoa` means everybody.

use super::Problem;

const EXECUTE: u32 = 0o111;
const SET_IDS: u32 = 0o6000;
const STICKY: u32 = 0o1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange(Vec<Clause>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Assign,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    /// The bits that may change: `rwx` triplets, and the special bits that belong to them.
    who: u32,
    operator: Operator,
    bits: Bits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    /// Fixed bits, and whether execute is wanted where somebody may execute already, or of a folder.
    Fixed { bits: u32, execute_if_any: bool },
    /// What the user, group or others have: how far their triplet is shifted.
    CopyOf(u32),
}

impl ModeChange {
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let invalid = || Problem::Mode(text.to_owned());
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8)
                .ok()
                .filter(|bits| *bits <= 0o7777)
                .ok_or_else(invalid)?;
            let bits = Bits::Fixed {
                bits,
                execute_if_any: false,
            };
            return Ok(Self(vec![Clause {
                who: 0o7777,
                operator: Operator::Assign,
                bits,
            }]));
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let start = part.find(['+', '-', '=']).ok_or_else(invalid)?;
            let (who, mut rest) = part.split_at(start);
            let who = parse_who(who).ok_or_else(invalid)?;
            while let Some(first) = rest.chars().next() {
                let operator = match first {
                    '+' => Operator::Add,
                    '-' => Operator::Remove,
                    '=' => Operator::Assign,
                    _ => return Err(invalid()),
                };
                rest = &rest[1..];
                let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
                let bits = parse_bits(&rest[..end]).ok_or_else(invalid)?;
                clauses.push(Clause { who, operator, bits });
                rest = &rest[end..];
            }
        }
        Ok(Self(clauses))
    }

    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let had_execute = mode & EXECUTE != 0;
        self.0.iter().fold(mode, |mode, clause| {
            let bits = match clause.bits {
                Bits::Fixed { bits, execute_if_any } => {
                    let execute = execute_if_any && (had_execute || is_dir);
                    bits | if execute { EXECUTE } else { 0 }
                }
                Bits::CopyOf(shift) => {
                    let triplet = mode >> shift & 0o7;
                    triplet << 6 | triplet << 3 | triplet
                }
            };
            let bits = bits & clause.who;
            match clause.operator {
                Operator::Add => mode | bits,
                Operator::Remove => mode & !bits,
                Operator::Assign => mode & !clause.who | bits,
            }
        })
    }
}

fn parse_who(who: &str) -> Option<u32> {
    if who.is_empty() {
        return Some(0o7777);
    }
    who.chars().try_fold(0, |bits, letter| {
        Some(
            bits | match letter {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            },
        )
    })
}

fn parse_bits(letters: &str) -> Option<Bits> {
    match letters {
        "u" => return Some(Bits::CopyOf(6)),
        "g" => return Some(Bits::CopyOf(3)),
        "o" => return Some(Bits::CopyOf(0)),
        _ => {}
    }
    let mut execute_if_any = false;
    let mut bits = 0;
    for letter in letters.chars() {
        bits |= match letter {
            'r' => 0o444,
            'w' => 0o222,
            'x' => EXECUTE,
            's' => SET_IDS,
            't' => STICKY,
            'X' => {
                execute_if_any = true;
                0
            }
            _ => return None,
        };
    }
    Some(Bits::Fixed { bits, execute_if_any })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_change_what_chmod_changes() {
        for (text, mode, is_dir, expected) in [
            ("755", 0o4600, false, 0o755),
            ("4755", 0o600, false, 0o4755),
            ("+x", 0o644, false, 0o755),
            ("u+x", 0o644, false, 0o744),
            ("a-w", 0o666, false, 0o444),
            ("go=", 0o777, false, 0o700),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("g=u", 0o750, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("g+s,+t", 0o755, true, 0o3755),
            ("u=rw+x", 0o000, false, 0o700),
            ("o-rwx", 0o777, false, 0o770),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(mode, is_dir), expected, "{text} on {mode:o}");
        }
    }

    #[test]
    fn what_chmod_refuses_is_refused() {
        for text in ["", "x", "u", "8", "77777", "z+x", "u+q", "u+x,", ",u+x", "99"] {
            assert!(ModeChange::parse(text).is_err(), "{text:?}");
        }
    }
}
