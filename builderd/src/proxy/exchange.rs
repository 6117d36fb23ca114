//! One request and its answer on their way through.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION,
    RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use registry::digest::{Algorithm, Hasher};
use reqwest::Url;
use tokio::time::{Instant, Sleep};

use super::address;
use super::connect::Upstream;
use super::fetched::Requests;
use super::{Judge, Refusal};

/// How long a server may think about a request, and how long either side may be silent within a body.
const PATIENCE: Duration = Duration::from_secs(300);

/// About one connection only, besides those of standard names.
const OF_A_CONNECTION: [&str; 4] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
];

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(super) type Body = UnsyncBoxBody<Bytes, Failure>;

/// Passes the requests of a step on. Cheap to clone.
#[derive(Clone)]
pub(super) struct Exchange {
    client: Upstream,
    judge: Arc<dyn Judge>,
    requests: Arc<Requests>,
}

impl Exchange {
    pub(super) fn new(client: Upstream, judge: Arc<dyn Judge>, requests: Arc<Requests>) -> Self {
        Self {
            client,
            judge,
            requests,
        }
    }

    /// Answers a request for `url`, whatever happens.
    pub(super) async fn answer(&self, url: Url, request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        let Some(url) = address::normal(url) else {
            return said(StatusCode::BAD_REQUEST, "the address has no server\n");
        };
        let judged = self.judge.judge(&method, &url).await.and_then(|used| {
            let none = || Refusal(format!("the policy puts no server in the place of {url}"));
            address::normal(used).ok_or_else(none)
        });
        let url = match judged {
            Ok(url) => url,
            Err(Refusal(reason)) => {
                self.requests.answered(
                    method.as_str(),
                    url.as_str(),
                    StatusCode::FORBIDDEN.as_u16(),
                    None,
                );
                return said(StatusCode::FORBIDDEN, &format!("Forbidden: {reason}\n"));
            }
        };
        let fate = Fate {
            method: method.clone(),
            url: url.clone(),
            requests: Arc::clone(&self.requests),
            is_partial: request.headers().contains_key(RANGE),
            reason: Some(UPSTREAM),
        };
        let moved = Moved::default();
        let answered = match forwarded(&url, request, moved.clone()) {
            Ok(request) => moved.patiently(self.client.request(request)).await,
            Err(error) => {
                fate.told(StatusCode::BAD_REQUEST, None);
                return said(StatusCode::BAD_REQUEST, &format!("{error}\n"));
            }
        };
        let problem = match answered {
            Ok(Ok(response)) => return self.passed_back(response, fate),
            Ok(Err(error)) => proto::chain(&error),
            Err(Silence) => format!("no answer within {} seconds", PATIENCE.as_secs()),
        };
        fate.told(StatusCode::BAD_GATEWAY, None);
        said(StatusCode::BAD_GATEWAY, &format!("{problem}\n"))
    }

    fn passed_back(&self, response: Response<Incoming>, mut fate: Fate) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        let target = head.headers.get(LOCATION);
        let target = target
            .and_then(|target| target.to_str().ok())
            .and_then(|target| fate.url.join(target).ok())
            // As it will be asked for.
            .and_then(address::normal);
        fate.told(head.status, target);
        fate.is_partial |= head.status == StatusCode::PARTIAL_CONTENT;
        fate.reason = Some(CUT);
        strip(&mut head.headers);
        // Of this connection, not of the server's.
        head.version = Version::HTTP_11;
        let mut body = Watched::new(body, Moved::default());
        body.fate = Some((Hasher::new(Algorithm::Sha256), fate, head.status));
        if body.inner.is_end_stream() {
            body.end();
        }
        Response::from_parts(head, body.boxed_unsync())
    }
}

/// The server was not reached, or gave no answer.
const UPSTREAM: &str = "upstream_error";
/// The answer did not come through to its end.
const CUT: &str = "body_read_failed";

/// What is noted of a request. Let go before its answer has ended, it is a request whose answer is not known.
struct Fate {
    method: Method,
    url: Url,
    requests: Arc<Requests>,
    /// Only a part was asked for, or came.
    is_partial: bool,
    /// What is missing if nothing more happens.
    reason: Option<&'static str>,
}

impl Fate {
    fn told(&self, status: StatusCode, target: Option<Url>) {
        let target = target.map(String::from);
        self.requests
            .answered(self.method.as_str(), self.url.as_str(), status.as_u16(), target);
    }

    fn settle(mut self, status: StatusCode, hasher: Hasher) {
        self.reason = if self.method != Method::GET {
            Some("method_not_materializable")
        } else if self.is_partial {
            Some("partial_response")
        } else if status.is_client_error() || status.is_server_error() {
            Some("unsuccessful_response")
        } else {
            None
        };
        if self.reason.is_none() && status.is_success() {
            self.requests.file(self.url.as_str(), hasher.finish());
        }
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            let reason = match self.method {
                Method::GET => reason,
                _ => "method_not_materializable",
            };
            self.requests
                .missed(self.method.as_str(), self.url.as_str(), reason);
        }
    }
}

/// The request as the server gets it.
fn forwarded(url: &Url, request: Request<Incoming>, moved: Moved) -> Result<Request<Body>, http::Error> {
    let (mut head, body) = request.into_parts();
    head.uri = url.as_str().parse()?;
    head.version = Version::HTTP_11;
    strip(&mut head.headers);
    head.headers.remove(EXPECT);
    // What comes is what was asked for, not what somebody packed for the way.
    head.headers.remove(ACCEPT_ENCODING);
    // The one that was judged, whatever the step calls it.
    let host = url.authority().rsplit('@').next().unwrap_or_default();
    head.headers.insert(HOST, HeaderValue::from_str(host)?);
    Ok(Request::from_parts(
        head,
        Watched::new(body, moved).boxed_unsync(),
    ))
}

/// Removes what is about a connection.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// When a body last went on.
#[derive(Clone, Debug)]
struct Moved(Arc<Mutex<Instant>>);

/// There was no answer, and nothing to be done for one.
#[derive(Debug)]
struct Silence;

impl Default for Moved {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Moved {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn deadline(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) + PATIENCE
    }

    /// Waits for a server's answer as long as it is sent more of the request, and then for as long as it may think.
    async fn patiently<T>(&self, answer: impl Future<Output = T>) -> Result<T, Silence> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let deadline = self.deadline();
            tokio::select! {
                answer = &mut answer => return Ok(answer),
                () = tokio::time::sleep_until(deadline) => {}
            }
            if self.deadline() == deadline {
                return Err(Silence);
            }
        }
    }
}

/// An answer of the proxy's own.
pub(super) fn said(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(text.to_owned()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A body on its way, which does not wait for ever. Of an answer, what comes through is noted.
struct Watched {
    inner: Incoming,
    moved: Moved,
    silence: Pin<Box<Sleep>>,
    fate: Option<(Hasher, Fate, StatusCode)>,
}

impl Watched {
    fn new(inner: Incoming, moved: Moved) -> Self {
        Self {
            inner,
            moved,
            silence: Box::pin(tokio::time::sleep(PATIENCE)),
            fate: None,
        }
    }

    fn end(&mut self) {
        if let Some((hasher, fate, status)) = self.fate.take() {
            fate.settle(status, hasher);
        }
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match polled {
            Poll::Pending => match self.silence.as_mut().poll(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => {
                    let problem = format!("nothing came for {} seconds", PATIENCE.as_secs());
                    Poll::Ready(Some(Err(problem.into())))
                }
            },
            Poll::Ready(Some(Ok(frame))) => {
                self.silence.as_mut().reset(Instant::now() + PATIENCE);
                self.moved.now();
                if let (Some((hasher, ..)), Some(data)) = (&mut self.fate, frame.data_ref()) {
                    hasher.update(data);
                }
                // Before the reader has the last byte: with that, its program may end.
                if self.inner.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
