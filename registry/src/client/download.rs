//! Blobs on their way in: streamed, verified, resumed where they broke off.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tokio_util::io::StreamReader;

use super::Client;
use super::auth::Scopes;
use super::error::{Corruption, Error, Finding};
use super::host::Endpoint;
use super::transport::{Body, Call, Transport, backoff};
use crate::digest::{Digest, Hasher};
use crate::manifest::Descriptor;
use crate::reference::Repository;

/// The bytes of a blob, as a stream.
///
/// Size and digest are checked at the end: the last item of a corrupt blob is an error, and a reader that stops before
/// it has seen nothing that can be trusted.
pub struct BlobReader {
    stream: BoxStream<'static, Result<Bytes, Error>>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobReader")
    }
}

impl Stream for BlobReader {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

impl BlobReader {
    /// As `AsyncRead`; the `Error` is inside the `io::Error`.
    pub fn into_reader(self) -> StreamReader<BoxStream<'static, std::io::Result<Bytes>>, Bytes> {
        StreamReader::new(self.stream.map_err(std::io::Error::other).boxed())
    }
}

impl Client {
    /// The size of a blob, `None` if the registry does not have it.
    pub async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<Option<u64>, Error> {
        let endpoint = self.transport.connections.origin(repository)?;
        let url = self
            .transport
            .connections
            .url(&endpoint, repository.path(), &format!("blobs/{digest}"))
            .await?;
        let sent = self
            .transport
            .look_up(
                &endpoint,
                repository,
                Method::HEAD,
                url,
                format!("look up blob {digest} in {repository}"),
            )
            .await;
        match sent {
            Ok(response) => Ok(Some(
                response
                    .headers()
                    .get(header::CONTENT_LENGTH)
                    .and_then(|value| value.to_str().ok()?.parse().ok())
                    .unwrap_or(0),
            )),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Streams a blob. Fails at once if no server has it.
    pub async fn blob(&self, repository: &Repository, descriptor: &Descriptor) -> Result<BlobReader, Error> {
        self.blob_from(repository, descriptor, 0).await
    }

    /// Streams a blob from `offset` on. Only a stream from the beginning can be verified.
    pub(super) async fn blob_from(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<BlobReader, Error> {
        let mut download = Download {
            transport: self.transport.clone(),
            repository: repository.clone(),
            descriptor: descriptor.clone(),
            endpoints: self.transport.connections.pull_endpoints(repository)?,
            current: 0,
            offset,
            hasher: (offset == 0).then(|| Hasher::new(descriptor.digest.algorithm())),
            failures: 0,
            body: None,
        };
        download.open().await?;
        let stream = futures::stream::try_unfold(download, |mut download| async move {
            Ok(download.next().await?.map(|chunk| (chunk, download)))
        });
        Ok(BlobReader {
            stream: stream.boxed(),
        })
    }

    /// A whole small blob (a config).
    pub async fn blob_bytes(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes, Error> {
        if descriptor.size > limit {
            return Err(Error::TooLarge {
                host: repository.registry().to_owned(),
                doing: format!("pull blob {} of {repository}", descriptor.digest),
                limit,
            });
        }
        let mut reader = self.blob(repository, descriptor).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }
}

/// A download and how far it got.
struct Download {
    transport: Transport,
    repository: Repository,
    descriptor: Descriptor,
    endpoints: Vec<Arc<Endpoint>>,
    current: usize,
    offset: u64,
    hasher: Option<Hasher>,
    failures: u32,
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
}

impl Download {
    fn host(&self) -> String {
        self.endpoints
            .get(self.current)
            .map(|endpoint| endpoint.host.clone())
            .unwrap_or_default()
    }

    fn corrupt(&self, finding: Finding) -> Error {
        Error::Corrupt(Box::new(Corruption {
            host: self.host(),
            repository: self.repository.to_string(),
            expected: self.descriptor.digest.clone(),
            finding,
        }))
    }

    fn doing(&self) -> String {
        format!("pull blob {} of {}", self.descriptor.digest, self.repository)
    }

    /// Opens the blob at the current offset, at the current server or the next that has it.
    async fn open(&mut self) -> Result<(), Error> {
        loop {
            match self.open_here().await {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(error) if self.current + 1 < self.endpoints.len() => {
                    tracing::debug!(mirror = self.host(), %error, "mirror passed over");
                    self.current += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn open_here(&mut self) -> Result<BoxStream<'static, reqwest::Result<Bytes>>, Error> {
        let Some(endpoint) = self.endpoints.get(self.current).cloned() else {
            unreachable!("a registry is always its own last endpoint");
        };
        let path = format!("blobs/{}", self.descriptor.digest);
        let mut headers = HeaderMap::new();
        if self.offset > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.offset))
        {
            headers.insert(header::RANGE, range);
        }
        let response = self
            .transport
            .send(Call {
                endpoint: &endpoint,
                repository: self.repository.path(),
                doing: self.doing(),
                method: Method::GET,
                url: self
                    .transport
                    .connections
                    .url(&endpoint, self.repository.path(), &path)
                    .await?,
                scopes: Scopes::pull(self.repository.path()),
                headers,
                body: Body::Empty,
            })
            .await?;
        // A server that does not know ranges starts over: what we have already is dropped.
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => 0,
            _ => self.offset,
        };
        let stream = response.bytes_stream().map_ok(move |mut chunk| {
            let dropped = usize::try_from(skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
            skip -= dropped as u64;
            chunk.split_off(dropped)
        });
        Ok(stream.boxed())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.body.is_none() {
                self.open().await?;
            }
            let Some(body) = &mut self.body else { continue };
            let retry = self.transport.connections.config.retry;
            let error = match tokio::time::timeout(retry.silence, body.next()).await {
                Ok(Some(Ok(chunk))) if chunk.is_empty() => continue,
                Ok(Some(Ok(chunk))) => return self.take(chunk).map(Some),
                Ok(None) if self.offset >= self.descriptor.size => {
                    self.verify()?;
                    return Ok(None);
                }
                // A body without a length may end early without an error.
                Ok(None) => self.corrupt(Finding::Size {
                    expected: self.descriptor.size,
                    actual: self.offset,
                }),
                Ok(Some(Err(source))) => Error::Connect {
                    host: self.host(),
                    doing: self.doing(),
                    source: source.without_url(),
                },
                Err(_) => Error::Stalled {
                    host: self.host(),
                    doing: self.doing(),
                    waited: retry.silence,
                },
            };
            self.body = None;
            self.failures += 1;
            if self.failures >= retry.attempts {
                if self.current + 1 >= self.endpoints.len() {
                    return Err(error);
                }
                self.current += 1;
                self.failures = 0;
            }
            tracing::debug!(%error, offset = self.offset, "resuming");
            tokio::time::sleep(backoff(retry.pause, self.failures.max(1)).min(retry.longest_pause)).await;
        }
    }

    fn take(&mut self, chunk: Bytes) -> Result<Bytes, Error> {
        self.offset += chunk.len() as u64;
        if self.offset > self.descriptor.size {
            return Err(self.corrupt(Finding::Size {
                expected: self.descriptor.size,
                actual: self.offset,
            }));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        Ok(chunk)
    }

    fn verify(&mut self) -> Result<(), Error> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        let actual = hasher.finish();
        if actual == self.descriptor.digest {
            return Ok(());
        }
        Err(self.corrupt(Finding::Digest(actual)))
    }
}
