//! The connections of a step: plain requests, and encrypted ones behind `CONNECT`.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::Authority as Target;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use reqwest::Url;
use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::exchange::{Body, Exchange, said};

/// Connections of one step at a time; more of them wait.
const CONNECTIONS: usize = 128;

/// How long the head of a request may take, or the beginning of an encrypted connection.
const HEAD: Duration = Duration::from_secs(30);

/// How long connections may take to find out that their step has ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes of a request's head, and of what is read ahead.
const BUFFER: usize = 64 << 10;

/// What a method's name may have, as it is kept with each request; those that are registered have up to 17.
const LONGEST_METHOD: usize = 32;

/// What a server's name may have, as DNS says.
const LONGEST_HOST: usize = 253;

/// How long to wait when the daemon has no file descriptor left for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What waits for the end of a plain request: the server that the step wants to talk with in private.
type Tunnel = Arc<Mutex<Option<(Target, OnUpgrade)>>>;

/// Serves until `closing`, and then until the last connection has ended.
pub(super) async fn serve(
    listener: TcpListener,
    exchange: Exchange,
    authority: Arc<Authority>,
    closing: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, exchange.clone(), Arc::clone(&authority)));
            }
            Err(error) => {
                tracing::debug!(%error, "a connection of a step is not taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    // Those that are only kept for later end with the step's end of them; no other has anybody to answer to.
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, ended).await.is_err() {
        tracing::debug!("connections of a step outlive it");
    }
    connections.shutdown().await;
}

async fn converse(stream: TcpStream, exchange: Exchange, authority: Arc<Authority>) {
    // The answers' heads are to go out before their bodies come.
    stream.set_nodelay(true).ok();
    let tunnel = Tunnel::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (exchange, tunnel) = (exchange.clone(), Arc::clone(&tunnel));
        async move { Ok::<_, Infallible>(answer(&exchange, &tunnel, request).await) }
    });
    let connection = builder()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        return tracing::debug!(%error, "a connection of a step broke off");
    }
    let wanted = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((target, upgrade)) = wanted
        && let Err(error) = private(&target, upgrade, &exchange, &authority).await
    {
        tracing::debug!(%error, %target, "an encrypted connection of a step broke off");
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        // Who says no more is gone: there is no other way to know that nobody waits for an answer any more.
        .half_close(false)
        .title_case_headers(true);
    builder
}

async fn answer(exchange: &Exchange, tunnel: &Tunnel, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::CONNECT {
        let Some(target) = request.uri().authority().cloned() else {
            return said(StatusCode::BAD_REQUEST, "CONNECT needs a server\n");
        };
        if target.host().len() > LONGEST_HOST {
            return said(StatusCode::BAD_REQUEST, "no server has a name as long as this\n");
        }
        let wanted = (target, hyper::upgrade::on(request));
        *tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        return Response::new(
            http_body_util::Empty::new()
                .map_err(|never| match never {})
                .boxed_unsync(),
        );
    }
    let url = match request.uri().scheme() {
        Some(_) => request.uri().to_string(),
        // As a server is asked; it means the one that the request names.
        None => {
            let host = request.headers().get(http::header::HOST);
            let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
            format!("http://{host}{}", path(request.uri()))
        }
    };
    passed_on(exchange, &url, request).await
}

async fn passed_on(exchange: &Exchange, url: &str, request: Request<Incoming>) -> Response<Body> {
    if request.method().as_str().len() > LONGEST_METHOD {
        return said(StatusCode::BAD_REQUEST, "no method has a name as long as this\n");
    }
    match url.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            exchange.answer(url, request).await
        }
        _ => said(
            StatusCode::BAD_REQUEST,
            "only addresses of http and https servers can be asked\n",
        ),
    }
}

fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

/// Talks with the step as if this were the server that it wants.
async fn private(
    target: &Target,
    upgrade: OnUpgrade,
    exchange: &Exchange,
    authority: &Authority,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TokioIo::new(upgrade.await?);
    let host = target.host().trim_start_matches('[').trim_end_matches(']');
    // Programs compare certificates with names that have no dot at the end.
    let identity = authority.identity(host.strip_suffix('.').unwrap_or(host))?;
    let mut tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let accepting = TlsAcceptor::from(Arc::new(tls)).accept(stream);
    let accepted = tokio::time::timeout(HEAD, accepting).await;
    let stream = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let service = service_fn(|request: Request<Incoming>| async move {
        if request.method() == Method::CONNECT {
            let refusal = said(StatusCode::BAD_REQUEST, "this is no proxy within a proxy\n");
            return Ok::<_, Infallible>(refusal);
        }
        let url = format!("https://{target}{}", path(request.uri()));
        Ok(passed_on(exchange, &url, request).await)
    });
    builder().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}
