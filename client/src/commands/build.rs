//! `trimaran build`

mod flags;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Context;
use crate::build::invocation;
use crate::build::metadata;
use crate::build::provenance::Detail;
use crate::build::request::Plan;
use crate::build::run::Work;
use crate::error::{BuildFailed, Interrupted};
use crate::instance::{self, Builders};
use crate::output;
use crate::progress::Mode;

pub use flags::BuildArgs;

/// What the only target is called.
const TARGET: &str = "default";
const TIMEOUT: Duration = Duration::from_secs(20);

pub async fn run(args: &BuildArgs, context: &Context) -> anyhow::Result<()> {
    args.refuse_unsupported()?;
    let settings = &context.settings;
    let mode = mode(args, context)?;
    let call = args.call()?;
    let flags = args.flags(call.clone());
    // Mistakes in flags are told before any daemon is looked for.
    let plan = Plan::new(&flags, settings)?;
    ensure!(
        args.iidfile.is_none()
            || !plan
                .outputs
                .iter()
                .any(|output| matches!(output.kind.as_str(), "local" | "tar")),
        "local and tar exporters are incompatible with image ID file"
    );
    drop(plan);
    if let Some(path) = &args.iidfile {
        // A file of an earlier build must not be taken for this one's.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).context("removing image ID file");
            }
            _ => {}
        }
    }
    let builders = Builders::new(settings);
    let builder = builders.find(context.builder.as_deref()).await?;
    let nodes = instance::load(settings, &builder, TIMEOUT).await;
    let work = Work {
        settings,
        builder: &builder,
        nodes: &nodes,
        provenance: match args.metadata_file {
            Some(_) => Detail::of(settings),
            None => Detail::None,
        },
        group: None,
    };
    let targets = BTreeMap::from([(TARGET.to_owned(), flags)]);
    let outcome = invocation::show(&work, &builders, &targets, mode).await;
    let mut outcome = outcome.map_err(|error| {
        let is_of_build = error.is::<BuildFailed>() || error.is::<Interrupted>();
        if is_of_build {
            error.context("failed to build")
        } else {
            error
        }
    })?;
    let response = outcome.responses.remove(TARGET).unwrap_or_default();
    if let Some(call) = &call {
        return call.print(&response);
    }
    if mode == Mode::Quiet {
        output::data(&format!("{}\n", metadata::image_id(&response)))?;
    }
    if let Some(path) = &args.iidfile {
        std::fs::write(path, metadata::image_id(&response)).context("writing image ID file")?;
    }
    if let Some(path) = &args.metadata_file {
        let warnings = metadata::wants_warnings(settings).then_some(outcome.warnings.as_slice());
        metadata::write(path, &metadata::of_build(&response, warnings)?)?;
    }
    Ok(())
}

fn mode(args: &BuildArgs, context: &Context) -> anyhow::Result<Mode> {
    if args.quiet {
        ensure!(
            matches!(args.progress, Mode::Auto | Mode::Quiet | Mode::None),
            "progress={:?} and quiet cannot be used together",
            args.progress
        );
        return Ok(Mode::Quiet);
    }
    match (args.progress, context.settings.get("BUILDKIT_PROGRESS")) {
        (Mode::Auto, Some(text)) => text.parse().map_err(anyhow::Error::msg),
        (mode, _) => Ok(mode),
    }
}
