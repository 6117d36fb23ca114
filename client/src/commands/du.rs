//! `trimaran du`

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use jiff::Timestamp;
use proto::control::{DiskUsageRequest, UsageRecord};

use super::{Context, parse_duration};
use crate::daemon;
use crate::format::{Data, Listing, Nil};
use crate::gojson;
use crate::output;
use crate::progress::units;
use crate::table::tab_stops;
use crate::usage::{self, Filters};

const DEFAULT_TABLE: &str = "table {{.ID}}\\t{{.Reclaimable}}\\t{{.Size}}\\t{{.LastUsedAt}}";
const HEADINGS: [(&str, &str); 11] = [
    ("ID", "ID"),
    ("Parents", "PARENTS"),
    ("CreatedAt", "CREATED AT"),
    ("Mutable", "MUTABLE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("Description", "DESCRIPTION"),
    ("UsageCount", "USAGE COUNT"),
    ("LastUsedAt", "LAST ACCESSED"),
    ("Type", "TYPE"),
];

/// Disk usage
///
/// What the build caches of a builder's nodes hold, the smallest first. A star after an id marks a record that changes,
/// such as a cache mount; a star after a size one that is shared with others.
#[derive(Args, Debug)]
pub struct DuArgs {
    /// Provide filter values, e.g. "type=regular", "mutable=true", "description~=RUN", "until=24h"
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Shorthand for "--format=pretty"
    #[arg(long)]
    verbose: bool,
    /// Format the output: "table", "pretty", "json", or a Go template over .ID .Parents .CreatedAt .Mutable .Reclaimable
    /// .Shared .Size .Description .UsageCount .LastUsedAt .Type
    #[arg(long)]
    format: Option<String>,
    /// Override the default timeout for loading builder status
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

pub async fn run(args: &DuArgs, context: &Context) -> anyhow::Result<()> {
    ensure!(
        args.format.is_none() || !args.verbose,
        "--format and --verbose cannot be used together"
    );
    let format = match args.format.as_deref() {
        None if args.verbose => "pretty",
        None | Some("") => "table",
        Some(format) => format,
    };
    let listing = match format {
        "pretty" => None,
        format => Some(Listing::parse(format, DEFAULT_TABLE)?),
    };
    let filters = Filters::parse(args.filters.iter().map(String::as_str))?;
    let records = ask(context, &filters, args.timeout).await?;
    let now = Timestamp::now();
    let mut text = match &listing {
        None => records.iter().map(|record| pretty(record, now)).collect(),
        Some(listing) => {
            let rows: Vec<Data> = records
                .iter()
                .map(|record| row(record, now, listing.is_table()))
                .collect();
            listing.render(&HEADINGS, &rows)?
        }
    };
    if listing.as_ref().is_some_and(Listing::is_json) {
        text = gojson::escape(&text);
    }
    if matches!(format, "pretty" | "table") && args.filters.iter().all(String::is_empty) {
        text.push_str(&summary(&records));
    }
    Ok(output::data(&text)?)
}

/// The records of all nodes, one node after the other.
async fn ask(context: &Context, filters: &Filters, timeout: Duration) -> anyhow::Result<Vec<UsageRecord>> {
    let daemons = usage::daemons(context, timeout).await?;
    let asked = daemons.into_iter().map(|daemon| {
        let request = DiskUsageRequest {
            filter: vec![filters.condition.clone()],
            age_limit: filters.unused_for(),
        };
        async move { daemon::control(daemon.channel).disk_usage(request).await }
    });
    let answers = futures::future::try_join_all(asked)
        .await
        .context("failed to call diskusage")?;
    let mut all = Vec::new();
    for answer in answers {
        let mut records = answer.into_inner().record;
        records.sort_by(|a, b| (a.size, &a.id).cmp(&(b.size, &b.id)));
        all.extend(records);
    }
    Ok(all)
}

fn row(record: &UsageRecord, now: Timestamp, in_table: bool) -> Data {
    let star = |marked: bool| if in_table && marked { "*" } else { "" };
    let parents = if record.parents.is_empty() {
        Data::Nil(Nil::List)
    } else {
        Data::list(&record.parents)
    };
    Data::row(
        "commands.diskusageContext",
        [
            ("ID", format!("{}{}", record.id, star(record.mutable)).into()),
            ("Parents", parents),
            ("CreatedAt", usage::created(record).into()),
            ("Mutable", record.mutable.into()),
            ("Reclaimable", (!record.in_use).into()),
            ("Shared", record.shared.into()),
            (
                "Size",
                format!("{}{}", usage::size(record), star(record.shared)).into(),
            ),
            ("Description", record.description.as_str().into()),
            ("UsageCount", record.usage_count.into()),
            ("LastUsedAt", usage::last_used(record, now).into()),
            ("Type", record.record_type.as_str().into()),
        ],
    )
}

fn pretty(record: &UsageRecord, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| text.push_str(&format!("{label:<13} {value}\n"));
    line("ID:", &record.id);
    if !record.parents.is_empty() {
        text.push_str("Parents:\n");
        for parent in &record.parents {
            text.push_str(&format!(" - {parent}\n"));
        }
    }
    let mut line = |label: &str, value: &str| text.push_str(&format!("{label:<13} {value}\n"));
    line("Created at:", &usage::created(record));
    line("Mutable:", &record.mutable.to_string());
    line("Reclaimable:", &(!record.in_use).to_string());
    line("Shared:", &record.shared.to_string());
    line("Size:", &usage::size(record));
    if !record.description.is_empty() {
        line("Description:", &record.description);
    }
    line("Usage count:", &record.usage_count.to_string());
    let last_used = usage::last_used(record, now);
    if !last_used.is_empty() {
        line("Last used:", &last_used);
    }
    if !record.record_type.is_empty() {
        line("Type:", &record.record_type);
    }
    text.push('\n');
    text
}

fn summary(records: &[UsageRecord]) -> String {
    let sum = |which: &dyn Fn(&UsageRecord) -> bool| -> i64 {
        let sizes = records
            .iter()
            .filter(|record| which(record))
            .map(|record| record.size);
        sizes.fold(0, i64::saturating_add)
    };
    let total = sum(&|record| record.size > 0);
    let reclaimable = sum(&|record| record.size > 0 && !record.in_use);
    let shared = sum(&|record| record.shared);
    let mut lines = Vec::new();
    if shared > 0 {
        lines.extend([("Shared", shared), ("Private", total - shared)]);
    }
    lines.extend([("Reclaimable", reclaimable), ("Total", total)]);
    let text: String = lines
        .iter()
        .map(|(label, bytes)| format!("{label}:\t{}\n", units::decimal(*bytes)))
        .collect();
    tab_stops(&text)
}
