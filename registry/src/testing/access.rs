//! Who may do what: passwords and tokens of the fake registry.

use std::collections::BTreeSet;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::content::{Content, Query, refuse};

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

impl Content {
    pub(super) fn authorise(
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

    pub(super) fn token(
        &mut self,
        method: &Method,
        query: &Query,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Response {
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
