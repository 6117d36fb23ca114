//! Columns as Go's tabwriter lays them out: a tab ends a cell, and cells that stand in the same column of neighbouring
//! lines have the same width.
//!
//! A line without a cell in a column ends that column's block; below it the column begins anew. The last cell of a line
//! is not ended by a tab: it is text after the columns and makes none of them wider.

/// Columns begin at multiples of it.
const TAB: usize = 8;

/// Lays out text whose cells are ended by tabs, with as many tabs as the columns need.
pub fn layout(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text
        .split_terminator('\n')
        .map(|line| line.split('\t').collect())
        .collect();
    let mut writer = Writer {
        lines: &lines,
        widths: Vec::new(),
        text: String::with_capacity(text.len() * 2),
    };
    let mut from = 0;
    // A line of one cell has no columns and separates what is above it from what is below.
    for (at, line) in lines.iter().enumerate() {
        if line.len() == 1 {
            writer.block(from, at + 1);
            from = at + 1;
        }
    }
    writer.block(from, lines.len());
    writer.text
}

struct Writer<'a> {
    lines: &'a [Vec<&'a str>],
    /// Of the columns to the left, for the lines that are being laid out.
    widths: Vec<usize>,
    text: String,
}

impl Writer<'_> {
    /// Lays out the lines `from..to`, whose columns to the left are known.
    fn block(&mut self, mut from: usize, to: usize) {
        let column = self.widths.len();
        let mut at = from;
        while at < to {
            if !self.has_cell(at, column) {
                at += 1;
                continue;
            }
            self.write(from, at);
            let end = (at..to).find(|&line| !self.has_cell(line, column)).unwrap_or(to);
            let widest = (at..end)
                .map(|line| width(self.lines[line][column]))
                .max()
                .unwrap_or_default();
            self.widths.push((widest + 1).next_multiple_of(TAB));
            self.block(at, end);
            self.widths.pop();
            (from, at) = (end, end);
        }
        self.write(from, to);
    }

    /// Whether a tab ends the cell.
    fn has_cell(&self, line: usize, column: usize) -> bool {
        column + 1 < self.lines[line].len()
    }

    fn write(&mut self, from: usize, to: usize) {
        for line in &self.lines[from..to] {
            for (column, cell) in line.iter().enumerate() {
                self.text.push_str(cell);
                let Some(&wide) = self.widths.get(column) else {
                    continue;
                };
                let missing = wide - width(cell);
                self.text.extend(std::iter::repeat_n('\t', missing.div_ceil(TAB)));
            }
            self.text.push('\n');
        }
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go's text/tabwriter makes of the same texts, with its parameters 1, 8, 1, '\t'.
    #[test]
    fn tabs_pad_to_multiples_of_eight() {
        for (text, expected) in [
            ("Name:\ta\nDuration:\t1s\n", "Name:\t\ta\nDuration:\t1s\n"),
            ("1234567\tx\n", "1234567\tx\n"),
            ("12345678\tx\n", "12345678\tx\n"),
            ("a\t\tc\nbbbbbbbbb\td\te\n", "a\t\t\tc\nbbbbbbbbb\td\te\n"),
            ("a\tb\n\nlong long\tc\n", "a\tb\n\nlong long\tc\n"),
            ("", ""),
        ] {
            assert_eq!(layout(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_without_the_column_ends_its_block() {
        assert_eq!(
            layout("aaaa\tbbbbbbbbb\td\naa\tb\tdd\na\te\naa\tcccc\tee\n"),
            "aaaa\tbbbbbbbbb\td\naa\tb\t\tdd\na\te\naa\tcccc\tee\n"
        );
    }
}
