//! What the flags of `create` say about a node.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};

use super::CreateArgs;
use crate::builders::{DaemonFiles, Place, daemon_files};
use crate::commands::Context;
use crate::docker::{self, DEFAULT_CONTEXT};
use crate::drivers;
use bake::csv;

const ENTITLEMENT: &str = "--allow-insecure-entitlement";
const NETWORK_HOST: &str = "network.host";

/// The endpoint of the node, and whether the user named it.
pub(super) fn endpoint(
    args: &CreateArgs,
    context: &Context,
    driver: &str,
    next_node: impl FnOnce() -> String,
) -> anyhow::Result<(String, bool)> {
    let settings = &context.settings;
    match (driver, &args.endpoint) {
        ("remote", given) => {
            let endpoint = given
                .clone()
                .or_else(|| settings.get("BUILDKIT_HOST").map(str::to_owned))
                .context(
                    "no remote endpoint provided, name the daemon's address: unix://PATH or tcp://HOST:PORT",
                )?;
            Ok((endpoint, true))
        }
        ("local", Some(endpoint)) => bail!("local driver does not support endpoint args \"{endpoint}\""),
        // Each node is a daemon of its own: its name makes the endpoint unique.
        ("local", None) => {
            let node = args.node.clone().unwrap_or_else(next_node);
            Ok((format!("local://{node}"), false))
        }
        (_, Some(given)) => Ok((engine_endpoint(context, given)?, true)),
        (_, None) => {
            ensure!(
                docker::current_context(settings) != DEFAULT_CONTEXT || !docker::tls_by_environment(settings),
                "could not create a builder instance with TLS data loaded from environment. Please use `docker context create <context-name>` to create a context for current environment and then create a builder instance with context set to <context-name>"
            );
            Ok((docker::current_endpoint(settings)?, false))
        }
    }
}

/// A context by its name, which may change its engine later; else an address.
fn engine_endpoint(context: &Context, given: &str) -> anyhow::Result<String> {
    let failed = || format!("failed to parse endpoint {given}");
    if given == DEFAULT_CONTEXT {
        return Ok(docker::engine(&context.settings, given)?.host);
    }
    if docker::has_context(&context.settings, given) || !given.contains(':') {
        docker::engine(&context.settings, given).with_context(failed)?;
        return Ok(given.to_owned());
    }
    docker::full_address(given).with_context(failed)
}

pub(super) fn driver_options(values: &[String]) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    if values.is_empty() {
        return Ok(None);
    }
    let mut options = BTreeMap::new();
    for field in values
        .iter()
        .map(|value| csv::fields(value, ','))
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

/// The named configuration of the daemon, else the default one of the user.
pub(super) fn daemon_files(
    args: &CreateArgs,
    context: &Context,
    driver: &str,
) -> anyhow::Result<Option<DaemonFiles>> {
    let place = if driver == "docker-container" {
        Place::Container
    } else {
        Place::Here
    };
    let folders = [context.settings.config_folder(), context.settings.buildx_folder()];
    let default = || {
        // A remote daemon has its own configuration: ours would only be refused.
        let paths = folders.iter().map(|folder| folder.join("buildkitd.default.toml"));
        paths
            .filter(|_| driver != drivers::REMOTE)
            .find(|path| path.is_file())
    };
    let Some(path) = args.buildkitd_config.clone().or_else(default) else {
        return Ok(None);
    };
    Ok(Some(daemon_files::load(&path, place)?))
}

/// The daemon's flags. In a container the network of the host is the container's own, so that builds may ask for it,
/// unless the user says what they may ask for.
pub(super) fn daemon_flags(
    given: Option<&str>,
    driver: &str,
    options: Option<&BTreeMap<String, String>>,
    files: Option<&DaemonFiles>,
) -> anyhow::Result<Vec<String>> {
    let mut flags = given.map(words).transpose()?.unwrap_or_default();
    if driver != "docker-container" {
        return Ok(flags);
    }
    let mut allowed: Vec<&str> = Vec::new();
    let mut words = flags.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix(ENTITLEMENT) {
            Some("") => allowed.extend(words.next().map(String::as_str)),
            Some(rest) => allowed.extend(rest.strip_prefix('=')),
            None => {}
        }
    }
    let by_flag = allowed.contains(&NETWORK_HOST);
    let by_file = files.is_some_and(|files| files.entitlements.iter().any(|name| name == NETWORK_HOST));
    let on_host = options.is_some_and(|options| options.get("network").is_some_and(|value| value == "host"));
    if (on_host && !by_flag) || (allowed.is_empty() && !by_file) {
        flags.push(format!("{ENTITLEMENT}={NETWORK_HOST}"));
    }
    Ok(flags)
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

    #[test]
    fn builds_in_a_container_may_have_its_network() {
        let host = BTreeMap::from([("network".to_owned(), "host".to_owned())]);
        let file = DaemonFiles {
            entitlements: vec![NETWORK_HOST.to_owned()],
            ..DaemonFiles::default()
        };
        let granted = "--allow-insecure-entitlement=network.host";
        let insecure = "--allow-insecure-entitlement security.insecure";
        for (given, driver, options, files, expected) in [
            (None, "docker-container", None, None, granted.to_owned()),
            (None, "local", None, None, String::new()),
            (None, "docker-container", None, Some(&file), String::new()),
            (
                Some(insecure),
                "docker-container",
                None,
                None,
                insecure.to_owned(),
            ),
            (
                Some(insecure),
                "docker-container",
                Some(&host),
                None,
                format!("{insecure} {granted}"),
            ),
            (
                Some(granted),
                "docker-container",
                Some(&host),
                None,
                granted.to_owned(),
            ),
        ] {
            let flags = daemon_flags(given, driver, options, files).unwrap();
            assert_eq!(flags.join(" "), expected);
        }
    }
}
