//! `trimaran imagetools inspect`

use anyhow::ensure;
use clap::Args;

use crate::commands::Context;
use crate::imagetools;
use crate::output;

/// Show details of an image in the registry
///
/// Examples:
///   trimaran imagetools inspect alpine
///   trimaran imagetools inspect --raw alpine
///   trimaran imagetools inspect --format '{{json .}}' alpine
///   trimaran imagetools inspect --format '{{json (index .Image "linux/s390x")}}' alpine
///   trimaran imagetools inspect --format '{{range .Manifest.Manifests}}{{.Digest}} {{end}}' alpine
///   trimaran imagetools inspect --format '{{json .Provenance}}' alpine
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct InspectArgs {
    /// The image
    name: String,
    /// Format the output using the given Go template over .Name, .Manifest, .Image, .BuildInfo, .Provenance and .SBOM
    #[arg(long)]
    format: Option<String>,
    /// Show original, unformatted JSON manifest
    #[arg(long)]
    raw: bool,
}

pub async fn run(args: &InspectArgs, context: &Context) -> anyhow::Result<()> {
    let format = args.format.as_deref().filter(|format| !format.is_empty());
    ensure!(
        format.is_none() || !args.raw,
        "format and raw cannot be used together"
    );
    // A mistake in the template is found before anybody is asked for anything.
    let template = format.map(imagetools::parse_format).transpose()?;
    let reference = imagetools::sources::reference(&args.name)?;
    let (client, _registries) = super::client(context)?;
    let image = imagetools::inspect(&client, reference).await?;
    if args.raw {
        // Not a byte more: the digest of the output is the digest of the manifest.
        return Ok(output::data_bytes(&image.raw.bytes)?);
    }
    let text = match format.zip(template.as_ref()) {
        None => imagetools::summary(&image),
        Some(template) => imagetools::render(&client, &image, &args.name, template).await?,
    };
    Ok(output::data(&text)?)
}
