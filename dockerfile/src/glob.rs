//! File patterns: Go's `filepath.Match`, and the `**` dialect of `.dockerignore` on top of it.
//!
//! Matching simulates the pattern as a small automaton over the path, so it takes time proportional to path ×
//! pattern: no pattern can make it hang.

/// A pattern that Go's `filepath.Match` would call malformed.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("syntax error in pattern")]
pub struct BadPattern;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `[a-z]`; unlike `?` it does match `/`, in Go as here.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**` at the end: everything.
    Everything,
    /// The entry of `**/`: what follows may start right here, or below any folder.
    MaybeFolders,
    /// The body of `**/`: eats up to and including some `/`.
    Folders,
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

/// What `**` means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Go,
    Ignore,
}

impl Glob {
    /// As Go's `filepath.Match`: `*` and `?` stay inside one path component, `**` is two stars.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        Self::compile(pattern, Dialect::Go)
    }

    /// As in `.dockerignore`: `**` spans folders.
    pub fn with_double_star(pattern: &str) -> Result<Self, BadPattern> {
        Self::compile(pattern, Dialect::Ignore)
    }

    fn compile(pattern: &str, dialect: Dialect) -> Result<Self, BadPattern> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(ch) = chars.next() {
            match ch {
                '*' if dialect == Dialect::Ignore && chars.next_if_eq(&'*').is_some() => {
                    chars.next_if_eq(&'/');
                    if chars.peek().is_none() {
                        tokens.push(Token::Everything);
                    } else {
                        tokens.extend([Token::MaybeFolders, Token::Folders]);
                    }
                }
                '*' => tokens.push(Token::Many),
                '?' => tokens.push(Token::One),
                '\\' => tokens.push(Token::Literal(chars.next().ok_or(BadPattern)?)),
                '[' => tokens.push(class(&mut chars)?),
                other => tokens.push(Token::Literal(other)),
            }
        }
        Ok(Self { tokens })
    }

    /// Whether the pattern matches all of `path`.
    pub fn matches(&self, path: &str) -> bool {
        let tokens = &self.tokens;
        // States are "before token i"; the last one is the end.
        let mut now = vec![false; tokens.len() + 1];
        let mut then = vec![false; tokens.len() + 1];
        now[0] = true;
        self.skip_empty(&mut now);
        for ch in path.chars() {
            then.fill(false);
            let mut alive = false;
            for (at, token) in tokens.iter().enumerate() {
                if !now[at] {
                    continue;
                }
                let (stay, go) = match token {
                    Token::Literal(literal) => (false, ch == *literal),
                    Token::One => (false, ch != '/'),
                    Token::Many => (ch != '/', false),
                    Token::Class { negated, ranges } => (
                        false,
                        ranges.iter().any(|(low, high)| (*low..=*high).contains(&ch)) != *negated,
                    ),
                    Token::Everything => (true, false),
                    Token::MaybeFolders => (false, false),
                    Token::Folders => (true, ch == '/'),
                };
                then[at] |= stay;
                then[at + 1] |= go;
                alive |= stay || go;
            }
            if !alive {
                return false;
            }
            self.skip_empty(&mut then);
            std::mem::swap(&mut now, &mut then);
        }
        now[tokens.len()]
    }

    /// Steps that take no character. Tokens only lead forward, so one ascending pass closes the set.
    fn skip_empty(&self, states: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if !states[at] {
                continue;
            }
            match token {
                Token::Many | Token::Everything => states[at + 1] = true,
                Token::MaybeFolders => {
                    states[at + 1] = true;
                    states[at + 2] = true;
                }
                _ => {}
            }
        }
    }
}

/// Go's `filepath.Match(pattern, path)`.
pub fn matches(pattern: &str, path: &str) -> Result<bool, BadPattern> {
    Ok(Glob::new(pattern)?.matches(path))
}

/// Whether a COPY source has to be matched rather than looked up.
pub fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(ch) = chars.next() {
        match ch {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// What follows `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, BadPattern> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
        let low = class_member(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() {
            class_member(chars)?
        } else {
            low
        };
        ranges.push((low, high));
    }
    Ok(Token::Class { negated, ranges })
}

fn class_member(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, BadPattern> {
    match chars.next() {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => chars.next().ok_or(BadPattern),
        Some(ch) => Ok(ch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_patterns() {
        for (pattern, path, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("a**b", "axyb", true),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[!b]", "b", true),
            ("[!b]", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, path), Ok(expected), "{pattern} {path}");
        }
        for pattern in [
            "[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "[^bc", "a[", "a\\", "[a-b-c]",
        ] {
            assert_eq!(matches(pattern, "a"), Err(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn wildcards_that_are_escaped_are_none() {
        for (path, expected) in [
            ("a/b", false),
            ("a*", true),
            ("a\\*", false),
            ("a\\\\*", true),
            ("x[1]", true),
            ("a\\", false),
        ] {
            assert_eq!(has_wildcards(path), expected, "{path}");
        }
    }
}
