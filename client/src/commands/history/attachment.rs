//! `trimaran history inspect attachment`

use std::io;

use anyhow::{bail, ensure};
use clap::Args;

use crate::commands::Context;
use crate::history::Query;
use crate::history::attachments;

/// Inspect a build record attachment
///
/// Prints the attachment as it is: the one with the digest, or the first of this type and platform.
#[derive(Args, Debug)]
pub struct AttachmentArgs {
    /// The record, by default the latest
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// The attachment itself, as `history inspect` shows it
    digest: Option<String>,
    /// Type of attachment: index, manifest, image, provenance, sbom, or a media type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Platform of attachment
    #[arg(long)]
    platform: Option<String>,
}

pub async fn run(args: &AttachmentArgs, context: &Context) -> anyhow::Result<()> {
    ensure!(
        args.digest.is_some() || args.platform.is_some() || args.kind.is_some(),
        "at least one of --type, --platform or DIGEST must be specified"
    );
    let reference = args.reference.as_deref().unwrap_or_default();
    let library = super::library(context, reference).await?;
    let found = library.find(reference, &Query::default()).await?;
    let digest = match &args.digest {
        Some(digest) => digest.clone(),
        None => {
            let all = attachments::all(&found).await?;
            let fits = |attachment: &&attachments::Attachment| {
                let platform = attachment.platform.as_deref();
                args.platform
                    .as_ref()
                    .is_none_or(|wanted| platform == Some(wanted))
                    && args.kind.as_ref().is_none_or(|kind| attachment.is(kind))
            };
            match all.iter().find(fits) {
                Some(attachment) => attachment.descriptor.digest.clone(),
                None => bail!(
                    "no matching attachment found for ref \"{reference}\": `trimaran history inspect` lists what there is"
                ),
            }
        }
    };
    let mut out = io::stdout().lock();
    match found.blobs().copy(&digest, &mut out).await {
        Err(error) if is_closed(&error) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// A reader that has gone away is no failure of ours.
fn is_closed(error: &crate::history::blobs::BlobError) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
