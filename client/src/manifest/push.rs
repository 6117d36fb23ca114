//! From a local list to a list in a registry: images of other repositories are copied first, then the list is written.

use futures::{StreamExt as _, TryStreamExt as _};
use registry::client::{BlobSource, UploadOptions};
use registry::{Client, Digest, Manifest, RawManifest, Reference, Repository, media_type};

use super::document::DockerList;
use super::member::{Member, MemberError};

/// Blobs of one image on their way at the same time.
const AT_ONCE: usize = 4;

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
        image: Reference,
        target: Repository,
        #[source]
        source: registry::Error,
    },
    #[error("failed to put manifest {list}{}", advice(.source))]
    Put {
        list: Reference,
        #[source]
        source: registry::Error,
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
    manifest: Manifest,
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
                    manifest: member.manifest()?,
                });
            }
        }
        Ok(Self {
            list: RawManifest::new(text.into(), None),
            target,
            copies,
        })
    }

    /// Writes the list; its images must be there.
    pub async fn put_list(&self, client: &Client) -> Result<Digest, PushError> {
        let put = client.put_manifest(&self.target, &self.list).await;
        put.map_err(|source| PushError::Put {
            list: self.target.clone(),
            source,
        })?;
        Ok(self.list.digest.clone())
    }
}

impl Copy {
    pub fn digest(&self) -> &Digest {
        &self.raw.digest
    }

    pub async fn run(&self, client: &Client) -> Result<(), PushError> {
        let (from, to) = (self.image.repository(), self.target.repository());
        copy_image(client, from, to, &self.raw, &self.manifest)
            .await
            .map_err(|source| PushError::Copy {
                image: self.image.clone(),
                target: to.clone(),
                source,
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

/// Brings an image to another repository of the same registry: its blobs are mounted, or copied where the registry does
/// not mount, then its manifest is written under its digest.
pub async fn copy_image(
    client: &Client,
    from: &Repository,
    to: &Repository,
    raw: &RawManifest,
    manifest: &Manifest,
) -> Result<(), registry::Error> {
    let options = UploadOptions {
        mount_from: vec![from.clone()],
        progress: None,
    };
    // Registries do not hand out foreign layers, nor expect them.
    let blobs = std::iter::once(&manifest.config)
        .chain(&manifest.layers)
        .filter(|blob| !media_type::is_foreign_layer(&blob.media_type));
    let copies = blobs.map(|blob| {
        let source = BlobSource::remote(client.clone(), vec![from.clone()], blob.clone());
        let options = &options;
        async move { client.push_blob(to, blob, &source, options).await }
    });
    futures::stream::iter(copies)
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    client
        .put_manifest(&to.with_digest(raw.digest.clone()), raw)
        .await
}
