//! The clients of a build as the source of its registry credentials.

use futures::future::BoxFuture;
use registry::client::{
    BoxError, CredentialSource, Credentials as RegistryCredentials, IssuedToken, Secret as RegistrySecret,
    TokenRequest,
};

use super::{Credentials, Group, Secret};

impl CredentialSource for Group {
    fn token<'a>(&'a self, wanted: &'a TokenRequest) -> BoxFuture<'a, Result<Option<IssuedToken>, BoxError>> {
        Box::pin(async move {
            match Self::token(self, wanted).await {
                Ok(issued) => Ok(issued),
                Err(error) if error.is_absent() => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn credentials<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<RegistryCredentials, BoxError>> {
        Box::pin(async move {
            Ok(match Self::credentials(self, host).await {
                Ok(Credentials::Anonymous) => RegistryCredentials::Anonymous,
                Ok(Credentials::Password { username, password }) => RegistryCredentials::Basic {
                    username,
                    password: text(&password)?,
                },
                Ok(Credentials::IdentityToken(token)) => {
                    RegistryCredentials::Identity { token: text(&token)? }
                }
                // Clients without credentials, such as buildctl without a config, need not offer the service.
                Err(error) if error.is_absent() => RegistryCredentials::Anonymous,
                Err(error) => return Err(error.into()),
            })
        })
    }
}

fn text(secret: &Secret) -> Result<RegistrySecret, BoxError> {
    let text = secret.expose_text().ok_or("the client's password is not text")?;
    Ok(RegistrySecret::new(text))
}
