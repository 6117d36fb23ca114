//! `trimaran ls`

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Context, parse_duration};
use crate::builders::Builder;
use crate::error::chain;
use crate::format::{Data, Field, Listing, record};
use crate::instance::{self, Builders, LoadedNode};
use crate::output;
use crate::platforms;

const INDENT: &str = r" \_ ";
const TRUNCATED_PLATFORMS: usize = 4;
const TABLE: &str = "table {{.Name}}\\t{{.DriverEndpoint}}\\t{{.Status}}\\t{{.Buildkit}}\\t{{.Platforms}}";
const HEADINGS: [(&str, &str); 6] = [
    ("Name", "NAME/NODE"),
    ("DriverEndpoint", "DRIVER/ENDPOINT"),
    ("LastActivity", "LAST ACTIVITY"),
    ("Status", "STATUS"),
    ("Buildkit", "BUILDKIT"),
    ("Platforms", "PLATFORMS"),
];

/// List builder instances
///
/// The current builder is marked with a star. Instances that buildx made are among them, and so is one for every Docker
/// context. All daemons are asked at the same time; one that does not answer within the timeout is shown with its error.
///
/// Examples:
///   trimaran ls
///   trimaran ls --no-trunc                                      all platforms of every node
///   trimaran ls --format '{{.Name}}: {{.Status}}'               one line for each builder and node
///   trimaran ls --format 'table {{.Name}}\t{{.LastActivity}}'
///   trimaran ls --format json                                   one object for each builder
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct LsArgs {
    /// Format the output: "table", "table TEMPLATE", "json", or a Go template over .Name .DriverEndpoint .LastActivity
    /// .Status .Buildkit .Platforms .Error
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
    // A mistake in the template is said before daemons are waited for.
    let listing = Listing::parse(&args.format, TABLE)?;
    let builders = Builders::new(&context.settings);
    let current = builders
        .find(None)
        .await
        .map(|builder| builder.name)
        .unwrap_or_default();
    let all = builders.all().await?;
    let loads = all.into_iter().map(|builder| async {
        let nodes = instance::load(&context.settings, &builder, args.timeout).await;
        let last_activity = builders.lock()?.last_activity(&builder)?;
        let is_current = builder.name == current;
        Ok::<_, anyhow::Error>(Listed {
            builder,
            nodes,
            last_activity,
            is_current,
        })
    });
    let listed: Vec<Listed> = futures::future::try_join_all(loads).await?;
    let rows = rows(&listed, &listing, args.no_trunc);
    output::data(&listing.render(&HEADINGS, &rows)?)?;
    if listing.is_table() {
        report_errors(&listed);
    }
    Ok(())
}

fn rows(listed: &[Listed], listing: &Listing, whole: bool) -> Vec<Data> {
    let mut rows = Vec::new();
    for item in listed {
        let json = to_json(item);
        rows.push(row(builder_texts(item, listing), &json));
        // JSON has the nodes in their builder.
        if !listing.is_json() {
            let nodes = item.nodes.iter();
            rows.extend(nodes.map(|node| row(node_texts(node, listing, whole), &json)));
        }
    }
    rows
}

/// What the fields of templates show.
#[derive(Default)]
struct Texts {
    name: String,
    driver_endpoint: String,
    last_activity: String,
    status: String,
    buildkit: String,
    platforms: String,
    error: String,
}

/// Templates know a line; JSON shows the builder that the line belongs to.
fn row(texts: Texts, json: &Map<String, Value>) -> Data {
    let fields = [
        ("Name", texts.name),
        ("DriverEndpoint", texts.driver_endpoint),
        ("LastActivity", texts.last_activity),
        ("Status", texts.status),
        ("Buildkit", texts.buildkit),
        ("Platforms", texts.platforms),
        ("Error", texts.error),
    ];
    let known = fields.map(|(name, text)| Field::template_only(name, text.as_str()));
    let in_json = ["Current", "Driver", "Dynamic", "LastActivity", "Name", "Nodes"]
        .map(|key| Field::json_only(key, Data::any(&json[key])));
    record("lsContext", known.into_iter().chain(in_json))
}

fn builder_texts(item: &Listed, listing: &Listing) -> Texts {
    let star = if item.is_current && listing.is_table() {
        "*"
    } else {
        ""
    };
    Texts {
        name: format!("{}{star}", item.builder.name),
        driver_endpoint: item.builder.driver.clone(),
        last_activity: item
            .last_activity
            .map(|time| time.to_string())
            .unwrap_or_default(),
        ..Texts::default()
    }
}

fn node_texts(node: &LoadedNode, listing: &Listing, whole: bool) -> Texts {
    let indent = if listing.is_table() { INDENT } else { "" };
    let info = node.state.as_ref().ok().and_then(|state| state.info.as_ref());
    let (status, error) = match &node.state {
        Ok(state) => (state.condition.to_string(), String::new()),
        Err(error) => ("error".to_owned(), chain(error)),
    };
    let offered = info.map(|info| info.platforms.as_slice()).unwrap_or_default();
    let texts = platforms::in_groups(&node.node.platforms, offered);
    let platforms = if listing.is_table() && !whole {
        platforms::shortened(&texts, TRUNCATED_PLATFORMS)
    } else {
        texts.join(", ")
    };
    Texts {
        name: format!("{indent}{}", node.node.name),
        driver_endpoint: format!("{indent}{}", node.node.endpoint),
        status,
        buildkit: info.map(|info| info.version.clone()).unwrap_or_default(),
        platforms,
        error,
        ..Texts::default()
    }
}

fn to_json(item: &Listed) -> Map<String, Value> {
    let nodes: Vec<Value> = item.nodes.iter().map(node_json).collect();
    let activity = item
        .last_activity
        .map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string());
    let fields = [
        ("Current", json!(item.is_current)),
        ("Driver", json!(item.builder.driver)),
        ("Dynamic", json!(false)),
        ("LastActivity", json!(activity)),
        ("Name", json!(item.builder.name)),
        ("Nodes", json!(nodes)),
    ];
    fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// What is empty is left out, except for the name and the endpoint.
fn node_json(node: &LoadedNode) -> Value {
    let nothing = crate::daemon::DaemonInfo::default();
    let info = node.state.as_ref().ok().and_then(|state| state.info.as_ref());
    let info = info.unwrap_or(&nothing);
    let mut platforms: Vec<String> = node.node.platforms.iter().map(ToString::to_string).collect();
    for platform in info.platforms.iter().map(ToString::to_string) {
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    let (status, error) = match &node.state {
        Ok(state) => (state.condition.to_string(), String::new()),
        Err(error) => ("error".to_owned(), chain(error)),
    };
    let rules: Vec<Value> = info
        .gc_policy
        .iter()
        .map(|rule| {
            json!({
                "all": rule.all,
                "filter": if rule.filters.is_empty() { Value::Null } else { json!(rule.filters) },
                "keepDuration": rule.keep_duration,
                "maxUsedSpace": rule.max_used_space,
                "minFreeSpace": rule.min_free_space,
                "reservedSpace": rule.reserved_space,
            })
        })
        .collect();
    let fields = [
        ("DriverOpts", json!(node.node.driver_opts)),
        ("Endpoint", json!(node.node.endpoint)),
        ("Err", json!(error)),
        ("Files", json!(node.node.files)),
        ("Flags", json!(node.node.daemon_flags)),
        ("GCPolicy", json!(rules)),
        ("IDs", json!(info.ids)),
        ("Labels", json!(info.labels)),
        ("Name", json!(node.node.name)),
        ("Platforms", json!(platforms)),
        ("Status", json!(status)),
        ("Version", json!(info.version)),
    ];
    let is_empty = |value: &Value| match value {
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    };
    let shown = fields
        .into_iter()
        .filter(|(key, value)| matches!(*key, "Name" | "Endpoint") || !is_empty(value));
    Value::Object(shown.map(|(key, value)| (key.to_owned(), value)).collect())
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
