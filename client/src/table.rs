//! Text in columns.

/// Columns padded to their widest cell, `gap` spaces apart and at least `minimum` wide with the gap; the last cell of a
/// row is not padded.
pub fn columns(rows: &[Vec<String>], gap: usize, minimum: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..count)
        .map(|column| {
            // The last cell of a row does not make its column wide.
            let cells = rows.iter().filter(|row| column + 1 < row.len());
            let widest = cells
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or_default();
            (widest + gap).max(minimum)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if column + 1 < row.len() {
                let padding = widths[column] - cell.chars().count();
                line.extend(std::iter::repeat_n(' ', padding));
            }
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// `Label: value` lines whose values stand in one column.
pub fn aligned(lines: &[Line]) -> String {
    let cells: Vec<Vec<String>> = lines
        .iter()
        .map(|Line(label, value)| vec![label.clone(), value.clone()])
        .collect();
    columns(&cells, 1, 0)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(String, String);

impl Line {
    pub fn pair(label: &str, value: &(impl ToString + ?Sized)) -> Self {
        Self(label.to_owned(), value.to_string())
    }
}

/// Lines whose cells, separated by tabs, stand in columns as Go's tabwriter forms them: a column reaches over the
/// lines next to each other that have it, and the last cell of a line belongs to none.
pub fn tabbed(text: &str, gap: usize) -> String {
    let pad = |padding| " ".repeat(padding);
    laid_out(text, &|widest| widest + gap, &pad)
}

/// The same with tabs between the columns, which begin at multiples of eight.
pub fn tab_stops(text: &str) -> String {
    const TAB: usize = 8;
    let pad = |padding: usize| "\t".repeat(padding.div_ceil(TAB));
    laid_out(text, &|widest| (widest + 1).next_multiple_of(TAB), &pad)
}

/// `width` makes the width of a column from that of its widest cell.
fn laid_out(text: &str, width: &dyn Fn(usize) -> usize, pad: &dyn Fn(usize) -> String) -> String {
    let lines: Vec<Vec<&str>> = text
        .split_terminator('\n')
        .map(|line| line.split('\t').collect())
        .collect();
    let mut widths: Vec<Vec<usize>> = vec![Vec::new(); lines.len()];
    set_widths(&lines, &mut widths, 0, width);
    let mut shown = String::with_capacity(text.len());
    for (cells, widths) in lines.iter().zip(&widths) {
        for (number, cell) in cells.iter().enumerate() {
            shown.push_str(cell);
            if let Some(width) = widths.get(number) {
                shown.push_str(&pad(width - cell.chars().count()));
            }
        }
        shown.push('\n');
    }
    shown
}

/// Gives the cells of one column their width, run by run, and then those to its right.
fn set_widths(lines: &[Vec<&str>], widths: &mut [Vec<usize>], column: usize, width: &dyn Fn(usize) -> usize) {
    let has_column = |line: &Vec<&str>| column + 1 < line.len();
    let mut start = 0;
    while start < lines.len() {
        let run = lines[start..].iter().take_while(|line| has_column(line)).count();
        let end = start + run;
        if run > 0 {
            let cells = lines[start..end].iter().map(|line| line[column].chars().count());
            let width_here = width(cells.max().unwrap_or_default());
            for widths in &mut widths[start..end] {
                widths.push(width_here);
            }
            set_widths(&lines[start..end], &mut widths[start..end], column + 1, width);
        }
        start = end.max(start + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_reach_over_lines_next_to_each_other() {
        let text = "Name:\ta\nDriver:\tremote\n\nNodes:\nName:\ta0\nBuildKit version:\tv1\nLabels:\n\ta:\t1\n\tlonger:\t2\nDevices:\n\tName:\tx\n\tAnnotations:\n\t\tk:\tv\n";
        assert_eq!(
            tabbed(text, 1),
            "Name:   a\nDriver: remote\n\nNodes:\nName:             a0\nBuildKit version: v1\nLabels:\n a:      1\n longer: 2\nDevices:\n Name: x\n Annotations:\n  k: v\n"
        );
    }

    /// What Go's text/tabwriter makes of the same texts, with its parameters 1, 8, 1, '\t'.
    #[test]
    fn tab_stops_are_multiples_of_eight() {
        for (text, expected) in [
            ("Name:\ta\nDuration:\t1s\n", "Name:\t\ta\nDuration:\t1s\n"),
            ("1234567\tx\n", "1234567\tx\n"),
            ("12345678\tx\n", "12345678\tx\n"),
            ("a\t\tc\nbbbbbbbbb\td\te\n", "a\t\t\tc\nbbbbbbbbb\td\te\n"),
            ("a\tb\n\nlong long\tc\n", "a\tb\n\nlong long\tc\n"),
            ("", ""),
        ] {
            assert_eq!(tab_stops(text), expected, "{text:?}");
        }
    }
}
