//! The commands, one file each: arguments, whose texts are the manual, and the work.

pub mod bake;
pub mod build;
pub mod completion;
pub mod create;
pub mod dial_stdio;
pub mod du;
pub mod history;
pub mod imagetools;
pub mod inspect;
pub mod ls;
pub mod manifest;
pub mod manifest_tool;
pub mod prune;
pub mod rm;
pub mod stop;
pub mod use_builder;
pub mod version;

use std::time::Duration;

use crate::settings::Settings;

/// What every command is given.
#[derive(Clone, Debug)]
pub struct Context {
    pub settings: Settings,
    /// `--builder`.
    pub builder: Option<String>,
    /// `--debug`.
    pub debug: bool,
}

/// A duration as Go writes it: `20s`, `1m30s`, `500ms`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("invalid duration \"{text}\", write it like 20s, 1m30s or 500ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Duration::try_from_secs_f64(total).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in [
            ("20s", 20_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5s", 1500),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in ["", "20", "s", "1x", "-1s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
