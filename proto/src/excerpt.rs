//! The lines of a text around a place, as BuildKit's clients print them.

use crate::errdefs::Source;

/// Lines around one that stands alone.
const CONTEXT: usize = 4;

pub(crate) fn around(source: &Source) -> String {
    let ranges: Vec<(i32, i32)> = source
        .ranges
        .iter()
        .map(|range| (range.start.line, range.end.line.max(range.start.line)))
        .collect();
    let first = ranges.iter().map(|range| range.0).min().unwrap_or_default();
    let last = ranges.iter().map(|range| range.1).max().unwrap_or_default();
    // No line after these is shown: a check of a large file has thousands of excerpts.
    let shown = usize::try_from(last).unwrap_or_default().saturating_add(CONTEXT);
    let lines: Vec<&[u8]> = source
        .info
        .data
        .split(|&byte| byte == b'\n')
        .take(shown)
        .collect();
    let count = i32::try_from(lines.len()).unwrap_or(i32::MAX);
    if !(1..=count).contains(&first) {
        return String::new();
    }
    let last = last.min(count);
    // Two lines of context; one line alone gets four, shared between both sides.
    let context = if first == last { CONTEXT } else { 2 };
    let (mut from, mut to, mut added) = (first, last, 0);
    while added < context {
        if from > 1 {
            from -= 1;
            added += 1;
        }
        if to < count {
            to += 1;
            added += 1;
        }
        // At the borders of a short file there is nothing more to add.
        added += 1;
    }
    let mut excerpt = format!("{}:{first}\n--------------------\n", source.info.filename);
    for number in from..=to {
        let marked = ranges.iter().any(|&(start, end)| (start..=end).contains(&number));
        let line = lines
            .get(usize::try_from(number - 1).unwrap_or_default())
            .map(|line| String::from_utf8_lossy(line))
            .unwrap_or_default();
        excerpt.push_str(&format!(
            " {number:3} | {} {line}\n",
            if marked { ">>>" } else { "   " }
        ));
    }
    excerpt.push_str("--------------------\n");
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errdefs::{Position, Range, SourceInfo};

    fn source(text: &str, start: i32, end: i32) -> Source {
        Source {
            info: SourceInfo {
                filename: "Dockerfile".to_owned(),
                data: text.to_owned().into(),
                definition: None,
                language: String::new(),
            },
            ranges: vec![Range {
                start: Position {
                    line: start,
                    character: 0,
                },
                end: Position {
                    line: end,
                    character: 0,
                },
            }],
        }
    }

    #[test]
    fn an_excerpt_marks_the_lines_that_failed() {
        let excerpt = around(&source("FROM x\nRUN a\nRUN b\nRUN c\nRUN d\n", 3, 3));
        assert_eq!(
            excerpt,
            "Dockerfile:3\n--------------------\n   1 |     FROM x\n   2 |     RUN a\n   3 | >>> RUN b\n   4 |     RUN c\n   5 |     RUN d\n--------------------\n"
        );
    }

    #[test]
    fn a_place_outside_the_text_has_no_excerpt() {
        assert_eq!(around(&source("FROM x\n", 9, 9)), "");
        assert_eq!(around(&source("FROM x\n", 0, 0)), "");
        assert_eq!(
            around(&source("FROM x", 1, 5)),
            "Dockerfile:1\n--------------------\n   1 | >>> FROM x\n--------------------\n"
        );
    }
}
