//! `trimaran imagetools create`

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::{ArgAction, Args};
use futures::future::try_join_all;
use registry::client::Copier;
use registry::{Client, Digest, RawManifest, Reference, Repository, media_type};
use serde_json::json;

use crate::builders::write_atomically;
use crate::commands::Context;
use crate::imagetools::annotations::{self, Annotation, Target};
use crate::imagetools::combine::{self, Combined};
use crate::imagetools::sources::{self, Given};
use crate::output;
use crate::platforms;
use crate::progress::{self, Display, Heading, Mode, Paint};

/// Create a new image based on source images
///
/// Sources are names of images and indexes, digests in the only repository that names and tags speak of, or
/// descriptors in JSON. What the new image names is mounted or copied to where it is needed.
///
/// Examples:
///   trimaran imagetools create -t registry.example/app:1 registry.example/app:amd64 registry.example/app:arm64
///   trimaran imagetools create -t registry.example/app:stable registry.example/app:1
///   trimaran imagetools create -t registry.example/app:1 --append registry.example/app:riscv64
///   trimaran imagetools create --dry-run --annotation index:org.example.channel=beta registry.example/app:1
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct CreateArgs {
    /// The sources
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Read a source from this file; "-" is standard input
    #[arg(short, long = "file")]
    files: Vec<PathBuf>,
    /// Set reference for new image
    #[arg(short, long = "tag")]
    tags: Vec<String>,
    /// Show the final image instead of pushing
    #[arg(long)]
    dry_run: bool,
    /// Append to what the first tag names
    #[arg(long)]
    append: bool,
    /// Add annotation (format: "[TYPE:]KEY=VALUE"; types: index, manifest[PLATFORM], manifest-descriptor[PLATFORM])
    #[arg(long = "annotation", value_name = "ANNOTATION")]
    annotations: Vec<String>,
    /// Keep only the images for these platforms
    #[arg(short, long = "platform")]
    platforms: Vec<String>,
    /// Make an index also of a single image; without it, a single image is copied as it is
    #[arg(
        long,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set
    )]
    prefer_index: bool,
    /// Write create result metadata to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Set type of progress output ("auto", "none", "plain", "rawjson", "tty", "quiet")
    #[arg(long, default_value = "auto")]
    progress: Mode,
}

pub async fn run(args: &CreateArgs, context: &Context) -> anyhow::Result<()> {
    ensure!(
        !args.sources.is_empty() || !args.files.is_empty(),
        "no sources specified"
    );
    ensure!(
        args.dry_run || !args.tags.is_empty(),
        "can't push with no tags specified, please set --tag or --dry-run"
    );
    let tags: Vec<Reference> = args
        .tags
        .iter()
        .map(|tag| sources::reference(tag))
        .collect::<Result<_, _>>()?;
    let mut given = Vec::new();
    if let (true, Some(first)) = (args.append, tags.first()) {
        given.push(Given::Name(first.clone()));
    }
    for file in &args.files {
        given.push(Given::parse(&read(file)?)?);
    }
    for source in &args.sources {
        given.push(Given::parse(source)?);
    }
    let places = sources::locate(&given, &tags)?;
    let annotations = annotations::parse(&args.annotations).context("failed to parse annotations")?;
    let platforms = platforms::parse(&args.platforms)?;

    let (client, _registries) = super::client(context)?;
    let sources = sources::fetch(&client, &given, &places).await?;
    let combined = combine::combine(&sources, &annotations, args.prefer_index)?;
    let mut combined = combine::filter(combined, &platforms)?;
    let mut known = annotate(&client, &mut combined, &annotations).await?;
    if args.dry_run {
        output::data_bytes(&combined.raw.bytes)?;
        return Ok(output::data("\n")?);
    }
    // Images that were read already need not be read again.
    let images = sources.into_iter().filter(|source| source.document.is_image());
    known.extend(images.map(|source| (source.raw.digest.clone(), source.raw)));
    let push = Push {
        client: &client,
        combined: &combined,
        known: &known,
    };
    push.shown(&tags, args.progress, context).await?;
    if let Some(path) = &args.metadata_file {
        write_metadata(path, &combined, &tags)?;
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("reading a source from standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("reading a source from {}", file.display()))
}

/// Checks that every annotation has something to be put on, and puts those on images that are meant for images.
async fn annotate(
    client: &Client,
    combined: &mut Combined,
    annotations: &[Annotation],
) -> anyhow::Result<BTreeMap<Digest, RawManifest>> {
    if annotations.is_empty() {
        return Ok(BTreeMap::new());
    }
    if combined.raw.media_type == media_type::DOCKER_INDEX {
        let lost = annotations
            .iter()
            .any(|annotation| !matches!(annotation.target, Target::Manifest(_)));
        if lost {
            output::warn(
                "annotations are left out: Docker manifest lists, which all-Docker sources make, have none",
            );
        }
    }
    for annotation in annotations {
        if let Target::Manifest(platform) | Target::ManifestDescriptor(platform) = &annotation.target {
            let has_one = combined
                .entries
                .iter()
                .any(|entry| combine::is_for(platform.as_ref(), &entry.descriptor));
            let name = platform.as_ref().map(ToString::to_string).unwrap_or_default();
            ensure!(
                has_one,
                "no image for {name} to put the annotation \"{}\" on",
                annotation.key
            );
        }
    }
    let wanted = combined.entries.iter().filter(|entry| {
        combine::for_image(&entry.descriptor, annotations)
            .next()
            .is_some()
    });
    let manifests = try_join_all(wanted.map(|entry| async {
        let digest = entry.descriptor.digest.clone();
        let raw = client
            .manifest(&entry.from.repository().with_digest(digest.clone()))
            .await?;
        Ok::<_, registry::Error>((digest, raw))
    }))
    .await?;
    if manifests.is_empty() {
        return Ok(BTreeMap::new());
    }
    Ok(combine::rewrite(
        combined,
        &manifests.into_iter().collect(),
        annotations,
    )?)
}

/// Everything that has to get somewhere.
struct Push<'a> {
    client: &'a Client,
    combined: &'a Combined,
    /// Images whose manifests are at hand; some exist nowhere yet.
    known: &'a BTreeMap<Digest, RawManifest>,
}

impl Push<'_> {
    /// Pushes to all repositories at the same time, with a display.
    async fn shown(&self, tags: &[Reference], mode: Mode, context: &Context) -> anyhow::Result<()> {
        let mut by_repository: BTreeMap<&Repository, Vec<&Reference>> = BTreeMap::new();
        for tag in tags {
            by_repository.entry(tag.repository()).or_default().push(tag);
        }
        let paint = Paint::of(&context.settings);
        let (display, progress) = Display::start(mode, Heading::none(), paint)?;
        let pushes = by_repository
            .into_iter()
            .map(|(repository, tags)| self.to_repository(repository, tags, &progress));
        let result = try_join_all(pushes).await;
        drop(progress);
        display.finish().await?;
        result?;
        Ok(())
    }

    async fn to_repository(
        &self,
        repository: &Repository,
        tags: Vec<&Reference>,
        progress: &progress::Sender,
    ) -> anyhow::Result<()> {
        let work = progress::Work::begin(progress, &format!("[internal] pushing {repository}")).await;
        let result = self.push(repository, &tags, &work).await;
        work.end(result.map_err(Shown)).await.map_err(|error| error.0)
    }

    async fn push(
        &self,
        repository: &Repository,
        tags: &[&Reference],
        work: &progress::Work<'_>,
    ) -> anyhow::Result<()> {
        let copier = Copier::new(self.client.clone(), repository.clone());
        let copies = self.combined.entries.iter().map(|entry| async {
            let (digest, from) = (&entry.descriptor.digest, &entry.from);
            work.log(&format!("copying {digest} from {from} to {repository}\n"))
                .await;
            let copied = match self.known.get(digest) {
                Some(raw) => copier.copy_known(from.repository(), raw).await,
                None => copier.copy(from.repository(), &entry.descriptor).await,
            };
            copied.with_context(|| format!("copy {digest} from {from} to {repository}"))
        });
        try_join_all(copies).await?;
        let digest = &self.combined.raw.digest;
        for tag in tags {
            work.log(&format!("pushing {digest} to {tag}\n")).await;
            self.client
                .put_manifest(tag, &self.combined.raw)
                .await
                .map_err(|error| self.explained(error))
                .with_context(|| format!("publish {digest} to {tag}"))?;
        }
        Ok(())
    }

    /// Some registries take images and no indexes, and say so in many ways.
    fn explained(&self, error: registry::Error) -> anyhow::Error {
        let refused = error
            .status()
            .is_some_and(|status| matches!(status.as_u16(), 400 | 404 | 405 | 406 | 415 | 422));
        if refused && media_type::is_index(&self.combined.raw.media_type) {
            let hint = format!(
                "the registry took the images but not their index ({}): it may not support indexes",
                self.combined.raw.media_type
            );
            return anyhow::Error::from(error).context(hint);
        }
        error.into()
    }
}

/// An error with its causes, as the display shows it.
struct Shown(anyhow::Error);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

/// The keys that buildx has.
fn write_metadata(path: &Path, combined: &Combined, tags: &[Reference]) -> anyhow::Result<()> {
    let mut names: Vec<String> = tags.iter().map(|tag| tag.repository().to_string()).collect();
    names.sort_unstable();
    names.dedup();
    let metadata = json!({
        "containerimage.descriptor": combined.descriptor,
        "image.name": names.join(","),
    });
    let text = registry::json::indented(&metadata).context("writing metadata")?;
    write_atomically(path, &text).with_context(|| format!("writing metadata to {}", path.display()))
}
