//! `--format` of commands that print rows: `table`, `table TEMPLATE`, `json`, or a template for each row.

use super::data::{Data, map};
use super::json::Json;
use super::template::{FormatError, Template};
use crate::table;

/// How far columns are apart at least, and how wide they are at least.
const GAP: usize = 3;
const NARROWEST: usize = 10;

/// The format of a list.
#[derive(Clone, Debug)]
pub struct Listing {
    template: Template,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Table,
    Json,
    Lines,
}

impl Listing {
    /// What the user wrote; `table` alone means `default_table`, which begins with `table` itself.
    ///
    /// `\t` and `\n` in a template are a tab and a line break.
    pub fn parse(format: &str, default_table: &str) -> Result<Self, FormatError> {
        let format = if format == "table" { default_table } else { format };
        let (kind, source) = match format {
            "json" => (Kind::Json, "{{json .}}"),
            _ => match format.strip_prefix("table") {
                Some(columns) => (Kind::Table, columns),
                None => (Kind::Lines, format),
            },
        };
        let source = source.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        Ok(Self {
            template: Template::parse(&source, Json::Compact)?,
            kind,
        })
    }

    /// Whether rows stand in columns under a heading: some values are shortened or marked there.
    pub fn is_table(&self) -> bool {
        self.kind == Kind::Table
    }

    /// Whether the user asked for plain `json`.
    pub fn is_json(&self) -> bool {
        self.kind == Kind::Json
    }

    /// Whether anybody looks at the field: by name or with the row as a whole.
    pub fn uses(&self, field: &str) -> bool {
        self.template.uses(field) || self.template.uses_whole()
    }

    /// All rows, each with a line break, under a heading if it is a table. `headings` are pairs of field and text.
    pub fn render(&self, headings: &[(&str, &str)], rows: &[Data]) -> Result<String, FormatError> {
        let mut text = String::new();
        if self.is_table() {
            let headings = map(headings.iter().copied(), Data::from(""));
            text.push_str(&self.template.render_heading(&headings)?);
            text.push('\n');
        }
        for row in rows {
            text.push_str(&self.template.render(row)?);
            text.push('\n');
        }
        if !self.is_table() {
            return Ok(text);
        }
        let lines = text.trim_end_matches('\n').split('\n');
        let cells: Vec<Vec<String>> = lines
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect();
        Ok(table::columns(&cells, GAP, NARROWEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: [(&str, &str); 2] = [("Name", "NAME"), ("Size", "SIZE")];
    const TABLE: &str = "table {{.Name}}\\t{{.Size}}";

    fn rows() -> Vec<Data> {
        [("first", "1B"), ("a longer name", "2kB")]
            .into_iter()
            .map(|(name, size)| Data::row("row", [("Size", size.into()), ("Name", name.into())]))
            .collect()
    }

    #[test]
    fn rows_are_printed_in_every_format() {
        for (format, expected) in [
            (
                "table",
                "NAME            SIZE\nfirst           1B\na longer name   2kB\n",
            ),
            (
                "table {{upper .Name}}\\t{{json .Size}}\\t{{printf \"%q\" .Size}}",
                "NAME            SIZE      \"SIZE\"\nFIRST           \"1B\"      \"1B\"\nA LONGER NAME   \"2kB\"     \"2kB\"\n",
            ),
            (
                "json",
                "{\"Name\":\"first\",\"Size\":\"1B\"}\n{\"Name\":\"a longer name\",\"Size\":\"2kB\"}\n",
            ),
            ("{{.Name}}\\t{{.Size}}", "first\t1B\na longer name\t2kB\n"),
        ] {
            let listing = Listing::parse(format, TABLE).unwrap();
            assert_eq!(listing.render(&HEADINGS, &rows()).unwrap(), expected, "{format}");
        }
    }

    #[test]
    fn nothing_but_the_heading_is_printed_for_no_rows() {
        for (format, expected) in [("table", "NAME      SIZE\n"), ("json", ""), ("{{.Name}}", "")] {
            let listing = Listing::parse(format, TABLE).unwrap();
            assert_eq!(listing.render(&HEADINGS, &[]).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_looked_at_is_known() {
        let listing = Listing::parse("table", TABLE).unwrap();
        assert!(listing.uses("Name") && !listing.uses("Error") && listing.is_table());
        let listing = Listing::parse("json", TABLE).unwrap();
        assert!(listing.uses("Error") && listing.is_json());
    }
}
