//! `trimaran history ls`

use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;

use crate::commands::Context;
use crate::format::{Data, Field, Listing, field, record};
use crate::gojson;
use crate::gotime;
use crate::history::{self, Found, Outcome, Query, timestamp};
use crate::output;

const DEFAULT_TABLE: &str =
    "table {{.Ref}}\\t{{.Name}}\\t{{.Status}}\\t{{.CreatedAt}}\\t{{.Duration}}\\t{{.Link}}";
const HEADINGS: [(&str, &str); 6] = [
    ("Ref", "BUILD ID"),
    ("Name", "NAME"),
    ("Status", "STATUS"),
    ("CreatedAt", "CREATED AT"),
    ("Duration", "DURATION"),
    ("Link", ""),
];
/// Longer names lose their beginning in tables.
const LONGEST_NAME: usize = 36;

/// List build records
///
/// Running builds come first, then the latest. Records that were imported from bundles are listed too, unless --builder
/// names a builder; --builder .imported lists only those.
#[derive(Args, Debug)]
pub struct LsArgs {
    /// Format the output: "table", "json", or a Go template over .Ref .FullRef .Name .Status .CreatedAt .Duration
    #[arg(long, default_value = "table")]
    format: String,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Provide filter values, e.g. "status=error", "repository=…", "duration>30s", "startedAt>24h"
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// List records for current repository only
    #[arg(long)]
    local: bool,
}

pub async fn run(args: &LsArgs, context: &Context) -> anyhow::Result<()> {
    let listing = Listing::parse(&args.format, DEFAULT_TABLE)?;
    let mut query = Query::default();
    if args.local {
        query.filters.push(format!("repository={}", remote()?));
    }
    query.filters.extend(args.filters.iter().cloned());
    let library = super::library(context, "").await?;
    let mut found = library.list(&query).await?;
    // Stable: those of one kind stay sorted by age.
    found.sort_by_key(|found| found.record.completed_at.is_some());
    let style = Style {
        in_table: listing.is_table(),
        whole: args.no_trunc,
    };
    let now = Timestamp::now();
    let rows: Vec<Data> = found
        .iter()
        .map(|found| row(found, context, style, now))
        .collect();
    let mut text = listing.render(&HEADINGS, &rows)?;
    if listing.is_json() {
        text = gojson::escape(&text);
    }
    Ok(output::data(&text)?)
}

#[derive(Clone, Copy)]
struct Style {
    in_table: bool,
    whole: bool,
}

fn row(found: &Found, context: &Context, style: Style, now: Timestamp) -> Data {
    let state = found.local_state(&context.settings);
    let mut name = history::name(&found.record.frontend_attrs, state.as_ref());
    if style.in_table && !style.whole {
        name = shortened(&name);
    }
    let kept = &found.record;
    let is_running = kept.completed_at.is_none();
    let created = kept.created_at.as_ref().and_then(timestamp).unwrap_or_default();
    let age = now.duration_since(created).as_secs();
    let mut duration = found.duration().map(gotime::took).unwrap_or_default();
    if is_running && !duration.is_empty() {
        duration.push('+');
    }
    let status = match Outcome::of(kept) {
        Outcome::Running => "Running",
        _ if is_running => "Running",
        Outcome::Completed => "Completed",
        Outcome::Failed | Outcome::Canceled => "Error",
    };
    // A table has the column for its layout; there is no page to link to before `open` makes one.
    let link = if style.in_table {
        String::new()
    } else {
        format!("trimaran history open {}", found.full_name())
    };
    let mut fields = vec![Field::json_only("cached_steps", i64::from(kept.num_cached_steps))];
    if let Some(completed) = kept.completed_at.as_ref().and_then(timestamp) {
        fields.push(Field::json_only("completed_at", completed.to_string()));
    }
    fields.extend([
        Field::json_only("completed_steps", i64::from(kept.num_completed_steps)),
        Field::json_only("created_at", created.to_string()),
        field("Name", "name", name),
        Field::template_only("Ref", found.id()),
        field("FullRef", "ref", found.full_name()),
        field("Status", "status", status),
        Field::json_only("total_steps", i64::from(kept.num_total_steps)),
        Field::template_only("CreatedAt", format!("{} ago", gotime::age(age))),
        Field::template_only("Duration", duration),
        Field::template_only("Link", link),
    ]);
    record("history.lsContext", fields)
}

fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= LONGEST_NAME {
        return name.to_owned();
    }
    let rest: String = name.chars().skip(count - (LONGEST_NAME - 2)).collect();
    format!("..{rest}")
}

/// The repository that this folder is a clone of.
fn remote() -> anyhow::Result<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .output()
            .context("running git for --local: is it installed?")?;
        anyhow::Ok(
            output
                .status
                .success()
                .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        )
    };
    if git(&["rev-parse", "--git-dir"])?.is_none() {
        bail!(
            "could not find git repository for local filter: run it inside a clone, or use --filter repository=…"
        );
    }
    // The branch's remote, else the usual ones.
    let tracked = git(&["rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}"])?;
    let tracked = tracked.and_then(|branch| branch.split_once('/').map(|(remote, _)| remote.to_owned()));
    for name in tracked.iter().map(String::as_str).chain(["origin", "upstream"]) {
        if let Some(url) = git(&["remote", "get-url", name])?.filter(|url| !url.is_empty()) {
            return Ok(without_credentials(&url));
        }
    }
    bail!(
        "could not get remote URL for local filter: the repository has no remote, use --filter repository=…"
    )
}

/// Records never have the user and password of a URL.
fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) if scheme.starts_with("http") => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = host.rsplit('@').next().unwrap_or(host);
            format!("{scheme}://{host}/{path}")
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(shortened("short"), "short");
        let long = format!("{}/end", "x".repeat(40));
        assert_eq!(shortened(&long).len(), LONGEST_NAME);
        assert!(shortened(&long).ends_with("/end") && shortened(&long).starts_with("..x"));
    }

    #[test]
    fn credentials_are_no_part_of_a_repository() {
        assert_eq!(
            without_credentials("https://user:pass@example.org/r.git"),
            "https://example.org/r.git"
        );
        assert_eq!(
            without_credentials("git@example.org:r.git"),
            "git@example.org:r.git"
        );
    }
}
