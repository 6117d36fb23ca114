//! In whose name servers are asked: tokens and headers from the client's secrets, its SSH agent, the hosts it knows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockerfile::address::GitUrl;

use super::command::Call;
use super::{GitError, GitSource};
use crate::session::{AgentSocket, Group, Secret};

/// Hosts whose repositories all take the same token: submodules are fetched with it as well.
const ONE_TOKEN: [&str; 2] = ["https://github.com/", "https://www.github.com/"];

pub(super) struct Access {
    header: Option<Header>,
    agent: Option<AgentSocket>,
    /// The hosts that are known, or that are met for the first time.
    folder: tempfile::TempDir,
    strict: bool,
}

/// A header for every request to an address below `scope`.
struct Header {
    scope: String,
    value: String,
}

impl Access {
    pub(super) async fn open(source: &GitSource, sessions: &Group) -> Result<Self, GitError> {
        let folder = tempfile::Builder::new()
            .prefix("builderd-git-")
            .tempdir()
            .map_err(GitError::Prepare)?;
        let known_hosts = &source.known_hosts;
        std::fs::write(folder.path().join("known_hosts"), known_hosts).map_err(GitError::Prepare)?;
        let over_http = matches!(source.url.scheme, "http" | "https");
        let header = match over_http {
            true => header(source, sessions).await?,
            false => None,
        };
        let agent = match &source.agent {
            Some(id) if source.url.scheme == "ssh" => {
                let session = sessions
                    .agent(id)
                    .await?
                    .ok_or_else(|| GitError::NoAgent { id: id.clone() })?;
                Some(AgentSocket::listen(folder.path(), session, id).map_err(GitError::Prepare)?)
            }
            _ => None,
        };
        Ok(Self {
            header,
            agent,
            folder,
            strict: !known_hosts.is_empty(),
        })
    }

    /// Completes a call that asks the server behind `url`.
    pub(super) fn apply<'a>(&self, call: Call<'a>, url: &str) -> Call<'a> {
        let address = without_user(url);
        let mut call = call.configured("remote.origin.url", &address);
        if let Some(header) = self.header.as_ref().filter(|header| header.is_for(&address)) {
            // Git would send it to wherever the server redirects as well.
            call = call
                .configured(format!("http.{}.extraHeader", header.scope), &header.value)
                .configured("http.followRedirects", "false");
        }
        if let Some(agent) = &self.agent {
            call = call.environment("SSH_AUTH_SOCK", agent.path());
        }
        call.environment("GIT_SSH_COMMAND", self.ssh_command())
            .environment("GIT_SSH_VARIANT", "ssh")
    }

    /// The shell reads it, but the folder's name is ours.
    fn ssh_command(&self) -> String {
        let checking = if self.strict { "yes" } else { "accept-new" };
        format!(
            "ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 \
             -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking={checking} -o UserKnownHostsFile={}",
            self.folder.path().join("known_hosts").display()
        )
    }
}

impl Header {
    fn is_for(&self, address: &str) -> bool {
        address
            .strip_prefix(&self.scope)
            .is_some_and(|rest| self.scope.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    }
}

/// An address without user and password: they must not stand among the arguments of git's helpers. Those of SSH are
/// part of the address and no secret.
fn without_user(url: &str) -> String {
    match GitUrl::parse(url) {
        Ok(parsed) if matches!(parsed.scheme, "http" | "https") => {
            format!("{}://{}{}", parsed.scheme, parsed.host, parsed.path)
        }
        _ => url.to_owned(),
    }
}

async fn header(source: &GitSource, sessions: &Group) -> Result<Option<Header>, GitError> {
    let address = without_user(&source.url.remote);
    let scope = ONE_TOKEN
        .into_iter()
        .find(|scope| address.starts_with(scope))
        .map_or(address, str::to_owned);
    let names = [
        (&source.header_secret, Form::Header, true),
        (&source.token_secret, Form::Token, true),
        (&source.header_secret, Form::Header, false),
        (&source.token_secret, Form::Token, false),
    ];
    for (name, form, of_host) in names {
        if name.is_empty() {
            continue;
        }
        let name = if of_host {
            format!("{name}.{}", source.url.host)
        } else {
            name.clone()
        };
        if let Some(secret) = sessions.secret(&name).await? {
            let value = form.header(&secret).ok_or(GitError::Secret(name))?;
            return Ok(Some(Header { scope, value }));
        }
    }
    Ok(source.url.user.as_deref().map(|user| {
        let decoded = dockerfile::address::decoded(user);
        let pair = match decoded.split_once(':') {
            Some(_) => decoded,
            None => format!("{decoded}:"),
        };
        Header {
            scope,
            value: format!("Authorization: Basic {}", STANDARD.encode(pair)),
        }
    }))
}

#[derive(Clone, Copy)]
enum Form {
    Header,
    Token,
}

impl Form {
    /// Nothing if it would be more than one header.
    fn header(self, secret: &Secret) -> Option<String> {
        let text = secret.expose_text()?.trim_end_matches(['\r', '\n']);
        if text.chars().any(|c| c.is_control()) {
            return None;
        }
        Some(match self {
            Self::Header => format!("Authorization: {text}"),
            Self::Token => format!(
                "Authorization: basic {}",
                STANDARD.encode(format!("x-access-token:{text}"))
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_goes_to_its_repository_and_nowhere_else() {
        let of = |scope: &str| Header {
            scope: scope.to_owned(),
            value: String::new(),
        };
        let one = of("https://e.com/a.git");
        for (address, expected) in [
            ("https://e.com/a.git", true),
            ("https://e.com/a.git/info", true),
            ("https://e.com/a.gitx", false),
            ("https://e.com.evil.org/a.git", false),
            ("http://e.com/a.git", false),
        ] {
            assert_eq!(one.is_for(address), expected, "{address}");
        }
        let all = of(ONE_TOKEN[0]);
        assert!(all.is_for("https://github.com/a/b.git"));
        assert!(!all.is_for("https://github.com.evil.org/a"));
    }

    #[test]
    fn secrets_become_one_header() {
        for (form, secret, expected) in [
            (Form::Header, "Bearer x\n", Some("Authorization: Bearer x")),
            (
                Form::Token,
                "t",
                Some("Authorization: basic eC1hY2Nlc3MtdG9rZW46dA=="),
            ),
            (Form::Header, "a\r\nHost: b", None),
        ] {
            let secret = Secret::new(secret.as_bytes().to_vec());
            assert_eq!(form.header(&secret).as_deref(), expected);
        }
    }

    #[test]
    fn users_and_passwords_are_taken_out_of_addresses() {
        for (url, expected) in [
            ("https://me:pass@e.com/a.git", "https://e.com/a.git"),
            ("ssh://git@e.com/a", "ssh://git@e.com/a"),
            ("git@e.com:a", "git@e.com:a"),
        ] {
            assert_eq!(without_user(url), expected);
        }
    }
}
