//! A byte stream inside the messages of a gRPC stream, and HTTP/2 connections over it.
//!
//! A session is a second HTTP/2 connection whose bytes travel in the messages of `Control/Session`. Its roles are
//! reversed: the daemon is the HTTP/2 client ([`connect`]) and must speak first, the builder's client serves
//! ([`serve`]). Message boundaries carry no meaning. What is in flight is bounded: [`IN_FLIGHT`] messages of at most
//! [`CHUNK`] bytes and the HTTP/2 windows; a slow reader stops the writer.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};

/// Largest gRPC message that is accepted, as in the reference peers.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Largest message that is sent into a session: clients accept 4 MiB by default.
pub const MAX_SESSION_MESSAGE: usize = 3 << 20;

/// Largest headers and trailers of a call: an error carries whole Dockerfiles in them. What Go's clients accept.
pub const MAX_HEADERS: u32 = 16 << 20;

/// HTTP/2 windows: a local context must not wait for round trips.
pub const STREAM_WINDOW: u32 = 4 << 20;
pub const CONNECTION_WINDOW: u32 = 16 << 20;

/// Bytes that are gathered into one message.
const CHUNK: usize = 64 << 10;

/// Messages that wait for the outer stream.
const IN_FLIGHT: usize = 16;

/// One end of a byte stream that travels in messages.
pub struct Tunnel {
    incoming: Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>,
    /// What the reader has not taken yet of the last message.
    unread: Bytes,
    outgoing: PollSender<Bytes>,
    unsent: BytesMut,
    closed: CancellationToken,
    _guard: DropGuard,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl Tunnel {
    /// A tunnel that reads the payloads of `incoming`; the stream holds the payloads to send.
    pub fn new<S>(incoming: S) -> (Self, ReceiverStream<Bytes>)
    where
        S: Stream<Item = Result<Bytes, Status>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let closed = CancellationToken::new();
        let tunnel = Self {
            incoming: incoming.boxed(),
            unread: Bytes::new(),
            outgoing: PollSender::new(sender),
            unsent: BytesMut::new(),
            closed: closed.clone(),
            _guard: closed.drop_guard(),
        };
        (tunnel, ReceiverStream::new(receiver))
    }

    /// Cancelled once this end is dropped, which HTTP/2 does as soon as the connection is over.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.outgoing.poll_reserve(cx)).map_err(|_| broken())?;
        let chunk = self.unsent.split().freeze();
        Poll::Ready(self.outgoing.send_item(chunk).map_err(|_| broken()))
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the session stream is closed")
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.incoming.as_mut().poll_next(cx)) {
                Some(Ok(payload)) => self.unread = payload,
                Some(Err(status)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, status)));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let take = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..take]);
        self.unread.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.unsent.len() >= CHUNK {
            ready!(self.poll_send(cx))?;
        }
        let before = self.unsent.len();
        for slice in slices {
            let room = CHUNK - self.unsent.len();
            self.unsent.extend_from_slice(&slice[..slice.len().min(room)]);
            if slice.len() >= room {
                break;
            }
        }
        Poll::Ready(Ok(self.unsent.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

impl Connected for Tunnel {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// An HTTP/2 client connection over `io`. It speaks first, is never made again once it is lost, and ends when the
/// last clone of the channel is dropped.
pub async fn connect<IO>(io: IO) -> Result<Channel, tonic::transport::Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = Arc::new(Mutex::new(Some(io)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let io = io.lock().ok().and_then(|mut io| io.take());
        async move { io.map(TokioIo::new).ok_or_else(broken) }
    });
    windows(Endpoint::from_static("http://localhost"))
        .connect_with_connector(connector)
        .await
}

/// The windows and limits of client connections, for sessions and for the connection that carries them.
pub fn windows(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADERS)
}

/// A server with the same windows. Stream limits stay high: one connection carries many builds.
pub fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(10_000)
        .http2_max_header_list_size(1 << 20)
}

/// Serves `routes` on one connection until the peer ends it or `stop` resolves; then calls in flight are finished.
pub async fn serve<F>(tunnel: Tunnel, routes: Routes, stop: F) -> Result<(), tonic::transport::Error>
where
    F: Future<Output = ()>,
{
    let closed = tunnel.closed();
    // The stream of connections must not end before the one connection does: the server would stop with it.
    let connections = futures::stream::iter([Ok::<_, io::Error>(tunnel)]).chain(futures::stream::pending());
    server()
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = stop => {}
            }
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    /// Two ends whose messages go straight to each other.
    fn pair() -> (Tunnel, Tunnel) {
        let (to_left, for_left) = mpsc::channel::<Result<Bytes, Status>>(1);
        let (left, from_left) = Tunnel::new(ReceiverStream::new(for_left));
        let (right, mut from_right) = Tunnel::new(from_left.map(Ok));
        tokio::spawn(async move {
            while let Some(payload) = from_right.next().await {
                if to_left.send(Ok(payload)).await.is_err() {
                    break;
                }
            }
        });
        (left, right)
    }

    #[tokio::test]
    async fn bytes_cross_and_shutdown_is_end_of_file() {
        let (mut left, mut right) = pair();
        let data: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            left.write_all(&sent).await.unwrap();
            left.shutdown().await.unwrap();
            left
        });
        let mut received = Vec::new();
        right.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, data);
        drop(writer.await.unwrap());
    }

    #[tokio::test]
    async fn calls_go_from_the_daemon_to_the_client_and_end_with_the_channel() {
        let (daemon, client) = pair();
        let closed = daemon.closed();
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        let serving = tokio::spawn(serve(client, Routes::new(health), std::future::pending()));
        let channel = connect(daemon).await.unwrap();
        let mut caller = HealthClient::new(channel);
        let answer = caller.check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
        drop(caller);
        tokio::time::timeout(Duration::from_secs(10), async {
            closed.cancelled().await;
            serving.await.unwrap().unwrap();
        })
        .await
        .expect("both ends close when the channel is dropped");
    }

    #[tokio::test]
    async fn a_lost_connection_is_not_made_again() {
        let (daemon, client) = pair();
        let closed = daemon.closed();
        let channel = connect(daemon).await.unwrap();
        drop(client);
        tokio::time::timeout(Duration::from_secs(10), closed.cancelled())
            .await
            .expect("the daemon's end closes with the client's");
        let mut caller = HealthClient::new(channel);
        for _ in 0..2 {
            let status = caller.check(HealthCheckRequest::default()).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
        }
    }
}
