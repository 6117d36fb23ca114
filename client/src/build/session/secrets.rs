//! `Secrets`: the values that `--secret` named, read at the moment they are asked for.

use std::collections::BTreeMap;

use proto::secrets::secrets_server::Secrets as SecretsService;
use proto::secrets::{GetSecretRequest, GetSecretResponse};
use tonic::{Request, Response, Status};

use crate::build::values::SecretSource;
use crate::settings::Settings;

/// A secret is a key or a token; anything larger is a mistake.
const LARGEST: usize = 500 * 1024;

#[derive(Debug)]
pub struct Secrets {
    pub sources: BTreeMap<String, SecretSource>,
    pub settings: Settings,
}

#[tonic::async_trait]
impl SecretsService for Secrets {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let missing = || Status::not_found(format!("secret {id} not found"));
        let data = match self.sources.get(&id).ok_or_else(missing)? {
            SecretSource::Environment(name) => {
                self.settings.get(name).ok_or_else(missing)?.as_bytes().to_vec()
            }
            SecretSource::File(path) => tokio::fs::read(path)
                .await
                .map_err(|error| Status::unknown(format!("reading secret {id}: {error}")))?,
        };
        if data.len() > LARGEST {
            return Err(Status::invalid_argument(format!(
                "secret {id} is larger than {LARGEST} bytes"
            )));
        }
        Ok(Response::new(GetSecretResponse { data: data.into() }))
    }
}
