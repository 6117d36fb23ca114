//! A registry that misbehaves on demand: it passes requests on to a real one, except where a fault is set.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;

use crate::plain_http;

/// What goes wrong, for requests whose method and path it fits.
#[derive(Debug, Clone)]
pub struct Fault {
    pub method: &'static str,
    /// Part of the path.
    pub path: &'static str,
    pub what: Wrong,
    /// How many requests are hit before all is well again; none for ever.
    pub times: Option<usize>,
}

#[derive(Debug, Clone)]
pub enum Wrong {
    /// This status and an error in the registry's manner.
    Status(u16),
    /// 429 with this many seconds in Retry-After.
    TooMany(u32),
    /// The real answer, with its bytes changed.
    Corrupted,
    /// The real answer, cut off in its middle.
    CutOff,
    /// The connection is closed instead of an answer.
    Reset,
    /// The real answer to the request without its query: no blob is mounted.
    WithoutQuery,
    /// The real answer, said to be of this type.
    Type(&'static str),
}

#[derive(Debug)]
pub struct FaultyRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    faults: Mutex<Vec<Fault>>,
    seen: Mutex<Vec<String>>,
}

impl FaultyRegistry {
    /// Starts a registry in front of the one at `upstream`.
    pub fn before(upstream: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            faults: Mutex::default(),
            seen: Mutex::default(),
        });
        let service = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, service).await });
        Self {
            address,
            shared,
            runtime: Some(runtime),
        }
    }

    /// What image names have as their host.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub fn set(&self, fault: Fault) {
        self.shared
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(fault);
    }

    pub fn heal(&self) {
        self.shared
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// The requests so far, as "METHOD path".
    pub fn seen(&self) -> Vec<String> {
        self.shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for FaultyRegistry {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// Takes one use of the fault for this request.
    fn fault(&self, method: &str, path: &str) -> Option<Wrong> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = faults.iter_mut().find(|fault| {
            fault.method == method && path.contains(fault.path) && fault.times.is_none_or(|times| times > 0)
        })?;
        fault.times = fault.times.map(|times| times - 1);
        Some(fault.what.clone())
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let method = parts.method.as_str().to_owned();
    let path = parts
        .uri
        .path_and_query()
        .map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned());
    shared
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(format!("{method} {path}"));
    let wrong = shared.fault(&method, &path);
    match wrong {
        Some(Wrong::Status(status)) => return refusal(status, None),
        Some(Wrong::TooMany(seconds)) => return refusal(429, Some(seconds)),
        Some(Wrong::Reset) => return cut_off(&[]),
        _ => {}
    }
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return refusal(400, None);
    };
    let kept: Vec<(String, String)> = parts
        .headers
        .iter()
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                "host" | "connection" | "content-length" | "transfer-encoding"
            )
        })
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let upstream = shared.upstream.clone();
    let path = match (&wrong, path.split_once('?')) {
        (Some(Wrong::WithoutQuery), Some((path, _))) => path.to_owned(),
        _ => path,
    };
    let passed_on = tokio::task::spawn_blocking(move || {
        let headers: Vec<(&str, &str)> = kept
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        plain_http::request(&method, &upstream, &path, &headers, &body)
    });
    let Ok(Ok(mut real)) = passed_on.await else {
        return refusal(502, None);
    };
    match wrong {
        Some(Wrong::Corrupted) => {
            let middle = real.body.len() / 2;
            if let Some(byte) = real.body.get_mut(middle) {
                *byte = !*byte;
            }
        }
        Some(Wrong::Type(kind)) => {
            real.headers.retain(|(name, _)| name != "content-type");
            real.headers.push(("content-type".to_owned(), kind.to_owned()));
        }
        Some(Wrong::CutOff) => return cut_off(&real.body[..real.body.len() / 2]),
        _ => {}
    }
    relay(&shared, real)
}

fn refusal(status: u16, retry_after: Option<u32>) -> Response {
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(seconds) = retry_after {
        response = response.header(header::RETRY_AFTER, seconds);
    }
    let body = r#"{"errors":[{"code":"UNKNOWN","message":"this registry misbehaves"}]}"#;
    response.body(Body::from(body)).unwrap_or_default()
}

/// An answer that promises more than comes before the connection closes.
fn cut_off(start: &[u8]) -> Response {
    let start = Bytes::copy_from_slice(start);
    let parts: [Result<Bytes, std::io::Error>; 2] =
        [Ok(start), Err(std::io::ErrorKind::ConnectionReset.into())];
    Response::builder()
        .status(200)
        .body(Body::from_stream(futures::stream::iter(parts)))
        .unwrap_or_default()
}

fn relay(shared: &Shared, real: plain_http::Response) -> Response {
    let mut response =
        Response::builder().status(StatusCode::from_u16(real.status).unwrap_or(StatusCode::BAD_GATEWAY));
    let length = real.header("content-length").map(str::to_owned);
    for (name, value) in &real.headers {
        if matches!(
            name.as_str(),
            "connection" | "content-length" | "transfer-encoding" | "date"
        ) {
            continue;
        }
        // Uploads go on where they started: at this registry, not at the real one behind it.
        let value = value.replace(&format!("http://{}", shared.upstream), "");
        response = response.header(name, value);
    }
    // The answer to HEAD has the length of a body that does not come.
    if let (true, Some(length)) = (real.body.is_empty(), length) {
        response = response.header(header::CONTENT_LENGTH, length);
    }
    response.body(Body::from(real.body)).unwrap_or_default()
}
