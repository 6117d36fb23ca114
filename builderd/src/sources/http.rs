//! `http://` and `https://` sources: one file at a URL, as an immutable layer with nothing but that file in it.
//!
//! A file is known by its digest. One whose digest the build demands is not asked for again once it is here; for any
//! other the server is asked whether it has changed, with the tag (by `HEAD`) or the date it gave last time. A host of its own
//! name stands for files that come once through the client's session.

mod download;
mod encoding;
mod keep;
mod name;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, SystemTime};

use dockerfile::address::without_credentials;
use http::{HeaderName, HeaderValue};
use proto::pb;
use registry::digest::{Algorithm, Digest, DigestError, Hasher};
use reqwest::Url;

use super::one_file::Appearance;
use super::signature::{self, Policy, SignatureError};
use crate::progress::VertexProgress;
use crate::session::{Group, SessionError};
use crate::store::view::ViewError;
use crate::store::{CacheKey, LayerError, RecordKind, Snapshot, Store, WorkLost};

pub use download::{Downloader, Limits};
pub(super) use name::safe as safe_name;

use download::{Answer, Call};
use keep::{Known, Wanted};

/// Headers that a build may set; others are passed over, as in BuildKit.
const HEADERS: [&str; 2] = ["accept", "user-agent"];
/// Raised when the layer of an equal file changes.
const VERSION: &str = "1";

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{url:?} is no address of a file: {problem}")]
    Url { url: String, problem: String },
    #[error("invalid value {value:?} of {name} for an http source: {expected}")]
    Attribute {
        name: String,
        value: String,
        expected: &'static str,
    },
    #[error("invalid value of http.checksum")]
    Digest(#[source] DigestError),
    #[error("signatures of http sources need both http.sig.pubkey and http.sig.signature: {0} is missing")]
    HalfSignature(&'static str),
    #[error("{0} is not known to http sources")]
    SignatureAttribute(String),
    #[error("the file at {url} (digest {digest}) is not signed as demanded")]
    NotVerified {
        url: String,
        digest: Digest,
        #[source]
        source: SignatureError,
    },
    #[error("cannot set up connections")]
    Setup(#[source] reqwest::Error),
    #[error("failed to get {url}")]
    Connect {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("failed to get {url}: invalid response status {status}{hint}")]
    Status {
        url: String,
        status: http::StatusCode,
        hint: String,
    },
    #[error("failed to get {url}: it redirects more than {limit} times")]
    Redirects { url: String, limit: usize },
    #[error("failed to get {url}: it redirects to {target:?}, which is no http address")]
    Redirect { url: String, target: String },
    #[error("failed to get {url}: the server was silent for {} seconds", patience.as_secs())]
    Silent { url: String, patience: Duration },
    #[error("failed to get {url}: it took more than {} minutes", limit.as_secs() / 60)]
    TooSlow { url: String, limit: Duration },
    #[error("failed to get {url}: it has more than {limit} bytes, the largest file that is taken")]
    TooLarge { url: String, limit: u64 },
    #[error("failed to get {url}: the server stopped after {received} bytes")]
    Cut {
        url: String,
        received: u64,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("digest mismatch {found}: {expected} is expected of {url}")]
    Checksum {
        url: String,
        found: Digest,
        expected: Digest,
    },
    #[error(
        "failed to retrieve HTTP auth secret {0}: the client has none of that name; pass it with --secret id={0}"
    )]
    NoSecret(String),
    #[error("secret {0} cannot be sent: it holds a line break or is no text")]
    Secret(String),
    #[error("no client of this build has the file {0:?} to hand over")]
    NoUpload(String),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("cannot write the file")]
    Write(#[source] ViewError),
    #[error("cannot write the content of the file")]
    Content(#[source] std::io::Error),
    #[error("cannot read the file")]
    Read(#[source] std::io::Error),
    #[error("cannot remember the file")]
    Remember(#[source] serde_json::Error),
    #[error("a suffix of {size} bytes is longer than {limit}")]
    Suffix { size: usize, limit: usize },
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Lost(#[from] WorkLost),
}

/// A signature that a file must have, both as armoured text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demanded {
    keys: String,
    signature: String,
}

/// What an http source asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSource {
    url: Url,
    pub checksum: Option<Digest>,
    /// By whom it must be signed.
    pub signature: Option<Demanded>,
    pub file_name: Option<String>,
    pub appearance: Appearance,
    /// Name of the secret that is the value of `Authorization`.
    pub auth_secret: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpSource {
    pub fn parse(source: &pb::SourceOp) -> Result<Self, HttpError> {
        let refused = |problem: String| HttpError::Url {
            url: without_credentials(&source.identifier),
            problem,
        };
        let url: Url = source
            .identifier
            .parse()
            .map_err(|error| refused(format!("{error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(refused("use http or https and the name of a server".to_owned()));
        }
        let attributes = Attributes(&source.attrs);
        Ok(Self {
            url,
            checksum: attributes
                .text("http.checksum")
                .map(str::parse)
                .transpose()
                .map_err(HttpError::Digest)?,
            signature: attributes.signature()?,
            file_name: attributes.text("http.filename").map(str::to_owned),
            appearance: attributes.appearance()?,
            auth_secret: attributes.text("http.authheadersecret").map(str::to_owned),
            headers: attributes.headers()?,
        })
    }

    /// The address as it may be shown.
    pub fn shown(&self) -> String {
        without_credentials(self.url.as_str())
    }

    /// Under what it is known what the server said last.
    fn place(&self) -> CacheKey {
        let mut parts = vec![
            VERSION.to_owned(),
            self.url.to_string(),
            self.file_name.clone().unwrap_or_default(),
            self.auth_secret.clone().unwrap_or_default(),
        ];
        for (name, value) in &self.headers {
            parts.push(format!("{name}: {value:?}"));
        }
        CacheKey::new("http address", parts)
    }

    /// What the source is to a build, which takes it from the server once.
    pub fn identity(&self) -> CacheKey {
        let place = self.place().to_string();
        CacheKey::new("http source", [place].into_iter().chain(self.appearance.parts()))
    }

    /// Under what the layer of a file with a demanded digest is known.
    fn pinned_key(&self) -> Option<CacheKey> {
        let checksum = self.checksum.as_ref()?;
        // Without a name given, the address may have one to say.
        let name = self.file_name.as_deref().unwrap_or(self.url.as_str());
        let parts = [VERSION, checksum.as_str(), name].map(str::to_owned);
        Some(CacheKey::new(
            "http file by digest",
            parts.into_iter().chain(self.appearance.parts()),
        ))
    }

    fn key(&self, known: &Known) -> CacheKey {
        let modified = known.modified.unwrap_or_default().to_string();
        let parts = [VERSION, known.digest.as_str(), &known.name, &modified].map(str::to_owned);
        CacheKey::new("http file", parts.into_iter().chain(self.appearance.parts()))
    }
}

/// The attributes of a source that is one file.
pub(super) struct Attributes<'a>(&'a BTreeMap<String, String>);

impl<'a> Attributes<'a> {
    pub(super) fn of(attributes: &'a BTreeMap<String, String>) -> Self {
        Self(attributes)
    }

    pub(super) fn appearance(&self) -> Result<Appearance, HttpError> {
        Ok(Appearance {
            mode: self.number("http.perm")?.map(|mode| mode & 0o7777),
            uid: self.number("http.uid")?.unwrap_or_default(),
            gid: self.number("http.gid")?.unwrap_or_default(),
        })
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A leading zero makes it octal, as in Go.
    fn number(&self, name: &str) -> Result<Option<u32>, HttpError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let parsed = match text.strip_prefix('0') {
            Some(octal) if !octal.is_empty() => u32::from_str_radix(octal.trim_start_matches(['o', 'O']), 8),
            _ => text.parse(),
        };
        parsed.map(Some).map_err(|_| HttpError::Attribute {
            name: name.to_owned(),
            value: text.to_owned(),
            expected: "a number",
        })
    }

    /// Whoever names any of these wants something verified.
    fn signature(&self) -> Result<Option<Demanded>, HttpError> {
        const KEYS: &str = "http.sig.pubkey";
        const SIGNATURE: &str = "http.sig.signature";
        let mut named = self
            .0
            .keys()
            .filter(|key| key.starts_with("http.sig."))
            .peekable();
        if named.peek().is_none() {
            return Ok(None);
        }
        if let Some(unknown) = named.find(|key| ![KEYS, SIGNATURE].contains(&key.as_str())) {
            return Err(HttpError::SignatureAttribute(unknown.clone()));
        }
        let text = |name| self.text(name).ok_or(HttpError::HalfSignature(name));
        Ok(Some(Demanded {
            keys: text(KEYS)?.to_owned(),
            signature: text(SIGNATURE)?.to_owned(),
        }))
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, HttpError> {
        let mut headers = Vec::new();
        for name in HEADERS {
            let key = format!("http.header.{name}");
            let Some(text) = self.text(&key) else { continue };
            let value = HeaderValue::from_str(text).map_err(|_| HttpError::Attribute {
                name: key,
                value: text.to_owned(),
                expected: "text without control characters",
            })?;
            headers.push((HeaderName::from_static(name), value));
        }
        Ok(headers)
    }
}

/// A file that is here.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub snapshot: Snapshot,
    pub digest: Digest,
    /// Its name in the snapshot.
    pub name: String,
    pub modified: Option<SystemTime>,
    /// Nothing was downloaded.
    pub cached: bool,
}

/// A source being worked on in the name of a client.
#[derive(Debug)]
pub struct Request<'a> {
    pub downloader: &'a Downloader,
    pub source: HttpSource,
    pub sessions: &'a Group,
    pub store: &'a Store,
    pub log: &'a VertexProgress,
}

impl Request<'_> {
    /// What must not be downloaded twice at a time.
    pub fn flight(&self) -> CacheKey {
        self.source.place()
    }

    /// Gets the file, unless it is here and still the same.
    pub async fn load(&self) -> Result<Loaded, HttpError> {
        if let Some(known) = self.pinned() {
            return Ok(known);
        }
        let last = self.last();
        if let (Some((known, snapshot)), Some(_)) = (&last, &self.source.checksum) {
            // It has the digest that is demanded, whatever lies at the address by now.
            return Ok(loaded(known.clone(), snapshot.clone(), true));
        }
        let call = Call::prepare(&self.source, self.sessions).await?;
        let mut answer = self
            .downloader
            .get(&call, last.as_ref().map(|(known, _)| known))
            .await?;
        for attempt in 1.. {
            let response = match answer {
                Answer::Unchanged => match last {
                    Some((known, snapshot)) => return Ok(loaded(known, snapshot, true)),
                    // Nobody asked whether it has changed.
                    None => return Err(call.refused(http::StatusCode::NOT_MODIFIED)),
                },
                Answer::File(response) => response,
            };
            match self.keep(&call, *response).await {
                Err(error @ (HttpError::Cut { .. } | HttpError::Silent { .. })) => {
                    if attempt >= self.downloader.limits.attempts || call.is_upload() {
                        return Err(error);
                    }
                    tracing::debug!(url = %self.source.shown(), %error, attempt, "trying again");
                    answer = self.downloader.get(&call, None).await?;
                }
                other => return other,
            }
        }
        Err(call.refused(http::StatusCode::NO_CONTENT))
    }

    /// The file with the demanded digest, if it is here.
    fn pinned(&self) -> Option<Loaded> {
        let hit = self.store.lookup(&self.source.pinned_key()?)?;
        let known = Known {
            etag: None,
            last_modified: None,
            digest: self.source.checksum.clone()?,
            name: name::of(&self.source, None),
            modified: None,
        };
        Some(loaded(known, hit.outputs.into_iter().next()?, true))
    }

    /// What the server said last time, and the file, if it is still here and not another one than is demanded.
    fn last(&self) -> Option<(Known, Snapshot)> {
        let place = self.source.place();
        let bytes = self
            .store
            .get_record(RecordKind::Sources, place.as_bytes())
            .ok()
            .flatten()?;
        let known: Known = serde_json::from_slice(&bytes).ok()?;
        let wanted = self.source.checksum.as_ref();
        if wanted.is_some_and(|wanted| *wanted != known.digest) {
            return None;
        }
        let hit = self.store.lookup(&self.source.key(&known))?;
        Some((known, hit.outputs.into_iter().next()?))
    }

    async fn keep(&self, call: &Call, response: download::Response) -> Result<Loaded, HttpError> {
        let wanted = Wanted {
            source: &self.source,
            store: self.store,
            limits: &self.downloader.limits,
        };
        let status = self.log.status(&self.source.shown(), "downloading");
        let (known, snapshot) = wanted.keep(call, response, &status).await?;
        status.complete();
        Ok(loaded(known, snapshot, false))
    }

    /// The digest of a loaded file followed by `suffix`.
    pub async fn checksum(
        &self,
        file: &Loaded,
        algorithm: Algorithm,
        suffix: Vec<u8>,
    ) -> Result<Digest, HttpError> {
        const LONGEST: usize = 4096;
        if suffix.len() > LONGEST {
            return Err(HttpError::Suffix {
                size: suffix.len(),
                limit: LONGEST,
            });
        }
        let hashed = move |content: &mut dyn Read| {
            let mut hasher = Hasher::new(algorithm);
            let mut buffer = vec![0; 256 << 10];
            loop {
                match content.read(&mut buffer).map_err(HttpError::Read)? {
                    0 => break,
                    length => hasher.update(buffer.get(..length).unwrap_or_default()),
                }
            }
            hasher.update(&suffix);
            Ok(hasher.finish())
        };
        self.with_content(file, hashed).await
    }

    /// Fails unless a loaded file is signed by whom the source demands.
    pub async fn verify(&self, file: &Loaded) -> Result<(), HttpError> {
        let Some(Demanded { keys, signature }) = self.source.signature.clone() else {
            return Ok(());
        };
        let (url, digest) = (self.source.shown(), file.digest.clone());
        let verify = move |content: &mut dyn Read| {
            let policy = Policy {
                reject_expired: false,
                now: SystemTime::now(),
            };
            let verified = signature::verify_detached(content, &signature, &keys, policy);
            verified.map_err(|source| HttpError::NotVerified { url, digest, source })
        };
        self.with_content(file, verify).await
    }

    /// Does something that takes its time with the content of a loaded file.
    async fn with_content<T: Send + 'static>(
        &self,
        file: &Loaded,
        work: impl FnOnce(&mut dyn Read) -> Result<T, HttpError> + Send + 'static,
    ) -> Result<T, HttpError> {
        let (snapshot, name, store) = (file.snapshot.clone(), file.name.clone(), self.store.clone());
        let pool = store.pool().clone();
        let open = move || {
            let view = crate::ops::file::view_of(&snapshot, &store).map_err(HttpError::Write)?;
            work(&mut view.open_file(&name).map_err(HttpError::Write)?)
        };
        pool.run(open).await?
    }
}

fn loaded(known: Known, snapshot: Snapshot, cached: bool) -> Loaded {
    let modified = known.modified.and_then(|seconds| {
        let since = Duration::from_secs(u64::try_from(seconds).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(since)
    });
    Loaded {
        snapshot,
        digest: known.digest,
        name: known.name,
        modified,
        cached,
    }
}
