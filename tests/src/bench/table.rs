//! The results as a table.

use std::io::Write;

use super::Row;

/// Prints a row for each measurement: a column for each endpoint, ratios to the last one, and the budget.
pub fn print(
    output: &mut impl Write,
    names: &[&str],
    rows: &[(Row, Vec<Option<f64>>)],
) -> std::io::Result<()> {
    write!(output, "| {:<46} |", "median of the runs")?;
    for name in names {
        write!(output, " {name:>10} |")?;
    }
    if names.len() > 1 {
        write!(output, " {:>10} |", "times")?;
    }
    writeln!(output, " {:>8} |", "budget")?;
    let columns = names.len() + 1 + usize::from(names.len() > 1);
    writeln!(output, "|{}|{}", "-".repeat(48), " ---: |".repeat(columns))?;
    for (row, values) in rows {
        let (title, budget) = row.title_and_budget();
        write!(output, "| {title:<46} |")?;
        for value in values {
            write!(output, " {:>10} |", value.map_or_else(|| "-".to_owned(), shown))?;
        }
        if names.len() > 1 {
            let ratio = values
                .first()
                .copied()
                .flatten()
                .zip(values.last().copied().flatten());
            write!(
                output,
                " {:>10} |",
                ratio.map_or_else(|| "-".to_owned(), |(ours, theirs)| shown(theirs / ours))
            )?;
        }
        let ours = values.first().copied().flatten();
        let mark = if ours.is_some_and(|ours| ours > budget) {
            "!"
        } else {
            ""
        };
        writeln!(output, " {:>8} |", format!("{}{mark}", shown(budget)))?;
    }
    Ok(())
}

fn shown(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

/// The value in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_medians_ratios_and_what_is_over_budget() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
        let mut output = Vec::new();
        let rows = [
            (Row::Steps, vec![Some(5.0), Some(80.0)]),
            (Row::Hello, vec![Some(0.5), None]),
        ];
        print(&mut output, &["ours", "theirs"], &rows).unwrap();
        let printed = String::from_utf8(output).unwrap();
        let lines: Vec<&str> = printed.lines().collect();
        assert!(
            lines[2].ends_with("|        5.0 |       80.0 |       16.0 |      6.0 |"),
            "{printed}"
        );
        assert!(
            lines[3].ends_with("|      0.500 |          - |          - |   0.400! |"),
            "{printed}"
        );
    }
}
