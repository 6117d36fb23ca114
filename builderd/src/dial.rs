//! What runs beside a daemon that is up: the byte proxy that drivers start in its container, and a look at its workers.

use std::io;
use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use proto::control::ListWorkersRequest;
use proto::control::control_client::ControlClient;
use proto::tunnel;
use proto::types::WorkerRecord;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tonic::Status;
use tonic::transport::Endpoint;

use crate::config::CalledAs;
use crate::listen::{Address, AddressError};

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("cannot connect to {address}")]
    Connect { address: Address, source: io::Error },
    #[error("cannot speak to {address}")]
    Speak {
        address: Address,
        source: tonic::transport::Error,
    },
    #[error("lost the connection to {address}")]
    Copy { address: Address, source: io::Error },
    #[error("the daemon does not list its workers")]
    List(#[source] Box<Status>),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The address that was given, or where a daemon is to be expected.
pub fn address(given: Option<&str>, called_as: CalledAs) -> Result<Address, DialError> {
    if let Some(text) = given {
        return Ok(text.parse()?);
    }
    let places: Vec<PathBuf> = [called_as, CalledAs::Builderd, CalledAs::Buildkitd]
        .into_iter()
        .map(CalledAs::default_socket)
        .collect();
    let there = places.iter().find(|path| path.exists()).or(places.first());
    Ok(Address::Unix(there.cloned().unwrap_or_default()))
}

async fn connect(address: &Address) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Address::Tcp(host) => {
            let stream = TcpStream::connect(host).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    })
}

/// Copies standard input to the daemon and its answers to standard output, until the daemon ends the connection.
/// The end of the input is passed on; answers to what came before still arrive.
pub async fn stdio(address: &Address) -> Result<(), DialError> {
    let stream = connect(address).await.map_err(|source| DialError::Connect {
        address: address.clone(),
        source,
    })?;
    relay(stream, tokio::io::stdin(), tokio::io::stdout())
        .await
        .map_err(|source| DialError::Copy {
            address: address.clone(),
            source,
        })
}

async fn relay(
    stream: impl AsyncRead + AsyncWrite,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut from_daemon, mut to_daemon) = tokio::io::split(stream);
    let upward = async {
        tokio::io::copy(&mut input, &mut to_daemon).await?;
        to_daemon.shutdown().await
    };
    let downward = async {
        tokio::io::copy(&mut from_daemon, &mut output).await?;
        output.flush().await
    };
    tokio::pin!(upward, downward);
    tokio::select! {
        // Nobody reads the input any more once the daemon is gone.
        done = &mut downward => return done,
        done = &mut upward => done?,
    }
    downward.await
}

/// The daemon's workers.
pub async fn workers(address: &Address) -> Result<Vec<WorkerRecord>, DialError> {
    let dialed = address.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let address = dialed.clone();
        async move { connect(&address).await.map(TokioIo::new) }
    });
    let channel = tunnel::windows(Endpoint::from_static("http://localhost"))
        .connect_with_connector(connector)
        .await
        .map_err(|source| DialError::Speak {
            address: address.clone(),
            source,
        })?;
    let mut client = ControlClient::new(channel).max_decoding_message_size(tunnel::MAX_MESSAGE);
    let answer = client
        .list_workers(ListWorkersRequest::default())
        .await
        .map_err(|status| DialError::List(Box::new(status)))?;
    Ok(answer.into_inner().record)
}

/// The table that `debug workers` prints.
pub fn table(workers: &[WorkerRecord]) -> String {
    let mut table = String::from("ID\tPLATFORMS\n");
    for worker in workers {
        let platforms: Vec<_> = worker.platforms.iter().map(platform_name).collect();
        table.push_str(&format!("{}\t{}\n", worker.id, platforms.join(",")));
    }
    table
}

fn platform_name(platform: &proto::pb::Platform) -> String {
    let name = format!("{}/{}", platform.os, platform.architecture);
    if platform.variant.is_empty() {
        name
    } else {
        format!("{name}/{}", platform.variant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn the_relay_passes_on_the_end_of_the_input_and_waits_for_the_answer() {
        let (ours, mut daemon) = tokio::io::duplex(16);
        let mut output = Vec::new();
        let relaying = relay(ours, &b"question"[..], &mut output);
        let answering = async {
            let mut question = Vec::new();
            daemon.read_to_end(&mut question).await.unwrap();
            assert_eq!(question, b"question");
            daemon.write_all(b"a somewhat longer answer").await.unwrap();
            drop(daemon);
        };
        let (relayed, ()) = tokio::join!(relaying, answering);
        relayed.unwrap();
        assert_eq!(output, b"a somewhat longer answer");
    }

    #[tokio::test]
    async fn the_relay_ends_with_the_daemon_even_if_the_input_stays_open() {
        let (ours, daemon) = tokio::io::duplex(16);
        let (input, _still_open) = tokio::io::duplex(16);
        drop(daemon);
        relay(ours, input, Vec::new()).await.unwrap();
    }
}
