//! Answers as people read them.

use std::fmt::Write as _;

use proto::errdefs::{Source, SourceInfo};

use super::answers::Warning;

/// Columns as wide as their widest cell and `gap` blanks; the last one has no padding.
pub(super) fn table<'a>(rows: impl IntoIterator<Item = Vec<&'a str>>, gap: usize) -> String {
    let rows: Vec<Vec<&str>> = rows.into_iter().collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| column + 1 < row.len());
        cells
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
            + gap
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = if at + 1 < row.len() { widths[at] } else { 0 };
            let _ = write!(text, "{cell:width$}");
        }
        text.push('\n');
    }
    text
}

/// Every warning with the lines it is about, from top to bottom.
pub(super) fn warnings(warnings: &[Warning], sources: &[SourceInfo]) -> String {
    let line = |warning: &Warning| warning.location.ranges().first().map(|range| range.start.line);
    let mut sorted: Vec<&Warning> = warnings.iter().collect();
    sorted.sort_by_key(|warning| line(warning));
    let mut text = String::new();
    for warning in sorted {
        let _ = write!(text, "\nWARNING: {}", warning.rule_name);
        if !warning.url.is_empty() {
            let _ = write!(text, " - {}", warning.url);
        }
        let _ = writeln!(text, "\n{}", warning.detail);
        if let Some(info) = sources.first() {
            let source = Source {
                info: info.clone(),
                ranges: warning.location.ranges().to_vec(),
            };
            text += &source.excerpt();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must() {
        let rows = [
            vec!["TARGET", "DESCRIPTION"],
            vec!["a longer name", ""],
            vec!["é", "x"],
        ];
        assert_eq!(
            table(rows, 1),
            "TARGET        DESCRIPTION\na longer name \né             x\n"
        );
        assert_eq!(table([], 1), "");
    }
}
