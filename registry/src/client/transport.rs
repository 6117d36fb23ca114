//! One request to one server, until it is answered: authentication, redirects, patience.
//!
//! Transient failures are tried again with growing, jittered pauses, or after what `Retry-After` says. A request can
//! therefore be sent more than once: bodies are made anew for each attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use reqwest::{Response, Url};
use tokio::time::Instant;

use super::auth::{Auth, Scopes};
use super::error::{Error, Refusal};
use super::host::{Connections, Endpoint, authority};
use crate::digest::Digest;
use crate::reference::Repository;

const MOST_REDIRECTS: usize = 10;
const LONGEST_ERROR_BODY: u64 = 64 * 1024;

pub(super) type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;
/// Told how many bytes of a body have been sent; starts over when a body is sent again.
pub type OnProgress = Arc<dyn Fn(u64) + Send + Sync>;

/// A request, ready to be sent any number of times.
pub(super) struct Call<'a> {
    pub endpoint: &'a Endpoint,
    pub repository: &'a str,
    /// For error messages: `pull manifest latest of a/b`.
    pub doing: String,
    pub method: Method,
    pub url: Url,
    pub scopes: Scopes,
    pub headers: HeaderMap,
    pub body: Body<'a>,
}

/// What a request carries.
pub(super) enum Body<'a> {
    Empty,
    Bytes(Bytes),
    /// `length` bytes, opened anew for each attempt.
    Stream {
        digest: &'a Digest,
        length: u64,
        open:
            &'a (dyn Fn() -> futures::future::BoxFuture<'static, std::io::Result<ByteStream>> + Send + Sync),
        progress: Option<OnProgress>,
    },
}

/// Sends requests in one name over shared connections.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    pub connections: Arc<Connections>,
    pub auth: Arc<Auth>,
}

impl Transport {
    /// Asks for what reading a repository takes and nothing else.
    pub async fn look_up(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        method: Method,
        url: Url,
        doing: String,
    ) -> Result<Response, Error> {
        self.send(Call {
            endpoint,
            repository: repository.path(),
            doing,
            method,
            url,
            scopes: Scopes::pull(repository.path()),
            headers: HeaderMap::new(),
            body: Body::Empty,
        })
        .await
    }

    /// The successful answer.
    pub async fn send(&self, mut call: Call<'_>) -> Result<Response, Error> {
        let retry = self.connections.config.retry;
        let mut attempt = 1;
        loop {
            let error = match self.send_once(&mut call).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if !error.is_transient() || attempt >= retry.attempts {
                return Err(error);
            }
            self.pause(&error, attempt).await;
            attempt += 1;
        }
    }

    /// As `send`, but a transient failure is the caller's to handle: the request cannot simply be repeated.
    pub async fn send_single(&self, mut call: Call<'_>) -> Result<Response, Error> {
        self.send_once(&mut call).await
    }

    /// Waits as long as the registry asked for, else longer with each attempt.
    pub async fn pause(&self, error: &Error, attempt: u32) {
        let retry = self.connections.config.retry;
        let pause = error
            .retry_after()
            .unwrap_or_else(|| backoff(retry.pause, attempt))
            .min(retry.longest_pause);
        tracing::debug!(%error, attempt, ?pause, "trying again");
        tokio::time::sleep(pause).await;
    }

    /// One attempt; a 401 is answered within it.
    async fn send_once(&self, call: &mut Call<'_>) -> Result<Response, Error> {
        let http = self.connections.client(call.endpoint, &call.url)?;
        let mut authorization = self
            .auth
            .header(&self.connections, call.endpoint, &call.scopes)
            .await?;
        let mut url = call.url.clone();
        let mut http = http;
        let mut answered_challenge = false;
        let mut redirects = 0;
        loop {
            let own_host = self.is_own_host(call, &url);
            let response = self
                .exchange(
                    call,
                    &http,
                    url.clone(),
                    authorization.as_ref().filter(|_| own_host),
                )
                .await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !answered_challenge && own_host {
                answered_challenge = true;
                let fresh = self
                    .auth
                    .answer(
                        &self.connections,
                        call.endpoint,
                        response.headers(),
                        &mut call.scopes,
                        authorization.as_ref(),
                    )
                    .await?;
                if fresh.is_some() {
                    authorization = fresh;
                    continue;
                }
            }
            if let Some(target) = redirect_target(&url, &call.method, &response) {
                redirects += 1;
                if redirects <= MOST_REDIRECTS {
                    http = self.connections.client(call.endpoint, &target)?;
                    url = target;
                    continue;
                }
            }
            if status.is_success() {
                return Ok(response);
            }
            return Err(refused(call, response).await);
        }
    }

    fn is_own_host(&self, call: &Call<'_>, url: &Url) -> bool {
        authority(url).is_some_and(|authority| authority.eq_ignore_ascii_case(&call.endpoint.host))
    }

    async fn exchange(
        &self,
        call: &Call<'_>,
        http: &reqwest::Client,
        url: Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Error> {
        let mut request = http
            .request(call.method.clone(), url)
            .headers(call.headers.clone());
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let sent = Arc::new(AtomicU64::new(0));
        request = match &call.body {
            // Some proxies want the header on every request that could have a body.
            Body::Empty if matches!(call.method, Method::POST | Method::PUT) => {
                request.header(header::CONTENT_LENGTH, 0)
            }
            Body::Empty => request,
            Body::Bytes(bytes) => request.body(bytes.clone()),
            Body::Stream {
                digest,
                length,
                open,
                progress,
            } => {
                let content_failed = |source| Error::Content {
                    digest: (*digest).clone(),
                    source,
                };
                let stream = open().await.map_err(content_failed)?;
                let (sent, progress) = (sent.clone(), progress.clone());
                let counted = stream.inspect_ok(move |chunk| {
                    let total = sent.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
                    if let Some(progress) = &progress {
                        progress(total);
                    }
                });
                request
                    .header(header::CONTENT_LENGTH, *length)
                    .body(reqwest::Body::wrap_stream(counted))
            }
        };
        let answer = std::pin::pin!(request.send());
        self.wait(call, answer, &sent).await
    }

    /// Waits for the answer as long as the body moves, and `silence` longer.
    async fn wait(
        &self,
        call: &Call<'_>,
        mut answer: std::pin::Pin<&mut impl Future<Output = reqwest::Result<Response>>>,
        sent: &AtomicU64,
    ) -> Result<Response, Error> {
        let silence = self.connections.config.retry.silence;
        let mut seen = 0;
        let mut deadline = Instant::now() + silence;
        loop {
            match tokio::time::timeout_at(deadline, &mut answer).await {
                Ok(answer) => {
                    return answer.map_err(|source| Error::Connect {
                        host: call.endpoint.host.clone(),
                        doing: call.doing.clone(),
                        source: source.without_url(),
                    });
                }
                Err(_) if sent.load(Ordering::Relaxed) > seen => {
                    seen = sent.load(Ordering::Relaxed);
                    deadline = Instant::now() + silence;
                }
                Err(_) => {
                    return Err(Error::Stalled {
                        host: call.endpoint.host.clone(),
                        doing: call.doing.clone(),
                        waited: silence,
                    });
                }
            }
        }
    }

    /// Reads a whole body of at most `limit` bytes.
    pub async fn read_body(
        &self,
        response: Response,
        limit: u64,
        host: &str,
        doing: &str,
    ) -> Result<Bytes, Error> {
        let silence = self.connections.config.retry.silence;
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        loop {
            let next = tokio::time::timeout(silence, stream.next())
                .await
                .map_err(|_| Error::Stalled {
                    host: host.to_owned(),
                    doing: doing.to_owned(),
                    waited: silence,
                })?;
            let Some(chunk) = next else {
                return Ok(body.into());
            };
            let chunk = chunk.map_err(|source| Error::Connect {
                host: host.to_owned(),
                doing: doing.to_owned(),
                source: source.without_url(),
            })?;
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(Error::TooLarge {
                    host: host.to_owned(),
                    doing: doing.to_owned(),
                    limit,
                });
            }
            body.extend_from_slice(&chunk);
        }
    }
}

/// `pause`, doubled for each failed attempt, give or take a quarter.
pub(super) fn backoff(pause: Duration, attempt: u32) -> Duration {
    let grown = pause.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    grown.mul_f64(rand::random_range(0.75..1.25))
}

fn redirect_target(url: &Url, method: &Method, response: &Response) -> Option<Url> {
    let keeps_method = matches!(
        response.status(),
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
    );
    let redirects_reads = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER
    ) && matches!(*method, Method::GET | Method::HEAD);
    if !keeps_method && !redirects_reads {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let target = url.join(location).ok()?;
    matches!(target.scheme(), "http" | "https").then_some(target)
}

async fn refused(call: &Call<'_>, response: Response) -> Error {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| parse_retry_after(value.to_str().ok()?, SystemTime::now()));
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    // The status says enough if the body does not come.
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout(Duration::from_secs(5), stream.next()).await {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > LONGEST_ERROR_BODY {
            break;
        }
    }
    Error::Refused(Box::new(Refusal {
        host: call.endpoint.host.clone(),
        repository: call.repository.to_owned(),
        doing: call.doing.clone(),
        status,
        errors: Refusal::parse_reasons(&body),
        retry_after,
    }))
}

/// Seconds, or a date in HTTP's format.
fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    let date: SystemTime = date.timestamp().into();
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 7);
        for (text, expected) in [
            ("3", Some(3)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(
                parse_retry_after(text, now),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
    }

    #[test]
    fn pauses_double_and_stay_finite() {
        let second = Duration::from_secs(1);
        for (attempt, low, high) in [(1, 0.75, 1.25), (2, 1.5, 2.5), (4, 6.0, 10.0)] {
            let pause = backoff(second, attempt).as_secs_f64();
            assert!((low..=high).contains(&pause), "{attempt}: {pause}");
        }
        assert!(backoff(second, u32::MAX) < Duration::from_secs(100_000));
    }
}
