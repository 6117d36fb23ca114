//! Blobs on their way out: skipped where they exist, mounted where another repository has them, else uploaded.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use reqwest::{Response, Url};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::Client;
use super::auth::Scopes;
use super::error::Error;
use super::host::{Endpoint, authority};
use super::transport::{Body, ByteStream, Call, OnProgress, Transport};
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::reference::Repository;

const FILE_CHUNK: usize = 256 * 1024;

type Open = dyn Fn(u64) -> BoxFuture<'static, std::io::Result<ByteStream>> + Send + Sync;

/// Where the bytes of a blob come from; can be read again from any offset.
#[derive(Clone)]
pub enum BlobSource {
    Bytes(Bytes),
    File(PathBuf),
    /// Opens the content at an offset.
    Stream(Arc<Open>),
}

impl fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl BlobSource {
    /// A blob of other repositories, read from the first that has it while it is written here.
    pub fn remote(client: Client, repositories: Vec<Repository>, descriptor: Descriptor) -> Self {
        Self::Stream(Arc::new(move |offset| {
            let (client, repositories, descriptor) =
                (client.clone(), repositories.clone(), descriptor.clone());
            Box::pin(async move {
                let mut failure = None;
                for repository in &repositories {
                    match client.blob_from(repository, &descriptor, offset).await {
                        Ok(reader) => return Ok(reader.map_err(std::io::Error::other).boxed()),
                        Err(error) => {
                            tracing::debug!(%repository, %error, "blob not to be had here");
                            failure.get_or_insert(error);
                        }
                    }
                }
                Err(failure.map_or_else(
                    || std::io::Error::from(std::io::ErrorKind::NotFound),
                    std::io::Error::other,
                ))
            })
        }))
    }

    /// `length` bytes from `offset` on.
    fn open(&self, offset: u64, length: u64) -> BoxFuture<'static, std::io::Result<ByteStream>> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).map_or(bytes.len(), |start| start.min(bytes.len()));
                let end = usize::try_from(offset + length).map_or(bytes.len(), |end| end.min(bytes.len()));
                let part = bytes.slice(start..end);
                Box::pin(async move { Ok(futures::stream::once(async { Ok(part) }).boxed()) })
            }
            Self::File(path) => {
                let path = path.clone();
                Box::pin(async move {
                    let mut file = tokio::fs::File::open(path).await?;
                    file.seek(std::io::SeekFrom::Start(offset)).await?;
                    Ok(ReaderStream::with_capacity(file.take(length), FILE_CHUNK).boxed())
                })
            }
            Self::Stream(open) => {
                let open = open.clone();
                Box::pin(async move {
                    let mut left = length;
                    // A stream has no end of its own at a chunk's border.
                    let stream = open(offset).await?.map_ok(move |chunk| {
                        let taken = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
                        left -= taken as u64;
                        (chunk.slice(..taken), left)
                    });
                    let mut ended = false;
                    Ok(stream
                        .try_take_while(move |(_, left)| {
                            let goes_on = !ended;
                            ended = *left == 0;
                            std::future::ready(Ok(goes_on))
                        })
                        .map_ok(|(chunk, _)| chunk)
                        .boxed())
                })
            }
        }
    }
}

/// What became of a blob that was to be pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    Existed,
    Mounted,
    Uploaded,
}

#[derive(Clone, Default)]
pub struct UploadOptions {
    /// Repositories that have the blob; those of the same registry are tried in order.
    pub mount_from: Vec<Repository>,
    pub progress: Option<OnProgress>,
}

impl fmt::Debug for UploadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadOptions")
            .field("mount_from", &self.mount_from)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Makes sure that the repository has the blob.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        source: &BlobSource,
        options: &UploadOptions,
    ) -> Result<Pushed, Error> {
        if self.blob_size(repository, &descriptor.digest).await?.is_some() {
            return Ok(Pushed::Existed);
        }
        let mut upload = None;
        let mountable = options
            .mount_from
            .iter()
            .filter(|from| from.registry() == repository.registry() && *from != repository);
        for from in mountable {
            match Upload::begin(self, repository, Some((from, &descriptor.digest))).await {
                Ok(Begun::Mounted) => return Ok(Pushed::Mounted),
                Ok(Begun::Upload(begun)) => {
                    upload = Some(begun);
                    break;
                }
                // We may not be allowed to read there, or may not mount at all.
                Err(error) if !error.is_transient() => tracing::debug!(%error, %from, "not mounted"),
                Err(error) => return Err(error),
            }
        }
        let mut upload = match upload {
            Some(upload) => upload,
            None => self.begin_upload(repository).await?,
        };
        let chunk = upload.endpoint.upload_chunk();
        match chunk {
            Some(chunk) if chunk < descriptor.size => {
                upload
                    .send_in_chunks(descriptor, source, chunk.max(1), options.progress.as_ref())
                    .await?;
            }
            _ => {
                upload
                    .send_whole(self, repository, descriptor, source, options.progress.as_ref())
                    .await?
            }
        }
        Ok(Pushed::Uploaded)
    }

    /// Begins an upload whose size and digest are not known yet.
    pub async fn begin_upload(&self, repository: &Repository) -> Result<Upload, Error> {
        match Upload::begin(self, repository, None).await? {
            Begun::Upload(upload) => Ok(upload),
            // 201 to a POST that named no digest makes no sense; the caller learns it from the missing location.
            Begun::Mounted => Err(Error::Header {
                host: repository.api_host().to_owned(),
                doing: format!("begin an upload to {repository}"),
                header: "Location",
            }),
        }
    }
}

enum Begun {
    Mounted,
    Upload(Upload),
}

/// An upload in progress. It is forgotten by the registry some time after being dropped.
#[derive(Debug)]
pub struct Upload {
    transport: Transport,
    endpoint: Arc<Endpoint>,
    repository: Repository,
    location: Url,
    offset: u64,
}

impl Upload {
    async fn begin(
        client: &Client,
        repository: &Repository,
        mount: Option<(&Repository, &Digest)>,
    ) -> Result<Begun, Error> {
        let transport = client.transport.clone();
        let endpoint = transport.connections.origin(repository)?;
        let mut url = transport
            .connections
            .url(&endpoint, repository.path(), "blobs/uploads/")
            .await?;
        let mut scopes = Scopes::push(repository.path());
        if let Some((from, digest)) = mount {
            url.query_pairs_mut()
                .append_pair("mount", digest.as_str())
                .append_pair("from", from.path());
            scopes = scopes.and(from.path(), &["pull"]);
        }
        let doing = match mount {
            Some((from, digest)) => format!("mount blob {digest} of {from} into {repository}"),
            None => format!("begin an upload to {repository}"),
        };
        let response = transport
            .send(Call {
                endpoint: &endpoint,
                repository: repository.path(),
                doing: doing.clone(),
                method: Method::POST,
                url: url.clone(),
                scopes,
                headers: HeaderMap::new(),
                body: Body::Empty,
            })
            .await?;
        if response.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        let Some(location) = location(&endpoint, &url, &response) else {
            return Err(Error::Header {
                host: endpoint.host.clone(),
                doing,
                header: "Location",
            });
        };
        Ok(Begun::Upload(Self {
            transport,
            endpoint,
            repository: repository.clone(),
            location,
            offset: 0,
        }))
    }

    fn doing(&self) -> String {
        format!("upload a blob to {}", self.repository)
    }

    fn call<'a>(&'a self, method: Method, url: Url, body: Body<'a>) -> Call<'a> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        Call {
            endpoint: &self.endpoint,
            repository: self.repository.path(),
            doing: self.doing(),
            method,
            url,
            scopes: Scopes::push(self.repository.path()),
            headers,
            body,
        }
    }

    /// One PUT with everything. After a failure in the middle nobody knows what the registry kept: a new upload begins.
    async fn send_whole(
        self,
        client: &Client,
        repository: &Repository,
        descriptor: &Descriptor,
        source: &BlobSource,
        progress: Option<&OnProgress>,
    ) -> Result<(), Error> {
        let retry = self.transport.connections.config.retry;
        let open = || source.open(0, descriptor.size);
        let mut upload = self;
        let mut attempt = 1;
        loop {
            let body = Body::Stream {
                digest: &descriptor.digest,
                length: descriptor.size,
                open: &open,
                progress: progress.cloned(),
            };
            let mut url = upload.location.clone();
            url.query_pairs_mut()
                .append_pair("digest", descriptor.digest.as_str());
            let error = match upload
                .transport
                .send_single(upload.call(Method::PUT, url, body))
                .await
            {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            // An upload that the registry lost, say by a restart, is not found.
            if !(error.is_transient() || error.is_not_found()) || attempt >= retry.attempts {
                return Err(error);
            }
            upload.transport.pause(&error, attempt).await;
            attempt += 1;
            if client.blob_size(repository, &descriptor.digest).await?.is_some() {
                return Ok(());
            }
            upload = client.begin_upload(repository).await?;
        }
    }

    async fn send_in_chunks(
        &mut self,
        descriptor: &Descriptor,
        source: &BlobSource,
        chunk: u64,
        progress: Option<&OnProgress>,
    ) -> Result<(), Error> {
        while self.offset < descriptor.size {
            let offset = self.offset;
            let length = chunk.min(descriptor.size - offset);
            let open = || source.open(offset, length);
            let within: Option<OnProgress> = progress
                .cloned()
                .map(|progress| Arc::new(move |sent| progress(offset + sent)) as OnProgress);
            let body = Body::Stream {
                digest: &descriptor.digest,
                length,
                open: &open,
                progress: within,
            };
            self.patch(length, body).await?;
        }
        self.finish(&descriptor.digest).await
    }

    /// Appends bytes.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), Error> {
        let length = bytes.len() as u64;
        let target = self.offset + length;
        while self.offset < target {
            // After a resume, part of it may be there already.
            let missing = target - self.offset;
            let start = usize::try_from(length - missing).unwrap_or(0);
            self.patch(missing, Body::Bytes(bytes.slice(start..))).await?;
        }
        Ok(())
    }

    /// One PATCH. Afterwards `offset` is what the registry has, which after a failure may be less than was sent.
    async fn patch(&mut self, length: u64, body: Body<'_>) -> Result<(), Error> {
        let retry = self.transport.connections.config.retry;
        let mut call = Call {
            body,
            ..self.call(Method::PATCH, self.location.clone(), Body::Empty)
        };
        if let Ok(range) = HeaderValue::try_from(format!("{}-{}", self.offset, self.offset + length - 1)) {
            call.headers.insert(header::CONTENT_RANGE, range);
        }
        let mut attempt = 1;
        let sent = self.transport.send_single(call).await;
        let error = match sent {
            Ok(response) => {
                self.follow(&response);
                self.offset += length;
                return Ok(());
            }
            Err(error) => error,
        };
        // Ask how far it got; the caller sends the rest.
        let out_of_step = error.status() == Some(StatusCode::RANGE_NOT_SATISFIABLE);
        if !error.is_transient() && !out_of_step {
            return Err(error);
        }
        while attempt < retry.attempts {
            self.transport.pause(&error, attempt).await;
            attempt += 1;
            let Ok(response) = self
                .transport
                .send_single(self.call(Method::GET, self.location.clone(), Body::Empty))
                .await
            else {
                continue;
            };
            let Some(kept) = kept_bytes(response.headers()) else {
                return Err(error);
            };
            // Bytes that were given to `append` before are gone: only this request's can be sent again.
            if kept < self.offset || kept > self.offset + length || (out_of_step && kept == self.offset) {
                return Err(error);
            }
            self.follow(&response);
            self.offset = kept;
            return Ok(());
        }
        Err(error)
    }

    fn follow(&mut self, response: &Response) {
        if let Some(next) = location(&self.endpoint, &self.location, response) {
            self.location = next;
        }
    }

    /// Completes the upload; the registry verifies the digest.
    pub async fn finish(&mut self, digest: &Digest) -> Result<(), Error> {
        let mut url = self.location.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        self.transport
            .send(self.call(Method::PUT, url, Body::Empty))
            .await?;
        Ok(())
    }

    /// Tells the registry to forget the upload.
    pub async fn cancel(self) -> Result<(), Error> {
        self.transport
            .send(self.call(Method::DELETE, self.location.clone(), Body::Empty))
            .await?;
        Ok(())
    }
}

/// `Range: 0-<last>` or `bytes=0-<last>`.
fn kept_bytes(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let last: u64 = last.parse().ok()?;
    // An empty upload is also written `0-0`; then the one byte is sent again and refused, which `patch` reports.
    (first == "0").then_some(if last == 0 { 0 } else { last + 1 })
}

fn location(endpoint: &Endpoint, base: &Url, response: &Response) -> Option<Url> {
    let text = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let mut url = base.join(text).ok()?;
    // Registries behind a proxy that ends TLS often believe that they are asked in plain HTTP.
    if url.scheme() != base.scheme() && authority(&url).is_some_and(|host| host == endpoint.host) {
        url.set_scheme(base.scheme()).ok()?;
    }
    matches!(url.scheme(), "http" | "https").then_some(url)
}
