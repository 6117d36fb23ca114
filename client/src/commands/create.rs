//! `trimaran create`

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{Context, inspect, parse_duration};
use crate::builders::{Builder, NodeChange, Reach, Transaction};
use crate::csv;
use crate::docker;
use crate::drivers::{self, Driver};
use crate::instance::{self, Builders, DEFAULT};
use crate::output;
use crate::platforms;

/// Create a new builder instance
///
/// Prints its name. Without --driver it runs in the Docker engine if one answers, else as a daemon of your own on this
/// machine. Nothing is pulled: the daemon is the builderd executable that lies beside this program.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// A Docker context or engine address; for the remote driver the daemon's address: unix://PATH, tcp://HOST:PORT,
    /// docker-container://NAME
    #[arg(value_name = "CONTEXT|ENDPOINT")]
    endpoint: Option<String>,
    /// Builder instance name
    #[arg(long)]
    name: Option<String>,
    /// Driver to use (available: "docker-container", "remote", "local")
    #[arg(long)]
    driver: Option<String>,
    /// Options for the driver: network=, image=, memory=, cpu-quota=, env.NAME= (docker-container); cacert=, cert=, key=,
    /// servername= (remote)
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
    /// Daemon config file (buildkitd.toml)
    #[arg(long, alias = "config", value_name = "FILE")]
    buildkitd_config: Option<std::path::PathBuf>,
    /// Daemon flags
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
    let (builder, previous) = save(args, context, &builders).await?;
    // Options and endpoints that no driver takes are found before the instance counts as made.
    for node in &builder.nodes {
        if let Err(error) = Driver::of(&context.settings, &builder, node) {
            let transaction = builders.lock()?;
            match &previous {
                Some(previous) => transaction.save(previous)?,
                None => transaction.remove(&builder.name)?,
            }
            let message = format!("failed to initialize builder {} ({})", builder.name, node.name);
            return Err(anyhow::Error::from(error).context(message));
        }
    }
    if args.use_it {
        builders.use_builder(&builder.name, Reach::Endpoint)?;
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
    let transaction = builders.lock()?;
    let mut builder = transaction
        .find(name)?
        .with_context(|| format!("failed to find instance \"{name}\" for leave"))?;
    builder.leave(node)?;
    Ok(transaction.save(&builder)?)
}

/// The instance as it is now stored, and as it was before.
async fn save(
    args: &CreateArgs,
    context: &Context,
    builders: &Builders,
) -> anyhow::Result<(Builder, Option<Builder>)> {
    ensure!(
        args.name.as_deref() != Some(DEFAULT),
        "default is a reserved name and cannot be used to identify builder instance"
    );
    ensure!(
        !args.append || args.name.is_some(),
        "append requires a builder name"
    );
    let engine = builders.endpoint()?;
    let daemon_host = context.settings.get("BUILDKIT_HOST");
    // Asked before the lock is taken: an engine that hangs must not block other commands.
    let default_driver = match (&args.driver, &args.endpoint, daemon_host) {
        (None, None, Some(_)) => "remote",
        (None, _, _) => {
            builders
                .default_driver(args.endpoint.as_deref().unwrap_or(&engine))
                .await
        }
        (Some(_), _, _) => "",
    };
    let transaction = builders.lock()?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => transaction.free_name()?,
    };
    let previous = transaction.find(&name)?;
    let mut builder = existing(args, &transaction, &name, default_driver)?;
    let (endpoint, endpoint_given) = endpoint(args, context, &builder, &engine)?;
    let change = NodeChange {
        name: args.node.clone(),
        endpoint,
        endpoint_given,
        append: args.append,
        platforms: platforms::parse(&args.platform)?,
        driver_opts: driver_options(&args.driver_opt)?,
        daemon_flags: args.buildkitd_flags.as_deref().map(words).transpose()?,
        files: config_files(args, context)?,
    };
    if builder.update(change)? {
        output::warn("new settings may not be used until builder is restarted");
    }
    transaction.save(&builder)?;
    Ok((builder, previous))
}

fn existing(
    args: &CreateArgs,
    transaction: &Transaction,
    name: &str,
    default_driver: &str,
) -> anyhow::Result<Builder> {
    match transaction.find(name)? {
        Some(builder) => {
            ensure!(
                args.node.is_some() || args.append,
                "existing instance for \"{name}\" but no append mode, specify the node name to make changes for existing instances"
            );
            if let Some(driver) = &args.driver {
                ensure!(
                    driver == &builder.driver,
                    "existing instance for \"{name}\" but has mismatched driver \"{}\"",
                    builder.driver
                );
            }
            Ok(builder)
        }
        None => {
            ensure!(!args.append, "failed to find instance \"{name}\" for append");
            let driver = args.driver.as_deref().unwrap_or(default_driver);
            if !drivers::NAMES.contains(&driver) {
                bail!(
                    "failed to find driver \"{driver}\", available are {}",
                    drivers::NAMES.join(", ")
                );
            }
            let name = crate::builders::valid_name(name)?;
            Ok(Builder::new(&name, driver))
        }
    }
}

/// The endpoint of the node, and whether the user named it.
fn endpoint(
    args: &CreateArgs,
    context: &Context,
    builder: &Builder,
    engine: &str,
) -> anyhow::Result<(String, bool)> {
    match (builder.driver.as_str(), &args.endpoint) {
        ("remote", given) => {
            let endpoint = given
                .clone()
                .or_else(|| context.settings.get("BUILDKIT_HOST").map(str::to_owned))
                .context("no remote endpoint provided")?;
            Ok((endpoint, true))
        }
        ("local", Some(endpoint)) => bail!("local driver does not support endpoint args \"{endpoint}\""),
        // Each node is a daemon of its own: its name makes the endpoint unique.
        ("local", None) => {
            let node = args.node.clone().unwrap_or_else(|| builder.next_node_name());
            Ok((format!("local://{node}"), false))
        }
        (_, Some(given)) if given == "default" => {
            Ok((docker::context_endpoint(&context.settings, given)?, true))
        }
        (_, Some(given)) if given.contains("://") => Ok((given.clone(), true)),
        (_, Some(given)) => {
            docker::context_endpoint(&context.settings, given)
                .with_context(|| format!("failed to parse endpoint {given}"))?;
            Ok((given.clone(), true))
        }
        (_, None) => Ok((engine.to_owned(), false)),
    }
}

fn driver_options(values: &[String]) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    if values.is_empty() {
        return Ok(None);
    }
    let mut options = BTreeMap::new();
    for field in values
        .iter()
        .map(|value| csv::fields(value))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
    {
        let (name, value) = field
            .split_once('=')
            .with_context(|| format!("invalid value \"{field}\", expecting k=v"))?;
        options.insert(name.to_owned(), value.to_owned());
    }
    Ok(Some(options))
}

fn config_files(args: &CreateArgs, context: &Context) -> anyhow::Result<BTreeMap<String, String>> {
    let default = context.settings.config_folder().join("buildkitd.default.toml");
    let path = match &args.buildkitd_config {
        Some(path) => path.clone(),
        None if default.is_file() => default,
        None => return Ok(BTreeMap::new()),
    };
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str::<toml::Table>(&text)
        .with_context(|| format!("{} is no daemon configuration", path.display()))?;
    Ok(BTreeMap::from([("buildkitd.toml".to_owned(), text)]))
}

/// Splits flags as a shell would: blanks separate, quotes and backslashes keep together.
fn words(text: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some('\''), other) => word.get_or_insert_default().push(other),
            (_, '\\') => word.get_or_insert_default().push(
                characters
                    .next()
                    .context("the daemon flags end with a backslash")?,
            ),
            (None, mark @ ('"' | '\'')) => {
                quote = Some(mark);
                word.get_or_insert_default();
            }
            (None, blank) if blank.is_whitespace() => words.extend(word.take()),
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    ensure!(quote.is_none(), "a quote in the daemon flags is not closed");
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_flags_are_split_like_a_shell_does() {
        for (text, expected) in [
            ("", vec![]),
            ("--debug  --x=1", vec!["--debug", "--x=1"]),
            (
                r#"--a "b c" d\ e '' 'f"g'"#,
                vec!["--a", "b c", "d e", "", "f\"g"],
            ),
        ] {
            assert_eq!(words(text).unwrap(), expected);
        }
        assert!(words("'a").is_err());
    }
}
