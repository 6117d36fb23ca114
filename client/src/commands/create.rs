//! `trimaran create`

mod flags;

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::Args;
use clap_complete::ArgValueCandidates;

use super::{Context, inspect, parse_duration};
use crate::builders::{Builder, NodeChange, Reach, Transaction};
use crate::completion;
use crate::docker;
use crate::drivers::{self, Driver};
use crate::instance::{self, Builders, DEFAULT};
use crate::output;
use crate::platforms;

/// Create a new builder instance
///
/// Prints its name. Without --driver it runs in the Docker engine if one answers, else as a daemon of your own on this
/// machine. Nothing is pulled: the daemon is the builderd executable that lies beside this program.
///
/// A builder may have several nodes. A platform is built on the node that runs it natively, or was fixed to it.
///
/// Examples:
///   trimaran create --use --name mybuilder
///   trimaran create --name big --driver-opt memory=8g,cpuset-cpus=0-3 --bootstrap
///   trimaran create --name far ssh://me@machine                         a container in an engine elsewhere
///   trimaran create --name far --append --platform linux/arm64 arm-context
///   trimaran create --name far --leave --node far1
///   trimaran create --driver remote tcp://daemon:1234 --driver-opt cacert=/ca.pem,cert=/cert.pem,key=/key.pem
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct CreateArgs {
    /// A Docker context or engine address; for the remote driver the daemon's address: unix://PATH, tcp://HOST:PORT,
    /// ssh://[USER@]HOST[:PORT][/SOCKET], docker-container://NAME
    #[arg(value_name = "CONTEXT|ENDPOINT")]
    endpoint: Option<String>,
    /// Builder instance name
    #[arg(long)]
    name: Option<String>,
    /// Driver to use (available: "docker-container", "remote", "local")
    #[arg(long, add = ArgValueCandidates::new(completion::drivers))]
    driver: Option<String>,
    /// Options for the driver: image=, network=, memory=, memory-swap=, cpu-quota=, cpu-period=, cpu-shares=,
    /// cpuset-cpus=, cpuset-mems=, cgroup-parent=, restart-policy=, env.NAME=, default-load= (docker-container);
    /// cacert=, cert=, key=, servername=, default-load= (remote)
    #[arg(long, value_name = "NAME=VALUE")]
    driver_opt: Vec<String>,
    /// Create/modify node with given name
    #[arg(long)]
    node: Option<String>,
    /// Append a node to builder instead of changing it
    #[arg(long)]
    append: bool,
    /// Remove a node from builder instead of changing it
    #[arg(long)]
    leave: bool,
    /// Fixed platforms for current node
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<String>,
    /// Boot builder after creation
    #[arg(long)]
    bootstrap: bool,
    /// Set the current builder instance
    #[arg(long = "use")]
    use_it: bool,
    /// BuildKit daemon config file; certificates of registries that it names go with it
    #[arg(long, alias = "config", value_name = "FILE")]
    buildkitd_config: Option<std::path::PathBuf>,
    /// BuildKit daemon flags
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    buildkitd_flags: Option<String>,
    /// Override the default timeout for loading builder status
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

pub async fn run(args: &CreateArgs, context: &Context) -> anyhow::Result<()> {
    let builders = Builders::new(&context.settings);
    if args.leave {
        return leave(args, &builders);
    }
    let builder = save(args, context, &builders).await?;
    if args.use_it {
        let endpoint = builders.endpoint()?;
        builders
            .lock()?
            .set_current(&endpoint, &builder.name, Reach::Endpoint)?;
    }
    if args.bootstrap {
        let nodes = instance::load(&context.settings, &builder, args.timeout).await;
        inspect::bootstrap(context, &builder, &nodes).await?;
    }
    Ok(output::data(&format!("{}\n", builder.name))?)
}

fn leave(args: &CreateArgs, builders: &Builders) -> anyhow::Result<()> {
    let name = args.name.as_deref().context("leave requires instance name")?;
    let node = args.node.as_deref().context("leave requires node name")?;
    let transaction = builders.lock_for(name)?;
    let mut builder = transaction
        .find(name)?
        .with_context(|| format!("failed to find instance \"{name}\" for leave"))?;
    builder.leave(node)?;
    Ok(transaction.save(&builder)?)
}

/// The instance as it is now stored. The lock is held from reading to writing, and while nothing is waited for.
async fn save(args: &CreateArgs, context: &Context, builders: &Builders) -> anyhow::Result<Builder> {
    let settings = &context.settings;
    ensure!(
        args.name.as_deref() != Some(DEFAULT),
        "default is a reserved name and cannot be used to identify builder instance"
    );
    ensure!(
        !args.append || args.name.is_some(),
        "append requires a builder name"
    );
    if let Some(name) = args.name.as_ref().filter(|_| !args.append) {
        ensure!(
            !docker::has_context(settings, name),
            "instance name \"{name}\" already exists as context builder"
        );
    }
    let driver = driver(args, context, builders).await?;
    let options = flags::driver_options(&args.driver_opt)?;
    let platforms = platforms::parse(&args.platform)?;
    let files = flags::daemon_files(args, context, &driver)?;
    let daemon_flags = flags::daemon_flags(
        args.buildkitd_flags.as_deref(),
        &driver,
        options.as_ref(),
        files.as_ref(),
    )?;

    if driver == drivers::CONTAINER {
        // What is wrong without an engine is said without one.
        if let Some(name) = &args.name {
            existing(args, &builders.lock()?, name, &driver)?;
        }
        answering_engine(args, context).await?;
    }

    let transaction = match &args.name {
        Some(name) => builders.lock_for(name)?,
        None => builders.lock()?,
    };
    let name = match &args.name {
        Some(name) => name.clone(),
        None => transaction.free_name()?,
    };
    let mut builder = existing(args, &transaction, &name, &driver)?;
    let (endpoint, endpoint_given) =
        flags::endpoint(args, context, &builder.driver, || builder.next_node_name())?;
    let is_new = builder
        .nodes
        .iter()
        .all(|node| Some(&node.name) != args.node.as_ref());
    let change = NodeChange {
        name: args.node.clone(),
        endpoint,
        endpoint_given,
        append: args.append,
        platforms,
        driver_opts: options,
        // What nobody mentions stays as it is.
        daemon_flags: (is_new || args.buildkitd_flags.is_some()).then_some(daemon_flags),
        files: files.map(|files| files.files).unwrap_or_default(),
    };
    if builder.update(change)? {
        output::warn("new settings may not be used until builder is restarted");
    }
    // Options and endpoints that no driver takes are found before the instance counts as made.
    for node in &builder.nodes {
        Driver::of(settings, &builder, node)
            .with_context(|| format!("failed to initialize builder {} ({})", builder.name, node.name))?;
    }
    transaction.save(&builder)?;
    Ok(builder)
}

/// The driver that is asked for, else that of the instance, else what this machine has. Its engine has to answer; it is
/// asked before the lock is taken, as one that hangs must not block other commands.
async fn driver(args: &CreateArgs, context: &Context, builders: &Builders) -> anyhow::Result<String> {
    let settings = &context.settings;
    let stored = match &args.name {
        Some(name) => builders.lock()?.find(name)?,
        None => None,
    };
    let driver = match (&args.driver, stored) {
        (Some(driver), _) => driver.clone(),
        (None, Some(stored)) => stored.driver,
        (None, None) if args.endpoint.is_none() && settings.get("BUILDKIT_HOST").is_some() => {
            drivers::REMOTE.to_owned()
        }
        // An engine that is named is wanted; without a name this machine need not have one.
        (None, None) if args.endpoint.is_some() => drivers::CONTAINER.to_owned(),
        (None, None) => {
            let endpoint = builders.endpoint()?;
            return Ok(builders.default_driver(&endpoint).await.to_owned());
        }
    };
    drivers::known(&driver)?;
    Ok(driver)
}

async fn answering_engine(args: &CreateArgs, context: &Context) -> anyhow::Result<()> {
    let (endpoint, _) = flags::endpoint(args, context, drivers::CONTAINER, String::new)?;
    let name = args.name.as_deref().unwrap_or("a new name");
    let failed = || format!("failed to initialize builder {name}");
    tokio::time::timeout(args.timeout, docker::connect(&context.settings, &endpoint))
        .await
        .map_err(|_| anyhow!("no answer from {endpoint} within {} s", args.timeout.as_secs()))
        .with_context(failed)?
        .map(drop)
        .with_context(failed)
}

fn existing(
    args: &CreateArgs,
    transaction: &Transaction,
    name: &str,
    driver: &str,
) -> anyhow::Result<Builder> {
    match transaction.find(name)? {
        Some(builder) => {
            ensure!(
                args.node.is_some() || args.append,
                "existing instance for \"{name}\" but no append mode, specify the node name to make changes for existing instances"
            );
            if driver != builder.driver {
                bail!(
                    "existing instance for \"{name}\" but has mismatched driver \"{}\"",
                    builder.driver
                );
            }
            Ok(builder)
        }
        None => {
            ensure!(!args.append, "failed to find instance \"{name}\" for append");
            let name = crate::builders::valid_name(name)?;
            Ok(Builder::new(&name, driver))
        }
    }
}
