//! Text to lines of instruction: directives, comments, continuation lines, heredocs.
//!
//! An [`Entry`] knows its keyword, its flags and the rest of its text; what the rest means is decided per instruction
//! in [`crate::instruction`]. Every entry carries the lines it came from, first to last, counted from 1.

mod directive;
mod error;
mod heredoc;
pub(crate) mod split;

pub use directive::{SyntaxDirective, syntax_directive};
pub use error::{Lines, ParseError, Problem};
pub use heredoc::Heredoc;

use directive::Directives;

/// One instruction, not yet understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As written: `run` stays `run`.
    pub keyword: String,
    /// `--name=value` words between the keyword and the rest, unquoted.
    pub flags: Vec<String>,
    /// What follows, trimmed.
    pub rest: String,
    /// The whole instruction with its continuation lines joined, without heredoc bodies.
    pub code: String,
    pub heredocs: Vec<Heredoc>,
    pub lines: Lines,
    /// The comment lines directly above.
    pub comments: Vec<String>,
}

/// Something worth telling that is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmptyContinuation {
    pub line: u32,
}

/// A Dockerfile as entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub escape: char,
    /// The value of `# check=`.
    pub check: Option<String>,
    pub entries: Vec<Entry>,
    pub empty_continuations: Vec<EmptyContinuation>,
}

/// Splits a Dockerfile into entries.
pub fn read(text: &str) -> Result<Source, ParseError> {
    let mut reader = Reader::new(text);
    let mut entries = Vec::new();
    while let Some(entry) = reader.entry()? {
        entries.push(entry);
    }
    if entries.is_empty() {
        return Err(ParseError::new(
            Lines::at(reader.line.max(1)),
            Problem::NoInstructions,
        ));
    }
    Ok(Source {
        escape: reader.directives.escape,
        check: reader.directives.check,
        entries,
        empty_continuations: reader.empty_continuations,
    })
}

struct Reader<'a> {
    /// Lines with their line ends, which heredoc bodies keep.
    rest: std::str::SplitInclusive<'a, char>,
    line: u32,
    directives: Directives,
    empty_continuations: Vec<EmptyContinuation>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text
                .strip_prefix('\u{feff}')
                .unwrap_or(text)
                .split_inclusive('\n'),
            line: 0,
            directives: Directives::default(),
            empty_continuations: Vec::new(),
        }
    }

    fn next_line(&mut self) -> Option<&'a str> {
        let line = self.rest.next()?;
        self.line += 1;
        Some(line)
    }

    fn entry(&mut self) -> Result<Option<Entry>, ParseError> {
        let mut comments = Vec::new();
        while let Some(raw) = self.next_line() {
            let line = without_line_end(raw).trim_start();
            if self
                .directives
                .read(line)
                .map_err(|problem| ParseError::new(Lines::at(self.line), problem))?
            {
                continue;
            }
            if let Some(comment) = line.strip_prefix('#') {
                match comment.trim() {
                    // An empty comment line cuts the text above off from the instruction below.
                    "" => comments.clear(),
                    text => comments.push(text.to_owned()),
                }
                continue;
            }
            let first = self.line;
            let (start, continues) = self.cut_continuation(line);
            if start.is_empty() && !continues {
                continue;
            }
            let code = self.join(start, continues);
            return self.finish(&code, first, comments).map(Some);
        }
        Ok(None)
    }

    /// Adds continuation lines. Comments and blank lines among them are skipped.
    fn join(&mut self, start: &str, mut continues: bool) -> String {
        let mut code = start.to_owned();
        let mut blank = false;
        while continues {
            let Some(raw) = self.next_line() else { break };
            let line = without_line_end(raw);
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                blank = true;
                continue;
            }
            let (part, more) = self.cut_continuation(line);
            code.push_str(part);
            continues = more;
        }
        if blank {
            self.empty_continuations
                .push(EmptyContinuation { line: self.line });
        }
        code
    }

    fn finish(&mut self, code: &str, first: u32, comments: Vec<String>) -> Result<Entry, ParseError> {
        let (keyword, flags, rest) = split::instruction(code, self.directives.escape);
        let mut entry = Entry {
            keyword: keyword.to_owned(),
            flags,
            rest: rest.to_owned(),
            code: code.trim().to_owned(),
            heredocs: Vec::new(),
            lines: Lines {
                first,
                last: self.line,
            },
            comments,
        };
        if entry.may_hold_heredocs(self.directives.escape) {
            for mut heredoc in heredoc::in_line(code) {
                let Some(content) = self.heredoc_body(&heredoc) else {
                    let lines = Lines {
                        first,
                        last: self.line,
                    };
                    return Err(ParseError::new(lines, Problem::UnterminatedHeredoc));
                };
                heredoc.content = content;
                entry.heredocs.push(heredoc);
            }
            entry.lines.last = self.line;
        }
        Ok(entry)
    }

    fn heredoc_body(&mut self, heredoc: &Heredoc) -> Option<String> {
        let mut content = String::new();
        while let Some(raw) = self.next_line() {
            let line = without_line_end(raw);
            let line = if heredoc.chomp {
                line.trim_start_matches('\t')
            } else {
                line
            };
            if line == heredoc.name {
                return Some(content);
            }
            content.push_str(raw);
        }
        None
    }

    /// The line without its continuation mark, and whether it had one: the escape character at the end, blanks behind
    /// it allowed, unless another one stands before it.
    fn cut_continuation<'l>(&self, line: &'l str) -> (&'l str, bool) {
        let escape = self.directives.escape;
        match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(part) if !part.ends_with(escape) => (part, true),
            _ => (line, false),
        }
    }
}

impl Entry {
    fn may_hold_heredocs(&self, escape: char) -> bool {
        let is = |keyword: &str, names: &[&str]| names.iter().any(|name| keyword.eq_ignore_ascii_case(name));
        let (inner_keyword, inner_rest);
        let (keyword, rest) = if is(&self.keyword, &["onbuild"]) {
            let (keyword, _, rest) = split::instruction(&self.rest, escape);
            (inner_keyword, inner_rest) = (keyword.to_owned(), rest.to_owned());
            (&inner_keyword, &inner_rest)
        } else {
            (&self.keyword, &self.rest)
        };
        self.code.contains("<<")
            && is(keyword, &["add", "copy", "run"])
            && !matches!(split::json_list(rest), Ok(Some(_)))
    }
}

fn without_line_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests;
