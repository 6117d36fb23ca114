//! `trimaran manifest-tool`

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use registry::client::{BoxError, Config, CredentialSource, Credentials, HostConfig, Secret};
use registry::docker_config::DockerConfig;
use registry::{Client, Reference};

use super::Context;
use crate::manifest_tool::{self, Colours, Kind, Missing, Spec};
use crate::output;

/// Make indexes from images in a registry, as `manifest-tool` does
///
///   trimaran manifest-tool push from-spec app.yaml
///   trimaran manifest-tool push from-args --platforms linux/amd64,linux/arm64 \
///     --template registry.example/app-ARCH:v1 --target registry.example/app:v1
///   trimaran manifest-tool inspect registry.example/app:v1
///
/// The spec is a YAML file:
///
///   image: registry.example/app:v1
///   tags: [latest]
///   manifests:
///     - image: registry.example/app-amd64:v1
///       platform: {os: linux, architecture: amd64}
///     - image: registry.example/app-arm64:v1
///       platform: {os: linux, architecture: arm64, variant: v8}
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct ManifestToolArgs {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct Access {
    /// Credentials: a file like Docker's config.json, or the folder of one
    #[arg(long, global = true, value_name = "PATH")]
    docker_cfg: Option<PathBuf>,
    /// Accept certificates that nobody vouches for
    #[arg(long, global = true)]
    insecure: bool,
    /// Password for the registry; others on this machine can see it while the command runs
    #[arg(long, global = true)]
    password: Option<String>,
    /// Talk plain HTTP
    #[arg(long, global = true)]
    plain_http: bool,
    /// Username for the registry
    #[arg(long, global = true)]
    username: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(InspectArgs),
    Push(PushArgs),
}

/// Show an image or an index, and its layers
#[derive(Args, Debug)]
struct InspectArgs {
    /// The image, with a tag or digest
    name: String,
    /// With --raw: show the config of an image in place of its descriptor
    #[arg(long)]
    expand_config: bool,
    /// Show JSON
    #[arg(long)]
    raw: bool,
}

/// Push an index over images of the same registry
#[derive(Args, Debug)]
struct PushArgs {
    /// Format of the index
    #[arg(
        long = "type",
        global = true,
        value_enum,
        default_value = "docker",
        value_name = "TYPE"
    )]
    kind: Kind,
    #[command(subcommand)]
    command: PushCommand,
}

#[derive(Debug, Subcommand)]
enum PushCommand {
    FromArgs(FromArgs),
    FromSpec(FromSpec),
}

/// Name images by a pattern
#[derive(Args, Debug)]
struct FromArgs {
    /// Annotations of an OCI index
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// Leave out images that do not exist
    #[arg(long)]
    ignore_missing: bool,
    /// Platforms of the images
    #[arg(
        long,
        required = true,
        value_delimiter = ',',
        value_name = "OS/ARCH[/VARIANT]"
    )]
    platforms: Vec<String>,
    /// Further tags for the index
    #[arg(long, value_delimiter = ',', value_name = "TAG")]
    tags: Vec<String>,
    /// Name of the index
    #[arg(long)]
    target: String,
    /// Name of the images; OS, ARCH and VARIANT in it stand for the parts of a platform
    #[arg(long)]
    template: String,
}

/// Name images in a YAML file
#[derive(Args, Debug)]
struct FromSpec {
    /// The file
    file: PathBuf,
    /// Leave out images that do not exist
    #[arg(long)]
    ignore_missing: bool,
}

pub async fn run(args: &ManifestToolArgs, context: &Context) -> anyhow::Result<()> {
    match &args.command {
        Command::Inspect(inspect_args) => inspect(inspect_args, &args.access, context).await,
        Command::Push(push_args) => match &push_args.command {
            PushCommand::FromArgs(from) => {
                let spec = manifest_tool::from_args(
                    &from.target,
                    &from.template,
                    &from.platforms,
                    &from.tags,
                    &from.annotations,
                )?;
                push(
                    &spec,
                    push_args.kind,
                    missing(from.ignore_missing),
                    &args.access,
                    context,
                )
                .await
                .context("pushing image failed")
            }
            PushCommand::FromSpec(from) => {
                let spec = read(&from.file)?;
                push(
                    &spec,
                    push_args.kind,
                    missing(from.ignore_missing),
                    &args.access,
                    context,
                )
                .await
                .context("failed to push image")
            }
        },
    }
}

const fn missing(ignored: bool) -> Missing {
    if ignored { Missing::Ignored } else { Missing::Fails }
}

fn read(file: &Path) -> anyhow::Result<Spec> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read YAML file {name:?}"))?;
    let (spec, remarks) = Spec::parse(&text, &name)?;
    for remark in remarks {
        output::warn(&remark);
    }
    Ok(spec)
}

async fn push(
    spec: &Spec,
    kind: Kind,
    missing: Missing,
    access: &Access,
    context: &Context,
) -> anyhow::Result<()> {
    if kind == Kind::Docker && !spec.annotations.is_empty() {
        return Err(manifest_tool::AssembleError::Annotations.into());
    }
    let client = access.client(&spec.image, context)?;
    let gathered = manifest_tool::gather(&client, spec, missing).await?;
    for image in &gathered.missing {
        output::warn(&format!(
            "Couldn't access image '{image:?}'. Skipping due to 'ignore missing' configuration."
        ));
    }
    let index = manifest_tool::push(&client, &gathered, kind, &spec.tags, &spec.annotations).await?;
    Ok(output::data(&format!(
        "Digest: {} {}\n",
        index.digest, index.size
    ))?)
}

async fn inspect(args: &InspectArgs, access: &Access, context: &Context) -> anyhow::Result<()> {
    let name = &args.name;
    let image: Reference = name.parse().context("error parsing image reference")?;
    ensure!(
        image.tag().is_some() || image.digest().is_some(),
        "image reference must include a tag or a digest; manifest-tool does not default to 'latest'"
    );
    ensure!(
        args.raw || !args.expand_config,
        "the --expand-config flag is only valid when used with --raw"
    );
    let client = access.client(name, context)?;
    let found = manifest_tool::inspect(&client, &image).await?;
    if args.raw {
        return Ok(output::data(&manifest_tool::raw_json(
            &found,
            name,
            args.expand_config,
        )?)?);
    }
    let colours = if context.settings.wants_colour() && std::io::stdout().is_terminal() {
        Colours::On
    } else {
        Colours::Off
    };
    Ok(output::data(&found.text(name, colours))?)
}

/// The same credentials for everybody who asks.
#[derive(Debug)]
struct Given(Credentials);

impl CredentialSource for Given {
    fn credentials<'a>(
        &'a self,
        _host: &'a str,
    ) -> futures::future::BoxFuture<'a, Result<Credentials, BoxError>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

impl Access {
    /// A client for the registry of `image`. A name that is none is refused later, with its place.
    fn client(&self, image: &str, context: &Context) -> anyhow::Result<Client> {
        let mut config = Config::default();
        if let Ok(image) = image.parse::<Reference>() {
            let host = HostConfig {
                insecure: self.insecure,
                plain_http: self.plain_http.then_some(true),
                ..HostConfig::default()
            };
            config
                .hosts
                .insert(image.repository().registry().to_owned(), host);
        }
        Ok(Client::new(config, self.credentials(context)?))
    }

    fn credentials(&self, context: &Context) -> anyhow::Result<Arc<dyn CredentialSource>> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (username, password) = (given(&self.username), given(&self.password));
        if username.is_some() || password.is_some() {
            return Ok(Arc::new(Given(Credentials::Basic {
                username: username.unwrap_or_default(),
                password: Secret::new(password.unwrap_or_default()),
            })));
        }
        let config = match &self.docker_cfg {
            None => DockerConfig::load(&context.settings.docker_config_folder())?,
            Some(path) if path.is_dir() => DockerConfig::load(path)?,
            Some(path) if path.exists() => DockerConfig::load_file(path)?,
            Some(path) => bail!("--docker-cfg: there is no {}", path.display()),
        };
        Ok(Arc::new(config))
    }
}
