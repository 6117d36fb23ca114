//! How steps resolve names, where the daemon's settings say something else than the sandbox's own file.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

/// What takes the place of the lines of `resolv.conf`; empty lists leave them as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Resolver {
    #[arg(long = "nameserver")]
    pub nameservers: Vec<IpAddr>,
    #[serde(deserialize_with = "words")]
    #[arg(long = "dns-option")]
    pub options: Vec<String>,
    #[serde(rename = "searchDomains", deserialize_with = "words")]
    #[arg(long = "dns-search")]
    pub search: Vec<String>,
}

impl Resolver {
    /// As arguments of the runner.
    pub(super) fn arguments(&self) -> Vec<String> {
        let servers = self
            .nameservers
            .iter()
            .map(|server| format!("--nameserver={server}"));
        let options = self.options.iter().map(|option| format!("--dns-option={option}"));
        let search = self.search.iter().map(|domain| format!("--dns-search={domain}"));
        servers.chain(options).chain(search).collect()
    }

    /// The configuration with what is set here instead of what it says.
    pub(super) fn over(&self, configuration: &str) -> String {
        let replaced = |keyword: &str| match keyword {
            "nameserver" => !self.nameservers.is_empty(),
            "options" => !self.options.is_empty(),
            // The older word for the same.
            "search" | "domain" => !self.search.is_empty(),
            _ => false,
        };
        let mut text = String::new();
        for line in configuration.lines() {
            if !line.split_whitespace().next().is_some_and(replaced) {
                text.push_str(line);
                text.push('\n');
            }
        }
        // Writing to a string cannot fail.
        for server in &self.nameservers {
            let _infallible = writeln!(text, "nameserver {server}");
        }
        for (keyword, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                let _infallible = writeln!(text, "{keyword} {}", words.join(" "));
            }
        }
        text
    }
}

/// Each becomes a word of a line.
fn words<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    let is_word =
        |word: &&String| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control());
    match words.iter().find(|word| !is_word(word)) {
        Some(other) => Err(serde::de::Error::custom(format!("{other:?} is not one word"))),
        None => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_replaces_what_the_file_says() {
        let file = "# of the machine\nnameserver 127.0.0.53\nsearch corp\noptions edns0\n";
        assert_eq!(Resolver::default().over(file), file);
        let set: Resolver =
            toml::from_str("nameservers = [\"1.1.1.1\", \"::1\"]\nsearchDomains = [\"a\", \"b\"]").unwrap();
        assert_eq!(
            set.over(file),
            "# of the machine\noptions edns0\nnameserver 1.1.1.1\nnameserver ::1\nsearch a b\n"
        );
        assert_eq!(
            set.arguments(),
            [
                "--nameserver=1.1.1.1",
                "--nameserver=::1",
                "--dns-search=a",
                "--dns-search=b"
            ]
        );
    }

    #[test]
    fn what_would_be_another_line_is_refused() {
        for text in [
            "options = [\"a\\nnameserver 6.6.6.6\"]",
            "searchDomains = [\"\"]",
            "nameservers = [\"dns.example\"]",
            "servers = []",
        ] {
            toml::from_str::<Resolver>(text).unwrap_err();
        }
    }
}
