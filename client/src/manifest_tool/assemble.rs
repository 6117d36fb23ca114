//! Writes the index of gathered images, and brings images of other repositories to its side.

use futures::future::try_join_all;
use registry::client::Copier;
use registry::manifest::Annotations;
use registry::reference::ReferenceError;
use registry::{Client, Descriptor, Index, RawManifest, Reference, media_type};

use super::gather::Gathered;
use crate::manifest::DockerList;

#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    #[error("manifest list (Docker media type) does not support annotations; use --type oci instead")]
    Annotations,
    #[error("all entries were skipped due to missing source image references; no manifest list to push")]
    Nothing,
    #[error("error creating manifest list/index JSON")]
    Encode(#[source] serde_json::Error),
    #[error("error pushing target manifest component reference: {reference}")]
    Component {
        reference: Reference,
        #[source]
        source: Box<registry::Error>,
    },
    #[error("error creating additional tag reference: {tag}")]
    Tag {
        tag: String,
        #[source]
        source: ReferenceError,
    },
    #[error("error pushing manifest list/index to registry: {reference}{}", advice(.source, *.kind))]
    Index {
        reference: Reference,
        kind: Kind,
        #[source]
        source: Box<registry::Error>,
    },
}

/// The format of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A manifest list of Docker, version 2.2
    Docker,
    /// An OCI image index
    Oci,
}

/// For a registry that took everything but the index.
fn advice(error: &registry::Error, kind: Kind) -> &'static str {
    match (error.status().map(|status| status.as_u16()), kind) {
        (Some(400 | 405 | 406 | 415 | 501), Kind::Docker) => {
            " (the registry refuses Docker's format; try --type oci)"
        }
        (Some(400 | 405 | 406 | 415 | 501), Kind::Oci) => {
            " (the registry refuses OCI's format; try --type docker)"
        }
        _ => "",
    }
}

/// Pushes the index under its name and further tags; returns its descriptor.
pub async fn push(
    client: &Client,
    gathered: &Gathered,
    kind: Kind,
    tags: &[String],
    annotations: &Annotations,
) -> Result<Descriptor, AssembleError> {
    if kind == Kind::Docker && !annotations.is_empty() {
        return Err(AssembleError::Annotations);
    }
    if gathered.entries.is_empty() {
        return Err(AssembleError::Nothing);
    }
    let repository = gathered.target.repository();
    // Wrong tags are found before anything is written.
    let mut names = vec![gathered.target.clone()];
    for tag in tags {
        let name = repository.with_tag(tag).map_err(|source| AssembleError::Tag {
            tag: tag.clone(),
            source,
        })?;
        names.push(name);
    }
    let index = document(gathered, kind, annotations)?;
    let copier = Copier::new(client.clone(), repository.clone());
    let elsewhere = gathered
        .entries
        .iter()
        .filter(|entry| entry.repository != *repository);
    let copies = elsewhere.map(|entry| async {
        let reference = repository.with_digest(entry.descriptor.digest.clone());
        tracing::debug!(%reference, from = %entry.repository, "pushing manifest component");
        let copied = copier.copy_known(&entry.repository, &entry.raw).await;
        copied.map_err(|source| AssembleError::Component {
            reference,
            source: Box::new(source),
        })
    });
    try_join_all(copies).await?;
    for reference in names {
        let put = client.put_manifest(&reference, &index).await;
        put.map_err(|source| AssembleError::Index {
            reference: reference.clone(),
            kind,
            source: Box::new(source),
        })?;
        tracing::debug!(%reference, "pushed manifest list/index");
    }
    Ok(index.descriptor())
}

fn document(
    gathered: &Gathered,
    kind: Kind,
    annotations: &Annotations,
) -> Result<RawManifest, AssembleError> {
    let descriptors = gathered.entries.iter().map(|entry| &entry.descriptor);
    match kind {
        Kind::Docker => {
            let text = DockerList::new(media_type::DOCKER_INDEX, descriptors).text("  ");
            let text = text.map_err(AssembleError::Encode)?;
            Ok(RawManifest::new(text.into(), Some(media_type::DOCKER_INDEX)))
        }
        Kind::Oci => {
            let mut index = Index::new(media_type::OCI_INDEX, descriptors.cloned().collect());
            index.annotations = Some(annotations.clone());
            RawManifest::from_index(&index).map_err(AssembleError::Encode)
        }
    }
}
