//! Connections to servers, made in the network that the step would have had.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::Tasks;
use super::exchange::Body;
use super::held::Held;
use crate::executor::outlet::Outside;

/// For one of a server's addresses.
const CONNECT: Duration = Duration::from_secs(30);

/// How long an unused connection to a server is kept, and how many.
const IDLE: Duration = Duration::from_secs(30);
const MOST_IDLE: usize = 8;

/// Connections to servers at a time, in use or not; more of them wait. Above those of a step, so that a request waits for
/// ones that nobody uses at most, and those end soon.
const CONNECTIONS: usize = 256;

/// Names that are looked up at a time.
const LOOK_UPS: usize = 16;

/// Which part of the network outside a step may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// All but the addresses of the end from which the proxy connects.
    Others,
    /// The services of that machine too.
    Machine,
}

/// The certificates that servers are checked against: those of the machine, read when first needed, or built-in ones where
/// it has none.
#[derive(Clone, Debug, Default)]
pub struct Roots(Arc<OnceLock<Arc<ClientConfig>>>);

impl Roots {
    #[cfg(test)]
    pub(super) fn of(config: ClientConfig) -> Self {
        Self(Arc::new(Arc::new(config).into()))
    }

    fn client(&self) -> Arc<ClientConfig> {
        let read = || {
            let config = ClientConfig::with_platform_verifier().unwrap_or_else(|error| {
                // An image made from scratch has no root certificates.
                tracing::debug!(%error, "no usable root certificates on this system, using the built-in ones");
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
                ClientConfig::builder()
                    .with_root_certificates(roots)
                    .with_no_client_auth()
            });
            Arc::new(config)
        };
        Arc::clone(self.0.get_or_init(read))
    }
}

pub(super) type Upstream = Client<Connector, Body>;
type Stream = MaybeHttpsStream<TokioIo<Held>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What asks servers for the requests of one step.
pub(super) fn client(outside: Outside, network: Network, roots: Roots, tasks: Tasks) -> Upstream {
    Client::builder(tasks)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MOST_IDLE)
        .build(Connector {
            outside: Arc::new(outside),
            network,
            roots,
            room: Arc::new(Semaphore::new(CONNECTIONS)),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS)),
        })
}

#[derive(Clone, Debug)]
pub(super) struct Connector {
    outside: Arc<Outside>,
    network: Network,
    roots: Roots,
    room: Arc<Semaphore>,
    look_ups: Arc<Semaphore>,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Stream, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            if uri.scheme_str() == Some("http") {
                let stream = connector.connect(&uri).await?;
                return Ok(MaybeHttpsStream::Http(TokioIo::new(stream)));
            }
            let roots = connector.roots.clone();
            // Most steps need none, and reading them takes a while.
            let tls = tokio::task::spawn_blocking(move || roots.client()).await?;
            HttpsConnector::from((Plain(connector), tls)).call(uri).await
        })
    }
}

/// What encrypted connections are made over.
struct Plain(Connector);

impl Service<Uri> for Plain {
    type Response = TokioIo<Held>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Held>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move { connector.connect(&uri).await.map(TokioIo::new) })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> io::Result<Held> {
        let host = uri
            .host()
            .ok_or(io::ErrorKind::InvalidInput)?
            .trim_start_matches('[')
            .trim_end_matches(']');
        let is_plain = uri.scheme_str() == Some("http");
        let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        let own = || {
            io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{host} is the machine of the builder itself, which only steps with the network of the host reach"
                ),
            )
        };
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.map_err(io::Error::other)?;
        for address in self.look_up(host, port).await? {
            if self.network == Network::Others && is_this_machine(address.ip()) {
                failure = own();
                continue;
            }
            let connecting = tokio::time::timeout(CONNECT, self.outside.connect(address));
            match connecting.await.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
                // An address of that network's own, from which nobody else would be seen to come.
                Ok(stream) if self.network == Network::Others && is_to_itself(&stream)? => failure = own(),
                Ok(stream) => {
                    // Requests and answers are written in few pieces already.
                    stream.set_nodelay(true).ok();
                    return Ok(Held::new(stream, room));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Look-ups go on in the threads of the whole daemon, also when nobody waits for them any more.
    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let place = Arc::clone(&self.look_ups).acquire_owned().await;
        let place = place.map_err(io::Error::other)?;
        let host = host.to_owned();
        let looking = tokio::spawn(async move {
            let _place = place;
            tokio::net::lookup_host((host, port)).await.map(Iterator::collect)
        });
        looking.await.map_err(io::Error::other)?
    }
}

fn is_to_itself(stream: &TcpStream) -> io::Result<bool> {
    Ok(stream.local_addr()?.ip() == stream.peer_addr()?.ip())
}

/// Addresses behind which is whoever uses them.
pub(super) fn is_this_machine(address: IpAddr) -> bool {
    match address.to_canonical() {
        // All of 0.0.0.0/8 is "this network", and Linux takes its first address for itself.
        IpAddr::V4(address) => address.is_loopback() || address.octets()[0] == 0,
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                // As IPv4 was written before there were mapped addresses.
                || address.to_ipv4().is_some_and(|address| is_this_machine(address.into()))
        }
    }
}
