//! From a local list to a list in a registry: images of other repositories are copied first, then the list is written.

use registry::client::Copier;
use registry::{Client, Digest, RawManifest, Reference, media_type};

use super::document::DockerList;
use super::member::{Member, MemberError};

#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("{list} not found")]
    Empty { list: Reference },
    #[error("manifest {image} must have an OS and Architecture to be pushed to a registry")]
    NoPlatform { image: Reference },
    #[error(
        "cannot use source images from a different registry than the target image: {source_host} != {target_host}"
    )]
    OtherRegistry {
        source_host: String,
        target_host: String,
    },
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error("write the manifest list")]
    Encode(#[source] serde_json::Error),
    #[error("copy {image} to {target}")]
    Copy {
        image: String,
        target: String,
        #[source]
        source: Box<registry::Error>,
    },
    #[error("failed to put manifest {list}{}", advice(.source))]
    Put {
        list: Reference,
        #[source]
        source: Box<registry::Error>,
    },
}

/// A registry that takes images but not this list knows another of the two formats, or neither.
fn advice(error: &registry::Error) -> &'static str {
    match error.status().map(|status| status.as_u16()) {
        Some(400 | 405 | 406 | 415 | 501) => {
            " (the registry took the images but refuses the list: it may not know this format)"
        }
        _ => "",
    }
}

/// The images to copy and the list to write in the end.
#[derive(Debug)]
pub struct Plan {
    target: Reference,
    pub copies: Vec<Copy>,
    list: RawManifest,
}

/// An image that the list's repository does not have yet.
#[derive(Debug)]
pub struct Copy {
    image: Reference,
    /// Its name in the list's repository.
    pub target: Reference,
    raw: RawManifest,
}

impl Plan {
    pub fn new(target: Reference, members: &[Member]) -> Result<Self, PushError> {
        if members.is_empty() {
            return Err(PushError::Empty { list: target });
        }
        for member in members {
            let platform = member.descriptor.platform.as_ref();
            if platform.is_none_or(|platform| platform.os.is_empty() || platform.architecture.is_empty()) {
                return Err(PushError::NoPlatform {
                    image: member.reference.clone(),
                });
            }
        }
        let text = list_document(&target, members)?;
        let mut copies = Vec::new();
        for member in members {
            if member.reference.repository() != target.repository() {
                copies.push(Copy {
                    image: member.reference.clone(),
                    target: target.repository().with_digest(member.descriptor.digest.clone()),
                    raw: member.raw()?,
                });
            }
        }
        Ok(Self {
            list: RawManifest::new(text.into(), None),
            target,
            copies,
        })
    }

    /// What the copies share.
    pub fn copier(&self, client: &Client) -> Copier {
        Copier::new(client.clone(), self.target.repository().clone())
    }

    /// Writes the list; its images must be there.
    pub async fn put_list(&self, client: &Client) -> Result<Digest, PushError> {
        let put = client.put_manifest(&self.target, &self.list).await;
        put.map_err(|source| PushError::Put {
            list: self.target.clone(),
            source: Box::new(source),
        })?;
        Ok(self.list.digest.clone())
    }
}

impl Copy {
    pub fn digest(&self) -> &Digest {
        &self.raw.digest
    }

    pub async fn run(&self, copier: &Copier) -> Result<(), PushError> {
        let copied = copier.copy_known(self.image.repository(), &self.raw).await;
        copied.map_err(|source| PushError::Copy {
            image: self.image.to_string(),
            target: self.target.repository().to_string(),
            source: Box::new(source),
        })
    }
}

/// The list as it is pushed: an OCI index if the first image is an OCI image.
pub fn list_document(target: &Reference, members: &[Member]) -> Result<String, PushError> {
    let target_host = target.repository().registry();
    for member in members {
        let source_host = member.reference.repository().registry();
        if source_host != target_host {
            return Err(PushError::OtherRegistry {
                source_host: source_host.to_owned(),
                target_host: target_host.to_owned(),
            });
        }
    }
    let is_oci = members
        .first()
        .is_some_and(|first| first.descriptor.media_type == media_type::OCI_MANIFEST);
    let kind = if is_oci {
        media_type::OCI_INDEX
    } else {
        media_type::DOCKER_INDEX
    };
    DockerList::new(kind, members.iter().map(|member| &member.descriptor))
        .text("   ")
        .map_err(PushError::Encode)
}
