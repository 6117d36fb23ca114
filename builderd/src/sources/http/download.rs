//! Asking a server for a file, and following where it sends us.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LOCATION,
};
use http::{Method, StatusCode};
use reqwest::Url;

use super::encoding;
use super::keep::Known;
use super::{HttpError, HttpSource};
use crate::session::{Group, Secret, UPLOAD_HOST, method};
use crate::version;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a server may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    pub redirects: usize,
    /// Bytes of a file.
    pub size: u64,
    /// How long a server may be silent.
    pub patience: Duration,
    /// How long a file may take.
    pub time: Duration,
    pub attempts: u32,
    /// Before the second attempt; longer before each further one.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            redirects: 10,
            size: 64 << 30,
            patience: Duration::from_secs(60),
            time: Duration::from_secs(6 * 3600),
            attempts: 3,
            pause: Duration::from_millis(500),
        }
    }
}

/// The connections of all builds.
#[derive(Debug, Default)]
pub struct Downloader {
    pub limits: Limits,
    client: OnceLock<reqwest::Client>,
}

pub(super) type Body = BoxStream<'static, Result<Bytes, Box<dyn std::error::Error + Send + Sync>>>;

/// A file on its way.
pub(super) struct Response {
    pub(super) headers: HeaderMap,
    /// As announced.
    pub(super) length: Option<u64>,
    pub(super) body: Body,
}

pub(super) enum Answer {
    /// What is known is still true.
    Unchanged,
    File(Box<Response>),
}

/// What to ask for, and in whose name. It holds credentials, so it cannot be printed.
pub(super) struct Call {
    url: Url,
    shown: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    authorization: Option<HeaderValue>,
    /// The clients that may have the file, if it is no server that has it.
    uploaders: Option<Group>,
}

impl Call {
    pub(super) async fn prepare(source: &HttpSource, sessions: &Group) -> Result<Self, HttpError> {
        let mut url = source.url.clone();
        url.set_fragment(None);
        let uploaders = (url.host_str() == Some(UPLOAD_HOST)).then(|| sessions.clone());
        let authorization = match &uploaders {
            Some(_) => None,
            None => authorization(source, sessions).await?,
        };
        strip_user(&mut url);
        Ok(Self {
            shown: source.shown(),
            url,
            headers: source.headers.clone(),
            authorization,
            uploaders,
        })
    }

    /// The address as it may be shown.
    pub(super) fn shown(&self) -> String {
        self.shown.clone()
    }

    pub(super) fn is_upload(&self) -> bool {
        self.uploaders.is_some()
    }

    pub(super) fn refused(&self, status: StatusCode) -> HttpError {
        let unknown = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let hint = match self.url.host_str() {
            Some(host) if unknown && self.authorization.is_none() => format!(
                "; if it needs credentials, pass a token with --secret id=HTTP_AUTH_TOKEN_{host} or a header with \
                 --secret id=HTTP_AUTH_HEADER_{host}"
            ),
            _ => String::new(),
        };
        HttpError::Status {
            url: self.shown(),
            status,
            hint,
        }
    }
}

async fn authorization(source: &HttpSource, sessions: &Group) -> Result<Option<HeaderValue>, HttpError> {
    if let Some(name) = &source.auth_secret {
        let secret = sessions.secret(name).await?;
        let secret = secret.ok_or_else(|| HttpError::NoSecret(name.clone()))?;
        return header("", &secret, name).map(Some);
    }
    let host = source.url.host_str().unwrap_or_default();
    for (name, prefix) in [
        (format!("HTTP_AUTH_TOKEN_{host}"), "Bearer "),
        (format!("HTTP_AUTH_HEADER_{host}"), ""),
    ] {
        if let Some(secret) = sessions.secret(&name).await? {
            return header(prefix, &secret, &name).map(Some);
        }
    }
    if source.url.username().is_empty() && source.url.password().is_none() {
        return Ok(None);
    }
    let part = dockerfile::address::decoded;
    let pair = format!(
        "{}:{}",
        part(source.url.username()),
        part(source.url.password().unwrap_or_default())
    );
    let basic = Secret::new(format!("Basic {}", STANDARD.encode(pair)).into_bytes());
    header("", &basic, "of the address").map(Some)
}

fn header(prefix: &str, secret: &Secret, name: &str) -> Result<HeaderValue, HttpError> {
    let text = secret
        .expose_text()
        .map(|text| text.trim_end_matches(['\r', '\n']));
    let value = text.and_then(|text| HeaderValue::from_str(&format!("{prefix}{text}")).ok());
    let mut value = value.ok_or_else(|| HttpError::Secret(name.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn strip_user(url: &mut Url) {
    // Only addresses without a host can have none, and those were refused.
    url.set_username("").ok();
    url.set_password(None).ok();
}

impl Downloader {
    /// Asks for the file, or whether it is still what is known of it.
    pub(super) async fn get(&self, call: &Call, known: Option<&Known>) -> Result<Answer, HttpError> {
        if let Some(uploaders) = &call.uploaders {
            return upload(call, uploaders).await;
        }
        let mut attempt = 1;
        loop {
            let error = match self.get_once(call, known).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !is_passing(&error) || attempt >= self.limits.attempts {
                return Err(error);
            }
            tracing::debug!(url = %call.shown, %error, attempt, "trying again");
            tokio::time::sleep(self.limits.pause * attempt).await;
            attempt += 1;
        }
    }

    async fn get_once(&self, call: &Call, known: Option<&Known>) -> Result<Answer, HttpError> {
        if let Some(known) = known.filter(|known| known.etag.is_some())
            && self.is_unchanged(call, known).await
        {
            return Ok(Answer::Unchanged);
        }
        let response = self.ask(call, &Method::GET, known).await?;
        let status = response.status();
        if status == StatusCode::NOT_MODIFIED && known.is_some() {
            return Ok(Answer::Unchanged);
        }
        if !status.is_success() {
            return Err(call.refused(status));
        }
        if known.is_some_and(|known| has_tag(response.headers(), known)) {
            return Ok(Answer::Unchanged);
        }
        Ok(Answer::File(Box::new(Response {
            headers: response.headers().clone(),
            length: response
                .content_length()
                .filter(|_| !encoding::is_packed(response.headers())),
            body: encoding::unpacked(
                &response.headers().clone(),
                response
                    .bytes_stream()
                    .map_err(|error| error.without_url().into())
                    .boxed(),
            ),
        })))
    }

    /// Whether the server says so without being asked for the file. One that answers anything else is asked for it.
    async fn is_unchanged(&self, call: &Call, known: &Known) -> bool {
        match self.ask(call, &Method::HEAD, Some(known)).await {
            Ok(response) => match response.status() {
                StatusCode::NOT_MODIFIED => true,
                // Some servers give tags but do not look at those that are sent to them.
                StatusCode::OK => has_tag(response.headers(), known),
                _ => false,
            },
            Err(error) => {
                tracing::debug!(url = %call.shown, %error, "no answer to HEAD");
                false
            }
        }
    }

    /// Asks, wherever the server sends us.
    async fn ask(
        &self,
        call: &Call,
        method: &Method,
        known: Option<&Known>,
    ) -> Result<reqwest::Response, HttpError> {
        let client = self.client()?;
        let mut url = call.url.clone();
        for _ in 0..=self.limits.redirects {
            let mut request = client
                .request(method.clone(), url.clone())
                .header(ACCEPT_ENCODING, encoding::ACCEPTED);
            for (name, value) in &call.headers {
                request = request.header(name, value);
            }
            // Credentials are for the one server that they were given for.
            if let Some(authorization) = &call.authorization
                && url.origin() == call.url.origin()
            {
                request = request.header(AUTHORIZATION, authorization);
            }
            for (name, value) in known.into_iter().flat_map(conditions) {
                request = request.header(name, value);
            }
            let answered = tokio::time::timeout(self.limits.patience, request.send()).await;
            let response = answered
                .map_err(|_| HttpError::Silent {
                    url: call.shown(),
                    patience: self.limits.patience,
                })?
                .map_err(|source| HttpError::Connect {
                    url: call.shown(),
                    source: source.without_url(),
                })?;
            match response.headers().get(LOCATION) {
                Some(location)
                    if response.status().is_redirection()
                        && response.status() != StatusCode::NOT_MODIFIED =>
                {
                    url = target(call, &url, location)?;
                }
                _ => return Ok(response),
            }
        }
        Err(HttpError::Redirects {
            url: call.shown(),
            limit: self.limits.redirects,
        })
    }

    /// Made when it is first needed: reading the certificates takes its time.
    fn client(&self) -> Result<reqwest::Client, HttpError> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = reqwest::Client::builder()
            .user_agent(version::user_agent())
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(HttpError::Setup)?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

fn target(call: &Call, url: &Url, location: &HeaderValue) -> Result<Url, HttpError> {
    let joined = location
        .to_str()
        .ok()
        .and_then(|location| url.join(location).ok());
    match joined {
        Some(mut target) if matches!(target.scheme(), "http" | "https") => {
            strip_user(&mut target);
            Ok(target)
        }
        other => Err(HttpError::Redirect {
            url: call.shown(),
            target: other.map(|target| target.to_string()).unwrap_or_default(),
        }),
    }
}

/// What asks a server to send a file only if it has changed.
fn conditions(known: &Known) -> Vec<(HeaderName, HeaderValue)> {
    let tag = known.etag.as_deref().map(|tag| (IF_NONE_MATCH, tag));
    let date = known
        .last_modified
        .as_deref()
        .map(|date| (IF_MODIFIED_SINCE, date));
    tag.into_iter()
        .chain(date)
        .filter_map(|(name, value)| Some((name, HeaderValue::from_str(value).ok()?)))
        .collect()
}

fn has_tag(headers: &HeaderMap, known: &Known) -> bool {
    let tag = known.etag.as_deref();
    tag.is_some() && tag_of(headers).as_deref() == tag
}

/// The tag of a file. That it is a weak one makes no difference to us.
pub(super) fn tag_of(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(ETAG)?.to_str().ok()?;
    Some(tag.strip_prefix("W/").unwrap_or(tag).to_owned()).filter(|tag| !tag.is_empty())
}

/// Whether another attempt may go better.
fn is_passing(error: &HttpError) -> bool {
    match error {
        HttpError::Connect { source, .. } => !source.is_builder(),
        HttpError::Silent { .. } => true,
        HttpError::Status { status, .. } => {
            status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                || *status == StatusCode::TOO_MANY_REQUESTS
        }
        _ => false,
    }
}

/// A file that a client hands over once.
async fn upload(call: &Call, uploaders: &Group) -> Result<Answer, HttpError> {
    let id = call.url.path().trim_start_matches('/');
    let mut failure = HttpError::NoUpload(id.to_owned());
    for session in uploaders.offering(method::PULL).await? {
        match session.pull(id).await {
            Ok(stream) => {
                let body = stream.map_err(|status| io::Error::other(status.message().to_owned()).into());
                return Ok(Answer::File(Box::new(Response {
                    headers: HeaderMap::new(),
                    length: None,
                    body: body.boxed(),
                })));
            }
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}
