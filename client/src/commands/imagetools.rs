//! `trimaran imagetools`

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use registry::client::Config;
use registry::docker_config::DockerConfig;
use registry::{Client, Reference};

use super::Context;
use crate::imagetools;
use crate::output;

/// Commands to work on images in registry
#[derive(Args, Debug)]
pub struct ImagetoolsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(InspectArgs),
}

/// Show details of an image in the registry
///
/// Examples:
///   trimaran imagetools inspect alpine
///   trimaran imagetools inspect --raw alpine
///   trimaran imagetools inspect --format '{{json .}}' alpine
///   trimaran imagetools inspect --format '{{json (index .Image "linux/s390x")}}' alpine
///   trimaran imagetools inspect --format '{{range .Manifest.Manifests}}{{.Digest}} {{end}}' alpine
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
struct InspectArgs {
    /// The image
    name: String,
    /// Format the output using the given Go template over .Name, .Manifest, .Image, .BuildInfo,
    /// .Provenance and .SBOM
    #[arg(long)]
    format: Option<String>,
    /// Show original, unformatted JSON manifest
    #[arg(long)]
    raw: bool,
}

pub async fn run(args: &ImagetoolsArgs, context: &Context) -> anyhow::Result<()> {
    match &args.command {
        Command::Inspect(args) => inspect(args, context).await,
    }
}

async fn inspect(args: &InspectArgs, context: &Context) -> anyhow::Result<()> {
    let format = args.format.as_deref().filter(|format| !format.is_empty());
    ensure!(
        format.is_none() || !args.raw,
        "format and raw cannot be used together"
    );
    // A mistake in the template is found before anybody is asked for anything.
    let template = format.map(imagetools::parse_format).transpose()?;
    let reference: Reference = args
        .name
        .parse()
        .with_context(|| format!("invalid image name \"{}\"", args.name))?;
    let credentials = DockerConfig::load(&context.settings.docker_config_folder())?;
    let client = Client::new(Config::default(), Arc::new(credentials));
    let image = imagetools::inspect(&client, reference.or_latest()).await?;
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
