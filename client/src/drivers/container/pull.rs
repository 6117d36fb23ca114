//! Images that a registry has, brought into the engine.

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::TryStreamExt as _;
use registry::Reference;
use registry::client::Credentials;
use registry::docker_config::DockerConfig;

use crate::drivers::DriverError;
use crate::settings::Settings;

/// Pulls the image. One that the engine has is good enough where its registry cannot be reached.
pub(super) async fn provide(settings: &Settings, docker: &Docker, image: &str) -> Result<(), DriverError> {
    match pull(settings, docker, image).await {
        Err(error) if docker.inspect_image(image).await.is_ok() => {
            tracing::debug!("using the image {image} as it is: {}", proto::chain(&error));
            Ok(())
        }
        other => other,
    }
}

async fn pull(settings: &Settings, docker: &Docker, image: &str) -> Result<(), DriverError> {
    let reference: Reference = image.parse().map_err(|source| DriverError::Image {
        image: image.to_owned(),
        source,
    })?;
    let host = reference.repository().api_host();
    let credentials = async {
        DockerConfig::load(&settings.docker_config_folder())?
            .find(host)
            .await
    };
    let credentials = credentials.await.map_err(|source| DriverError::Credentials {
        image: image.to_owned(),
        source,
    })?;
    // Without a tag or a digest the engine would bring all tags.
    let options = CreateImageOptionsBuilder::new()
        .from_image(&reference.or_latest().familiar())
        .build();
    docker
        .create_image(Some(options), None, as_docker_has_them(credentials))
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .map_err(|source| DriverError::Request {
            action: format!("pull the image {image}"),
            source,
        })
}

fn as_docker_has_them(credentials: Credentials) -> Option<DockerCredentials> {
    match credentials {
        Credentials::Anonymous => None,
        Credentials::Basic { username, password } => Some(DockerCredentials {
            username: Some(username),
            password: Some(password.expose().to_owned()),
            ..DockerCredentials::default()
        }),
        Credentials::Identity { token } => Some(DockerCredentials {
            identitytoken: Some(token.expose().to_owned()),
            ..DockerCredentials::default()
        }),
        Credentials::Bearer { token } => Some(DockerCredentials {
            registrytoken: Some(token.expose().to_owned()),
            ..DockerCredentials::default()
        }),
    }
}
