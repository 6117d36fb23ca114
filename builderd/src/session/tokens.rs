//! Tokens that a client buys for the daemon, so that its passwords stay with it.

use std::time::Duration;

use proto::filesync::auth_client::AuthClient;
use proto::filesync::{FetchTokenRequest, GetTokenAuthorityRequest};
use registry::client::{IssuedToken, Secret, TokenRequest};

use super::services::{method, within};
use super::{Group, Session, SessionError};

/// What registries see as the one who asks.
const CLIENT: &str = "trimaran";
/// A token of unknown life is used this long; the specification's minimum.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Of the salt for the client's key. Nothing is shared between builds, so each question has one of its own.
const SALT: usize = 32;

impl Session {
    /// A token for a registry; nothing if this client hands its credentials out, or has none.
    async fn token(&self, wanted: &TokenRequest) -> Result<Option<IssuedToken>, SessionError> {
        if !self.supports(method::FETCH_TOKEN) || !self.supports(method::TOKEN_AUTHORITY) {
            return Ok(None);
        }
        let mut client = AuthClient::new(self.channel());
        // Clients that buy tokens say so by having a key.
        let salt: [u8; SALT] = rand::random();
        let question = GetTokenAuthorityRequest {
            host: wanted.host.clone(),
            salt: salt.to_vec().into(),
        };
        let key = within(method::TOKEN_AUTHORITY, client.get_token_authority(question)).await;
        match key {
            Ok(answer) if answer.get_ref().public_key.is_empty() => return Ok(None),
            Ok(_) => {}
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        }
        let question = FetchTokenRequest {
            client_id: CLIENT.to_owned(),
            host: wanted.host.clone(),
            realm: wanted.realm.clone(),
            service: wanted.service.clone().unwrap_or_default(),
            scopes: wanted.scopes.clone(),
        };
        match within(method::FETCH_TOKEN, client.fetch_token(question)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let life = match u64::try_from(answer.expires_in) {
                    Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
                    _ => DEFAULT_LIFE,
                };
                let token = Secret::new(answer.token);
                Ok(Some(IssuedToken { token, life }).filter(|issued| !issued.token.expose().is_empty()))
            }
            // It may be that only we reach the one who gives tokens out.
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Group {
    /// A token of the first client that buys one for `wanted`.
    pub async fn token(&self, wanted: &TokenRequest) -> Result<Option<IssuedToken>, SessionError> {
        for session in self.offering(method::FETCH_TOKEN).await? {
            if let Some(token) = session.token(wanted).await? {
                return Ok(Some(token));
            }
        }
        Ok(None)
    }
}
