//! Steps whose only network is the daemon's proxy: what they may ask for, and what they asked for.
//!
//! What a step fetched is recorded beside its result, so that a result from the records still tells what it was made
//! from. Without that record it is none.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Method;
use proto::pb;
use reqwest::Url;

use super::Job;
use crate::executor::step::NetworkMode;
use crate::graph::Vertex;
use crate::ops::{self, OpError};
use crate::progress::{LogStream, VertexProgress};
use crate::proxy::{Authority, Fetched, Judge, Network, Proxy, Refusal};
use crate::store::{CacheKey, LayerDraft, RecordKind};

/// A step's proxy, and the private folder that its socket is in.
#[derive(Debug)]
pub(super) struct Proxied {
    proxy: Proxy,
    _folder: LayerDraft,
}

impl Proxied {
    pub(super) fn link(&self) -> crate::executor::step::OutletLink {
        self.proxy.link()
    }

    /// Once the step has ended: what it fetched, after saying so in its log.
    pub(super) async fn finish(&self, progress: &VertexProgress) -> Fetched {
        let requests = self.proxy.finish().await;
        let summary = requests.summary();
        if !summary.is_empty() {
            progress.log(LogStream::Stderr, summary.into());
        }
        requests.fetched()
    }
}

impl Job {
    /// Whether an operation is a step that has the proxy for its network.
    pub(super) fn proxies(&self, op: &pb::Op) -> bool {
        match &op.op {
            Some(pb::op::Op::Exec(exec)) => self.notes().proxies(exec),
            _ => false,
        }
    }

    /// A proxy for a step that shall have one.
    pub(super) fn proxy_for(self: &Arc<Self>, exec: &pb::ExecOp) -> Result<Option<Proxied>, OpError> {
        if !self.notes().proxies(exec) {
            return Ok(None);
        }
        let network = match ops::exec::network(exec)? {
            NetworkMode::None => return Ok(None),
            NetworkMode::Host => Network::Machine,
            NetworkMode::Default if self.solver().executor().default_is_host() => Network::Machine,
            NetworkMode::Default => Network::Others,
        };
        let folder = self.store().draft()?;
        let judge = Policies(Arc::clone(self));
        let roots = self.solver().roots();
        let proxy = Proxy::start(&folder.work(), self.authority()?, roots, network, judge);
        Ok(Some(Proxied {
            proxy: proxy.map_err(OpError::Proxy)?,
            _folder: folder,
        }))
    }

    fn authority(&self) -> Result<Arc<Authority>, OpError> {
        if let Some(known) = self.known_authority().get() {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(Authority::new()?);
        Ok(Arc::clone(self.known_authority().get_or_init(|| made)))
    }

    /// Notes what a step fetched, for this build and for others that take its result from the records, where it is already:
    /// such a record without its result is removed.
    pub(super) fn remember_fetched(&self, vertex: &Vertex, keys: &[CacheKey], fetched: Fetched) {
        match serde_json::to_vec(&fetched) {
            Ok(record) => {
                for key in keys {
                    self.store()
                        .put_record(RecordKind::Fetched, key.as_bytes(), record.clone());
                }
            }
            Err(error) => tracing::error!(%error, "what a step fetched is not remembered"),
        }
        self.notes().fetched(&vertex.digest, fetched);
    }

    /// Notes what a step fetched when its result was recorded under `key`; false if nobody knows.
    pub(super) fn recall_fetched(&self, vertex: &Vertex, key: &CacheKey) -> bool {
        match self.fetched_under(vertex, key) {
            Some(Some(fetched)) => self.notes().fetched(&vertex.digest, fetched),
            Some(None) => {}
            None => return false,
        }
        true
    }

    /// What a step fetched when its result was recorded under `key`, which is not a question for all of them. `None` if it
    /// is one and nobody knows.
    pub(super) fn fetched_under(&self, vertex: &Vertex, key: &CacheKey) -> Option<Option<Fetched>> {
        if !self.proxies(&vertex.op) {
            return Some(None);
        }
        let record = self.store().get_record(RecordKind::Fetched, key.as_bytes());
        serde_json::from_slice(&record.ok()??).ok().map(Some)
    }
}

/// The policies of a build about what its steps ask for: to them, a request is an http source.
struct Policies(Arc<Job>);

impl Judge for Policies {
    fn judge<'a>(&'a self, method: &'a Method, url: &'a Url) -> BoxFuture<'a, Result<Url, Refusal>> {
        async move {
            let source = pb::SourceOp {
                identifier: url.to_string(),
                ..pb::SourceOp::default()
            };
            let allowed = self.0.allowed_to_step(&source).await;
            let used = allowed.map_err(|error| Refusal(proto::chain(&error)))?;
            converted(method, url, &source, &used)
        }
        .boxed()
    }
}

/// The address that a policy puts in the place of another one.
fn converted(method: &Method, url: &Url, source: &pb::SourceOp, used: &pb::SourceOp) -> Result<Url, Refusal> {
    if used == source {
        return Ok(url.clone());
    }
    let refused = |problem: &str| {
        Err(Refusal(format!(
            "the source policy puts another source in the place of {url}, {problem}"
        )))
    };
    if method != Method::GET {
        return refused("which can be done for GET only");
    }
    if !used.attrs.is_empty() {
        return refused("with attributes, of which a request of a step has none");
    }
    match used.identifier.parse::<Url>() {
        // It would be told wherever addresses are.
        Ok(other) if !other.username().is_empty() || other.password().is_some() => {
            refused("with a user or a password, which belong into a header")
        }
        Ok(other) if matches!(other.scheme(), "http" | "https") && other.has_host() => Ok(other),
        _ => refused("which is no address of an http or https server"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_files_take_the_place_of_others() {
        let url: Url = "http://a/b".parse().unwrap();
        let source = |identifier: &str| pb::SourceOp {
            identifier: identifier.to_owned(),
            ..pb::SourceOp::default()
        };
        let asked = source(url.as_str());
        let judged = |method: Method, used: &pb::SourceOp| {
            converted(&method, &url, &asked, used).map(|url| url.to_string())
        };
        assert_eq!(judged(Method::POST, &asked).unwrap(), "http://a/b");
        assert_eq!(
            judged(Method::GET, &source("https://c/d")).unwrap(),
            "https://c/d"
        );
        let mut pinned = source("http://a/b");
        pinned.attrs.insert("http.checksum".into(), "sha256:00".into());
        for (method, used) in [
            (Method::HEAD, source("https://c/d")),
            (Method::GET, source("docker-image://c")),
            (Method::GET, source("https://user:token@c/d")),
            (Method::GET, pinned),
        ] {
            let refusal = judged(method, &used).unwrap_err();
            let refusal = refusal.to_string();
            assert!(
                refusal.contains("http://a/b") && !refusal.contains("token"),
                "{refusal}"
            );
        }
    }
}
