//! `trimaran build`

mod flags;

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use registry::docker_config::DockerConfig;

use super::Context;
use crate::build::metadata;
use crate::build::outputs::Destination;
use crate::build::request::Plan;
use crate::build::solve::{self, Response};
use crate::builders::Builder;
use crate::error::BuildFailed;
use crate::instance::{self, Builders, LoadedNode};
use crate::output;
use crate::progress::status::VertexWarning;
use crate::progress::{self, Display, Heading, Mode, Paint};

pub use flags::BuildArgs;

const TIMEOUT: Duration = Duration::from_secs(20);

pub async fn run(args: &BuildArgs, context: &Context) -> anyhow::Result<()> {
    args.refuse_unsupported()?;
    let settings = &context.settings;
    let mode = mode(args, context)?;
    let plan = Plan::new(&args.flags(), settings)?;
    let to_folder = |destination: &Destination| {
        matches!(destination, Destination::Folder(_) | Destination::StandardOutput)
    };
    ensure!(
        args.iidfile.is_none()
            || !plan
                .outputs
                .iter()
                .any(|output| output.kind == "tar" || to_folder(&output.destination)),
        "local and tar exporters are incompatible with image ID file"
    );
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
    let heading = Heading {
        plain: format!(
            "building with \"{}\" instance using {} driver",
            builder.name, builder.driver
        ),
        tty: format!("{}:{}", builder.driver, builder.name),
    };
    let paint = if settings.wants_colour() {
        Paint::Colours
    } else {
        Paint::None
    };
    if plan.outputs.is_empty() && !args.outputs.iter().any(|output| output.contains("cacheonly")) {
        output::warn(&format!(
            "No output specified with {} driver. Build result will only remain in the build cache. To push result image into registry use --push or to load image into docker use --load",
            builder.driver
        ));
    }
    let (display, progress) = Display::start(mode, heading, paint)?;
    let outcome = build(context, &builders, &builder, &nodes, plan, progress).await;
    let warnings = display.finish().await?;
    if matches!(mode, Mode::Auto | Mode::Tty | Mode::Plain) {
        show_warnings(&warnings);
    }
    let (response, build) = outcome?;
    if mode == Mode::Quiet {
        output::data(&format!("{}\n", metadata::image_id(&response)))?;
    }
    if let Some(path) = &args.iidfile {
        std::fs::write(path, metadata::image_id(&response)).context("writing image ID file")?;
    }
    if let Some(path) = &args.metadata_file {
        metadata::write(path, &response, &build)?;
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

/// The answers of the exporters, and the build's full name.
async fn build(
    context: &Context,
    builders: &Builders,
    builder: &Builder,
    nodes: &[LoadedNode],
    plan: Plan,
    progress: progress::Sender,
) -> anyhow::Result<(Response, String)> {
    let node = choose(builder, nodes, &plan)?;
    let driver = node.driver.as_ref().context("the node has no driver")?;
    let channel = match node.state.as_ref().ok().and_then(|state| state.channel.clone()) {
        Some(channel) => channel,
        // It does not run, or runs and does not answer yet, as after a restart of the engine.
        None => {
            driver.boot(&progress).await?;
            driver.channel()?
        }
    };
    builders.touch(builder)?;
    let reference = solve::new_id();
    let request = plan.solve_request(&reference, &solve::new_id());
    let offer = plan.offer(
        &context.settings,
        DockerConfig::load(&context.settings.docker_config_folder())?,
    );
    let mut outcome = solve::run(channel, request, offer, progress).await;
    if let Err(error) = &mut outcome
        && let Some(failed) = error.downcast_mut::<BuildFailed>()
    {
        failed.dockerfile = plan
            .inputs
            .dockerfile
            .as_ref()
            .map(|path| path.display().to_string());
    }
    let response = outcome?;
    Ok((
        response,
        format!("{}/{}/{reference}", builder.name, node.node.name),
    ))
}

/// The first node that offers every platform of the build, else the first that may turn out to when it has been started.
fn choose<'a>(builder: &Builder, nodes: &'a [LoadedNode], plan: &Plan) -> anyhow::Result<&'a LoadedNode> {
    let offers_all = |node: &&LoadedNode| {
        let info = node.state.as_ref().ok().and_then(|state| state.info.as_ref());
        let offered = info.map(|info| info.platforms.as_slice()).unwrap_or_default();
        plan.platforms
            .iter()
            .all(|platform| node.node.platforms.contains(platform) || offered.contains(platform))
    };
    let usable = || nodes.iter().filter(|node| node.driver.is_some());
    let chosen = usable()
        .filter(|node| node.state.is_ok())
        .find(offers_all)
        .or_else(|| usable().find(|node| node.state.is_ok()))
        .or_else(|| usable().next());
    chosen.with_context(|| {
        let reasons: Vec<String> = nodes
            .iter()
            .filter_map(|node| {
                Some(format!(
                    "{}: {}",
                    node.node.name,
                    crate::error::chain(node.state.as_ref().err()?)
                ))
            })
            .collect();
        format!(
            "failed to find a usable node of builder \"{}\": {}",
            builder.name,
            reasons.join("; ")
        )
    })
}

fn show_warnings(warnings: &[VertexWarning]) {
    if warnings.is_empty() {
        return;
    }
    let mut shown: Vec<String> = Vec::new();
    for warning in warnings {
        let text = String::from_utf8_lossy(&warning.short).into_owned();
        // The same line of a Dockerfile is checked once for each platform.
        if !shown.contains(&text) {
            shown.push(text);
        }
    }
    let (count, plural) = (shown.len(), if shown.len() == 1 { "" } else { "s" });
    output::note(&format!("\n {count} warning{plural} found:"));
    for text in shown {
        output::note(&format!(" - {text}"));
    }
}
