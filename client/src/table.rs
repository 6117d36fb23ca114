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

/// `Label: value` lines whose values stand in one column, in runs as Go's tabwriter forms them: a line without a value
/// ends a run.
pub fn aligned(lines: &[Line]) -> String {
    let mut text = String::new();
    let mut run: Vec<Vec<String>> = Vec::new();
    for line in lines {
        match line {
            Line::Pair(label, value) => run.push(vec![label.clone(), value.clone()]),
            Line::Plain(line) => {
                text.push_str(&columns(&run, 1, 0));
                run.clear();
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text.push_str(&columns(&run, 1, 0));
    text
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Pair(String, String),
    Plain(String),
}

impl Line {
    pub fn pair(label: &str, value: &(impl ToString + ?Sized)) -> Self {
        Self::Pair(label.to_owned(), value.to_string())
    }

    pub fn plain(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_line_up_within_a_run() {
        let lines = [
            Line::pair("Name:", "a"),
            Line::pair("Driver:", "remote"),
            Line::plain(""),
            Line::plain("Nodes:"),
            Line::pair("Name:", "a0"),
            Line::pair("BuildKit version:", "v1"),
        ];
        assert_eq!(
            aligned(&lines),
            "Name:   a\nDriver: remote\n\nNodes:\nName:             a0\nBuildKit version: v1\n"
        );
    }
}
