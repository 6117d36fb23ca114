//! Who we are to a registry: credentials, challenges, tokens.
//!
//! Nothing is asked in advance: the first 401 of a host says how it wants to be talked to, and from then on every
//! request carries what it needs. Tokens are kept by what they allow, so that one that may push serves pulls too.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures::future::BoxFuture;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::error::{BoxError, Error};
use super::host::{Connections, Endpoint};

/// A token of unknown life is used this long; the specification's minimum.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token this close to its end is not used any more.
const MARGIN: Duration = Duration::from_secs(5);

/// A password or token; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    Anonymous,
    Basic {
        username: String,
        password: Secret,
    },
    /// To be exchanged for tokens.
    Identity {
        token: Secret,
    },
    /// A token that the registry itself takes.
    Bearer {
        token: Secret,
    },
}

/// What a registry wants a token for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    pub host: String,
    /// Who gives tokens out.
    pub realm: String,
    pub service: Option<String>,
    /// In a challenge's form, one text for each resource.
    pub scopes: Vec<String>,
}

/// A token, and how long it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    pub token: Secret,
    pub life: Duration,
}

/// Knows credentials for registry hosts (`registry-1.docker.io`, `localhost:5000`).
pub trait CredentialSource: Send + Sync + fmt::Debug {
    fn credentials<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Credentials, BoxError>>;

    /// A token from one who keeps the credentials to himself; nothing where they are handed out.
    fn token<'a>(
        &'a self,
        _wanted: &'a TokenRequest,
    ) -> BoxFuture<'a, Result<Option<IssuedToken>, BoxError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// No credentials for anybody.
#[derive(Clone, Copy, Debug)]
pub struct Anonymous;

impl CredentialSource for Anonymous {
    fn credentials<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, Result<Credentials, BoxError>> {
        Box::pin(std::future::ready(Ok(Credentials::Anonymous)))
    }
}

/// What a request needs to be allowed: pairs of resource (`repository:a/b`) and action (`pull`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Scopes(BTreeSet<(String, String)>);

impl Scopes {
    pub fn pull(path: &str) -> Self {
        Self::default().and(path, &["pull"])
    }

    pub fn push(path: &str) -> Self {
        Self::default().and(path, &["pull", "push"])
    }

    pub fn delete(path: &str) -> Self {
        Self::default().and(path, &["delete", "pull"])
    }

    #[must_use]
    pub fn and(mut self, path: &str, actions: &[&str]) -> Self {
        for action in actions {
            self.0
                .insert((format!("repository:{path}"), (*action).to_owned()));
        }
        self
    }

    /// Adds what a challenge asks for: `repository:a/b:pull,push registry:catalog:*`.
    fn add_text(&mut self, text: &str) {
        for scope in text.split_ascii_whitespace() {
            if let Some((resource, actions)) = scope.rsplit_once(':') {
                for action in actions.split(',') {
                    self.0.insert((resource.to_owned(), action.to_owned()));
                }
            }
        }
    }

    /// In a challenge's form, one text per resource.
    fn texts(&self) -> Vec<String> {
        let mut texts: Vec<(&str, String)> = Vec::new();
        for (resource, action) in &self.0 {
            match texts.last_mut() {
                Some((last, text)) if last == resource => {
                    text.push(',');
                    text.push_str(action);
                }
                _ => texts.push((resource, format!("{resource}:{action}"))),
            }
        }
        texts.into_iter().map(|(_, text)| text).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

#[derive(Clone, Debug)]
struct Token {
    header: HeaderValue,
    scopes: Scopes,
    expires: Instant,
}

#[derive(Debug, Default)]
struct HostState {
    challenge: Option<Challenge>,
    credentials: Option<Credentials>,
    tokens: Vec<Token>,
}

/// Credentials and the tokens bought with them. Shared by all requests made in one name.
#[derive(Debug)]
pub(super) struct Auth {
    source: Arc<dyn CredentialSource>,
    hosts: Mutex<HashMap<String, Arc<Mutex<HostState>>>>,
}

impl Auth {
    pub fn new(source: Arc<dyn CredentialSource>) -> Self {
        Self {
            source,
            hosts: Mutex::new(HashMap::new()),
        }
    }

    async fn host(&self, host: &str) -> Arc<Mutex<HostState>> {
        self.hosts
            .lock()
            .await
            .entry(host.to_owned())
            .or_default()
            .clone()
    }

    /// The `Authorization` header for a request, as far as the host is known to want one.
    pub async fn header(
        &self,
        connections: &Connections,
        endpoint: &Endpoint,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, Error> {
        let state = self.host(&endpoint.host).await;
        // Held while a token is fetched, so that parallel requests share it.
        let mut state = state.lock().await;
        self.authorise(&mut state, connections, endpoint, scopes).await
    }

    /// Learns from a 401; the header to try again with, `None` if there is nothing better than what was `used`.
    pub async fn answer(
        &self,
        connections: &Connections,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        scopes: &mut Scopes,
        used: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Error> {
        let Some((challenge, scope)) = parse_challenge(&endpoint.host, headers)? else {
            return Ok(None);
        };
        if let Some(scope) = scope {
            scopes.add_text(&scope);
        }
        let state = self.host(&endpoint.host).await;
        let mut state = state.lock().await;
        // A token that is not kept any more was found out by another request, and has been replaced since.
        if used.is_some_and(|used| state.tokens.iter().any(|token| token.header == *used)) {
            state
                .tokens
                .retain(|token| !token.scopes.0.is_superset(&scopes.0));
        }
        state.challenge = Some(challenge);
        let header = self.authorise(&mut state, connections, endpoint, scopes).await?;
        Ok(header.filter(|header| Some(header) != used))
    }

    async fn authorise(
        &self,
        state: &mut HostState,
        connections: &Connections,
        endpoint: &Endpoint,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, Error> {
        let Some(challenge) = state.challenge.clone() else {
            return Ok(None);
        };
        let host = &endpoint.host;
        if let Challenge::Bearer { realm, service } = &challenge {
            let now = Instant::now();
            state.tokens.retain(|token| token.expires > now);
            let fits = |token: &&Token| token.scopes.0.is_superset(&scopes.0);
            if let Some(token) = state.tokens.iter().find(fits) {
                return Ok(Some(token.header.clone()));
            }
            let wanted = TokenRequest {
                host: host.clone(),
                realm: realm.clone(),
                service: service.clone(),
                scopes: scopes.texts(),
            };
            let issued = self.source.token(&wanted).await;
            let issued = issued.map_err(|source| Error::Credentials {
                host: host.clone(),
                source,
            })?;
            if let Some(token) = issued.and_then(|issued| issued.for_scopes(scopes)) {
                state.tokens.push(token.clone());
                return Ok(Some(token.header));
            }
        }
        let credentials = match &state.credentials {
            Some(credentials) => credentials.clone(),
            None => {
                let found = self
                    .source
                    .credentials(host)
                    .await
                    .map_err(|source| Error::Credentials {
                        host: host.clone(),
                        source,
                    })?;
                state.credentials.insert(found).clone()
            }
        };
        let (realm, service) = match (challenge, &credentials) {
            (_, Credentials::Bearer { token }) => {
                return Ok(secret_header(format!("Bearer {}", token.expose())));
            }
            (Challenge::Basic, Credentials::Basic { username, password }) => {
                return Ok(secret_header(basic(username, password)));
            }
            (Challenge::Basic, Credentials::Anonymous | Credentials::Identity { .. }) => return Ok(None),
            (Challenge::Bearer { realm, service }, _) => (realm, service),
        };
        let failed = |source: TokenError| Error::Token {
            host: host.clone(),
            realm: realm.clone(),
            status: source.status(),
            source: source.into(),
        };
        let url = realm.parse().map_err(|_| failed(TokenError::Realm))?;
        let http = connections.client(endpoint, &url)?;
        let issued = fetch_token(&http, url, service.as_deref(), &scopes.texts(), &credentials)
            .await
            .map_err(failed)?;
        let token = issued
            .for_scopes(scopes)
            .ok_or_else(|| failed(TokenError::Empty))?;
        state.tokens.push(token.clone());
        Ok(Some(token.header))
    }
}

impl IssuedToken {
    fn for_scopes(self, scopes: &Scopes) -> Option<Token> {
        Some(Token {
            header: secret_header(format!("Bearer {}", self.token.expose()))?,
            scopes: scopes.clone(),
            expires: Instant::now() + self.life.saturating_sub(MARGIN),
        })
    }
}

/// Gets a token for somebody else, with credentials that stay here.
pub async fn issue_token(wanted: &TokenRequest, credentials: &Credentials) -> Result<IssuedToken, Error> {
    if let Credentials::Bearer { token } = credentials {
        return Ok(IssuedToken {
            token: token.clone(),
            life: DEFAULT_LIFE,
        });
    }
    let failed = |source: TokenError| Error::Token {
        host: wanted.host.clone(),
        realm: wanted.realm.clone(),
        status: source.status(),
        source: source.into(),
    };
    let url = wanted.realm.parse().map_err(|_| failed(TokenError::Realm))?;
    let http = reqwest::Client::builder().build();
    let http = http.map_err(|error| failed(TokenError::Send(error)))?;
    fetch_token(&http, url, wanted.service.as_deref(), &wanted.scopes, credentials)
        .await
        .map_err(failed)
}

fn basic(username: &str, password: &Secret) -> String {
    let pair = format!("{username}:{}", password.expose());
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

fn secret_header(text: String) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The first challenge that we can answer, Bearer preferred, and the scope it names.
fn parse_challenge(host: &str, headers: &HeaderMap) -> Result<Option<(Challenge, Option<String>)>, Error> {
    let mut basic = None;
    let mut unknown = String::new();
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let text = String::from_utf8_lossy(value.as_bytes());
        unknown = text.clone().into_owned();
        let Ok(challenges) = http_auth::parse_challenges(&text) else {
            continue;
        };
        for challenge in challenges {
            let parameter = |name: &str| {
                challenge
                    .params
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = parameter("realm") {
                    let service = parameter("service");
                    return Ok(Some((Challenge::Bearer { realm, service }, parameter("scope"))));
                }
            } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some((Challenge::Basic, None));
            }
        }
    }
    if basic.is_none() && !unknown.is_empty() {
        return Err(Error::Challenge {
            host: host.to_owned(),
            challenge: unknown,
        });
    }
    Ok(basic)
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("invalid realm")]
    Realm,
    #[error("no answer from the token server")]
    Send(#[source] reqwest::Error),
    #[error("token server answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("token server answered without a token")]
    Empty,
}

impl TokenError {
    /// Silence counts as a gateway's failure.
    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Send(_) => Some(StatusCode::BAD_GATEWAY),
            Self::Realm | Self::Empty => None,
        }
    }
}

async fn fetch_token(
    http: &reqwest::Client,
    url: reqwest::Url,
    service: Option<&str>,
    scopes: &[String],
    credentials: &Credentials,
) -> Result<IssuedToken, TokenError> {
    let send_failed = |error: reqwest::Error| TokenError::Send(error.without_url());
    let answer = match credentials {
        Credentials::Identity { token } => {
            let grant = [("grant_type", "refresh_token"), ("refresh_token", token.expose())];
            http.execute(grant_request(http, url, service, scopes, &grant).map_err(send_failed)?)
                .await
        }
        Credentials::Basic { username, password } => {
            let first = http
                .get(query(url.clone(), service, scopes))
                .basic_auth(username, Some(password.expose()))
                .timeout(DEFAULT_LIFE)
                .send()
                .await;
            match first {
                // Servers that know the OAuth form only.
                Ok(answer) if matches!(answer.status().as_u16(), 404 | 405) => {
                    let grant = [
                        ("grant_type", "password"),
                        ("username", username.as_str()),
                        ("password", password.expose()),
                    ];
                    http.execute(grant_request(http, url, service, scopes, &grant).map_err(send_failed)?)
                        .await
                }
                other => other,
            }
        }
        Credentials::Anonymous | Credentials::Bearer { .. } => {
            http.get(query(url, service, scopes))
                .timeout(DEFAULT_LIFE)
                .send()
                .await
        }
    }
    .map_err(send_failed)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(send_failed)?;
    if !status.is_success() {
        let shown: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
        return Err(TokenError::Refused { status, body: shown });
    }
    let parsed: TokenAnswer = serde_json::from_slice(&body).map_err(|_| TokenError::Empty)?;
    let text = if parsed.token.is_empty() {
        parsed.access_token
    } else {
        parsed.token
    };
    if text.is_empty() {
        return Err(TokenError::Empty);
    }
    let life = match parsed.expires_in {
        0 => DEFAULT_LIFE,
        seconds => Duration::from_secs(seconds),
    };
    Ok(IssuedToken {
        token: Secret(text),
        life,
    })
}

fn query(mut url: reqwest::Url, service: Option<&str>, scopes: &[String]) -> reqwest::Url {
    {
        let mut pairs = url.query_pairs_mut();
        if let Some(service) = service {
            pairs.append_pair("service", service);
        }
        for scope in scopes {
            pairs.append_pair("scope", scope);
        }
    }
    url
}

fn grant_request(
    http: &reqwest::Client,
    url: reqwest::Url,
    service: Option<&str>,
    scopes: &[String],
    grant: &[(&str, &str)],
) -> reqwest::Result<reqwest::Request> {
    // `Url` is at hand as encoder of forms.
    let mut form = url.clone();
    form.set_query(None);
    {
        let mut pairs = form.query_pairs_mut();
        pairs.extend_pairs(grant).append_pair("client_id", "trimaran");
        if let Some(service) = service {
            pairs.append_pair("service", service);
        }
        pairs.append_pair("scope", &scopes.join(" "));
    }
    http.post(url)
        .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .timeout(DEFAULT_LIFE)
        .body(form.query().unwrap_or_default().to_owned())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_grouped_by_resource() {
        let mut scopes = Scopes::push("a/b").and("base", &["pull"]);
        scopes.add_text("repository:a/b:pull registry:catalog:*");
        assert_eq!(
            scopes.texts(),
            [
                "registry:catalog:*",
                "repository:a/b:pull,push",
                "repository:base:pull"
            ]
        );
        assert!(scopes.0.is_superset(&Scopes::pull("base").0));
    }

    #[test]
    fn bearer_wins_over_basic_and_unknown_schemes_are_named() {
        let mut headers = HeaderMap::new();
        assert_eq!(parse_challenge("h", &headers).unwrap(), None);
        headers.append(WWW_AUTHENTICATE, "Basic realm=\"x\"".parse().unwrap());
        assert_eq!(
            parse_challenge("h", &headers).unwrap(),
            Some((Challenge::Basic, None))
        );
        let bearer = "Bearer realm=\"https://auth/token\",service=\"s\",scope=\"repository:a:pull\"";
        headers.append(WWW_AUTHENTICATE, bearer.parse().unwrap());
        let expected = Challenge::Bearer {
            realm: "https://auth/token".to_owned(),
            service: Some("s".to_owned()),
        };
        assert_eq!(
            parse_challenge("h", &headers).unwrap(),
            Some((expected, Some("repository:a:pull".to_owned())))
        );
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Negotiate".parse().unwrap());
        assert!(matches!(
            parse_challenge("h", &headers),
            Err(Error::Challenge { .. })
        ));
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::Basic {
            username: "me".to_owned(),
            password: Secret::new("hunter2"),
        };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
