//! The scanner behind [`Expander`](super::Expander): one pass over the characters, recursive in `${…}` only.

use std::collections::BTreeSet;

use super::pattern::{Greed, Pattern};
use super::{DEEPEST, Environment, ExpandError, Expander, LONGEST, Quotes, Unset};

/// Variables met on the way.
#[derive(Default)]
pub(super) struct Names {
    pub(super) used: BTreeSet<String>,
    pub(super) missing: BTreeSet<String>,
}

/// The text as one word and, beside it, as words.
#[derive(Default)]
pub(super) struct Expanded {
    pub(super) text: String,
    words: Vec<String>,
    current: String,
}

impl Expanded {
    /// A character that was not quoted: a blank ends a word.
    fn push(&mut self, ch: char) {
        self.text.push(ch);
        if !ch.is_whitespace() {
            self.current.push(ch);
        } else if !self.current.is_empty() {
            self.words.push(std::mem::take(&mut self.current));
        }
    }

    /// Text that was quoted or escaped: blanks are part of the word.
    fn push_literal(&mut self, text: &str) {
        self.text.push_str(text);
        self.current.push_str(text);
    }

    pub(super) fn into_words(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.words.push(self.current);
        }
        self.words
    }
}

pub(super) fn expand(
    how: &Expander,
    word: &str,
    environment: &Environment,
) -> Result<(Expanded, Names), ExpandError> {
    let mut scanner = Scanner {
        how,
        environment,
        chars: word.chars().collect(),
        at: 0,
        names: Names::default(),
        depth: 0,
    };
    let expanded = scanner.until(None, how.keep_escapes)?;
    Ok((expanded, scanner.names))
}

struct Scanner<'a> {
    how: &'a Expander,
    environment: &'a Environment,
    chars: Vec<char>,
    at: usize,
    names: Names,
    depth: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let ch = self.peek()?;
        self.at += 1;
        Some(ch)
    }

    /// Up to `stop`, which is taken and not returned, or to the end of the text.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<Expanded, ExpandError> {
        let mut out = Expanded::default();
        while let Some(ch) = self.next() {
            if Some(ch) == stop {
                return Ok(out);
            }
            match ch {
                '$' => {
                    let value = self.dollar(keep_escapes)?;
                    value.chars().for_each(|ch| out.push(ch));
                }
                '<' => {
                    let text = self.angle();
                    out.push_literal(&text);
                }
                '\'' if self.how.quotes != Quotes::Ignored => {
                    let text = self.single_quoted()?;
                    out.push_literal(&text);
                }
                '"' if self.how.quotes != Quotes::Ignored => {
                    let text = self.double_quoted(keep_escapes)?;
                    out.push_literal(&text);
                }
                ch if ch == self.how.escape => {
                    if keep_escapes {
                        out.push_literal(ch.encode_utf8(&mut [0; 4]));
                    }
                    // At the end of the text an escape escapes nothing and vanishes.
                    if let Some(escaped) = self.next() {
                        out.push_literal(escaped.encode_utf8(&mut [0; 4]));
                    }
                }
                ch => out.push(ch),
            }
            if out.text.len() > LONGEST {
                return Err(ExpandError::TooLong);
            }
        }
        match stop {
            Some(stop) => Err(ExpandError::Missing(stop)),
            None => Ok(out),
        }
    }

    /// `<<` and the blanks behind it stay in one word with what follows, so that `<< EOF` is one heredoc word.
    fn angle(&mut self) -> String {
        let mut text = String::from('<');
        if self.peek() == Some('<') {
            self.at += 1;
            text.push('<');
            while let Some(blank @ ('\t' | '\r' | ' ')) = self.peek() {
                self.at += 1;
                text.push(blank);
            }
        }
        text
    }

    /// Nothing can be escaped between single quotes.
    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut out = String::new();
        self.quote(&mut out, '\'');
        loop {
            match self.next() {
                None => return Err(ExpandError::SingleQuote),
                Some('\'') => {
                    self.quote(&mut out, '\'');
                    return Ok(out);
                }
                Some(ch) => out.push(ch),
            }
        }
    }

    /// Between double quotes `$` works, and the escape escapes `"`, `$` and itself; before anything else it stays.
    fn double_quoted(&mut self, keep_escapes: bool) -> Result<String, ExpandError> {
        let mut out = String::new();
        self.quote(&mut out, '"');
        loop {
            match self.next() {
                None => return Err(ExpandError::DoubleQuote),
                Some('"') => {
                    self.quote(&mut out, '"');
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar(keep_escapes)?),
                Some(ch) if ch == self.how.escape => {
                    if keep_escapes {
                        out.push(ch);
                    }
                    match self.peek() {
                        None => {}
                        Some(escaped) if escaped == '"' || escaped == '$' || escaped == self.how.escape => {
                            self.at += 1;
                            out.push(escaped);
                        }
                        Some(_) => out.push(ch),
                    }
                }
                Some(ch) => out.push(ch),
            }
            if out.len() > LONGEST {
                return Err(ExpandError::TooLong);
            }
        }
    }

    fn quote(&self, out: &mut String, quote: char) {
        if self.how.quotes == Quotes::Kept {
            out.push(quote);
        }
    }

    /// What follows a `$` that was taken already.
    fn dollar(&mut self, keep_escapes: bool) -> Result<String, ExpandError> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.lookup(&name) {
                None if self.how.unset == Unset::Kept => format!("${name}"),
                value => value.unwrap_or_default().to_owned(),
            });
        }
        self.at += 1;
        if self.depth == DEEPEST {
            return Err(ExpandError::TooDeep);
        }
        self.depth += 1;
        let value = self.braces(keep_escapes);
        self.depth -= 1;
        value
    }

    /// What follows `${`.
    fn braces(&mut self, keep_escapes: bool) -> Result<String, ExpandError> {
        match self.peek() {
            None => return Err(ExpandError::Missing('}')),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let Some(modifier) = self.next() else {
            return Err(ExpandError::Missing('}'));
        };
        match modifier {
            '}' => Ok(match self.lookup(&name) {
                None if self.how.unset == Unset::Kept => format!("${{{name}}}"),
                value => value.unwrap_or_default().to_owned(),
            }),
            ':' => match self.next() {
                Some(choice @ ('+' | '-' | '?')) => {
                    self.choice(&name, choice, Empty::CountsAsUnset, keep_escapes)
                }
                other => Err(ExpandError::UnsupportedModifier(format!(
                    ":{}",
                    other.map(String::from).unwrap_or_default()
                ))),
            },
            choice @ ('+' | '-' | '?') => self.choice(&name, choice, Empty::IsAValue, keep_escapes),
            side @ ('#' | '%') => self.trim(&name, side),
            '/' => self.replace(&name),
            other => Err(ExpandError::UnsupportedModifier(other.to_string())),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}` and their `:` forms.
    fn choice(
        &mut self,
        name: &str,
        choice: char,
        empty: Empty,
        keep_escapes: bool,
    ) -> Result<String, ExpandError> {
        let word = self.operand('}', keep_escapes)?;
        let value = self.lookup(name);
        if value.is_none() && self.how.unset == Unset::Kept {
            let colon = if empty == Empty::CountsAsUnset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{choice}{word}}}"));
        }
        let present = value.filter(|value| !value.is_empty() || empty == Empty::IsAValue);
        match (choice, present) {
            ('-', Some(present)) | ('?', Some(present)) => Ok(present.to_owned()),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            _ => {
                let message = match value {
                    _ if !word.is_empty() => word,
                    None => "is not allowed to be unset".to_owned(),
                    Some(_) => "is not allowed to be empty".to_owned(),
                };
                Err(ExpandError::Required {
                    name: name.to_owned(),
                    message,
                })
            }
        }
    }

    /// `${name#pattern}`, `##`, `%`, `%%`.
    fn trim(&mut self, name: &str, side: char) -> Result<String, ExpandError> {
        let word = self.operand('}', true)?;
        let Some(value) = self.lookup(name) else {
            return Ok(match self.how.unset {
                Unset::Kept => format!("${{{name}{side}{word}}}"),
                Unset::Empty => String::new(),
            });
        };
        let (text, greed) = match word.strip_prefix(side) {
            Some(rest) => (rest, Greed::Longest),
            None => (word.as_str(), Greed::Shortest),
        };
        let pattern = parse_pattern(text)?;
        Ok(if side == '#' {
            pattern.trim_prefix(value, greed)
        } else {
            pattern.trim_suffix(value, greed)
        })
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`.
    fn replace(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let text = self.operand('/', true)?;
        let replacement = self.operand('}', true)?;
        let Some(value) = self.lookup(name) else {
            return Ok(match self.how.unset {
                Unset::Kept => format!("${{{name}/{text}/{replacement}}}"),
                Unset::Empty => String::new(),
            });
        };
        Ok(parse_pattern(&text)?.replace(value, &replacement, all))
    }

    /// The word up to `stop`. Whatever ran into the end of the text, the `stop` is what is missing.
    fn operand(&mut self, stop: char, keep_escapes: bool) -> Result<String, ExpandError> {
        match self.until(Some(stop), keep_escapes) {
            Ok(word) => Ok(word.text),
            Err(ExpandError::TooDeep) => Err(ExpandError::TooDeep),
            Err(_) if self.peek().is_none() => Err(ExpandError::Missing(stop)),
            Err(problem) => Err(problem),
        }
    }

    /// A name: letters, digits and `_`; or one number; or one special parameter.
    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some(ch) if ch.is_numeric() => {
                while self.peek().is_some_and(char::is_numeric) {
                    self.at += 1;
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.at += 1,
            _ => {
                while self.peek().is_some_and(|ch| ch.is_alphanumeric() || ch == '_') {
                    self.at += 1;
                }
            }
        }
        self.chars[start..self.at].iter().collect()
    }

    fn lookup(&mut self, name: &str) -> Option<&'a str> {
        let value = self.environment.get(name);
        let names = if value.is_some() {
            &mut self.names.used
        } else {
            &mut self.names.missing
        };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value
    }
}

/// Whether a variable that is set to nothing counts as set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    CountsAsUnset,
    IsAValue,
}

fn parse_pattern(text: &str) -> Result<Pattern, ExpandError> {
    Pattern::parse(text).map_err(|problem| ExpandError::Pattern {
        pattern: text.to_owned(),
        problem,
    })
}
