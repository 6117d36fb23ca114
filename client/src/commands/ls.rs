//! `trimaran ls`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Context, parse_duration};
use crate::builders::Builder;
use crate::error::chain;
use crate::instance::{self, Builders, LoadedNode};
use crate::output;
use crate::platforms;
use crate::table;

const INDENT: &str = r" \_ ";
const TRUNCATED_PLATFORMS: usize = 4;
const DEFAULT_FIELDS: [&str; 5] = ["Name", "DriverEndpoint", "Status", "Buildkit", "Platforms"];

/// List builder instances
///
/// The current builder is marked with a star. All daemons are asked at the same time; one that does not answer within
/// the timeout is shown with its error.
#[derive(Args, Debug)]
pub struct LsArgs {
    /// Format the output: "table", "json", or a Go template over .Name .DriverEndpoint .LastActivity .Status .Buildkit
    /// .Platforms .Error
    #[arg(long, default_value = "table")]
    format: String,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Override the default timeout for loading builder status
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

struct Listed {
    builder: Builder,
    nodes: Vec<LoadedNode>,
    last_activity: Option<jiff::Timestamp>,
    is_current: bool,
}

pub async fn run(args: &LsArgs, context: &Context) -> anyhow::Result<()> {
    let builders = Builders::new(&context.settings);
    let current = builders
        .find(None)
        .await
        .map(|builder| builder.name)
        .unwrap_or_default();
    let all = builders.all().await?;
    let loads = all.into_iter().map(|builder| async {
        let nodes = instance::load(&context.settings, &builder, args.timeout).await;
        let last_activity = builders.lock()?.last_activity(&builder.name)?;
        let is_current = builder.name == current;
        Ok::<_, anyhow::Error>(Listed {
            builder,
            nodes,
            last_activity,
            is_current,
        })
    });
    let listed: Vec<Listed> = futures::future::try_join_all(loads).await?;
    match args.format.as_str() {
        "json" => {
            for item in &listed {
                output::data(&format!("{}\n", to_json(item)))?;
            }
        }
        format => output::data(&render(format, &listed, args.no_trunc)?)?,
    }
    if args.format.starts_with("table") {
        report_errors(&listed);
    }
    Ok(())
}

/// `table` alone, `table` with a template of columns, or a template.
fn render(format: &str, listed: &[Listed], whole: bool) -> anyhow::Result<String> {
    let Some(columns) = format.strip_prefix("table") else {
        let template = gotmpl::Template::new("ls").parse(format)?;
        let mut text = String::new();
        for row in rows(
            listed,
            Style {
                in_table: false,
                whole,
            },
        ) {
            text.push_str(&template.execute_to_string(&row.value())?);
            text.push('\n');
        }
        return Ok(text);
    };
    let mut table = Vec::new();
    let columns = columns.trim();
    if columns.is_empty() {
        table.push(
            DEFAULT_FIELDS
                .iter()
                .map(|field| heading(field).to_owned())
                .collect(),
        );
        for row in rows(
            listed,
            Style {
                in_table: true,
                whole,
            },
        ) {
            table.push(
                DEFAULT_FIELDS
                    .iter()
                    .map(|field| row.field(field).to_owned())
                    .collect(),
            );
        }
    } else {
        let columns = columns.replace("\\t", "\t");
        let template = gotmpl::Template::new("ls").parse(&columns)?;
        let headings = FIELDS.map(|field| (field.to_owned(), gotmpl::Value::String(heading(field).into())));
        let mut lines = vec![template.execute_to_string(&gotmpl::Value::from_entries(headings))?];
        for row in rows(
            listed,
            Style {
                in_table: true,
                whole,
            },
        ) {
            lines.push(template.execute_to_string(&row.value())?);
        }
        table.extend(
            lines
                .iter()
                .map(|line| line.split('\t').map(str::to_owned).collect()),
        );
    }
    Ok(table::columns(&table, 3, 10))
}

#[derive(Clone, Copy)]
struct Style {
    in_table: bool,
    whole: bool,
}

const FIELDS: [&str; 7] = [
    "Name",
    "DriverEndpoint",
    "LastActivity",
    "Status",
    "Buildkit",
    "Platforms",
    "Error",
];

fn heading(field: &str) -> &'static str {
    match field {
        "Name" => "NAME/NODE",
        "DriverEndpoint" => "DRIVER/ENDPOINT",
        "LastActivity" => "LAST ACTIVITY",
        "Status" => "STATUS",
        "Buildkit" => "BUILDKIT",
        "Platforms" => "PLATFORMS",
        _ => "ERROR",
    }
}

/// One line: a builder or one of its nodes. In the order of [`FIELDS`].
struct Row([String; FIELDS.len()]);

impl Row {
    fn field(&self, name: &str) -> &str {
        FIELDS
            .iter()
            .position(|field| *field == name)
            .map_or("", |position| &self.0[position])
    }

    fn value(&self) -> gotmpl::Value {
        let entries: [(String, gotmpl::Value); FIELDS.len()] = std::array::from_fn(|position| {
            (
                FIELDS[position].to_owned(),
                gotmpl::Value::String(self.0[position].as_str().into()),
            )
        });
        gotmpl::Value::from_entries(entries)
    }
}

fn rows(listed: &[Listed], style: Style) -> Vec<Row> {
    let mut rows = Vec::new();
    for item in listed {
        let star = if item.is_current && style.in_table {
            "*"
        } else {
            ""
        };
        let activity = item
            .last_activity
            .map(|time| time.to_string())
            .unwrap_or_default();
        rows.push(Row([
            format!("{}{star}", item.builder.name),
            item.builder.driver.clone(),
            activity,
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ]));
        rows.extend(item.nodes.iter().map(|node| node_row(node, style)));
    }
    rows
}

fn node_row(node: &LoadedNode, style: Style) -> Row {
    let indent = if style.in_table { INDENT } else { "" };
    let info = node.state.as_ref().ok().and_then(|state| state.info.as_ref());
    let (status, error) = match &node.state {
        Ok(state) => (state.condition.to_string(), String::new()),
        Err(error) => ("error".to_owned(), chain(error)),
    };
    let offered = info.map(|info| info.platforms.as_slice()).unwrap_or_default();
    let texts = platforms::in_groups(&node.node.platforms, offered);
    let platforms = if style.in_table && !style.whole {
        platforms::shortened(&texts, TRUNCATED_PLATFORMS)
    } else {
        texts.join(", ")
    };
    Row([
        format!("{indent}{}", node.node.name),
        format!("{indent}{}", node.node.endpoint),
        String::new(),
        status,
        info.map(|info| info.version.clone()).unwrap_or_default(),
        platforms,
        error,
    ])
}

fn to_json(item: &Listed) -> String {
    let nodes: Vec<serde_json::Value> = item
        .nodes
        .iter()
        .map(|node| {
            let info = node.state.as_ref().ok().and_then(|state| state.info.clone()).unwrap_or_default();
            let mut value = json!({
                "Name": node.node.name,
                "Endpoint": node.node.endpoint,
                "Platforms": node.node.platforms.iter().chain(&info.platforms).map(ToString::to_string).collect::<Vec<_>>(),
                "DriverOpts": node.node.driver_opts,
                "Flags": node.node.daemon_flags,
            });
            match &node.state {
                Ok(state) => {
                    value["Status"] = json!(state.condition.to_string());
                    value["Version"] = json!(info.version);
                    value["Labels"] = json!(info.labels);
                }
                Err(error) => value["Err"] = json!(chain(error)),
            }
            value
        })
        .collect();
    let value = json!({
        "Current": item.is_current,
        "Driver": item.builder.driver,
        "Dynamic": false,
        "LastActivity": item.last_activity.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string()),
        "Name": item.builder.name,
        "Nodes": nodes,
    });
    value.to_string()
}

fn report_errors(listed: &[Listed]) {
    let mut first = true;
    for item in listed {
        for node in &item.nodes {
            if let Err(error) = &node.state {
                if std::mem::take(&mut first) {
                    output::note("");
                }
                let (builder, node) = (&item.builder.name, &node.node.name);
                output::note(&format!(
                    "Failed to get status for {builder} ({node}): {}",
                    chain(error)
                ));
            }
        }
    }
}
