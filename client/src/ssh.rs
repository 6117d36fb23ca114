//! Streams to a program on another machine, through the user's own `ssh`: its configuration, keys and agent apply.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// How much of what ssh says about a failure is kept.
const COMPLAINT: usize = 4096;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SshError {
    #[error("{address} names no host: write ssh://[USER@]HOST[:PORT][/SOCKET]")]
    NoHost { address: String },
    #[error("a password in ssh://{user}:…@{host} is not supported: use a key or an agent")]
    Password { user: String, host: String },
    #[error("{address} has more than a path after the host: write ssh://[USER@]HOST[:PORT][/SOCKET]")]
    TooMuch { address: String },
    #[error("invalid port in {address}")]
    Port { address: String },
}

/// `ssh://[USER@]HOST[:PORT][/SOCKET]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    socket: Option<String>,
}

impl Target {
    pub fn parse(address: &str) -> Result<Self, SshError> {
        let text = || address.to_owned();
        let rest = address.strip_prefix("ssh://").unwrap_or(address);
        if rest.contains(['?', '#']) {
            return Err(SshError::TooMuch { address: text() });
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (user, machine) = match authority.rsplit_once('@') {
            Some((user, machine)) => (Some(user), machine),
            None => (None, authority),
        };
        if let Some((user, _password)) = user.and_then(|user| user.split_once(':')) {
            return Err(SshError::Password {
                user: user.to_owned(),
                host: machine.to_owned(),
            });
        }
        let (host, port) = match machine.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, after)) => (host, after.strip_prefix(':').unwrap_or(after)),
            None => machine.split_once(':').unwrap_or((machine, "")),
        };
        if host.is_empty() {
            return Err(SshError::NoHost { address: text() });
        }
        let port = match port {
            "" => None,
            port => Some(port.parse().map_err(|_| SshError::Port { address: text() })?),
        };
        Ok(Self {
            user: user.filter(|user| !user.is_empty()).map(str::to_owned),
            host: host.to_owned(),
            port,
            socket: Some(path.trim_end_matches('/'))
                .filter(|path| !path.is_empty())
                .map(str::to_owned),
        })
    }

    /// The socket on the other machine, where one is named.
    pub fn socket(&self) -> Option<&str> {
        self.socket.as_deref()
    }

    /// Runs a command there; the stream is its standard input and output.
    pub fn open(&self, command: &[String]) -> io::Result<SshStream> {
        let mut child = Command::new("ssh")
            .args(self.arguments(command))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("starting ssh: {error}")))?;
        let missing = || io::Error::other("ssh has no standard streams");
        Ok(SshStream {
            input: child.stdin.take().ok_or_else(missing)?,
            output: child.stdout.take().ok_or_else(missing)?,
            errors: child.stderr.take(),
            complaint: Vec::new(),
            has_read: false,
            host: self.host.clone(),
            _child: child,
        })
    }

    fn arguments(&self, command: &[String]) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(user) = &self.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        // No terminal, which would change bytes, and no endless wait for a machine that is down.
        let options = ["-o", "ConnectTimeout=30", "-T", "--"];
        arguments.extend(options.map(str::to_owned));
        arguments.push(self.host.clone());
        // A shell on the other side splits what it is given.
        arguments.extend(command.iter().map(|word| quoted(word)));
        arguments
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=:/.,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A running ssh. It ends with the stream.
#[derive(Debug)]
pub struct SshStream {
    input: ChildStdin,
    output: ChildStdout,
    errors: Option<ChildStderr>,
    complaint: Vec<u8>,
    has_read: bool,
    host: String,
    _child: Child,
}

impl SshStream {
    /// Takes what ssh complains about, so that it never waits for a reader; ready when there will be no more.
    fn listen(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 512];
        while let Some(errors) = &mut self.errors {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(errors).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let space = COMPLAINT.saturating_sub(self.complaint.len());
                    let said = buffer.filled();
                    self.complaint.extend_from_slice(&said[..said.len().min(space)]);
                }
                Poll::Ready(_) => self.errors = None,
            }
        }
        Poll::Ready(())
    }

    fn failure(&self) -> io::Error {
        let said = String::from_utf8_lossy(&self.complaint)
            .trim()
            .replace('\n', "; ");
        let said = if said.is_empty() { "it ended" } else { &said };
        io::Error::other(format!("ssh to {}: {said}", self.host))
    }
}

impl AsyncRead for SshStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let errors_ended = this.listen(cx);
        let before = buffer.filled().len();
        match Pin::new(&mut this.output).poll_read(cx, buffer) {
            // An end before the first byte is a failure, and its reason is what ssh says.
            Poll::Ready(Ok(())) if buffer.filled().len() == before && !this.has_read => {
                errors_ended.map(|()| Err(this.failure()))
            }
            other => {
                this.has_read |= buffer.filled().len() > before;
                other
            }
        }
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().input).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().input).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().input).poll_shutdown(cx)
    }
}

impl Connection for SshStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(address: &str) -> String {
        Target::parse(address)
            .unwrap()
            .arguments(&["docker".to_owned(), "a b".to_owned()])
            .join(" ")
    }

    #[test]
    fn addresses_become_arguments() {
        let common = "-o ConnectTimeout=30 -T --";
        assert_eq!(arguments("ssh://host"), format!("{common} host docker 'a b'"));
        assert_eq!(
            arguments("ssh://me@host:2222/run/x.sock"),
            format!("-l me -p 2222 {common} host docker 'a b'")
        );
        assert_eq!(
            arguments("ssh://[fe80::1]:22"),
            format!("-p 22 {common} fe80::1 docker 'a b'")
        );
        let target = Target::parse("ssh://host/run/x.sock").unwrap();
        assert_eq!(target.socket(), Some("/run/x.sock"));
    }

    #[test]
    fn addresses_that_mean_nothing_are_refused() {
        for address in [
            "ssh://",
            "ssh://me@",
            "ssh://me:pw@host",
            "ssh://h?x=1",
            "ssh://h:port",
        ] {
            assert!(Target::parse(address).is_err(), "{address}");
        }
        let error = Target::parse("ssh://me:secret@host").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn words_for_a_shell_are_quoted() {
        for (word, text) in [("a", "a"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(quoted(word), text);
        }
    }
}
