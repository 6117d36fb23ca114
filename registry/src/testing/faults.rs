//! What the fake registry does instead of answering well, and when it answers at all.

use std::collections::VecDeque;

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use tokio::sync::oneshot;

/// What to do instead of answering well.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, with these headers.
    Status(StatusCode, Vec<(&'static str, String)>),
    /// The right headers, but the body ends after so many bytes.
    Truncate(usize),
    /// One byte of the body is another.
    Corrupt,
    /// The connection is closed without an answer.
    Close,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub method: Method,
    pub path_part: String,
    pub fault: Fault,
    pub left: u32,
}

/// Answers in rounds: nobody is answered before as many requests wait as the round expects. A client that asks one
/// after the other what it could ask at once never gets an answer.
#[derive(Debug, Default)]
pub(super) struct Gate {
    rounds: VecDeque<usize>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Gate {
    pub fn new(rounds: &[usize]) -> Self {
        Self {
            rounds: rounds.iter().copied().collect(),
            waiting: Vec::new(),
        }
    }

    /// What a request has to wait for; nothing once all rounds are over.
    pub fn arrive(&mut self) -> Option<oneshot::Receiver<()>> {
        let expected = *self.rounds.front()?;
        let (sender, receiver) = oneshot::channel();
        self.waiting.push(sender);
        if self.waiting.len() >= expected {
            self.rounds.pop_front();
            for waiting in self.waiting.drain(..) {
                // A client that went away needs no answer.
                let _ = waiting.send(());
            }
        }
        Some(receiver)
    }

    /// How many rounds are still to come.
    pub fn left(&self) -> usize {
        self.rounds.len()
    }
}

/// Does to a good answer what the fault says.
pub(super) async fn apply(fault: Option<Fault>, response: Response) -> Response {
    match fault {
        Some(Fault::Status(status, headers)) => {
            let mut response = status.into_response();
            for (name, value) in headers {
                if let Ok(value) = HeaderValue::try_from(value) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Some(Fault::Close) => cut_off(&Bytes::from_static(b"x"), 0, StatusCode::OK),
        Some(Fault::Truncate(length)) => spoil(response, |body, status| cut_off(body, length, status)).await,
        Some(Fault::Corrupt) => {
            spoil(response, |body, status| {
                let mut body = body.to_vec();
                if let Some(last) = body.last_mut() {
                    *last ^= 1;
                }
                (status, body).into_response()
            })
            .await
        }
        None => response,
    }
}

async fn spoil(response: Response, change: impl FnOnce(&Bytes, StatusCode) -> Response) -> Response {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let mut response = change(&body, parts.status);
    for (name, value) in &parts.headers {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

/// Announces all of `body`, sends `length` bytes of it and breaks the connection.
fn cut_off(body: &Bytes, length: usize, status: StatusCode) -> Response {
    let first = body.slice(..length.min(body.len()));
    let broken = || std::io::Error::other("cut off by a test");
    let stream = futures::stream::iter([Ok(first), Err(broken())]);
    let mut response = (status, Body::from_stream(stream)).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}
