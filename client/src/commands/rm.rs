//! `trimaran rm`

use std::io::BufRead as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap_complete::ArgValueCandidates;

use super::{Context, parse_duration};
use crate::builders::{Builder, Origin};
use crate::completion;
use crate::drivers::{Condition, Driver, State};
use crate::error::chain;
use crate::instance::{self, Builders, DEFAULT, LoadedNode};
use crate::output;

const WARNING: &str = "WARNING! This will remove all builders that are not in running state. Are you sure you want to continue? [y/N] ";

/// Remove one or more builder instances
///
/// Their daemons end and their caches are removed, unless told otherwise. A remote daemon is left alone.
///
/// Examples:
///   trimaran rm mybuilder other
///   trimaran rm --keep-state mybuilder     a new builder of the same name finds the cache again
///   trimaran rm --keep-daemon mybuilder    only forget it
///   trimaran rm --all-inactive --force     all that do not run
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct RmArgs {
    /// The builders to remove, by default the current one
    #[arg(add = ArgValueCandidates::new(completion::builders))]
    names: Vec<String>,
    /// Remove all inactive builders
    #[arg(long)]
    all_inactive: bool,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Keep the BuildKit daemon running
    #[arg(long)]
    keep_daemon: bool,
    /// Keep BuildKit state
    #[arg(long)]
    keep_state: bool,
    /// Override the default timeout for loading builder status
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

pub async fn run(args: &RmArgs, context: &Context) -> anyhow::Result<()> {
    let builders = Builders::new(&context.settings);
    if args.all_inactive {
        anyhow::ensure!(
            args.names.is_empty(),
            "cannot specify builder name when --all-inactive is set"
        );
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
    let builders = &builders;
    let removals = names.iter().map(|name| async move {
        let removed = remove_named(args, context, builders, name).await;
        match &removed {
            Ok(()) => output::note(&format!("{name} removed")),
            Err(error) => output::note(&format!("failed to remove {name}: {}", chain(error.as_ref()))),
        }
        removed.is_ok()
    });
    let removed = futures::future::join_all(removals).await;
    anyhow::ensure!(
        removed.into_iter().all(|removed| removed),
        "failed to remove one or more builders"
    );
    Ok(())
}

async fn remove_named(
    args: &RmArgs,
    context: &Context,
    builders: &Builders,
    name: &str,
) -> anyhow::Result<()> {
    let builder = builders.find(Some(name)).await?;
    // The default one runs a daemon that only we know of; an engine that a context names may be anybody's.
    anyhow::ensure!(
        builder.origin != Origin::Context || builder.name == DEFAULT,
        "context builder cannot be removed, run `docker context rm {name}` to remove this context"
    );
    tokio::time::timeout(args.timeout, remove(args, context, builders, &builder))
        .await
        .with_context(|| format!("no answer within {} s", args.timeout.as_secs()))?
}

/// The instance is forgotten even if its daemon cannot be reached any more: else it could never be removed.
async fn remove(
    args: &RmArgs,
    context: &Context,
    builders: &Builders,
    builder: &Builder,
) -> anyhow::Result<()> {
    let ended = if args.keep_daemon {
        Ok(())
    } else {
        end(args, context, builder).await
    };
    if builder.origin != Origin::Context {
        builders.lock()?.remove(builder)?;
    }
    ended
}

/// Ends the daemons of all nodes at the same time.
async fn end(args: &RmArgs, context: &Context, builder: &Builder) -> anyhow::Result<()> {
    let state = if args.keep_state {
        State::Keep
    } else {
        State::Remove
    };
    let ends = builder.nodes.iter().map(|node| async move {
        let ended = match Driver::of(&context.settings, builder, node) {
            Ok(driver) => driver.remove(state).await,
            Err(error) => Err(error),
        };
        ended.with_context(|| format!("failed to remove node {}", node.name))
    });
    let failures: Vec<String> = futures::future::join_all(ends)
        .await
        .into_iter()
        .filter_map(|ended| Some(chain(ended.err()?.as_ref())))
        .collect();
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

async fn remove_inactive(args: &RmArgs, context: &Context, builders: &Builders) -> anyhow::Result<()> {
    // The lock is not held while daemons are asked.
    let stored = builders.lock()?.list()?;
    let removals = stored.iter().map(|builder| async {
        let nodes = instance::load(&context.settings, builder, args.timeout).await;
        let is_running = |node: &LoadedNode| {
            let state = node.state.as_ref();
            state.is_ok_and(|state| state.condition == Condition::Running)
        };
        if nodes.iter().any(is_running) {
            return Ok(());
        }
        let removed = remove(args, context, builders, builder).await;
        output::note(&format!("{} removed", builder.name));
        removed
    });
    let removed = futures::future::join_all(removals).await;
    removed.into_iter().collect()
}

/// Whether the user, or what is piped in, says yes.
fn confirmed() -> anyhow::Result<bool> {
    output::data(WARNING)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
