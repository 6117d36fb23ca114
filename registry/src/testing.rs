//! A registry in this process, over loopback, that does what a test tells it: a real program, not a mock.
//!
//! It keeps everything in memory, speaks the distribution API including mounts, ranges and chunked uploads, and lets
//! tests put faults in front of any request. Dropping it ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::digest::Digest;
use crate::manifest::{Descriptor, RawManifest};
use crate::reference::{Reference, Repository};

/// How clients have to show who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    Open,
    Basic {
        username: String,
        password: String,
    },
    /// Tokens from `/token` for these users; each is good for `uses` requests.
    Token {
        username: String,
        password: String,
        identity: Option<String>,
        uses: u32,
    },
}

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
struct Rule {
    method: Method,
    path_part: String,
    fault: Fault,
    left: u32,
}

#[derive(Debug, Default)]
struct Content {
    access: Access,
    blobs: BTreeMap<(String, Digest), Bytes>,
    manifests: BTreeMap<(String, Digest), (String, Bytes)>,
    tags: BTreeMap<(String, String), Digest>,
    uploads: BTreeMap<u64, Vec<u8>>,
    tokens: BTreeMap<String, (BTreeSet<String>, u32)>,
    rules: Vec<Rule>,
    log: Vec<String>,
    mounts: bool,
    next_id: u64,
    address: String,
}

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
    let (response, fault) = content
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .answer_or_fail(&parts.method, &parts.uri, &parts.headers, body);
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

struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let url = reqwest::Url::parse(&format!("http://localhost/?{text}"));
        Self(url.map_or_else(|_| Vec::new(), |url| url.query_pairs().into_owned().collect()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

fn refuse(status: StatusCode, code: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"says the test"}}]}}"#);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Content {
    /// The good answer, and what is to be done to it; a request that fails altogether changes nothing.
    fn answer_or_fail(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> (Response, Option<Fault>) {
        let text = uri.to_string();
        self.log.push(format!("{method} {text}"));
        let rule = self
            .rules
            .iter_mut()
            .find(|rule| rule.left > 0 && rule.method == *method && text.contains(&rule.path_part));
        let fault = rule.map(|rule| {
            rule.left -= 1;
            rule.fault.clone()
        });
        if matches!(fault, Some(Fault::Status(..) | Fault::Close)) {
            return (Response::default(), fault);
        }
        let query = Query::parse(uri.query().unwrap_or_default());
        (self.answer(method, uri.path(), &query, headers, body), fault)
    }

    fn answer(
        &mut self,
        method: &Method,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response {
        if path == "/token" {
            return self.token(method, query, headers, &body);
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return refuse(StatusCode::NOT_FOUND, "NOT_FOUND");
        };
        let parts = ["/manifests/", "/blobs/uploads/", "/blobs/", "/tags/"]
            .into_iter()
            .find_map(|kind| {
                rest.split_once(kind)
                    .map(|(repository, name)| (repository, kind, name))
            });
        let (repository, kind, name) = parts.unwrap_or(("", "", ""));
        if let Err(response) = self.authorise(method, repository, query, headers) {
            return *response;
        }
        match (kind, method.as_str()) {
            ("", _) => StatusCode::OK.into_response(),
            ("/manifests/", "GET" | "HEAD") => match self.find_manifest(repository, name) {
                Some((media_type, bytes)) => (
                    [
                        (header::CONTENT_TYPE.as_str(), media_type),
                        ("docker-content-digest", Digest::of(&bytes).to_string()),
                    ],
                    bytes,
                )
                    .into_response(),
                None => refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            },
            ("/manifests/", "PUT") => self.put_manifest(repository, name, headers, body),
            ("/manifests/", "DELETE") => match self.tags.remove(&(repository.to_owned(), name.to_owned())) {
                Some(_) => StatusCode::ACCEPTED.into_response(),
                None => refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            },
            ("/blobs/", "GET" | "HEAD") => self.get_blob(repository, name, headers),
            ("/blobs/uploads/", "POST") => self.begin(repository, query),
            ("/blobs/uploads/", _) => self.upload(method, repository, name, query, headers, &body),
            ("/tags/", "GET") => {
                let of_repository = self.tags.keys().filter(|(path, _)| path == repository);
                let tags: Vec<_> = of_repository.map(|(_, tag)| tag).collect();
                serde_json::json!({"name": repository, "tags": tags})
                    .to_string()
                    .into_response()
            }
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        }
    }

    fn find_manifest(&self, repository: &str, name: &str) -> Option<(String, Bytes)> {
        let digest = match name.parse() {
            Ok(digest) => digest,
            Err(_) => self.tags.get(&(repository.to_owned(), name.to_owned()))?.clone(),
        };
        self.manifests.get(&(repository.to_owned(), digest)).cloned()
    }

    fn put_manifest(&mut self, repository: &str, name: &str, headers: &HeaderMap, body: Bytes) -> Response {
        let media_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let raw = RawManifest::new(body, Some(&media_type));
        let known = |descriptor: &Descriptor| {
            let key = (repository.to_owned(), descriptor.digest.clone());
            self.blobs.contains_key(&key) || self.manifests.contains_key(&key)
        };
        // As real registries: nothing may be named that is not there.
        let complete = match raw.parse() {
            Ok(crate::manifest::Document::Manifest(manifest)) => {
                known(&manifest.config) && manifest.layers.iter().all(known)
            }
            Ok(crate::manifest::Document::Index(index)) => index.manifests.iter().all(known),
            Err(_) => false,
        };
        if !complete {
            return refuse(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
        }
        match name.parse::<Digest>() {
            Ok(digest) if digest != raw.digest => return refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Ok(_) => {}
            Err(_) => {
                let key = (repository.to_owned(), name.to_owned());
                self.tags.insert(key, raw.digest.clone());
            }
        }
        self.manifests
            .insert((repository.to_owned(), raw.digest), (media_type, raw.bytes));
        StatusCode::CREATED.into_response()
    }

    fn get_blob(&self, repository: &str, name: &str, headers: &HeaderMap) -> Response {
        let found = name
            .parse()
            .ok()
            .and_then(|digest| self.blobs.get(&(repository.to_owned(), digest)));
        let Some(blob) = found else {
            return refuse(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
        };
        let start = headers
            .get(header::RANGE)
            .and_then(|range| {
                range
                    .to_str()
                    .ok()?
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            })
            .filter(|start: &usize| *start < blob.len());
        match start {
            Some(start) => (StatusCode::PARTIAL_CONTENT, blob.slice(start..)).into_response(),
            None => blob.clone().into_response(),
        }
    }

    fn begin(&mut self, repository: &str, query: &Query) -> Response {
        if let (Some(from), Some(Ok(digest)), true) = (
            query.get("from"),
            query.get("mount").map(str::parse::<Digest>),
            self.mounts,
        ) && let Some(blob) = self.blobs.get(&(from.to_owned(), digest.clone())).cloned()
        {
            self.blobs.insert((repository.to_owned(), digest), blob);
            return StatusCode::CREATED.into_response();
        }
        self.next_id += 1;
        self.uploads.insert(self.next_id, Vec::new());
        self.accepted(repository, self.next_id)
    }

    fn accepted(&self, repository: &str, id: u64) -> Response {
        let length = self.uploads.get(&id).map_or(0, Vec::len);
        (
            StatusCode::ACCEPTED,
            [
                (
                    header::LOCATION,
                    format!("/v2/{repository}/blobs/uploads/{id}?state=s"),
                ),
                (header::RANGE, format!("0-{}", length.saturating_sub(1))),
            ],
        )
            .into_response()
    }

    fn upload(
        &mut self,
        method: &Method,
        repository: &str,
        name: &str,
        query: &Query,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Response {
        let upload = name
            .parse()
            .ok()
            .and_then(|id| self.uploads.get_mut(&id).map(|upload| (id, upload)));
        let Some((id, upload)) = upload else {
            return refuse(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
        };
        match method.as_str() {
            "PATCH" => {
                let range = headers
                    .get(header::CONTENT_RANGE)
                    .and_then(|range| range.to_str().ok());
                let start = range.and_then(|range| range.split('-').next()?.parse::<usize>().ok());
                if start.is_some_and(|start| start != upload.len()) {
                    return refuse(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID");
                }
                upload.extend_from_slice(body);
                self.accepted(repository, id)
            }
            "PUT" => {
                upload.extend_from_slice(body);
                let digest = Digest::of(upload);
                if query.get("digest") != Some(digest.as_str()) {
                    return refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
                }
                if let Some(blob) = self.uploads.remove(&id) {
                    self.blobs.insert((repository.to_owned(), digest), blob.into());
                }
                StatusCode::CREATED.into_response()
            }
            "GET" => {
                let mut response = self.accepted(repository, id);
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            "DELETE" => {
                self.uploads.remove(&id);
                StatusCode::NO_CONTENT.into_response()
            }
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        }
    }

    fn authorise(
        &mut self,
        method: &Method,
        repository: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<(), Box<Response>> {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let needed = match *method {
            Method::GET | Method::HEAD => "pull",
            Method::DELETE => "delete",
            _ => "push",
        };
        let challenge = match &self.access {
            Access::Open => return Ok(()),
            Access::Basic { username, password } if given == basic(username, password) => return Ok(()),
            Access::Basic { .. } => "Basic realm=\"test\"".to_owned(),
            Access::Token { .. } => {
                let token = given.strip_prefix("Bearer ").unwrap_or_default();
                if let Some((scopes, uses)) = self.tokens.get_mut(token) {
                    let mut wanted = vec![format!("repository:{repository}:{needed}")];
                    wanted.extend(query.get("from").map(|from| format!("repository:{from}:pull")));
                    if *uses > 0 && wanted.iter().all(|scope| scopes.contains(scope)) {
                        *uses -= 1;
                        return Ok(());
                    }
                }
                format!(
                    "Bearer realm=\"http://{}/token\",service=\"test\",scope=\"repository:{repository}:{needed}\"",
                    self.address
                )
            }
        };
        let mut response = refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        Err(Box::new(response))
    }

    fn token(&mut self, method: &Method, query: &Query, headers: &HeaderMap, body: &Bytes) -> Response {
        let Access::Token {
            username,
            password,
            identity,
            uses,
        } = self.access.clone()
        else {
            return refuse(StatusCode::NOT_FOUND, "NOT_FOUND");
        };
        let form = Query::parse(&String::from_utf8_lossy(body));
        let (scopes, allowed): (Vec<String>, bool) = if *method == Method::POST {
            let scopes = form
                .get("scope")
                .unwrap_or_default()
                .split(' ')
                .map(str::to_owned)
                .collect();
            (
                scopes,
                identity.is_some() && form.get("refresh_token") == identity.as_deref(),
            )
        } else {
            let given = headers
                .get(header::AUTHORIZATION)
                .and_then(|value| value.to_str().ok());
            let scopes = query
                .0
                .iter()
                .filter(|(key, _)| key == "scope")
                .map(|(_, scope)| scope.clone());
            (
                scopes.collect(),
                given == Some(basic(&username, &password).as_str()),
            )
        };
        if !allowed {
            return refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        }
        let mut granted = BTreeSet::new();
        for scope in scopes {
            if let Some((resource, actions)) = scope.rsplit_once(':') {
                granted.extend(actions.split(',').map(|action| format!("{resource}:{action}")));
            }
        }
        self.next_id += 1;
        let token = format!("token-{}", self.next_id);
        self.tokens.insert(token.clone(), (granted, uses));
        serde_json::json!({"token": token, "expires_in": 300})
            .to_string()
            .into_response()
    }
}

fn basic(username: &str, password: &str) -> String {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    format!("Basic {pair}")
}
