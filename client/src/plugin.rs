//! The program as a plugin of the Docker command line: `docker trimaran …` with a file called `docker-trimaran`, and
//! `docker buildx …` with one called `docker-buildx`.
//!
//! Docker runs the file with one special argument to learn what it is, and with its own command line to use it: flags
//! of Docker, then the plugin's name, then what is ours. Flags of Docker become what they stand for in the environment.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use crate::commands::version::VERSION;
use crate::settings::Settings;

const METADATA: &str = "docker-cli-plugin-metadata";
const COMPLETE: [&str; 2] = ["__complete", "__completeNoDesc"];
/// Set by Docker when it runs a plugin.
const BY_DOCKER: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";
/// A socket that Docker closes when the plugin has to stop.
const SOCKET: &str = "DOCKER_CLI_PLUGIN_SOCKET";
const PREFIX: &str = "docker-";
const PROGRAM: &str = "trimaran";

/// How the program was called.
#[derive(Debug)]
pub enum Call {
    /// To say what it is.
    Metadata,
    /// To complete the last one of these words.
    Complete { words: Vec<OsString>, with_help: bool },
    /// To do what these words say, the first one being the name by which the user calls us.
    Run(Run),
}

#[derive(Debug)]
pub struct Run {
    pub words: Vec<OsString>,
    pub settings: Settings,
    /// `docker --debug`
    pub debug: bool,
    pub is_plugin: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CallError {
    #[error("Docker's flag {flag} has no value")]
    NoValue { flag: String },
    #[error(
        "Docker's flag {flag} is not supported: describe the engine with `docker context create`, and name it with --context"
    )]
    Unsupported { flag: String },
}

impl Call {
    pub fn of(arguments: impl IntoIterator<Item = OsString>, settings: Settings) -> Result<Self, CallError> {
        let mut arguments = arguments.into_iter();
        let program = arguments.next().unwrap_or_default();
        let rest: Vec<OsString> = arguments.collect();
        let Some(plugin) = plugin_name(&program) else {
            return Ok(Self::alone(PROGRAM, rest, settings));
        };
        match rest.first().and_then(|first| first.to_str()) {
            Some(METADATA) => Ok(Self::Metadata),
            Some(first) if COMPLETE.contains(&first) => {
                // The plugin's name follows, and stands for the program's.
                let with_help = first == COMPLETE[0];
                let words = rest.into_iter().skip(1).collect();
                Ok(Self::Complete { words, with_help })
            }
            _ if settings.get(BY_DOCKER).is_none() => Ok(Self::alone(&plugin, rest, settings)),
            _ => Self::by_docker(&plugin, rest, settings),
        }
    }

    fn alone(name: &str, rest: Vec<OsString>, settings: Settings) -> Self {
        let mut words = vec![OsString::from(name)];
        words.extend(rest);
        Self::Run(Run {
            words,
            settings,
            debug: false,
            is_plugin: false,
        })
    }

    fn by_docker(plugin: &str, rest: Vec<OsString>, settings: Settings) -> Result<Self, CallError> {
        let mut run = Run {
            words: vec![OsString::from(format!("docker {plugin}"))],
            settings,
            debug: false,
            is_plugin: true,
        };
        let mut rest = rest.into_iter();
        while let Some(word) = rest.next() {
            let text = word.to_string_lossy();
            if text == plugin {
                break;
            }
            run.take_flag(&text, &mut rest)?;
        }
        run.words.extend(rest);
        Ok(Self::Run(run))
    }
}

impl Run {
    fn take_flag(&mut self, word: &str, rest: &mut impl Iterator<Item = OsString>) -> Result<(), CallError> {
        let (flag, mut value) = match word.strip_prefix("--") {
            Some(long) => match long.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (long, None),
            },
            // Short flags take what follows them directly, with or without "=".
            None => match word.strip_prefix('-').and_then(|short| short.split_at_checked(1)) {
                Some((flag, "")) => (flag, None),
                Some((flag, value)) => (flag, Some(value.strip_prefix('=').unwrap_or(value).to_owned())),
                None => return Ok(()),
            },
        };
        let is_off = value.as_deref() == Some("false");
        let mut take = || {
            let next = || rest.next().map(|word| word.to_string_lossy().into_owned());
            value.take().or_else(next).ok_or_else(|| CallError::NoValue {
                flag: word.to_owned(),
            })
        };
        let changes: Vec<(&str, Option<String>)> = match flag {
            "config" => vec![("DOCKER_CONFIG", Some(take()?))],
            "context" | "c" => vec![("DOCKER_CONTEXT", Some(take()?)), ("DOCKER_HOST", None)],
            "host" | "H" => vec![("DOCKER_HOST", Some(take()?)), ("DOCKER_CONTEXT", None)],
            "tlsverify" | "tls" if !is_off => {
                vec![("DOCKER_TLS_VERIFY", Some("1".to_owned()))]
            }
            "debug" | "D" => {
                self.debug = !is_off;
                Vec::new()
            }
            "log-level" | "l" => {
                self.debug |= take()? == "debug";
                Vec::new()
            }
            "tlscacert" | "tlscert" | "tlskey" => {
                return Err(CallError::Unsupported {
                    flag: format!("--{flag}"),
                });
            }
            _ => Vec::new(),
        };
        let changes: Vec<(&str, Option<&str>)> = changes
            .iter()
            .map(|(name, value)| (*name, value.as_deref()))
            .collect();
        self.settings = std::mem::take(&mut self.settings).with(&changes);
        Ok(())
    }

    /// Ends this process as Ctrl-C does when Docker says so: its signals reach only its own process where there is no
    /// terminal.
    pub fn obey_docker(&self) {
        let Some(address) = self.settings.get(SOCKET).filter(|_| self.is_plugin) else {
            return;
        };
        let address = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(address),
        };
        let Ok(socket) = address.and_then(|address| UnixStream::connect_addr(&address)) else {
            // An older Docker has no socket, or has gone already.
            return;
        };
        // It waits for as long as the process lives, and has nothing to clean up.
        std::thread::spawn(move || {
            let mut byte = [0];
            while matches!(std::io::Read::read(&mut &socket, &mut byte), Ok(1..)) {}
            // There is nobody to tell if it cannot be sent.
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT);
        });
    }
}

/// The name after `docker-`, as Docker allows it.
fn plugin_name(program: &OsStr) -> Option<String> {
    let name = Path::new(program).file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (!name.is_empty() && name.chars().all(is_plain)).then(|| name.to_owned())
}

/// What Docker wants to know of a plugin.
pub fn metadata() -> String {
    let metadata = serde_json::json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "Trimaran",
        "Version": VERSION,
        "ShortDescription": "Trimaran",
    });
    format!("{metadata:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Call, CallError> {
        Call::of(arguments.iter().map(OsString::from), Settings::of(variables))
    }

    fn run(arguments: &[&str]) -> Run {
        let variables = [(BY_DOCKER, "docker"), ("DOCKER_HOST", "tcp://old")];
        match call(arguments, &variables).unwrap() {
            Call::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_of_docker_become_settings() {
        let plugin = "/plugins/docker-trimaran";
        let called = run(&[plugin, "trimaran", "ls", "--format", "json"]);
        assert_eq!(called.words, ["docker trimaran", "ls", "--format", "json"]);
        assert_eq!(called.settings.get("DOCKER_HOST"), Some("tcp://old"));
        assert!(called.is_plugin && !called.debug);

        let called = run(&[
            plugin,
            "--config=/c",
            "-D",
            "--context",
            "far",
            "trimaran",
            "trimaran",
        ]);
        assert_eq!(called.words, ["docker trimaran", "trimaran"]);
        assert_eq!(called.settings.get("DOCKER_CONFIG"), Some("/c"));
        assert_eq!(called.settings.get("DOCKER_CONTEXT"), Some("far"));
        assert_eq!(called.settings.get("DOCKER_HOST"), None);
        assert!(called.debug);

        let called = run(&[
            "docker-buildx",
            "-Htcp://new",
            "-l",
            "debug",
            "--tlsverify",
            "buildx",
            "ls",
        ]);
        assert_eq!(called.words, ["docker buildx", "ls"]);
        assert_eq!(called.settings.get("DOCKER_HOST"), Some("tcp://new"));
        assert_eq!(called.settings.get("DOCKER_TLS_VERIFY"), Some("1"));
        assert!(called.debug);
    }

    #[test]
    fn flags_that_mean_nothing_here_are_named() {
        let by_docker = [(BY_DOCKER, "docker")];
        let error = |arguments: &[&str]| call(arguments, &by_docker).unwrap_err();
        assert_eq!(
            error(&["docker-x", "--tlskey", "k", "x"]),
            CallError::Unsupported {
                flag: "--tlskey".to_owned()
            }
        );
        assert_eq!(
            error(&["docker-x", "--host"]),
            CallError::NoValue {
                flag: "--host".to_owned()
            }
        );
    }

    #[test]
    fn the_program_alone_is_itself() {
        for (program, name) in [
            ("/bin/trimaran", "trimaran"),
            ("docker-buildx", "buildx"),
            ("docker-", "trimaran"),
        ] {
            let Ok(Call::Run(run)) = call(&[program, "ls"], &[]) else {
                panic!("{program}");
            };
            assert_eq!(run.words, [name, "ls"]);
            assert!(!run.is_plugin);
        }
        assert!(matches!(call(&["docker-x", METADATA], &[]), Ok(Call::Metadata)));
        let Ok(Call::Complete { words, with_help }) = call(&["docker-x", "__complete", "x", "in"], &[])
        else {
            panic!();
        };
        assert_eq!((words, with_help), (vec!["x".into(), "in".into()], true));
    }
}
