//! `trimaran manifest`
//!
//! Prints what `docker manifest` prints, failures included: they have no prefix here.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use registry::client::Config;
use registry::docker_config::DockerConfig;
use registry::reference::ReferenceError;
use registry::{Client, Platform, RawManifest, Reference};

use super::Context;
use crate::error::chain;
use crate::manifest::{self, Existing, Lists, Member, Plan, Remote, Snapshot};
use crate::output;

/// Put images for several platforms together under one name
///
/// A list is made of images that are in a registry already, kept on this machine while it is worked on
/// (where `docker manifest` keeps its lists, too), and then pushed.
///
///   trimaran manifest create registry.example/app registry.example/app-amd64 registry.example/app-arm64
///   trimaran manifest annotate registry.example/app registry.example/app-arm64 --variant v8
///   trimaran manifest push --purge registry.example/app
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct ManifestArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Annotate(AnnotateArgs),
    Create(CreateArgs),
    Inspect(InspectArgs),
    Push(PushArgs),
    Rm(RmArgs),
}

/// Say more about the platform of an image in a local list
#[derive(Args, Debug)]
struct AnnotateArgs {
    /// The list
    manifest_list: String,
    /// The image, by the name that it has in the list
    manifest: String,
    /// Set architecture
    #[arg(long, default_value = "", hide_default_value = true)]
    arch: String,
    /// Set operating system
    #[arg(long, default_value = "", hide_default_value = true)]
    os: String,
    /// Add features of the operating system
    #[arg(long, value_delimiter = ',', value_name = "FEATURES")]
    os_features: Vec<String>,
    /// Set version of the operating system
    #[arg(long, default_value = "", hide_default_value = true, value_name = "VERSION")]
    os_version: String,
    /// Set variant of the architecture
    #[arg(long, default_value = "", hide_default_value = true)]
    variant: String,
}

/// Start a local list, or add images to one
#[derive(Args, Debug)]
struct CreateArgs {
    /// The list: the name that it will be pushed under
    manifest_list: String,
    /// The images, each for one platform
    #[arg(required = true)]
    manifests: Vec<String>,
    /// Add to a list that exists already
    #[arg(short, long)]
    amend: bool,
    /// Accept registries with unknown certificates, or with plain HTTP
    #[arg(long)]
    insecure: bool,
}

/// Show an image or a list, local lists first
#[derive(Args, Debug)]
struct InspectArgs {
    /// An image or a list; or a local list, and then an image in it
    #[arg(required = true, num_args = 1..=2, value_names = ["MANIFEST_LIST", "MANIFEST"])]
    names: Vec<String>,
    /// Accept registries with unknown certificates, or with plain HTTP
    #[arg(long)]
    insecure: bool,
    /// Show platforms, layers and where each manifest comes from
    #[arg(short, long)]
    verbose: bool,
}

/// Push a local list, and the images of other repositories that are in it
#[derive(Args, Debug)]
struct PushArgs {
    /// The list
    manifest_list: String,
    /// Accept registries with unknown certificates, or with plain HTTP
    #[arg(long)]
    insecure: bool,
    /// Remove the local list afterwards
    #[arg(short, long)]
    purge: bool,
}

/// Remove local lists
#[derive(Args, Debug)]
struct RmArgs {
    /// The lists
    #[arg(required = true, value_name = "MANIFEST_LIST")]
    manifest_lists: Vec<String>,
}

pub async fn run(args: &ManifestArgs, context: &Context) -> ExitCode {
    let lists = Lists::new(&context.settings.docker_config_folder());
    let result = match &args.command {
        Command::Annotate(args) => annotate(args, &lists),
        Command::Create(args) => create(args, &lists, context).await,
        Command::Inspect(args) => inspect(args, &lists, context).await,
        Command::Push(args) => push(args, &lists, context).await,
        Command::Rm(args) => rm(args, &lists),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&chain(failure.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn annotate(args: &AnnotateArgs, lists: &Lists) -> anyhow::Result<()> {
    let list = normalised(&args.manifest_list).with_context(|| {
        format!(
            "annotate: error parsing name for manifest list {}",
            args.manifest_list
        )
    })?;
    let image = normalised(&args.manifest)
        .with_context(|| format!("annotate: error parsing name for manifest {}", args.manifest))?;
    let found = lists.change(&list, &image, |member| {
        let platform = member.descriptor.platform.get_or_insert_default();
        args.apply(platform);
        if !manifest::docker_knows(&platform.os, &platform.architecture) {
            bail!(
                "manifest entry for image has unsupported os/arch combination: {}/{}",
                args.os,
                args.arch
            );
        }
        Ok(())
    })?;
    if !found {
        bail!(
            "manifest for image {} does not exist in {}",
            args.manifest,
            args.manifest_list
        );
    }
    Ok(())
}

impl AnnotateArgs {
    fn apply(&self, platform: &mut Platform) {
        let set = |field: &mut String, value: &str| {
            if !value.is_empty() {
                value.clone_into(field);
            }
        };
        set(&mut platform.os, &self.os);
        set(&mut platform.architecture, &self.arch);
        set(&mut platform.variant, &self.variant);
        set(&mut platform.os_version, &self.os_version);
        for feature in &self.os_features {
            if !platform.os_features.contains(feature) {
                platform.os_features.push(feature.clone());
            }
        }
    }
}

async fn create(args: &CreateArgs, lists: &Lists, context: &Context) -> anyhow::Result<()> {
    let list = normalised(&args.manifest_list)
        .with_context(|| format!("error parsing name for manifest list {}", args.manifest_list))?;
    let existing = if args.amend {
        Existing::Amend
    } else {
        Existing::Refuse
    };
    let known = lists.find(&list)?;
    if known.is_some() && existing == Existing::Refuse {
        return Err(manifest::ListsError::Exists.into());
    }
    let images = args
        .manifests
        .iter()
        .map(|name| normalised(name))
        .collect::<Result<Vec<_>, _>>()?;
    let client = client(context, args.insecure, &images)?;
    let members = images.iter().map(|image| member(&client, known.as_ref(), image));
    let members = futures::future::try_join_all(members).await?;
    lists.add(&list, &members, existing)?;
    Ok(output::data(&format!("Created manifest list {list}\n"))?)
}

/// The image as the list has it, else as its registry has it.
async fn member(client: &Client, known: Option<&Snapshot>, image: &Reference) -> anyhow::Result<Member> {
    if let Some(known) = known
        && let Some(member) = known.member(image)?
        && member.is_complete()
    {
        return Ok(member);
    }
    Ok(manifest::image(client, image).await?)
}

async fn inspect(args: &InspectArgs, lists: &Lists, context: &Context) -> anyhow::Result<()> {
    let (list, name) = match args.names.as_slice() {
        [list, name] => (Some(list), name),
        [name] => (None, name),
        _ => bail!("name an image, or a list and an image in it"),
    };
    let name = normalised(name)?;
    if let Some(list) = list {
        let member = lists.find(&normalised(list)?)?;
        let member = member.map(|list| list.member(&name)).transpose()?.flatten();
        let Some(member) = member else {
            return Err(manifest::ListsError::NotFound { name }.into());
        };
        return show_image(&member, None, args);
    }
    if let Some(list) = lists.find(&name)? {
        return show_list(&name, &list.members()?, args);
    }
    let client = client(context, args.insecure, std::slice::from_ref(&name))?;
    match manifest::lookup(&client, &name).await? {
        Remote::Image(member, raw) => show_image(&member, Some(&raw), args),
        Remote::List(members) => show_list(&name, &members, args),
    }
}

fn show_image(member: &Member, raw: Option<&RawManifest>, args: &InspectArgs) -> anyhow::Result<()> {
    if args.verbose {
        return show(member);
    }
    let text = match raw {
        Some(raw) => String::from_utf8_lossy(&raw.bytes).into_owned(),
        None => member.manifest_text()?.to_owned(),
    };
    let end = &text[text.trim_end().len()..];
    Ok(output::data(&format!(
        "{}{end}\n",
        manifest::indent(&text, "\t")
    ))?)
}

fn show_list(name: &Reference, members: &[Member], args: &InspectArgs) -> anyhow::Result<()> {
    if args.verbose {
        return show(members);
    }
    let text = manifest::list_document(name, members).context("failed to assemble ManifestDescriptor")?;
    Ok(output::data(&format!("{text}\n"))?)
}

fn show<T: serde::Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    let compact = String::from_utf8(registry::json::compact(&value)?)?;
    Ok(output::data(&format!("{}\n", manifest::indent(&compact, "\t")))?)
}

async fn push(args: &PushArgs, lists: &Lists, context: &Context) -> anyhow::Result<()> {
    let list = normalised(&args.manifest_list)?;
    let snapshot = lists.read(&list)?;
    let plan = Plan::new(list.clone(), &snapshot.members()?)?;
    let client = client(context, args.insecure, std::slice::from_ref(&list))?;
    let copier = plan.copier(&client);
    for copy in &plan.copies {
        copy.run(&copier).await?;
        let (target, digest) = (&copy.target, copy.digest());
        output::data(&format!("Pushed ref {target} with digest: {digest}\n"))?;
    }
    let digest = plan.put_list(&client).await?;
    output::data(&format!("{digest}\n"))?;
    if args.purge && !lists.remove_unchanged(&list, &snapshot)? {
        output::warn(&format!(
            "{list} was changed while it was pushed: the local list stays, push it again"
        ));
    }
    Ok(())
}

fn rm(args: &RmArgs, lists: &Lists) -> anyhow::Result<()> {
    let failures: Vec<String> = args
        .manifest_lists
        .iter()
        .filter_map(|name| {
            let removed = normalised(name)
                .map_err(anyhow::Error::from)
                .and_then(|list| Ok(lists.remove(&list)?));
            removed.err().map(|failure| chain(failure.as_ref()))
        })
        .collect();
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{}", failures.join("\n"))
}

/// With `latest` where nothing else is said.
fn normalised(name: &str) -> Result<Reference, ReferenceError> {
    Ok(name.parse::<Reference>()?.or_latest())
}

fn client(context: &Context, insecure: bool, images: &[Reference]) -> anyhow::Result<Client> {
    let credentials = DockerConfig::load(&context.settings.docker_config_folder())?;
    let mut config = Config::default();
    if insecure {
        for image in images {
            config.allow_insecure(image.repository().registry());
        }
    }
    Ok(Client::new(config, Arc::new(credentials)))
}
