//! `trimaran rm`

use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use clap::Args;

use super::{Context, parse_duration};
use crate::builders::Builder;
use crate::drivers::{Condition, Driver, State};
use crate::instance::{self, Builders};
use crate::output;

const WARNING: &str = "WARNING! This will remove all builders that are not in running state. Are you sure you want to continue? [y/N] ";

/// Remove one or more builder instances
///
/// Their daemons end and their caches are removed, unless told otherwise.
#[derive(Args, Debug)]
pub struct RmArgs {
    /// The builders to remove, by default the current one
    names: Vec<String>,
    /// Remove all inactive builders
    #[arg(long, conflicts_with = "names")]
    all_inactive: bool,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Keep the daemon running
    #[arg(long)]
    keep_daemon: bool,
    /// Keep the daemon's state
    #[arg(long)]
    keep_state: bool,
    /// Override the default timeout for loading builder status
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

pub async fn run(args: &RmArgs, context: &Context) -> anyhow::Result<()> {
    let builders = Builders::new(&context.settings);
    if args.all_inactive {
        if !args.force && !confirmed()? {
            return Ok(());
        }
        return remove_inactive(args, context, &builders).await;
    }
    let names = if args.names.is_empty() {
        vec![builders.find(context.builder.as_deref()).await?.name]
    } else {
        args.names.clone()
    };
    let mut failed = false;
    for name in &names {
        match remove_named(args, context, &builders, name).await {
            Ok(()) => output::note(&format!("{name} removed")),
            Err(error) => {
                failed = true;
                output::note(&format!("failed to remove {name}: {error:#}"));
            }
        }
    }
    anyhow::ensure!(!failed, "failed to remove one or more builders");
    Ok(())
}

async fn remove_named(
    args: &RmArgs,
    context: &Context,
    builders: &Builders,
    name: &str,
) -> anyhow::Result<()> {
    let builder = builders.find(Some(name)).await?;
    remove(args, context, builders, &builder).await
}

/// The instance is forgotten even if its daemon cannot be reached any more: else it could never be removed.
async fn remove(
    args: &RmArgs,
    context: &Context,
    builders: &Builders,
    builder: &Builder,
) -> anyhow::Result<()> {
    let mut result = Ok(());
    if !args.keep_daemon {
        let state = if args.keep_state {
            State::Keep
        } else {
            State::Remove
        };
        for node in &builder.nodes {
            let removed = match Driver::of(&context.settings, builder, node) {
                Ok(driver) => driver.remove(state).await,
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                result =
                    Err(anyhow::Error::from(error).context(format!("failed to remove node {}", node.name)));
            }
        }
    }
    builders.lock()?.remove(&builder.name)?;
    result
}

async fn remove_inactive(args: &RmArgs, context: &Context, builders: &Builders) -> anyhow::Result<()> {
    // The lock is not held while daemons are asked.
    let stored = builders.lock()?.list()?;
    for builder in stored {
        let nodes = instance::load(&context.settings, &builder, args.timeout).await;
        let is_running = |node: &instance::LoadedNode| {
            node.state
                .as_ref()
                .is_ok_and(|s| s.condition == Condition::Running)
        };
        if !nodes.iter().any(is_running) {
            remove(args, context, builders, &builder).await?;
            output::note(&format!("{} removed", builder.name));
        }
    }
    Ok(())
}

fn confirmed() -> anyhow::Result<bool> {
    anyhow::ensure!(
        std::io::stdin().is_terminal(),
        "--all-inactive asks for confirmation: add --force"
    );
    output::data(WARNING)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
