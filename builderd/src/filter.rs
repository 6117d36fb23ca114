//! containerd's filter expressions, in which clients say which records they mean: `type==regular,inuse`, `id~=^ab`.
//!
//! Parts of one expression, separated by commas, must all hold; of several expressions one is enough. Pure; whoever
//! has records tells the values of their fields.

use regex::Regex;

/// A regular expression compiles to at most this many bytes: it comes from a client.
const REGEX_LIMIT: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter {filter:?}: {problem} at character {}", at + 1)]
pub struct FilterError {
    filter: String,
    at: usize,
    problem: &'static str,
}

/// What some records are and others are not. The default is what all are.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// One is enough; none is no restriction.
    any: Vec<Vec<Part>>,
}

#[derive(Clone, Debug)]
struct Part {
    field: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

/// What a record has in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Absent,
    Text(String),
    /// There, but without a text; what flags are.
    Flag,
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        match text.into() {
            text if text.is_empty() => Self::Absent,
            text => Self::Text(text),
        }
    }

    pub fn flag(is_set: bool) -> Self {
        if is_set { Self::Flag } else { Self::Absent }
    }
}

impl Filter {
    /// The records that one of `expressions` means. Empty ones mean all.
    pub fn parse<S: AsRef<str>>(expressions: &[S]) -> Result<Self, FilterError> {
        let parsed = expressions
            .iter()
            .map(|expression| Parser::new(expression.as_ref()).expression());
        Ok(Self {
            any: parsed.collect::<Result<_, _>>()?,
        })
    }

    /// Whether the record whose fields have these values is meant. Fields nobody has are absent.
    pub fn matches(&self, value: impl Fn(&str) -> Value) -> bool {
        self.any.is_empty()
            || self
                .any
                .iter()
                .any(|parts| parts.iter().all(|part| part.matches(&value)))
    }
}

impl Part {
    fn matches(&self, value: &impl Fn(&str) -> Value) -> bool {
        let value = value(&self.field);
        let (text, present) = match &value {
            Value::Absent => ("", false),
            Value::Flag => ("", true),
            Value::Text(text) => (text.as_str(), true),
        };
        match &self.test {
            Test::Present => present,
            Test::Equal(wanted) => present && text == wanted,
            Test::NotEqual(unwanted) => text != unwanted,
            Test::Matches(regex) => present && regex.is_match(text),
        }
    }
}

struct Parser<'a> {
    filter: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(filter: &'a str) -> Self {
        Self { filter, at: 0 }
    }

    fn expression(mut self) -> Result<Vec<Part>, FilterError> {
        let mut parts = Vec::new();
        if self.filter.is_empty() {
            return Ok(parts);
        }
        loop {
            parts.push(self.part()?);
            self.skip_blanks();
            match self.peek() {
                None => return Ok(parts),
                Some(',') => self.at += 1,
                Some(_) => return Err(self.error("unexpected text")),
            }
        }
    }

    fn part(&mut self) -> Result<Part, FilterError> {
        let mut field = self.field()?;
        while self.peek() == Some('.') {
            self.at += 1;
            field.push('.');
            field.push_str(&self.field()?);
        }
        self.skip_blanks();
        if matches!(self.peek(), None | Some(',')) {
            let test = Test::Present;
            return Ok(Part { field, test });
        }
        let operator = self.take_while(|c| matches!(c, '=' | '!' | '~'));
        let test = match operator {
            "==" => Test::Equal(self.value()?),
            "!=" => Test::NotEqual(self.value()?),
            "~=" => Test::Matches(self.regex()?),
            "" => return Err(self.error("expected an operator (==, != or ~=)")),
            _ => {
                self.at -= operator.len();
                return Err(self.error("unknown operator; known are ==, != and ~="));
            }
        };
        Ok(Part { field, test })
    }

    fn field(&mut self) -> Result<String, FilterError> {
        self.skip_blanks();
        if let Some(quote @ ('"' | '\'')) = self.peek() {
            return self.quoted(quote);
        }
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if name.is_empty() {
            return Err(self.error("expected the name of a field"));
        }
        Ok(name.to_owned())
    }

    fn value(&mut self) -> Result<String, FilterError> {
        self.skip_blanks();
        match self.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            _ => self.bare(),
        }
    }

    /// Regular expressions may stand between `/` or `|`, in which backslashes are theirs.
    fn regex(&mut self) -> Result<Regex, FilterError> {
        self.skip_blanks();
        let start = self.at;
        let text = match self.peek() {
            Some(quote @ ('/' | '|')) => self.between(quote)?,
            _ => self.value()?,
        };
        regex::RegexBuilder::new(&text)
            .size_limit(REGEX_LIMIT)
            .build()
            .map_err(|_| {
                self.at = start;
                self.error("no valid regular expression")
            })
    }

    fn bare(&mut self) -> Result<String, FilterError> {
        let text = self.take_while(|c| !c.is_whitespace() && c != ',' && c != '\0');
        if text.is_empty() {
            return Err(self.error("expected a value"));
        }
        Ok(text.to_owned())
    }

    fn between(&mut self, quote: char) -> Result<String, FilterError> {
        let start = self.at;
        self.at += quote.len_utf8();
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                c if c == quote => return Ok(text),
                '\\' if self.peek() == Some(quote) => text.extend(self.next()),
                c => text.push(c),
            }
        }
        self.at = start;
        Err(self.error("a quote without its end"))
    }

    /// As Go writes strings.
    fn quoted(&mut self, quote: char) -> Result<String, FilterError> {
        let start = self.at;
        self.at += quote.len_utf8();
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                c if c == quote => return Ok(text),
                '\n' => break,
                '\\' => text.push(self.escaped()?),
                c => text.push(c),
            }
        }
        self.at = start;
        Err(self.error("a quote without its end"))
    }

    fn escaped(&mut self) -> Result<char, FilterError> {
        let start = self.at;
        let escaped = match self.next() {
            Some('a') => Some('\x07'),
            Some('b') => Some('\x08'),
            Some('f') => Some('\x0c'),
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('v') => Some('\x0b'),
            Some(c @ ('\\' | '"' | '\'')) => Some(c),
            Some('x') => self.digits(2, 16),
            Some('u') => self.digits(4, 16),
            Some('U') => self.digits(8, 16),
            Some('0'..='7') => {
                self.at = start;
                self.digits(3, 8)
            }
            _ => None,
        };
        escaped.ok_or_else(|| {
            self.at = start;
            self.error("unknown escape")
        })
    }

    fn digits(&mut self, count: usize, base: u32) -> Option<char> {
        let digits = self.filter.get(self.at..self.at + count)?;
        self.at += count;
        // `from_str_radix` takes a sign as well.
        digits.chars().all(|c| c.is_digit(base)).then_some(())?;
        char::from_u32(u32::from_str_radix(digits, base).ok()?)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.filter[self.at..];
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_blanks(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn peek(&self) -> Option<char> {
        self.filter[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn error(&self, problem: &'static str) -> FilterError {
        FilterError {
            filter: self.filter.to_owned(),
            at: self.filter[..self.at].chars().count(),
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(field: &str) -> Value {
        match field {
            "id" => Value::text("abc"),
            "type" => Value::text("source.local"),
            "description" => Value::text("a,b \"c\""),
            "empty" => Value::text(""),
            "inuse" => Value::flag(true),
            "shared" => Value::flag(false),
            _ => Value::Absent,
        }
    }

    #[test]
    fn expressions_mean_what_they_mean_to_containerd() {
        for (expressions, meant) in [
            (&[][..], true),
            (&[""], true),
            (&["id==abc"], true),
            (&["id==ab"], false),
            (&[" id == abc "], true),
            (&["id==abc,type==source.local"], true),
            (&["id==abc,type==regular"], false),
            (&["id==x", "type==source.local"], true),
            (&["id!=abc"], false),
            (&["id!=x"], true),
            (&["nothing!=x"], true),
            (&["nothing==x"], false),
            (&["empty"], false),
            (&["inuse"], true),
            (&["shared"], false),
            (&["inuse,id"], true),
            (&["id~=^a"], true),
            (&["id~=^b"], false),
            (&["id~=/a|x/"], true),
            (&["nothing~=.*"], false),
            (&["inuse~=.*"], true),
            (&["description==\"a,b \\\"c\\\"\""], true),
            (&["description~='^a,b'"], true),
            (&["\"id\"==abc"], true),
            (&["id==\"\\x61\\142\\u0063\""], true),
        ] {
            let filter = Filter::parse(expressions).unwrap();
            assert_eq!(filter.matches(value), meant, "{expressions:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (expression, text) in [
            (
                "id=abc",
                "filter \"id=abc\": unknown operator; known are ==, != and ~= at character 3",
            ),
            ("id==", "filter \"id==\": expected a value at character 5"),
            (
                "id==a,",
                "filter \"id==a,\": expected the name of a field at character 7",
            ),
            ("id==a b", "filter \"id==a b\": unexpected text at character 7"),
            (
                "id+a",
                "filter \"id+a\": expected an operator (==, != or ~=) at character 3",
            ),
            (
                "id~=(",
                "filter \"id~=(\": no valid regular expression at character 5",
            ),
            (
                "id==\"a",
                "filter \"id==\\\"a\": a quote without its end at character 5",
            ),
            (
                "id==\"\\q\"",
                "filter \"id==\\\"\\\\q\\\"\": unknown escape at character 7",
            ),
        ] {
            assert_eq!(Filter::parse(&[expression]).unwrap_err().to_string(), text);
        }
        Filter::parse(&["id~=(a{1000}){1000}"]).unwrap_err();
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "(\\PC|[\"'\\\\=!~,./|x\\n])*") {
            if let Ok(filter) = Filter::parse(&[text]) {
                filter.matches(value);
            }
        }
    }
}
