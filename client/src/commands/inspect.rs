//! `trimaran inspect`

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use proto::types::{CdiDevice, GcPolicy};

use super::{Context, parse_duration};
use crate::builders::Builder;
use crate::completion;
use crate::daemon::DaemonInfo;
use crate::error::chain;
use crate::instance::{self, Builders, LoadedNode};
use crate::output;
use crate::platforms;
use crate::progress::{Display, Heading, Mode, Paint, units};
use crate::table;

/// Inspect current builder instance
///
/// Shows what the daemons of the builder say of themselves at this moment: state, version, the platforms whose programs
/// they can run, labels, and the rules of garbage collection.
///
/// Examples:
///   trimaran inspect
///   trimaran inspect --bootstrap mybuilder     start it first
///   trimaran --debug inspect mybuilder         with what its drivers can do
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct InspectArgs {
    /// The builder to inspect, by default the current one
    #[arg(add = ArgValueCandidates::new(completion::builders))]
    name: Option<String>,
    /// Ensure builder has booted before inspecting
    #[arg(long)]
    bootstrap: bool,
    /// Override the default timeout for loading builder status
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

pub async fn run(args: &InspectArgs, context: &Context) -> anyhow::Result<()> {
    let builders = Builders::new(&context.settings);
    let builder = builders
        .find(args.name.as_deref().or(context.builder.as_deref()))
        .await?;
    let mut nodes = instance::load(&context.settings, &builder, args.timeout).await;
    if args.bootstrap && bootstrap(context, &builder, &nodes).await? {
        nodes = instance::load(&context.settings, &builder, args.timeout).await;
    }
    let activity = builders.lock()?.last_activity(&builder)?;
    let mut text = format!("Name:\t{}\nDriver:\t{}\n", builder.name, builder.driver);
    if let Some(activity) = activity {
        let activity = activity.strftime("%Y-%m-%d %H:%M:%S +0000 UTC");
        text.push_str(&format!("Last Activity:\t{activity}\n"));
    }
    text.push_str("\nNodes:\n");
    for (position, node) in nodes.iter().enumerate() {
        if position > 0 {
            text.push('\n');
        }
        describe(node, context.debug, &mut text);
    }
    Ok(output::data(&table::tabbed(&text, 1))?)
}

/// Starts what does not run. Returns whether anything had to be started.
pub async fn bootstrap(context: &Context, builder: &Builder, nodes: &[LoadedNode]) -> anyhow::Result<bool> {
    let heading = Heading::of("booting", builder);
    let paint = Paint::of(&context.settings);
    let (display, progress) = Display::start(Mode::Auto, heading, paint)?;
    let booted = instance::boot(nodes, &progress).await;
    drop(progress);
    display.finish().await?;
    Ok(booted?)
}

fn describe(node: &LoadedNode, with_features: bool, text: &mut String) {
    let mut line = |label: &str, value: &str| {
        text.push_str(label);
        text.push('\t');
        text.push_str(value);
        text.push('\n');
    };
    line("Name:", &node.node.name);
    line("Endpoint:", &node.node.endpoint);
    if !node.node.driver_opts.is_empty() {
        let options: Vec<String> = node
            .node
            .driver_opts
            .iter()
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        line("Driver Options:", &options.join(" "));
    }
    let state = match &node.state {
        Ok(state) => state,
        Err(error) => return line("Error:", &chain(error)),
    };
    line("Status:", &state.condition.to_string());
    if !node.node.daemon_flags.is_empty() {
        line("BuildKit daemon flags:", &node.node.daemon_flags.join(" "));
    }
    let nothing = DaemonInfo::default();
    let info = state.info.as_ref().unwrap_or(&nothing);
    if !info.version.is_empty() {
        line("BuildKit version:", &info.version);
    }
    let platforms = platforms::in_groups(&node.node.platforms, &info.platforms);
    if !platforms.is_empty() {
        line("Platforms:", &platforms.join(", "));
    }
    if let Some(driver) = node.driver.as_ref().filter(|_| with_features) {
        text.push_str("Features:\n");
        for (feature, has) in driver.features() {
            text.push_str(&format!("\t{feature}:\t{has}\n"));
        }
    }
    if !info.labels.is_empty() {
        text.push_str("Labels:\n");
        for (name, value) in &info.labels {
            text.push_str(&format!("\t{name}:\t{value}\n"));
        }
    }
    devices(&info.devices, text);
    rules(&info.gc_policy, text);
    for (name, content) in &node.node.files {
        text.push_str(&format!("File#{name}:\n"));
        for line in String::from_utf8_lossy(&content.0).split('\n') {
            text.push_str(&format!("\t> {line}\n"));
        }
    }
}

fn devices(devices: &[CdiDevice], text: &mut String) {
    if !devices.is_empty() {
        text.push_str("Devices:\n");
    }
    for device in devices {
        text.push_str(&format!("\tName:\t{}\n", device.name));
        if device.on_demand {
            text.push_str("\tOn-Demand:\ttrue\n");
        } else {
            text.push_str(&format!("\tAutomatically allowed:\t{}\n", device.auto_allow));
        }
        if !device.annotations.is_empty() {
            text.push_str("\tAnnotations:\n");
        }
        for (name, value) in &device.annotations {
            text.push_str(&format!("\t\t{name}:\t{value}\n"));
        }
    }
}

fn rules(rules: &[GcPolicy], text: &mut String) {
    for (number, rule) in rules.iter().enumerate() {
        text.push_str(&format!("GC Policy rule#{number}:\n\tAll:\t{}\n", rule.all));
        if !rule.filters.is_empty() {
            text.push_str(&format!("\tFilters:\t{}\n", rule.filters.join(" ")));
        }
        if rule.keep_duration > 0 {
            text.push_str(&format!(
                "\tKeep Duration:\t{}\n",
                go_duration(rule.keep_duration)
            ));
        }
        for (label, bytes) in [
            ("Reserved Space", rule.reserved_space),
            ("Max Used Space", rule.max_used_space),
            ("Min Free Space", rule.min_free_space),
        ] {
            if bytes > 0 {
                text.push_str(&format!("\t{label}:\t{}\n", units::binary(bytes)));
            }
        }
    }
}

/// Nanoseconds as Go prints them: `48h0m0s`.
fn go_duration(nanoseconds: i64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}
