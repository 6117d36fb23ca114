//! The patterns of `${name#pattern}`, `%`, and `/pattern/replacement`: `*`, `?` and backslash escapes.
//!
//! `*` and `?` do not cross a line end. Matching keeps the set of positions that can be reached, so it takes time
//! proportional to text × pattern, whatever the pattern.

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum PatternError {
    #[error("invalid escape '\\{0}'")]
    Escape(char),
    #[error("invalid escape at the end")]
    EscapeAtEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Any,
    Many,
    Literal(char),
}

#[derive(Debug)]
pub(super) struct Pattern(Vec<Token>);

/// Whether `*` takes as little or as much as it can.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Greed {
    Shortest,
    Longest,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(ch) = chars.next() {
            tokens.push(match ch {
                '*' => Token::Many,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    // Inside `${}` these two need an escape of their own, which is not part of the pattern.
                    Some(escaped @ ('}' | '/' | '*' | '?' | '\\')) => Token::Literal(escaped),
                    Some(other) => return Err(PatternError::Escape(other)),
                    None => return Err(PatternError::EscapeAtEnd),
                },
                other => Token::Literal(other),
            });
        }
        Ok(Self(tokens))
    }

    pub(super) fn trim_prefix(&self, value: &str, greed: Greed) -> String {
        let chars: Vec<char> = value.chars().collect();
        let cut = self.end(&chars, 0, greed).unwrap_or(0);
        chars[cut..].iter().collect()
    }

    /// The same on the mirror image: the shortest suffix is the shortest prefix of the reversed text.
    pub(super) fn trim_suffix(&self, value: &str, greed: Greed) -> String {
        let mirrored = Self(self.0.iter().rev().copied().collect());
        let chars: Vec<char> = value.chars().rev().collect();
        let cut = mirrored.end(&chars, 0, greed).unwrap_or(0);
        chars[cut..].iter().rev().collect()
    }

    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let starts = self.starts(&chars);
        let mut out = String::with_capacity(value.len());
        let mut at = 0;
        let mut after_match = None;
        while at <= chars.len() {
            let end = if starts[at] {
                self.end(&chars, at, Greed::Longest)
            } else {
                None
            };
            match end {
                // An empty match right behind the last one does not count.
                Some(end) if end > at || after_match != Some(at) => {
                    out.push_str(replacement);
                    if !all {
                        out.extend(&chars[end..]);
                        return out;
                    }
                    after_match = Some(end);
                    if end == at {
                        out.extend(chars.get(at));
                        at += 1;
                    } else {
                        at = end;
                    }
                }
                _ => {
                    out.extend(chars.get(at));
                    at += 1;
                }
            }
        }
        out
    }

    /// Where a match that starts at `start` ends.
    fn end(&self, text: &[char], start: usize, greed: Greed) -> Option<usize> {
        // Positions reached so far, ascending.
        let mut reached = vec![start];
        for token in &self.0 {
            reached = match token {
                Token::Any => step(&reached, text, |ch| ch != '\n'),
                Token::Literal(literal) => step(&reached, text, |ch| ch == *literal),
                Token::Many => spread(&reached, text),
            };
            if reached.is_empty() {
                return None;
            }
        }
        match greed {
            Greed::Shortest => reached.first().copied(),
            Greed::Longest => reached.last().copied(),
        }
    }

    /// For every position, whether some match starts there: the pattern walked backwards over all positions at once.
    fn starts(&self, text: &[char]) -> Vec<bool> {
        let mut ok = vec![true; text.len() + 1];
        for token in self.0.iter().rev() {
            let mut before = vec![false; text.len() + 1];
            for at in (0..=text.len()).rev() {
                before[at] = match (token, text.get(at)) {
                    (Token::Many, Some(ch)) => ok[at] || (*ch != '\n' && before[at + 1]),
                    (Token::Many, None) => ok[at],
                    (Token::Any, Some(ch)) => *ch != '\n' && ok[at + 1],
                    (Token::Literal(literal), Some(ch)) => ch == literal && ok[at + 1],
                    (_, None) => false,
                };
            }
            ok = before;
        }
        ok
    }
}

fn step(reached: &[usize], text: &[char], fits: impl Fn(char) -> bool) -> Vec<usize> {
    reached
        .iter()
        .filter(|&&at| text.get(at).is_some_and(|&ch| fits(ch)))
        .map(|at| at + 1)
        .collect()
}

fn spread(reached: &[usize], text: &[char]) -> Vec<usize> {
    let mut out: Vec<usize> = Vec::new();
    for &from in reached {
        if out.last().is_some_and(|&last| last >= from) {
            continue;
        }
        let line = text[from..].iter().take_while(|&&ch| ch != '\n').count();
        out.extend(from..=from + line);
    }
    out
}
