//! Files of a definition and places in them.

use std::sync::Arc;

/// A file of the definition, already read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As the user named it: its suffix decides the format.
    pub name: String,
    pub text: String,
}

/// Bytes of one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub file: usize,
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(file: usize, range: std::ops::Range<usize>) -> Self {
        Self {
            file,
            start: range.start,
            end: range.end,
        }
    }

    /// From the start of this to the end of the other.
    pub fn to(self, other: Self) -> Self {
        Self {
            end: other.end.max(self.end),
            ..self
        }
    }
}

/// Lines and columns, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// What an error points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub text: Arc<str>,
    pub start: Position,
    pub end: Position,
}

impl Place {
    pub(crate) fn of(span: Span, files: &[File]) -> Option<Self> {
        let file = files.get(span.file)?;
        Some(Self {
            file: file.name.clone(),
            text: file.text.as_str().into(),
            start: position(&file.text, span.start),
            end: position(&file.text, span.end),
        })
    }

    /// One line of a file whose parser tells nothing more.
    pub(crate) fn at(file: &File, position: Position) -> Self {
        Self {
            file: file.name.clone(),
            text: file.text.as_str().into(),
            start: position,
            end: position,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (start, end) = (self.start, self.end);
        write!(f, "{}:{},{}-", self.file, start.line, start.column)?;
        if start.line != end.line {
            write!(f, "{},", end.line)?;
        }
        write!(f, "{}", end.column)
    }
}

pub(crate) fn position(text: &str, offset: usize) -> Position {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
