//! Byte streams to a daemon, and gRPC channels over them.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::StreamReader;
use tonic::transport::{Channel, Endpoint};

use crate::docker;
use crate::settings::Settings;
use crate::ssh;

/// The flow control windows of both HTTP/2 layers: a context upload must not wait for each 64 KiB.
const WINDOW: u32 = 4 << 20;

trait ReadWrite: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> ReadWrite for T {}

/// One connection to a daemon.
pub struct DaemonStream(Pin<Box<dyn ReadWrite>>);

impl std::fmt::Debug for DaemonStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DaemonStream")
    }
}

impl AsyncRead for DaemonStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for DaemonStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

/// How to make a connection, as often as one is needed.
#[derive(Clone, Debug)]
pub enum Opener {
    Unix(PathBuf),
    Tcp(String),
    /// A command on another machine that does what the next one does in a container.
    Ssh(ssh::Target, Vec<String>),
    /// A command in a container that joins its standard streams to the daemon's socket.
    Exec {
        settings: Settings,
        /// Of the engine.
        endpoint: String,
        container: String,
        command: Vec<String>,
        /// The same socket, where the container shows it to this machine: much the shorter way.
        socket: Option<PathBuf>,
    },
}

impl Opener {
    pub async fn open(&self) -> io::Result<DaemonStream> {
        match self {
            Self::Unix(path) => Ok(DaemonStream(Box::pin(
                tokio::net::UnixStream::connect(path).await?,
            ))),
            Self::Tcp(address) => {
                let stream = tokio::net::TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(DaemonStream(Box::pin(stream)))
            }
            Self::Ssh(target, command) => Ok(DaemonStream(Box::pin(target.open(command)?))),
            Self::Exec {
                settings,
                endpoint,
                container,
                command,
                socket,
            } => {
                // Whatever is wrong with it (another machine's engine, no right to open it): there is the other way.
                if let Some(socket) = socket
                    && let Ok(stream) = tokio::net::UnixStream::connect(socket).await
                {
                    return Ok(DaemonStream(Box::pin(stream)));
                }
                let docker = docker::connect(settings, endpoint)
                    .await
                    .map_err(io::Error::other)?;
                exec(&docker, container, command).await
            }
        }
    }
}

async fn exec(docker: &Docker, container: &str, command: &[String]) -> io::Result<DaemonStream> {
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.to_vec()),
        ..ExecConfig::default()
    };
    let exec = docker
        .create_exec(container, config)
        .await
        .map_err(io::Error::other)?;
    let options = StartExecOptions {
        output_capacity: Some(256 << 10),
        ..StartExecOptions::default()
    };
    match docker
        .start_exec(&exec.id, Some(options))
        .await
        .map_err(io::Error::other)?
    {
        StartExecResults::Attached { output, input } => {
            let bytes = output.filter_map(|frame| async move {
                match frame {
                    Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => Some(Ok(message)),
                    Ok(LogOutput::StdErr { message }) => {
                        // Why the command inside could not connect.
                        tracing::debug!("{}", String::from_utf8_lossy(&message).trim_end());
                        None
                    }
                    Ok(LogOutput::StdIn { .. }) => None,
                    Err(error) => Some(Err(io::Error::other(error))),
                }
            });
            let reader = StreamReader::new(bytes.boxed());
            Ok(DaemonStream(Box::pin(tokio::io::join(reader, input))))
        }
        StartExecResults::Detached => Err(io::Error::other("the engine did not attach to the command")),
    }
}

pub fn channel(opener: Opener) -> Channel {
    let connector = tower::service_fn(move |_| {
        let opener = opener.clone();
        async move { opener.open().await.map(TokioIo::new) }
    });
    tuned(Endpoint::from_static("http://localhost")).connect_with_connector_lazy(connector)
}

/// The settings that every connection to a daemon has.
pub fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_connection_window_size(Some(WINDOW))
        .initial_stream_window_size(Some(WINDOW))
        // Errors carry the Dockerfile for their excerpts, in a header.
        .http2_max_header_list_size(proto::tunnel::MAX_HEADERS)
        .tcp_nodelay(true)
}
