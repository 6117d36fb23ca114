//! Small values of build flags: `KEY=VALUE` lists, hosts, limits, secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};

use crate::settings::Settings;
use bake::csv;

/// `KEY=VALUE`; a key alone takes its value from the environment, and is left out if it has none there.
pub fn build_args(values: &[String], settings: &Settings) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    for value in values {
        match value.split_once('=') {
            Some((name, value)) => {
                args.insert(name.to_owned(), value.to_owned());
            }
            None => {
                if let Some(found) = settings.get_even_empty(value) {
                    args.insert(value.clone(), found.to_owned());
                }
            }
        }
    }
    args
}

/// `KEY=VALUE`, or a key with an empty value.
pub fn labels(values: &[String]) -> BTreeMap<String, String> {
    values
        .iter()
        .map(|value| {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// `HOST:IP` or `HOST=IP` as the frontend takes them.
pub fn hosts(values: &[String]) -> anyhow::Result<String> {
    let mut hosts = Vec::new();
    for value in values.iter().flat_map(|value| value.split(',')) {
        let (host, address) = value
            .split_once('=')
            .or_else(|| value.split_once(':'))
            .with_context(|| format!("invalid host {value}, write HOST:IP"))?;
        let address = address.trim_matches(['[', ']']);
        ensure!(
            address != "host-gateway",
            "--add-host {value}: host-gateway is not supported by this builder, write the address"
        );
        ensure!(!host.is_empty(), "invalid host {value}, write HOST:IP");
        address
            .parse::<std::net::IpAddr>()
            .with_context(|| format!("invalid address in --add-host {value}"))?;
        hosts.push(format!("{host}={address}"));
    }
    Ok(hosts.join(","))
}

/// `NAME=SOFT[:HARD]`.
pub fn ulimits(values: &[String]) -> anyhow::Result<String> {
    let mut limits = Vec::new();
    for value in values {
        let wrong = || format!("invalid ulimit {value}, write NAME=SOFT[:HARD]");
        let (name, numbers) = value.split_once('=').with_context(wrong)?;
        let (soft, hard) = numbers.split_once(':').unwrap_or((numbers, numbers));
        let soft: i64 = soft.parse().ok().with_context(wrong)?;
        let hard: i64 = hard.parse().ok().with_context(wrong)?;
        ensure!(
            !name.is_empty() && (hard == -1 || (soft != -1 && soft <= hard)),
            wrong()
        );
        limits.push(format!("{name}={soft}:{hard}"));
    }
    Ok(limits.join(","))
}

/// Where the value of a secret is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    Environment(String),
}

/// `id=NAME[,src=FILE|env=VARIABLE][,type=file|env]`. Without a source it is the variable, else the file, of that name.
pub fn secrets(values: &[String], settings: &Settings) -> anyhow::Result<BTreeMap<String, SecretSource>> {
    let mut secrets = BTreeMap::new();
    for value in values {
        let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
        for field in csv::fields(value, ',')? {
            let (key, value) = field
                .split_once('=')
                .with_context(|| format!("invalid field '{field}' must be a key=value pair"))?;
            match key.to_ascii_lowercase().as_str() {
                "id" => id = Some(value.to_owned()),
                "src" | "source" => file = Some(value.to_owned()),
                "env" => variable = Some(value.to_owned()),
                "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
                "type" => bail!("unsupported secret type \"{value}\""),
                _ => bail!("unexpected key '{key}' in '{field}'"),
            }
        }
        let id = id.with_context(|| format!("secret \"{value}\" has no id"))?;
        let source = match (file, variable, kind.as_deref()) {
            (_, Some(variable), _) => SecretSource::Environment(variable),
            (Some(name), None, Some("env")) => SecretSource::Environment(name),
            (Some(file), None, _) => SecretSource::File(file.into()),
            (None, None, Some("env")) => SecretSource::Environment(id.clone()),
            (None, None, None) if settings.get(&id).is_some() => SecretSource::Environment(id.clone()),
            (None, None, _) => SecretSource::File(id.clone().into()),
        };
        if let SecretSource::File(file) = &source {
            ensure!(file.is_file(), "failed to stat {}: no such file", file.display());
        }
        secrets.insert(id, source);
    }
    Ok(secrets)
}

/// Where the keys of an SSH agent are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSource {
    /// The socket of an agent that runs.
    Socket(PathBuf),
    /// Files of keys.
    Keys(Vec<PathBuf>),
}

/// `default|NAME[=SOCKET|KEY[,KEY…]]`. Without a path it is the agent that `SSH_AUTH_SOCK` names.
pub fn agents(values: &[String], settings: &Settings) -> anyhow::Result<BTreeMap<String, AgentSource>> {
    use std::os::unix::fs::FileTypeExt as _;

    let mut agents = BTreeMap::new();
    for value in values {
        let (id, paths) = value.split_once('=').unwrap_or((value, ""));
        ensure!(
            !id.is_empty(),
            "--ssh \"{value}\" has no name: write default or NAME=PATH"
        );
        let mut paths: Vec<PathBuf> = paths
            .split(',')
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .collect();
        if paths.is_empty() {
            let socket = settings.get("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
            let socket = socket.context(
                "--ssh without a path needs a running SSH agent: set SSH_AUTH_SOCK, or write NAME=KEYFILE",
            )?;
            paths.push(socket.into());
        }
        let mut sockets = 0;
        for path in &paths {
            let found = std::fs::metadata(path)
                .with_context(|| format!("failed to stat {}, which --ssh names", path.display()))?;
            sockets += usize::from(found.file_type().is_socket());
        }
        let source = match (sockets, &paths[..]) {
            (0, _) => AgentSource::Keys(paths),
            (1, [socket]) => AgentSource::Socket(socket.clone()),
            _ => bail!(
                "invalid combination of keys and sockets in --ssh \"{value}\": name one socket, or key files"
            ),
        };
        ensure!(
            agents.insert(id.to_owned(), source).is_none(),
            "--ssh names {id} twice"
        );
    }
    Ok(agents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    #[test]
    fn a_build_arg_without_a_value_comes_from_the_environment() {
        let settings = Settings::of(&[("SET", "1")]);
        let args = build_args(&list(&["A=b=c", "SET", "UNSET", "EMPTY="]), &settings);
        let args: Vec<_> = args
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(args, [("A", "b=c"), ("EMPTY", ""), ("SET", "1")]);
    }

    #[test]
    fn hosts_and_limits_are_checked() {
        assert_eq!(
            hosts(&list(&["a:10.0.0.1", "b=::1", "c:[::1]"])).unwrap(),
            "a=10.0.0.1,b=::1,c=::1"
        );
        assert!(hosts(&list(&["a"])).is_err());
        assert!(hosts(&list(&["a:x"])).is_err());
        assert_eq!(
            ulimits(&list(&["nofile=1:2", "core=0"])).unwrap(),
            "nofile=1:2,core=0:0"
        );
        assert!(ulimits(&list(&["nofile=2:1"])).is_err());
    }

    #[test]
    fn agents_are_sockets_or_keys() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, key) = (folder.path().join("socket"), folder.path().join("key"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::write(&key, "").unwrap();
        let (socket, key) = (socket.display().to_string(), key.display().to_string());
        let settings = Settings::of(&[("SSH_AUTH_SOCK", &socket)]);
        let found = agents(&[String::from("default"), format!("b={key},{key}")], &settings).unwrap();
        assert_eq!(found["default"], AgentSource::Socket(socket.clone().into()));
        assert_eq!(
            found["b"],
            AgentSource::Keys(vec![key.clone().into(), key.clone().into()])
        );
        let both = format!("x={key},{socket}");
        for wrong in [both.as_str(), "x=/none", "=x"] {
            assert!(agents(&[wrong.to_owned()], &settings).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_name_their_source() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s");
        std::fs::write(&file, "x").unwrap();
        let text = file.to_str().unwrap();
        let settings = Settings::of(&[("TOKEN", "t")]);
        let found = secrets(
            &list(&[&format!("id=a,src={text}"), "id=b,env=B", "id=TOKEN"]),
            &settings,
        )
        .unwrap();
        assert_eq!(found["a"], SecretSource::File(file.clone()));
        assert_eq!(found["b"], SecretSource::Environment("B".to_owned()));
        assert_eq!(found["TOKEN"], SecretSource::Environment("TOKEN".to_owned()));
        for wrong in ["src=x", "id=a,src=/nowhere/x", "id=a,what=b", "id=a,type=c"] {
            assert!(secrets(&list(&[wrong]), &settings).is_err(), "{wrong}");
        }
    }
}
