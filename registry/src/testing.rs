//! A registry in this process, over loopback, that does what a test tells it: a real program, not a mock.
//!
//! It keeps everything in memory, speaks the distribution API including mounts, ranges and chunked uploads, and lets
//! tests put faults in front of any request. Dropping it ends it.

mod access;
mod content;
mod faults;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use self::content::Content;
use self::faults::{Gate, Rule};
use crate::digest::Digest;
use crate::manifest::{Descriptor, RawManifest};
use crate::reference::{Reference, Repository};

pub use self::access::Access;
pub use self::faults::Fault;

/// A running registry.
#[derive(Debug)]
pub struct FakeRegistry {
    address: SocketAddr,
    content: Arc<Mutex<Content>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeRegistry {
    /// Starts an empty, open one on a free port of 127.0.0.1.
    pub async fn start() -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let content = Arc::new(Mutex::new(Content {
            mounts: true,
            address: address.to_string(),
            ..Content::default()
        }));
        let router = Router::new().fallback(answer).with_state(content.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "fake registry ended");
            }
        });
        Ok(Self {
            address,
            content,
            server,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// A repository of this registry. Panics on an invalid path, which is a mistake in the test.
    #[expect(clippy::panic, reason = "only tests call this, with literals")]
    pub fn repository(&self, path: &str) -> Repository {
        match format!("{}/{path}", self.address).parse() {
            Ok(repository) => repository,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn set_access(&self, access: Access) {
        self.lock().access = access;
    }

    /// Whether mounts are granted (the default) or answered with an upload.
    pub fn set_mounts(&self, mounts: bool) {
        self.lock().mounts = mounts;
    }

    /// The next `times` requests with this method whose path contains `path_part` go wrong.
    pub fn fail(&self, method: Method, path_part: &str, times: u32, fault: Fault) {
        self.lock().rules.push(Rule {
            method,
            path_part: path_part.to_owned(),
            fault,
            left: times,
        });
    }

    /// From now on, requests are answered in rounds of these sizes, all of a round at once; then as usual.
    pub fn answer_in_rounds(&self, rounds: &[usize]) {
        self.lock().gate = Gate::new(rounds);
    }

    /// How many of those rounds did not come.
    pub fn rounds_left(&self) -> usize {
        self.lock().gate.left()
    }

    /// `METHOD /path?query` of every request so far; tells and forgets.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }

    /// Declares all tokens handed out so far invalid.
    pub fn forget_tokens(&self) {
        self.lock().tokens.clear();
    }

    pub fn add_blob(
        &self,
        repository: &Repository,
        media_type: &str,
        content: impl Into<Bytes>,
    ) -> Descriptor {
        let content = content.into();
        let descriptor = Descriptor::of(media_type, &content);
        let key = (repository.path().to_owned(), descriptor.digest.clone());
        self.lock().blobs.insert(key, content);
        descriptor
    }

    pub fn add_manifest(&self, reference: &Reference, manifest: &RawManifest) {
        let path = reference.repository().path().to_owned();
        let mut content = self.lock();
        if let Some(tag) = reference.tag() {
            content
                .tags
                .insert((path.clone(), tag.to_owned()), manifest.digest.clone());
        }
        content.manifests.insert(
            (path, manifest.digest.clone()),
            (manifest.media_type.clone(), manifest.bytes.clone()),
        );
    }

    pub fn blob(&self, repository: &Repository, digest: &Digest) -> Option<Bytes> {
        let key = (repository.path().to_owned(), digest.clone());
        self.lock().blobs.get(&key).cloned()
    }

    pub fn remove_blob(&self, repository: &Repository, digest: &Digest) {
        let key = (repository.path().to_owned(), digest.clone());
        self.lock().blobs.remove(&key);
    }

    /// What a tag or digest names.
    pub fn manifest(&self, reference: &Reference) -> Option<RawManifest> {
        let (media_type, bytes) = self
            .lock()
            .find_manifest(reference.repository().path(), reference.manifest_name())?;
        Some(RawManifest::new(bytes, Some(&media_type)))
    }

    pub fn tags(&self, repository: &Repository) -> Vec<String> {
        let content = self.lock();
        let of_repository = content.tags.keys().filter(|(path, _)| path == repository.path());
        of_repository.map(|(_, tag)| tag.clone()).collect()
    }
}

async fn answer(State(content): State<Arc<Mutex<Content>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 1 << 30).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let waits = content
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .gate
        .arrive();
    if let Some(waits) = waits {
        // A gate that was replaced lets everybody through.
        let _ = waits.await;
    }
    let (response, fault) = content
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .answer_or_fail(&parts.method, &parts.uri, &parts.headers, body);
    faults::apply(fault, response).await
}
