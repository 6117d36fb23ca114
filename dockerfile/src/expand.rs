//! Word expansion: quotes, escapes and `$name`, `${name…}` the way Docker has always done it.
//!
//! It resembles the shell and is not the shell: an escape drops its backslash outside quotes, an unset variable is
//! empty, and `${name:=word}` does not exist. A word is expanded as a whole; [`Expander::words`] also splits it at
//! blanks that are not quoted, after substitution.

mod environment;
mod pattern;
mod scan;

pub use environment::Environment;
pub use pattern::PatternError;

use std::collections::BTreeSet;

/// Text longer than this is refused: `ENV A=$A$A` doubles with every line.
const LONGEST: usize = 16 << 20;
/// `${a:-${b:-…}}` nests as deep as a person would ever write, and no deeper than the stack.
const DEEPEST: usize = 64;

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum ExpandError {
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    #[error("unexpected end of statement while looking for matching double-quote")]
    DoubleQuote,
    #[error("syntax error: missing '{0}'{at}", at = if *.0 == '/' { " in ${}" } else { "" })]
    Missing(char),
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${name?message}`.
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid pattern ({pattern}) in substitution: {problem}")]
    Pattern { pattern: String, problem: PatternError },
    #[error("substitutions are nested more than {DEEPEST} deep")]
    TooDeep,
    #[error("the expanded text is larger than {LONGEST} bytes")]
    TooLong,
}

/// An expansion that failed, with the text it was about.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("failed to process {word:?}: {problem}")]
pub struct ExpansionFailed {
    pub word: String,
    pub problem: ExpandError,
}

/// What quotes do to the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quotes {
    /// They group and vanish.
    #[default]
    Removed,
    /// They group and stay.
    Kept,
    /// They are ordinary characters.
    Ignored,
}

/// What happens to the name of a variable that is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unset {
    #[default]
    Empty,
    /// `$name` stays as it was written.
    Kept,
}

/// How to expand. `escape` is the escape character of the file; `keep_escapes` leaves it in the result.
#[derive(Clone, Copy, Debug)]
pub struct Expander {
    pub escape: char,
    pub quotes: Quotes,
    pub unset: Unset,
    pub keep_escapes: bool,
}

/// An expanded word, and which variables it named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    pub text: String,
    /// Variables that were set and asked for.
    pub used: BTreeSet<String>,
    /// Variables that were asked for and not set.
    pub missing: BTreeSet<String>,
}

impl Expander {
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            quotes: Quotes::Removed,
            unset: Unset::Empty,
            keep_escapes: false,
        }
    }

    /// Expands `word` and keeps it one word.
    pub fn text(&self, word: &str, environment: &Environment) -> Result<String, ExpansionFailed> {
        if self.changes_nothing(word) {
            return Ok(word.to_owned());
        }
        scan::text(self, word, environment).map_err(|problem| failed(word, problem))
    }

    /// The same, with the variables in it.
    pub fn word(&self, word: &str, environment: &Environment) -> Result<Expansion, ExpansionFailed> {
        if self.changes_nothing(word) {
            return Ok(Expansion {
                text: word.to_owned(),
                ..Expansion::default()
            });
        }
        let (text, names) = scan::word(self, word, environment).map_err(|problem| failed(word, problem))?;
        Ok(Expansion {
            text,
            used: names.used,
            missing: names.missing,
        })
    }

    /// Most words name no variable and hold no quote.
    fn changes_nothing(&self, word: &str) -> bool {
        !word.contains(['$', '\'', '"', self.escape])
    }

    /// Expands `word` and splits the result at unquoted blanks. Empty words are dropped.
    pub fn words(&self, word: &str, environment: &Environment) -> Result<Vec<String>, ExpansionFailed> {
        scan::words(self, word, environment).map_err(|problem| failed(word, problem))
    }
}

fn failed(word: &str, problem: ExpandError) -> ExpansionFailed {
    ExpansionFailed {
        word: word.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests;
