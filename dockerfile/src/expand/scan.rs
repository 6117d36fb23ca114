//! The scanner behind [`Expander`](super::Expander): one pass over the characters, recursive in `${…}` only.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::pattern::{Greed, Pattern};
use super::{DEEPEST, Environment, ExpandError, Expander, LONGEST, Quotes, Unset};

/// Variables met on the way.
#[derive(Default)]
pub(super) struct Names {
    pub(super) used: BTreeSet<String>,
    pub(super) missing: BTreeSet<String>,
}

/// An expanded text; as words beside it, if somebody wants them.
#[derive(Default)]
struct Expanded {
    text: String,
    words: Option<Words>,
}

#[derive(Default)]
struct Words {
    complete: Vec<String>,
    current: String,
}

impl Expanded {
    /// Text that was not quoted: a blank ends a word.
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        let Some(words) = &mut self.words else { return };
        let mut parts = text.split(char::is_whitespace);
        words.current.push_str(parts.next().unwrap_or_default());
        for part in parts {
            words.end();
            words.current.push_str(part);
        }
    }

    /// Text that was quoted or escaped: blanks are part of the word.
    fn push_literal(&mut self, text: &str) {
        self.text.push_str(text);
        if let Some(words) = &mut self.words {
            words.current.push_str(text);
        }
    }
}

impl Words {
    fn end(&mut self) {
        if !self.current.is_empty() {
            self.complete.push(std::mem::take(&mut self.current));
        }
    }
}

/// The expanded word.
pub(super) fn text(how: &Expander, word: &str, environment: &Environment) -> Result<String, ExpandError> {
    let mut out = Expanded::default();
    Scanner::new(how, word, environment, None).until(None, how.keep_escapes, &mut out)?;
    Ok(out.text)
}

/// The expanded word, and the variables in it.
pub(super) fn word(
    how: &Expander,
    word: &str,
    environment: &Environment,
) -> Result<(String, Names), ExpandError> {
    let (mut out, mut names) = (Expanded::default(), Names::default());
    let mut scanner = Scanner::new(how, word, environment, Some(&mut names));
    scanner.until(None, how.keep_escapes, &mut out)?;
    Ok((out.text, names))
}

/// The words of the expanded text.
pub(super) fn words(
    how: &Expander,
    text: &str,
    environment: &Environment,
) -> Result<Vec<String>, ExpandError> {
    let mut out = Expanded {
        words: Some(Words::default()),
        ..Expanded::default()
    };
    Scanner::new(how, text, environment, None).until(None, how.keep_escapes, &mut out)?;
    let mut words = out.words.unwrap_or_default();
    words.end();
    Ok(words.complete)
}

struct Scanner<'a> {
    how: &'a Expander,
    environment: &'a Environment,
    /// What is not scanned yet.
    rest: &'a str,
    /// Where variables are noted, if somebody asks.
    names: Option<&'a mut Names>,
    depth: usize,
}

impl<'a> Scanner<'a> {
    fn new(
        how: &'a Expander,
        text: &'a str,
        environment: &'a Environment,
        names: Option<&'a mut Names>,
    ) -> Self {
        Self {
            how,
            environment,
            rest: text,
            names,
            depth: 0,
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let ch = self.peek()?;
        self.take(ch.len_utf8());
        Some(ch)
    }

    /// Takes what follows if it is this.
    fn next_if(&mut self, ch: char) -> bool {
        let is = self.rest.starts_with(ch);
        if is {
            self.take(ch.len_utf8());
        }
        is
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// Takes what follows as long as it is like this.
    fn take_while(&mut self, is_like: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|ch| !is_like(ch));
        self.take(end.unwrap_or(self.rest.len()))
    }

    /// Up to `stop`, which is taken and not returned, or to the end of the text.
    fn until(
        &mut self,
        stop: Option<char>,
        keep_escapes: bool,
        out: &mut Expanded,
    ) -> Result<(), ExpandError> {
        let Expander { escape, quotes, .. } = *self.how;
        let means_something =
            |ch: char| matches!(ch, '$' | '<' | '\'' | '"') || ch == escape || Some(ch) == stop;
        while let Some(ch) = self.next() {
            if Some(ch) == stop {
                return Ok(());
            }
            match ch {
                '$' => out.push(&self.dollar(keep_escapes)?),
                '<' => {
                    out.push_literal("<");
                    self.angle(out);
                }
                '\'' if quotes != Quotes::Ignored => self.single_quoted(out)?,
                '"' if quotes != Quotes::Ignored => self.double_quoted(keep_escapes, out)?,
                ch if ch == escape => {
                    if keep_escapes {
                        out.push_literal(ch.encode_utf8(&mut [0; 4]));
                    }
                    // At the end of the text an escape escapes nothing and vanishes.
                    if let Some(escaped) = self.next() {
                        out.push_literal(escaped.encode_utf8(&mut [0; 4]));
                    }
                }
                ch => {
                    out.push(ch.encode_utf8(&mut [0; 4]));
                    out.push(self.take_while(|ch| !means_something(ch)));
                }
            }
            if out.text.len() > LONGEST {
                return Err(ExpandError::TooLong);
            }
        }
        match stop {
            Some(stop) => Err(ExpandError::Missing(stop)),
            None => Ok(()),
        }
    }

    /// What follows `<`: `<<` and the blanks behind it stay in one word with what follows, so that `<< EOF` is one
    /// heredoc word.
    fn angle(&mut self, out: &mut Expanded) {
        if self.next_if('<') {
            out.push_literal("<");
            out.push_literal(self.take_while(|ch| matches!(ch, '\t' | '\r' | ' ')));
        }
    }

    /// Nothing can be escaped between single quotes.
    fn single_quoted(&mut self, out: &mut Expanded) -> Result<(), ExpandError> {
        let quoted = self.take_while(|ch| ch != '\'');
        self.next().ok_or(ExpandError::SingleQuote)?;
        self.quote(out, "'");
        out.push_literal(quoted);
        self.quote(out, "'");
        Ok(())
    }

    /// Between double quotes `$` works, and the escape escapes `"`, `$` and itself; before anything else it stays.
    fn double_quoted(&mut self, keep_escapes: bool, out: &mut Expanded) -> Result<(), ExpandError> {
        let escape = self.how.escape;
        self.quote(out, "\"");
        loop {
            out.push_literal(self.take_while(|ch| !matches!(ch, '"' | '$') && ch != escape));
            match self.next() {
                None => return Err(ExpandError::DoubleQuote),
                Some('"') => {
                    self.quote(out, "\"");
                    return Ok(());
                }
                Some('$') => out.push_literal(&self.dollar(keep_escapes)?),
                // Nothing else ends what was taken.
                Some(_) => {
                    let written = escape.encode_utf8(&mut [0; 4]).to_owned();
                    if keep_escapes {
                        out.push_literal(&written);
                    }
                    match self.peek() {
                        None => {}
                        Some(escaped) if matches!(escaped, '"' | '$') || escaped == escape => {
                            out.push_literal(self.take(escaped.len_utf8()));
                        }
                        Some(_) => out.push_literal(&written),
                    }
                }
            }
            if out.text.len() > LONGEST {
                return Err(ExpandError::TooLong);
            }
        }
    }

    fn quote(&self, out: &mut Expanded, quote: &str) {
        if self.how.quotes == Quotes::Kept {
            out.push_literal(quote);
        }
    }

    /// What follows a `$` that was taken already.
    fn dollar(&mut self, keep_escapes: bool) -> Result<Cow<'a, str>, ExpandError> {
        if !self.next_if('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.lookup(name) {
                None if self.how.unset == Unset::Kept => format!("${name}").into(),
                value => value.unwrap_or_default().into(),
            });
        }
        if self.depth == DEEPEST {
            return Err(ExpandError::TooDeep);
        }
        self.depth += 1;
        let value = self.braces(keep_escapes);
        self.depth -= 1;
        value
    }

    /// What follows `${`.
    fn braces(&mut self, keep_escapes: bool) -> Result<Cow<'a, str>, ExpandError> {
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
            '}' => Ok(match self.lookup(name) {
                None if self.how.unset == Unset::Kept => format!("${{{name}}}").into(),
                value => value.unwrap_or_default().into(),
            }),
            ':' => match self.next() {
                Some(choice @ ('+' | '-' | '?')) => {
                    self.choice(name, choice, Empty::CountsAsUnset, keep_escapes)
                }
                other => Err(ExpandError::UnsupportedModifier(format!(
                    ":{}",
                    other.map(String::from).unwrap_or_default()
                ))),
            },
            choice @ ('+' | '-' | '?') => self.choice(name, choice, Empty::IsAValue, keep_escapes),
            side @ ('#' | '%') => self.trim(name, side).map(Cow::Owned),
            '/' => self.replace(name).map(Cow::Owned),
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
    ) -> Result<Cow<'a, str>, ExpandError> {
        let word = self.operand('}', keep_escapes)?;
        let value = self.lookup(name);
        if value.is_none() && self.how.unset == Unset::Kept {
            let colon = if empty == Empty::CountsAsUnset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{choice}{word}}}").into());
        }
        let present = value.filter(|value| !value.is_empty() || empty == Empty::IsAValue);
        match (choice, present) {
            ('-', Some(present)) | ('?', Some(present)) => Ok(present.into()),
            ('-', None) | ('+', Some(_)) => Ok(word.into()),
            ('+', None) => Ok(Cow::default()),
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
        let all = self.next_if('/');
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
        let mut word = Expanded::default();
        match self.until(Some(stop), keep_escapes, &mut word) {
            Ok(()) => Ok(word.text),
            Err(ExpandError::TooDeep) => Err(ExpandError::TooDeep),
            Err(_) if self.peek().is_none() => Err(ExpandError::Missing(stop)),
            Err(problem) => Err(problem),
        }
    }

    /// A name: letters, digits and `_`; or one number; or one special parameter.
    fn name(&mut self) -> &'a str {
        match self.peek() {
            Some(ch) if ch.is_numeric() => self.take_while(char::is_numeric),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.take(1),
            _ => self.take_while(|ch| ch.is_alphanumeric() || ch == '_'),
        }
    }

    fn lookup(&mut self, name: &str) -> Option<&'a str> {
        let value = self.environment.get(name);
        if let Some(names) = &mut self.names {
            let names = match value {
                Some(_) => &mut names.used,
                None => &mut names.missing,
            };
            if !names.contains(name) {
                names.insert(name.to_owned());
            }
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
