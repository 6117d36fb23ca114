//! `Auth`: credentials from the user's Docker configuration and its helpers.
//!
//! Only `Credentials` is served: the daemon exchanges them for tokens by itself.

use std::sync::Arc;

use proto::filesync::auth_server::Auth as AuthService;
use proto::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use registry::client::Credentials;
use registry::docker_config::DockerConfig;
use tonic::{Request, Response, Status};

#[derive(Debug)]
pub struct Auth {
    pub config: Arc<DockerConfig>,
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let found = self.config.find(&host).await.map_err(|error| {
            Status::unknown(format!("credentials for {host}: {}", crate::error::chain(&error)))
        })?;
        Ok(Response::new(match found {
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
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(exchange())
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(exchange())
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(exchange())
    }
}

fn exchange() -> Status {
    Status::unimplemented("tokens are fetched by the daemon")
}
