//! The way out of steps whose only network is the daemon: an HTTP proxy for each of them.
//!
//! Every request is shown to a [`Judge`] before it goes anywhere, and what came of it is noted. Encrypted connections
//! end here: the step is made to trust an [`Authority`] of its build, which vouches for whatever server the step asks
//! for, and the daemon checks the real one. The network behind is the one that the step would have had without all this.
//!
//! Bodies go through piece by piece. Everything of a proxy, its connections too, ends with it.

mod address;
mod authority;
mod connect;
mod exchange;
mod fetched;
mod held;
mod serve;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use http::Method;
use reqwest::Url;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::executor::outlet::Outlet;
use crate::executor::step::OutletLink;

pub use authority::{Authority, AuthorityError};
pub use connect::{Network, Roots};
pub use fetched::{Fetched, Missed, Requests};

/// Says what becomes of a request.
pub trait Judge: Send + Sync + 'static {
    /// The address to ask, which may be another one, or why none is to be asked.
    fn judge<'a>(&'a self, method: &'a Method, url: &'a Url) -> BoxFuture<'a, Result<Url, Refusal>>;
}

/// Why a request goes nowhere, in the words that the step gets to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// The proxy of one step.
#[derive(Debug)]
pub struct Proxy {
    link: OutletLink,
    requests: Arc<Requests>,
    /// No more connections are taken.
    closing: CancellationToken,
    /// No connection is left.
    closed: CancellationToken,
    tasks: Tasks,
}

/// What belongs to a proxy and ends with it.
#[derive(Clone, Debug, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn abort(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

impl Proxy {
    /// Starts a proxy that waits for its step. `folder` is private and outlives it.
    pub fn start(
        folder: &Path,
        authority: Arc<Authority>,
        roots: &Roots,
        network: Network,
        judge: impl Judge,
    ) -> io::Result<Self> {
        let outlet = Outlet::listen(folder)?;
        let roots = roots.clone();
        let link = OutletLink {
            socket: outlet.path().to_owned(),
            authority: authority.certificate().to_owned(),
        };
        let requests = Arc::<Requests>::default();
        let (closing, closed) = (CancellationToken::new(), CancellationToken::new());
        let tasks = Tasks::default();
        let serving = {
            let (requests, closing, tasks) = (Arc::clone(&requests), closing.clone(), tasks.clone());
            let end = closed.clone().drop_guard();
            async move {
                let _end = end;
                let opened = tokio::select! {
                    opened = outlet.open() => opened,
                    () = closing.cancelled() => return,
                };
                let (listener, outside) = match opened {
                    Ok(opened) => opened,
                    Err(error) => return tracing::debug!(%error, "a step has no use for its proxy"),
                };
                let client = connect::client(outside, network, roots, tasks);
                let exchange = exchange::Exchange::new(client, Arc::new(judge), requests);
                serve::serve(listener, exchange, authority, closing).await;
            }
        };
        tasks.spawn(serving);
        Ok(Self {
            link,
            requests,
            closing,
            closed,
            tasks,
        })
    }

    /// What the step is to be told.
    pub fn link(&self) -> OutletLink {
        self.link.clone()
    }

    /// Once the step has ended: what it asked for.
    pub async fn finish(&self) -> &Requests {
        self.closing.cancel();
        self.closed.cancelled().await;
        self.tasks.abort();
        &self.requests
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The tasks hold each other: ending them lets go of the rest.
        self.tasks.abort();
    }
}
