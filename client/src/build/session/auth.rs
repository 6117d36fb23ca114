//! `Auth`: credentials from the user's Docker configuration and its helpers, or tokens bought with them.
//!
//! Who asks for tokens gets no passwords: they are exchanged here. That it is the same user who answers is proved with
//! a key made of a seed that never leaves this machine, so that a daemon may share tokens among his builds only.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use proto::filesync::auth_server::Auth as AuthService;
use proto::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use registry::client::{Credentials, TokenRequest, issue_token};
use registry::docker_config::DockerConfig;
use tonic::{Request, Response, Status};

/// The file with the seed, in the folder of our configuration.
const SEED: &str = ".token_seed";
const SEED_LENGTH: usize = 32;

#[derive(Debug)]
pub struct Auth {
    pub config: Arc<DockerConfig>,
    /// The folder of our configuration.
    pub folder: PathBuf,
}

impl Auth {
    async fn find(&self, host: &str) -> Result<Credentials, Status> {
        self.config.find(host).await.map_err(|error| {
            Status::unknown(format!("credentials for {host}: {}", crate::error::chain(&error)))
        })
    }

    /// The key of this user for a registry, as `salt` makes it. Somebody without credentials is like anybody else.
    async fn authority(&self, host: &str, salt: &[u8]) -> Result<Ed25519KeyPair, Status> {
        let secret = match self.find(host).await? {
            Credentials::Anonymous => return Err(Status::unavailable(format!("no credentials for {host}"))),
            Credentials::Basic { username, password } => format!("{username}:{}", password.expose()),
            Credentials::Identity { token } | Credentials::Bearer { token } => token.expose().to_owned(),
        };
        let seed = seed(&self.folder)
            .map_err(|error| Status::unavailable(format!("no key to sign with: {error}")))?;
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &seed));
        for part in [salt, host.as_bytes(), secret.as_bytes()] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        Ed25519KeyPair::from_seed_unchecked(mac.sign().as_ref())
            .map_err(|_| Status::internal("the key to sign with is broken"))
    }
}

/// Made when it is first needed, readable for the user alone.
fn seed(folder: &Path) -> std::io::Result<Vec<u8>> {
    let path = folder.join(SEED);
    let read = || fs::read(&path).map(|seed| Some(seed).filter(|seed| seed.len() == SEED_LENGTH));
    match read() {
        Ok(Some(seed)) => return Ok(seed),
        Ok(None) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir_all(folder)?;
    let seed: [u8; SEED_LENGTH] = rand::random();
    let draft = folder.join(format!("{SEED}.{:016x}", rand::random::<u64>()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(&seed)?;
    fs::rename(&draft, &path)?;
    Ok(seed.to_vec())
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        Ok(Response::new(match self.find(&host).await? {
            Credentials::Basic { username, password } => CredentialsResponse {
                username,
                secret: password.expose().to_owned(),
            },
            // A secret without a name is a token to be exchanged.
            Credentials::Identity { token } => CredentialsResponse {
                username: String::new(),
                secret: token.expose().to_owned(),
            },
            // The protocol has no place for a token that is used as it is.
            Credentials::Bearer { .. } | Credentials::Anonymous => CredentialsResponse::default(),
        }))
    }

    async fn fetch_token(
        &self,
        request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        let request = request.into_inner();
        let credentials = self.find(&request.host).await?;
        let wanted = TokenRequest {
            host: request.host,
            realm: request.realm,
            service: Some(request.service).filter(|service| !service.is_empty()),
            scopes: request.scopes,
        };
        let issued = issue_token(&wanted, &credentials).await;
        let issued = issued.map_err(|error| {
            let text = crate::error::chain(&error);
            // Where we get no answer, the daemon may.
            if error.is_transient() {
                Status::unavailable(text)
            } else {
                Status::unauthenticated(text)
            }
        })?;
        Ok(Response::new(FetchTokenResponse {
            token: issued.token.expose().to_owned(),
            expires_in: i64::try_from(issued.life.as_secs()).unwrap_or(i64::MAX),
            issued_at: 0,
        }))
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        let request = request.into_inner();
        let key = self.authority(&request.host, &request.salt).await?;
        Ok(Response::new(GetTokenAuthorityResponse {
            public_key: key.public_key().as_ref().to_vec().into(),
        }))
    }

    async fn verify_token_authority(
        &self,
        request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        let request = request.into_inner();
        let key = self.authority(&request.host, &request.salt).await?;
        // The signature, and behind it what was signed.
        let mut signed = key.sign(&request.payload).as_ref().to_vec();
        signed.extend_from_slice(&request.payload);
        Ok(Response::new(VerifyTokenAuthorityResponse {
            signed: signed.into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn auth(folder: &Path, password: &str) -> Auth {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("me:{password}"));
        fs::create_dir_all(folder).unwrap();
        let config = format!(r#"{{"auths":{{"r.example":{{"auth":"{pair}"}}}}}}"#);
        fs::write(folder.join("config.json"), config).unwrap();
        Auth {
            config: Arc::new(DockerConfig::load(folder).unwrap()),
            folder: folder.join("ours"),
        }
    }

    #[tokio::test]
    async fn a_user_is_known_by_a_key_that_only_he_can_make() {
        let root = tempfile::tempdir().unwrap();
        let one = auth(&root.path().join("one"), "secret");
        let host = || "r.example".to_owned();
        let key = async |auth: &Auth, salt: &[u8]| {
            let request = GetTokenAuthorityRequest {
                host: host(),
                salt: salt.to_vec().into(),
            };
            let answer = auth.get_token_authority(Request::new(request)).await;
            answer.unwrap().into_inner().public_key
        };
        let own = key(&one, b"salt").await;
        assert_eq!(own.len(), 32);
        assert_eq!(own, key(&one, b"salt").await);
        assert_ne!(own, key(&one, b"other").await);
        assert_ne!(own, key(&auth(&root.path().join("two"), "secret"), b"salt").await);
        let request = VerifyTokenAuthorityRequest {
            host: host(),
            payload: b"payload".to_vec().into(),
            salt: b"salt".to_vec().into(),
        };
        let signed = one.verify_token_authority(Request::new(request)).await;
        let signed = signed.unwrap().into_inner().signed;
        let (signature, payload) = signed.split_at(64);
        assert_eq!(payload, b"payload");
        let key = UnparsedPublicKey::new(&ED25519, &own);
        assert!(key.verify(payload, signature).is_ok());
        let nobody = GetTokenAuthorityRequest {
            host: "other.example".to_owned(),
            ..GetTokenAuthorityRequest::default()
        };
        let nobody = one.get_token_authority(Request::new(nobody)).await;
        assert_eq!(nobody.unwrap_err().code(), tonic::Code::Unavailable);
    }
}
