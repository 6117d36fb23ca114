//! What refers to a manifest: signatures, attestations, lists of materials.

use http::{Method, StatusCode};

use super::Client;
use super::error::Error;
use super::manifests::LARGEST_MANIFEST;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, RawManifest};
use crate::media_type;
use crate::reference::Repository;

impl Client {
    /// The manifests whose subject a manifest is. Registries that do not keep account of them have a list under a tag,
    /// or none.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let endpoint = self.transport.connections.origin(repository)?;
        let doing = format!("list referrers of {subject} in {repository}");
        let path = format!("referrers/{subject}");
        let url = self
            .transport
            .connections
            .url(&endpoint, repository.path(), &path)
            .await?;
        let sent = self
            .transport
            .look_up(&endpoint, repository, Method::GET, url, doing.clone())
            .await;
        let raw = match sent {
            Ok(response) => {
                let transport = &self.transport;
                let bytes = transport
                    .read_body(response, LARGEST_MANIFEST, &endpoint.host, &doing)
                    .await?;
                RawManifest::new(bytes, Some(media_type::OCI_INDEX))
            }
            Err(error) if is_unknown(&error) => {
                let tag = format!("{}-{}", subject.algorithm().name(), subject.hex());
                let Ok(reference) = repository.with_tag(&tag) else {
                    return Ok(Vec::new());
                };
                match self.manifest(&reference).await {
                    Ok(raw) => raw,
                    Err(error) if error.is_not_found() => return Ok(Vec::new()),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        match raw.parse() {
            Ok(Document::Index(index)) => Ok(index.manifests),
            Ok(Document::Manifest(_)) | Err(_) => Ok(Vec::new()),
        }
    }
}

/// Whether the server does not know the question.
fn is_unknown(error: &Error) -> bool {
    error.is_not_found()
        || matches!(
            error.status(),
            Some(StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED)
        )
}
