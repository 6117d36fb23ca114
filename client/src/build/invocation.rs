//! What the commands that build have in common: the display, the warnings, and who misses an output.

use std::collections::BTreeMap;

use super::request::Flags;
use super::run::{Work, run};
use super::solve::Response;
use crate::drivers::Driver;
use crate::instance::Builders;
use crate::output;
use crate::progress::status::VertexWarning;
use crate::progress::{Display, Heading, Mode, Paint};

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The answers of the exporters by target, with the build's full name as [`super::run::BUILD_REFERENCE`].
    pub responses: BTreeMap<String, Response>,
    pub warnings: Vec<VertexWarning>,
}

/// Builds all targets, shows how it goes, and then the warnings.
///
/// The errors are those of [`run`]; they name the target if there are several.
pub async fn show(
    work: &Work<'_>,
    builders: &Builders,
    targets: &BTreeMap<String, Flags>,
    mode: Mode,
) -> anyhow::Result<Outcome> {
    let builder = work.builder;
    let heading = Heading::of("building with", builder);
    let paint = Paint::of(work.settings);
    let targets = &with_default_output(work, targets);
    warn_of_missing_outputs(targets, &builder.driver);
    let (display, progress) = Display::start(mode, heading, paint)?;
    builders.touch(builder)?;
    let outcome = run(work, targets, progress).await;
    let warnings = display.finish().await?;
    if matches!(mode, Mode::Auto | Mode::Tty | Mode::Plain) {
        show_warnings(&warnings);
    }
    Ok(Outcome {
        responses: outcome?,
        warnings,
    })
}

fn misses_an_output(flags: &Flags) -> bool {
    !flags.linked && flags.call.is_none() && flags.outputs.is_empty() && !flags.push && !flags.load
}

/// Where the builder says so, what has no output goes into the Docker engine.
fn with_default_output(work: &Work<'_>, targets: &BTreeMap<String, Flags>) -> BTreeMap<String, Flags> {
    let mut drivers = work.nodes.iter().filter_map(|node| node.driver.as_ref());
    let loads = drivers.any(Driver::loads_by_default);
    let mut targets = targets.clone();
    for flags in targets.values_mut() {
        flags.load |= loads && misses_an_output(flags);
    }
    targets
}

fn warn_of_missing_outputs(targets: &BTreeMap<String, Flags>, driver: &str) {
    let missing: Vec<&str> = targets
        .iter()
        .filter(|(_, flags)| misses_an_output(flags))
        .map(|(name, _)| name.as_str())
        .collect();
    let of = match missing.as_slice() {
        [] => return,
        ["default"] => String::new(),
        names => format!("for {} target(s) ", names.join(", ")),
    };
    output::warn(&format!(
        "No output specified {of}with {driver} driver. Build result will only remain in the build cache. To push result image into registry use --push or to load image into docker use --load"
    ));
}

fn show_warnings(warnings: &[VertexWarning]) {
    let mut shown: Vec<String> = Vec::new();
    for warning in warnings {
        let text = String::from_utf8_lossy(&warning.short).into_owned();
        // The same line of a Dockerfile is checked once for each platform.
        if !shown.contains(&text) {
            shown.push(text);
        }
    }
    if shown.is_empty() {
        return;
    }
    let (count, plural) = (shown.len(), if shown.len() == 1 { "" } else { "s" });
    output::note(&format!("\n {count} warning{plural} found:"));
    for text in shown {
        output::note(&format!(" - {text}"));
    }
}
