//! `trimaran prune`

use std::io::BufRead as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use futures::StreamExt as _;
use jiff::Timestamp;
use proto::control::{PruneRequest, UsageRecord};
use serde::Deserialize;

use super::{Context, parse_duration};
use crate::daemon;
use crate::output;
use crate::progress::units;
use crate::size;
use crate::table::tab_stops;
use crate::usage::{self, Filters};

const WARNING: &str =
    "WARNING! This will remove all dangling build cache. Are you sure you want to continue?";
const WARNING_ALL: &str = "WARNING! This will remove all build cache. Are you sure you want to continue?";
const HEADING: &str = "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n";
/// Daemons before this one know only how much to keep.
const KNOWS_SPACE: (u64, u64) = (0, 17);

/// Remove build cache
///
/// Removes what no build uses right now, on all nodes of the builder. Images that were pushed or loaded are not touched.
#[derive(Args, Debug)]
pub struct PruneArgs {
    /// Include internal/frontend images
    #[arg(short, long)]
    all: bool,
    /// Provide filter values, e.g. "type=regular", "until=24h", "description~=RUN"
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Amount of disk space always allowed to keep for cache
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    reserved_space: Option<i64>,
    /// Maximum amount of disk space allowed to keep for cache
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_used_space: Option<i64>,
    /// Target amount of free disk space after pruning
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    min_free_space: Option<i64>,
    /// Amount of disk space to keep for cache
    #[arg(long, value_name = "BYTES", value_parser = bytes, hide = true)]
    keep_storage: Option<i64>,
    /// Provide a more verbose output
    #[arg(long)]
    verbose: bool,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Override the default timeout for loading builder status
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

fn bytes(text: &str) -> Result<i64, String> {
    size::parse(text).ok_or_else(|| format!("invalid size: '{text}', write it like 512mb or 10GiB"))
}

/// The part of Docker's `config.json` that says what never to prune.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    prune_filters: Vec<String>,
}

pub async fn run(args: &PruneArgs, context: &Context) -> anyhow::Result<()> {
    if args.keep_storage.is_some() {
        output::note(
            "Flag --keep-storage has been deprecated, keep-storage flag has been changed to reserved-space",
        );
    }
    let configured = configured_filters(context)?;
    let filters = Filters::parse(args.filters.iter().chain(&configured).map(String::as_str))?;
    let warning = if args.all { WARNING_ALL } else { WARNING };
    if !args.force && !confirmed(warning)? {
        return Ok(());
    }
    let daemons = usage::daemons(context, args.timeout).await?;
    if args.max_used_space.is_some() || args.min_free_space.is_some() {
        for daemon in &daemons {
            ensure!(
                knows_space(&daemon.version),
                "buildkit v0.17.0+ is required for max-used-space and min-free-space filters, this one is {}",
                daemon.version
            );
        }
    }
    let request = PruneRequest {
        filter: vec![filters.condition.clone()],
        all: args.all,
        keep_duration: filters.unused_for(),
        reserved_space: args.reserved_space.or(args.keep_storage).unwrap_or_default(),
        max_used_space: args.max_used_space.unwrap_or_default(),
        min_free_space: args.min_free_space.unwrap_or_default(),
    };
    let calls = daemons.into_iter().map(|daemon| {
        let request = request.clone();
        async move { daemon::control(daemon.channel).prune(request).await }
    });
    let answers = futures::future::try_join_all(calls)
        .await
        .context("failed to call prune")?;
    let mut removed = futures::stream::select_all(answers.into_iter().map(tonic::Response::into_inner));
    let mut total = 0_i64;
    let mut is_first = true;
    while let Some(record) = removed.next().await {
        let record = record.context("failed to prune")?;
        total = total.saturating_add(record.size);
        let now = Timestamp::now();
        let text = if args.verbose {
            verbose(&record, now)
        } else {
            let heading = if std::mem::take(&mut is_first) {
                HEADING
            } else {
                ""
            };
            format!("{heading}{}", row(&record, now))
        };
        // Shown as it goes: each line is laid out by itself, the first with the heading.
        output::data(&tab_stops(&text))?;
    }
    Ok(output::data(&format!("Total:\t{}\n", units::decimal(total)))?)
}

fn configured_filters(context: &Context) -> anyhow::Result<Vec<String>> {
    let path = context.settings.docker_config_folder().join("config.json");
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("reading {}", path.display()))?,
    };
    let config: DockerConfig =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok(config.prune_filters)
}

/// Anything but yes is no, also nobody there to answer.
fn confirmed(warning: &str) -> anyhow::Result<bool> {
    output::data(&format!("{warning} [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim_end_matches(['\r', '\n']).eq_ignore_ascii_case("y"))
}

/// One whose version is no number is new.
fn knows_space(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']);
    let mut next = || numbers.next()?.parse::<u64>().ok();
    match (next(), next()) {
        (Some(major), Some(minor)) => (major, minor) >= KNOWS_SPACE,
        _ => true,
    }
}

fn row(record: &UsageRecord, now: Timestamp) -> String {
    let star = |marked: bool| if marked { "*" } else { "" };
    let id = format!("{}{}", record.id, star(record.mutable));
    let size = format!("{}{}", usage::size(record), star(record.shared));
    let reclaimable = !record.in_use;
    format!(
        "{id:<40}\t{reclaimable:<5}\t{size:<10}\t{}\n",
        usage::last_used(record, now)
    )
}

fn verbose(record: &UsageRecord, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| text.push_str(&format!("{label}:\t{value}\n"));
    line("ID", &record.id);
    if !record.parents.is_empty() {
        line("Parent", &record.parents.join(","));
    }
    line("Created at", &usage::created(record));
    line("Mutable", &record.mutable.to_string());
    line("Reclaimable", &(!record.in_use).to_string());
    line("Shared", &record.shared.to_string());
    line("Size", &usage::size(record));
    if !record.description.is_empty() {
        line("Description", &record.description);
    }
    line("Usage count", &record.usage_count.to_string());
    let last_used = usage::last_used(record, now);
    if !last_used.is_empty() {
        line("Last used", &last_used);
    }
    if !record.record_type.is_empty() {
        line("Type", &record.record_type);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_daemons_know_nothing_of_space() {
        for (version, knows) in [
            ("v0.16.9", false),
            ("0.17.0", true),
            ("v0.31.0-rc1", true),
            ("v1.0", true),
            ("", true),
            ("dev", true),
            ("v0.26.0+builderd.0.1.0", true),
        ] {
            assert_eq!(knows_space(version), knows, "{version}");
        }
    }
}
