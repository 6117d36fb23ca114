//! Parser directives: `# escape=`, `# syntax=` and `# check=` at the very top of the file.

use super::{Lines, Problem};

const KNOWN: [&str; 3] = ["syntax", "escape", "check"];

#[derive(Debug)]
pub(super) struct Directives {
    pub(super) escape: char,
    pub(super) check: Option<String>,
    seen: Vec<String>,
    /// The first line that is no directive ends them, a blank one too.
    over: bool,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            escape: '\\',
            check: None,
            seen: Vec::new(),
            over: false,
        }
    }
}

impl Directives {
    /// Takes a line if it is a directive.
    pub(super) fn read(&mut self, line: &str) -> Result<bool, Problem> {
        if self.over {
            return Ok(false);
        }
        let Some((name, value)) = parse(line, "#") else {
            self.over = true;
            return Ok(false);
        };
        if self.seen.contains(&name) {
            return Err(Problem::RepeatedDirective(name));
        }
        match (name.as_str(), value) {
            ("escape", "\\") => self.escape = '\\',
            ("escape", "`") => self.escape = '`',
            ("escape", other) => return Err(Problem::EscapeToken(other.to_owned())),
            ("check", value) => self.check = Some(value.to_owned()),
            _ => {}
        }
        self.seen.push(name);
        Ok(true)
    }
}

/// `#name = value` with a name we know, lower-cased.
fn parse<'a>(line: &'a str, comment: &str) -> Option<(String, &'a str)> {
    let (name, value) = line.strip_prefix(comment)?.trim_start().split_once('=')?;
    let (name, value) = (name.trim_end().to_ascii_lowercase(), value.trim());
    (KNOWN.contains(&name.as_str()) && !value.is_empty()).then_some((name, value))
}

/// The frontend a file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxDirective {
    /// The image, without what may follow it on the line.
    pub image: String,
    /// The whole value.
    pub command_line: String,
    pub lines: Lines,
}

/// Finds `# syntax=` before anything else is understood: the file may be in another language, which may comment with
/// `//` and may start with `#!`.
pub fn syntax_directive(text: &str) -> Option<SyntaxDirective> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let skip = usize::from(text.starts_with("#!"));
    for comment in ["#", "//"] {
        for (at, line) in text.lines().enumerate().skip(skip) {
            match parse(line, comment) {
                Some((name, value)) if name == "syntax" => {
                    return Some(SyntaxDirective {
                        image: value.split(' ').next().unwrap_or(value).to_owned(),
                        command_line: value.to_owned(),
                        lines: Lines::at(u32::try_from(at + 1).unwrap_or(u32::MAX)),
                    });
                }
                Some(_) => {}
                None => break,
            }
        }
    }
    None
}
