//! The `--flags` of one instruction against the flags it knows.

use crate::parser::Problem;
use crate::suggest::{Case, hint};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Text,
    /// May be given several times.
    List,
}

/// The flags given, checked.
pub(super) struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    pub(super) fn read(words: &[String], known: &[(&'static str, Kind)]) -> Result<Self, Problem> {
        let mut flags = Self { given: Vec::new() };
        for word in words {
            let word = word.strip_prefix("--").unwrap_or(word);
            let (name, value) = word
                .split_once('=')
                .map_or((word, None), |(name, value)| (name, Some(value)));
            let Some(&(name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let hint = hint(name, known.iter().map(|(known, _)| *known), Case::Sensitive);
                return Err(Problem::UnknownFlag {
                    flag: name.to_owned(),
                    hint,
                });
            };
            if kind != Kind::List && flags.given.iter().any(|(given, _)| *given == name) {
                return Err(Problem::RepeatedFlag(name.to_owned()));
            }
            let value = match (kind, value) {
                (Kind::Bool, None) => "true".to_owned(),
                (Kind::Bool, Some("")) | (Kind::Text | Kind::List, None) => {
                    return Err(Problem::FlagWithoutValue(name.to_owned()));
                }
                (Kind::Bool, Some(value)) => match value.to_lowercase().as_str() {
                    lower @ ("true" | "false") => lower.to_owned(),
                    _ => {
                        return Err(Problem::FlagNotBoolean {
                            flag: name.to_owned(),
                            value: value.to_owned(),
                        });
                    }
                },
                (Kind::Text | Kind::List, Some(value)) => value.to_owned(),
            };
            flags.given.push((name, value));
        }
        Ok(flags)
    }

    /// For instructions that have none.
    pub(super) fn none(words: &[String]) -> Result<(), Problem> {
        Self::read(words, &[]).map(|_| ())
    }

    /// An empty value is as good as none.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.list(name).pop().filter(|value| !value.is_empty())
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.given
            .iter()
            .filter(|(given, _)| *given == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.list(name).pop().map(|value| value == "true")
    }
}
