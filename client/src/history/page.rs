//! A build as one page for a browser: a timeline with a lane for each platform.
//!
//! The page needs nothing but itself: style, script and data are in it, and its policy lets it load nothing and run no
//! other script. The data is JSON in which no character can end the element that holds it. Everything in it is shown as
//! text.

mod collect;
mod log;
mod step;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use sha2::Digest as _;

use super::inspect::Failure;
use super::library::{Found, HistoryError};
use super::local_state::LocalState;
use super::{Outcome, timestamp};
use crate::gojson;
use collect::Collector;
use step::Step;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// What the script draws. Times are milliseconds since the start of the build.
#[derive(Debug, Serialize)]
struct Page {
    name: String,
    id: String,
    builder: String,
    status: &'static str,
    started: String,
    duration: f64,
    /// Of the daemon itself; other platforms' programs are emulated on it.
    native: String,
    steps_total: i32,
    steps_cached: i32,
    error: Option<Problem>,
    lanes: Vec<Lane>,
    steps: Vec<Step>,
    attributes: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Problem {
    message: String,
    source: String,
}

#[derive(Debug, Serialize)]
struct Lane {
    /// Empty for what is done for all platforms.
    platform: String,
    emulated: bool,
}

/// The page of a record.
pub async fn render(found: &Found, state: Option<&LocalState>) -> Result<String, HistoryError> {
    let record = &found.record;
    let attribute = |key: &str| record.frontend_attrs.get(key).map(String::as_str);
    let native = found.platform.clone().unwrap_or_default();
    let mut wanted = attribute("platform").unwrap_or(&native).split(',');
    let only = match (wanted.next(), wanted.next()) {
        (Some(platform), None) => platform,
        _ => "",
    };
    let mut collector = Collector::default();
    let mut replay = found.replay().await?;
    while let Some(message) = replay.next().await? {
        collector.take(message);
    }
    let begin = record.created_at.as_ref().and_then(timestamp);
    let end = record.completed_at.as_ref().and_then(timestamp).or(found.now);
    let (steps, duration) = collector.finish(begin, end, &native, only);
    let failure = Failure::of(found).await?;
    let name = super::name(&record.frontend_attrs, state);
    let page = Page {
        name: if name.is_empty() {
            found.id().to_owned()
        } else {
            name
        },
        id: found.id().to_owned(),
        builder: format!("{}/{}", found.builder, found.node),
        status: match Outcome::of(record) {
            Outcome::Running => "running",
            Outcome::Completed => "completed",
            Outcome::Failed => "failed",
            Outcome::Canceled => "canceled",
        },
        started: begin.map(|time| time.to_string()).unwrap_or_default(),
        duration,
        native,
        steps_total: record.num_total_steps,
        steps_cached: record.num_cached_steps,
        error: failure.map(|failure| Problem {
            message: failure.message,
            source: failure.sources.trim_end().to_owned(),
        }),
        lanes: lanes(&steps),
        steps,
        attributes: shown_attributes(&record.frontend_attrs),
    };
    let data = serde_json::to_string(&page).unwrap_or_default();
    Ok(assemble(&gojson::escape(&data)))
}

/// What is done for all platforms first, then the platforms by name.
fn lanes(steps: &[Step]) -> Vec<Lane> {
    let mut lanes: BTreeMap<&str, bool> = BTreeMap::new();
    for step in steps {
        *lanes.entry(&step.platform).or_default() |= step.emulated;
    }
    lanes
        .into_iter()
        .map(|(platform, emulated)| Lane {
            platform: platform.to_owned(),
            emulated,
        })
        .collect()
}

/// The settings of the build that a reader may want; not the plumbing.
fn shown_attributes(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const HIDDEN: [&str; 4] = [
        "frontend.caps",
        "local-sessionid",
        "cache-imports",
        "vcs:localdir",
    ];
    attributes
        .iter()
        .filter(|(key, _)| !HIDDEN.iter().any(|hidden| key.starts_with(hidden)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Every placeholder once, in this order: what is put in is never looked at again.
fn assemble(data: &str) -> String {
    let hash = |text: &str| BASE64_STANDARD.encode(sha2::Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    let mut page = String::with_capacity(TEMPLATE.len() + STYLE.len() + SCRIPT.len() + data.len());
    let mut rest = TEMPLATE;
    for (placeholder, text) in [
        ("@policy@", policy.as_str()),
        ("@style@", STYLE),
        ("@data@", data),
        ("@script@", SCRIPT),
    ] {
        let (before, after) = rest.split_once(placeholder).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(text);
        rest = after;
    }
    page.push_str(rest);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_end_its_element() {
        let json = serde_json::to_string("</script><script>alert(1)</script><!-- @script@ ]]>").unwrap();
        let page = assemble(&gojson::escape(&json));
        // The page's own two: data and script.
        assert_eq!(page.matches("</script>").count(), 2);
        assert_eq!(page.matches("<!--").count(), 0);
        assert!(
            page.ends_with("</html>\n"),
            "the rest of the template follows the script"
        );
        assert!(page.contains("@script@ ]]\\u003e"), "data is not looked at again");
    }

    #[test]
    fn the_page_loads_nothing() {
        for text in [TEMPLATE, STYLE, SCRIPT] {
            for outside in [
                "http:",
                "https:",
                "//cdn",
                "url(",
                "@import",
                "innerHTML",
                "eval(",
            ] {
                assert!(!text.contains(outside), "{outside}");
            }
        }
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</"));
    }
}
