//! Connections to servers, made in the network that the step would have had.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::net::TcpStream;

use super::Tasks;
use super::exchange::Body;
use crate::executor::outlet::Outside;

/// For one of a server's addresses.
const CONNECT: Duration = Duration::from_secs(30);

/// How long an unused connection to a server is kept, and how many.
const IDLE: Duration = Duration::from_secs(30);
const MOST_IDLE: usize = 8;

/// Which part of the network outside a step may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// All but the machine that the proxy is on.
    Others,
    /// The services of that machine too.
    Machine,
}

/// The certificates that servers are checked against: those of the machine, read when first needed, or built-in ones where
/// it has none.
#[derive(Debug, Default)]
pub struct Roots(OnceLock<ClientConfig>);

impl Roots {
    #[cfg(test)]
    pub(super) fn of(config: ClientConfig) -> Self {
        Self(config.into())
    }

    pub(super) fn client(&self) -> ClientConfig {
        let read = || {
            ClientConfig::with_platform_verifier().unwrap_or_else(|error| {
                // An image made from scratch has no root certificates.
                tracing::debug!(%error, "no usable root certificates on this system, using the built-in ones");
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
                ClientConfig::builder()
                    .with_root_certificates(roots)
                    .with_no_client_auth()
            })
        };
        self.0.get_or_init(read).clone()
    }
}

pub(super) type Upstream = Client<HttpsConnector<Connector>, Body>;

/// What asks servers for the requests of one step.
pub(super) fn client(outside: Outside, network: Network, tls: ClientConfig, tasks: Tasks) -> Upstream {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(Connector {
            outside: Arc::new(outside),
            network,
        });
    Client::builder(tasks)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MOST_IDLE)
        .build(connector)
}

#[derive(Clone, Debug)]
pub(super) struct Connector {
    outside: Arc<Outside>,
    network: Network,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&uri).await.map(TokioIo::new) })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> io::Result<TcpStream> {
        let host = uri
            .host()
            .ok_or(io::ErrorKind::InvalidInput)?
            .trim_start_matches('[')
            .trim_end_matches(']');
        let is_plain = uri.scheme_str() == Some("http");
        let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        for address in tokio::net::lookup_host((host, port)).await? {
            if self.network == Network::Others && is_this_machine(address.ip()) {
                failure = io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "{host} is the machine of the builder itself, which only steps with the network of the host \
                         reach"
                    ),
                );
                continue;
            }
            let connecting = tokio::time::timeout(CONNECT, self.outside.connect(address));
            match connecting.await.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    // Requests and answers are written in few pieces already.
                    stream.set_nodelay(true).ok();
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
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
