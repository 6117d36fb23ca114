//! What `--list` prints.

use crate::definition::Definition;
use crate::json::Node;

/// Which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Table,
    Json,
}

/// Of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Targets,
    Variables,
}

/// `targets`, `type=variables,format=json`
pub fn parse(text: &str) -> Result<(Subject, Layout), String> {
    let fields = crate::csv::fields(text, ',')?;
    let (mut subject, mut layout) = (String::new(), "table".to_owned());
    match fields.as_slice() {
        [only] if only == text && !only.starts_with("type=") => only.clone_into(&mut subject),
        fields => {
            for field in fields {
                let (key, value) = field
                    .split_once('=')
                    .ok_or_else(|| format!("invalid value {field}"))?;
                match key.to_lowercase().trim() {
                    "type" => value.clone_into(&mut subject),
                    "format" => value.clone_into(&mut layout),
                    key => return Err(format!("unexpected key '{key}' in '{field}'")),
                }
            }
        }
    }
    let subject = match subject.as_str() {
        "targets" => Subject::Targets,
        "variables" => Subject::Variables,
        other => return Err(format!("invalid list type \"{other}\", use targets or variables")),
    };
    let layout = match layout.as_str() {
        "table" => Layout::Table,
        "json" => Layout::Json,
        other => return Err(format!("invalid list format \"{other}\", use table or json")),
    };
    Ok((subject, layout))
}

impl Definition {
    pub fn list(&self, subject: Subject, layout: Layout) -> String {
        match subject {
            Subject::Targets => self.list_targets(layout),
            Subject::Variables => self.list_variables(layout),
        }
    }

    fn list_targets(&self, layout: Layout) -> String {
        struct Row {
            name: String,
            description: String,
            is_group: bool,
        }
        let targets = self.targets.iter().map(|target| Row {
            name: target.name.clone(),
            description: target.description.clone(),
            is_group: false,
        });
        let groups = self.groups.iter().map(|group| {
            let mut members = group.targets.clone().unwrap_or_default();
            members.sort();
            let members = members.join(", ");
            let description = match (group.description.as_str(), members.is_empty()) {
                (own, true) => own.to_owned(),
                ("", false) => members,
                (own, false) => format!("{own} ({members})"),
            };
            Row {
                name: group.name.clone(),
                description,
                is_group: true,
            }
        });
        // A name that begins with an underscore is private.
        let mut rows: Vec<Row> = targets
            .chain(groups)
            .filter(|row| !row.name.starts_with('_'))
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        if layout == Layout::Table {
            let mut cells = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
            cells.extend(rows.into_iter().map(|row| vec![row.name, row.description]));
            return table(&cells);
        }
        let nodes = rows.into_iter().map(|row| {
            let mut fields = vec![("name".to_owned(), Node::text(row.name))];
            if !row.description.is_empty() {
                fields.push(("description".to_owned(), Node::text(row.description)));
            }
            if row.is_group {
                fields.push(("group".to_owned(), Node::Flag(true)));
            }
            Node::Object(fields)
        });
        list(nodes.collect())
    }

    fn list_variables(&self, layout: Layout) -> String {
        let mut variables: Vec<_> = self.variables.iter().collect();
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        if layout == Layout::Table {
            let header = ["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"];
            let mut cells = vec![header.map(str::to_owned).to_vec()];
            for variable in variables {
                let value = variable.value.clone().unwrap_or_else(|| "<null>".to_owned());
                cells.push(vec![
                    variable.name.clone(),
                    variable.shape.clone(),
                    value,
                    variable.description.clone(),
                ]);
            }
            return table(&cells);
        }
        let nodes = variables.into_iter().map(|variable| {
            let mut fields = vec![("name".to_owned(), Node::text(&variable.name))];
            let texts = [("description", &variable.description), ("type", &variable.shape)];
            for (name, text) in texts {
                if !text.is_empty() {
                    fields.push((name.to_owned(), Node::text(text)));
                }
            }
            if let Some(value) = &variable.value {
                fields.push(("value".to_owned(), Node::text(value)));
            }
            Node::Object(fields)
        });
        list(nodes.collect())
    }
}

/// Go writes a list that was never begun as null.
fn list(nodes: Vec<Node>) -> String {
    if nodes.is_empty() {
        return "null\n".to_owned();
    }
    format!("{}\n", Node::List(nodes))
}

/// Columns of tabs, each as wide as its widest cell and one more, as Go's tabwriter makes them.
fn table(rows: &[Vec<String>]) -> String {
    const TAB: usize = 8;
    let width_of = |cell: &String| cell.chars().count();
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let widest = rows
                .iter()
                .map(|row| width_of(&row[column]))
                .max()
                .unwrap_or_default();
            (widest + 1).next_multiple_of(TAB)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < columns {
                let missing = widths[column].saturating_sub(width_of(cell));
                out.extend(std::iter::repeat_n('\t', missing.div_ceil(TAB)));
            }
        }
        out.push('\n');
    }
    out
}
