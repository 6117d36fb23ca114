//! Manifests and tags of a repository.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;

use super::Client;
use super::auth::Scopes;
use super::error::{Corruption, Error, Finding};
use super::host::Endpoint;
use super::transport::{Body, Call};
use crate::digest::Digest;
use crate::manifest::{Descriptor, RawManifest};
use crate::media_type;
use crate::reference::{Reference, Repository};

/// Registries refuse larger manifests on push.
pub(super) const LARGEST_MANIFEST: u64 = 4 << 20;
const CONTENT_DIGEST: &str = "docker-content-digest";

impl Client {
    /// The manifest or index that a tag or digest names.
    pub async fn manifest(&self, reference: &Reference) -> Result<RawManifest, Error> {
        let repository = reference.repository();
        let endpoints = self.transport.connections.pull_endpoints(repository)?;
        self.try_each(&endpoints, |endpoint| async move {
            self.manifest_from(&endpoint, reference).await
        })
        .await
    }

    async fn manifest_from(&self, endpoint: &Endpoint, reference: &Reference) -> Result<RawManifest, Error> {
        let repository = reference.repository();
        let doing = format!("pull manifest {reference}");
        let expected = reference.digest().cloned();
        let mut attempt = 1;
        let (media_type, announced, bytes) = loop {
            let call = self
                .manifest_call(endpoint, Method::GET, reference, doing.clone())
                .await?;
            let response = self.transport.send(call).await?;
            let media_type = content_type(response.headers());
            let announced = announced_digest(response.headers());
            let body = self
                .transport
                .read_body(response, LARGEST_MANIFEST, &endpoint.host, &doing)
                .await;
            match body {
                Ok(bytes) => break (media_type, announced, bytes),
                // The connection broke in the middle of the body, which `send` does not see.
                Err(error) if error.is_transient() && attempt < self.config().retry.attempts => {
                    self.transport.pause(&error, attempt).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let raw = RawManifest::new(bytes, media_type.as_deref());
        match expected.or(announced) {
            Some(digest) if raw.matches(&digest) => {
                Ok(RawManifest::with_digest(raw.bytes, media_type.as_deref(), digest))
            }
            Some(expected) => Err(Error::Corrupt(Box::new(Corruption {
                host: endpoint.host.clone(),
                repository: repository.to_string(),
                expected,
                finding: Finding::Digest(raw.digest),
            }))),
            None => Ok(raw),
        }
    }

    /// What a tag or digest names, without fetching it; `None` if there is no such thing.
    ///
    /// Asks the registry itself: mirrors may lag behind, and this is how a push finds out what is there.
    pub async fn head_manifest(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        let endpoint = self.transport.connections.origin(reference.repository())?;
        match self.head_at(&endpoint, reference).await {
            Ok(descriptor) => Ok(Some(descriptor)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is there already, for somebody who is about to write it. Some registries let nobody look at what does not
    /// exist: that counts as not there, and if we may not write either, writing says so.
    pub async fn head_before_writing(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        match self.head_manifest(reference).await {
            Err(error) if error.is_denied() => Ok(None),
            found => found,
        }
    }

    /// Resolves a reference to a descriptor through mirrors, like `manifest`, but without the body where possible: the
    /// registry itself is asked only for what no mirror has.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let endpoints = self
            .transport
            .connections
            .pull_endpoints(reference.repository())?;
        let head = |endpoint: Arc<Endpoint>| async move { self.head_at(&endpoint, reference).await };
        match self.try_each(&endpoints, head).await {
            Ok(descriptor) => Ok(descriptor),
            Err(_) => Ok(self.manifest(reference).await?.descriptor()),
        }
    }

    async fn head_at(&self, endpoint: &Endpoint, reference: &Reference) -> Result<Descriptor, Error> {
        let doing = format!("look up {reference}");
        let call = self
            .manifest_call(endpoint, Method::HEAD, reference, doing)
            .await?;
        let response = self.transport.send(call).await?;
        let size = response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        if let (Some(digest), Some(size)) = (announced_digest(response.headers()), size) {
            let media_type = content_type(response.headers()).unwrap_or_default();
            return Ok(Descriptor::new(&media_type, digest, size));
        }
        // Not every registry answers HEAD in full.
        Ok(self.manifest_from(endpoint, reference).await?.descriptor())
    }

    async fn manifest_call<'a>(
        &self,
        endpoint: &'a Endpoint,
        method: Method,
        reference: &'a Reference,
        doing: String,
    ) -> Result<Call<'a>, Error> {
        let repository = reference.repository();
        let path = format!("manifests/{}", reference.manifest_name());
        let mut headers = HeaderMap::new();
        for media_type in media_type::MANIFESTS {
            headers.append(header::ACCEPT, HeaderValue::from_static(media_type));
        }
        headers.append(header::ACCEPT, HeaderValue::from_static("*/*;q=0.1"));
        Ok(Call {
            endpoint,
            repository: repository.path(),
            doing,
            method,
            url: self
                .transport
                .connections
                .url(endpoint, repository.path(), &path)
                .await?,
            scopes: Scopes::pull(repository.path()),
            headers,
            body: Body::Empty,
        })
    }

    /// Stores a manifest under the reference's tag, or under its digest if it has no tag.
    pub async fn put_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<(), Error> {
        let repository = reference.repository();
        let endpoint = self.transport.connections.origin(repository)?;
        let name = reference.tag().unwrap_or(manifest.digest.as_str());
        let mut headers = HeaderMap::new();
        if let Ok(media_type) = HeaderValue::try_from(&manifest.media_type) {
            headers.insert(header::CONTENT_TYPE, media_type);
        }
        let url = self
            .transport
            .connections
            .url(&endpoint, repository.path(), &format!("manifests/{name}"))
            .await?;
        self.transport
            .send(Call {
                endpoint: &endpoint,
                repository: repository.path(),
                doing: format!("push manifest {name} to {repository}"),
                method: Method::PUT,
                url,
                scopes: Scopes::push(repository.path()),
                headers,
                body: Body::Bytes(manifest.bytes.clone()),
            })
            .await?;
        Ok(())
    }

    /// Removes a tag or manifest; `false` if there was none.
    pub async fn delete_manifest(&self, reference: &Reference) -> Result<bool, Error> {
        let endpoint = self.transport.connections.origin(reference.repository())?;
        let doing = format!("delete {reference}");
        let mut call = self
            .manifest_call(&endpoint, Method::DELETE, reference, doing)
            .await?;
        call.scopes = Scopes::delete(reference.repository().path());
        match self.transport.send(call).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All tags of a repository.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let endpoint = self.transport.connections.origin(repository)?;
        let doing = format!("list tags of {repository}");
        let mut tags = Vec::new();
        let mut url = Some(
            self.transport
                .connections
                .url(&endpoint, repository.path(), "tags/list")
                .await?,
        );
        while let Some(page_url) = url {
            let response = self
                .transport
                .look_up(
                    &endpoint,
                    repository,
                    Method::GET,
                    page_url.clone(),
                    doing.clone(),
                )
                .await?;
            let next = next_page(&page_url, response.headers());
            let body: Bytes = self
                .transport
                .read_body(response, LARGEST_MANIFEST, &endpoint.host, &doing)
                .await?;
            if let Ok(page) = serde_json::from_slice::<Page>(&body) {
                tags.extend(page.tags.unwrap_or_default());
            }
            url = next.filter(|next| *next != page_url);
        }
        Ok(tags)
    }

    /// True if the server speaks the API and takes our credentials for it.
    pub async fn ping(&self, repository: &Repository) -> Result<(), Error> {
        let endpoint = self.transport.connections.origin(repository)?;
        let mut url = self.transport.connections.url(&endpoint, "", "").await?;
        url.set_path("/v2/");
        let call = Call {
            endpoint: &endpoint,
            repository: "",
            doing: "ping".to_owned(),
            method: Method::GET,
            url,
            scopes: Scopes::default(),
            headers: HeaderMap::new(),
            body: Body::Empty,
        };
        match self.transport.send(call).await {
            Err(error) if error.status() != Some(StatusCode::NOT_FOUND) => Err(error),
            _ => Ok(()),
        }
    }
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = text.split(';').next().unwrap_or(text);
    Some(media_type.trim().to_owned())
}

fn announced_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// `Link: </v2/…?last=x>; rel="next"`.
fn next_page(current: &reqwest::Url, headers: &HeaderMap) -> Option<reqwest::Url> {
    let link = headers.get(header::LINK)?.to_str().ok()?;
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| current.join(target).ok())?
}
