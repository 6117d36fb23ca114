//! `trimaran inspect`

use std::time::Duration;

use clap::Args;

use super::{Context, parse_duration};
use crate::builders::Builder;
use crate::daemon::DaemonInfo;
use crate::instance::{self, Builders, LoadedNode};
use crate::output;
use crate::platforms;
use crate::progress::{Display, Heading, Mode, Paint, units};
use crate::table::{self, Line};

/// Inspect current builder instance
///
/// Shows what the daemons of the builder say of themselves at this moment: state, version, the platforms whose programs
/// they can run, labels, and the rules of garbage collection.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// The builder to inspect, by default the current one
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
    let activity = builders.lock()?.last_activity(&builder.name)?;
    let mut lines = vec![
        Line::pair("Name:", &builder.name),
        Line::pair("Driver:", &builder.driver),
    ];
    if let Some(activity) = activity {
        let activity = activity.strftime("%Y-%m-%d %H:%M:%S +0000 UTC");
        lines.push(Line::pair("Last Activity:", &activity));
    }
    lines.extend([Line::plain(""), Line::plain("Nodes:")]);
    for (position, node) in nodes.iter().enumerate() {
        if position > 0 {
            lines.push(Line::plain(""));
        }
        describe(node, &mut lines);
    }
    Ok(output::data(&table::aligned(&lines))?)
}

/// Starts what does not run. Returns whether anything had to be started.
pub async fn bootstrap(context: &Context, builder: &Builder, nodes: &[LoadedNode]) -> anyhow::Result<bool> {
    let heading = Heading {
        plain: format!(
            "booting \"{}\" instance using {} driver",
            builder.name, builder.driver
        ),
        tty: format!("{}:{}", builder.driver, builder.name),
    };
    let paint = if context.settings.wants_colour() {
        Paint::Colours
    } else {
        Paint::None
    };
    let (display, progress) = Display::start(Mode::Auto, heading, paint)?;
    let booted = instance::boot(nodes, &progress).await;
    drop(progress);
    display.finish().await?;
    Ok(booted?)
}

fn describe(node: &LoadedNode, lines: &mut Vec<Line>) {
    lines.push(Line::pair("Name:", &node.node.name));
    lines.push(Line::pair("Endpoint:", &node.node.endpoint));
    if !node.node.driver_opts.is_empty() {
        let options: Vec<String> = node
            .node
            .driver_opts
            .iter()
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        lines.push(Line::pair("Driver Options:", &options.join(" ")));
    }
    let state = match &node.state {
        Ok(state) => state,
        Err(error) => {
            lines.push(Line::pair("Error:", &crate::error::chain(error)));
            return;
        }
    };
    lines.push(Line::pair("Status:", &state.condition));
    if !node.node.daemon_flags.is_empty() {
        lines.push(Line::pair(
            "BuildKit daemon flags:",
            &node.node.daemon_flags.join(" "),
        ));
    }
    let nothing = DaemonInfo::default();
    let info = state.info.as_ref().unwrap_or(&nothing);
    if !info.version.is_empty() {
        lines.push(Line::pair("BuildKit version:", &info.version));
    }
    let platforms = platforms::in_groups(&node.node.platforms, &info.platforms);
    if !platforms.is_empty() {
        lines.push(Line::pair("Platforms:", &platforms.join(", ")));
    }
    if !info.labels.is_empty() {
        lines.push(Line::plain("Labels:"));
        lines.extend(
            info.labels
                .iter()
                .map(|(name, value)| Line::pair(&format!(" {name}:"), value)),
        );
    }
    for (number, rule) in info.gc_policy.iter().enumerate() {
        lines.push(Line::plain(&format!("GC Policy rule#{number}:")));
        lines.push(Line::pair(" All:", &rule.all));
        if !rule.filters.is_empty() {
            lines.push(Line::pair(" Filters:", &rule.filters.join(" ")));
        }
        if rule.keep_duration > 0 {
            lines.push(Line::pair(" Keep Duration:", &go_duration(rule.keep_duration)));
        }
        for (label, bytes) in [
            (" Reserved Space:", rule.reserved_space),
            (" Max Used Space:", rule.max_used_space),
            (" Min Free Space:", rule.min_free_space),
        ] {
            if bytes > 0 {
                lines.push(Line::pair(label, &units::binary(bytes)));
            }
        }
    }
    for (name, text) in &node.node.files {
        lines.push(Line::plain(&format!("File#{name}:")));
        lines.extend(text.lines().map(|line| Line::plain(&format!(" > {line}"))));
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
