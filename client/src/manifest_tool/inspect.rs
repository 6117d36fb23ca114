//! `manifest-tool inspect`: an image or an index, with its layers, for people.

use futures::{StreamExt as _, TryStreamExt as _};
use registry::manifest::{Document, ManifestError};
use registry::{Client, Descriptor, ImageConfig, Index, Manifest, RawManifest, Reference, media_type};

use crate::manifest::LARGEST_CONFIG;

const AT_ONCE: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("error fetching image descriptor: {image}: not found")]
    NotFound { image: Reference },
    #[error("error fetching image descriptor")]
    Registry(#[source] registry::Error),
    #[error("error while unmarshalling the manifest")]
    Manifest(#[source] ManifestError),
    #[error("error while unmarshalling the OCI image configuration")]
    Config(#[source] serde_json::Error),
    #[error("unknown media type for further display: {0}")]
    Kind(String),
    #[error("error while generating raw JSON output")]
    Encode(#[source] serde_json::Error),
}

/// What a name stands for, with what is shown of it.
#[derive(Debug)]
pub struct Inspected {
    pub descriptor: Descriptor,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Image(Box<Manifest>, Box<ImageConfig>),
    /// With the manifests of those entries that have one, in order.
    Index(Box<Index>, Vec<Option<Manifest>>),
}

pub async fn inspect(client: &Client, image: &Reference) -> Result<Inspected, InspectError> {
    let raw = fetch(client, image).await?;
    let descriptor = raw.descriptor();
    let content = match raw.parse().map_err(InspectError::Manifest)? {
        Document::Manifest(manifest) => {
            let config = client
                .blob_bytes(image.repository(), &manifest.config, LARGEST_CONFIG)
                .await
                .map_err(InspectError::Registry)?;
            let config = ImageConfig::parse(&config).map_err(InspectError::Config)?;
            Content::Image(manifest, Box::new(config))
        }
        Document::Index(index) => {
            let manifests = index.manifests.iter().map(|entry| async {
                if !media_type::is_manifest(&entry.media_type) {
                    return Ok(None);
                }
                let child = image.repository().with_digest(entry.digest.clone());
                let raw = fetch(client, &child).await?;
                raw.manifest().map(Some).map_err(InspectError::Manifest)
            });
            let manifests = futures::stream::iter(manifests)
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
            Content::Index(index, manifests)
        }
    };
    Ok(Inspected { descriptor, content })
}

async fn fetch(client: &Client, image: &Reference) -> Result<RawManifest, InspectError> {
    client.manifest(image).await.map_err(|error| {
        if error.is_not_found() {
            InspectError::NotFound { image: image.clone() }
        } else {
            InspectError::Registry(error)
        }
    })
}

/// Whether to colour what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    On,
    Off,
}

impl Colours {
    fn paint(self, code: u8, text: impl std::fmt::Display) -> String {
        match self {
            Self::On => format!("\u{1b}[1;{code}m{text}\u{1b}[0m"),
            Self::Off => text.to_string(),
        }
    }

    fn red(self, text: impl std::fmt::Display) -> String {
        self.paint(31, text)
    }

    fn green(self, text: impl std::fmt::Display) -> String {
        self.paint(32, text)
    }

    fn yellow(self, text: impl std::fmt::Display) -> String {
        self.paint(33, text)
    }

    fn blue(self, text: impl std::fmt::Display) -> String {
        self.paint(34, text)
    }
}

impl Inspected {
    /// As text; `name` is shown as the user wrote it.
    pub fn text(&self, name: &str, colours: Colours) -> String {
        match &self.content {
            Content::Image(manifest, config) => self.image_text(name, manifest, config, colours),
            Content::Index(index, manifests) => self.index_text(name, index, manifests, colours),
        }
    }

    fn image_text(&self, name: &str, manifest: &Manifest, config: &ImageConfig, c: Colours) -> String {
        let mut text = format!(
            "Name: {} (Type: {})\n",
            c.green(name),
            c.green(&self.descriptor.media_type)
        );
        text.push_str(&format!("      Digest: {}\n", c.yellow(&self.descriptor.digest)));
        text.push_str(&format!("        Size: {}\n", c.blue(self.descriptor.size)));
        text.push_str(&format!("          OS: {}\n", c.green(&config.os)));
        text.push_str(&format!("        Arch: {}\n", c.green(&config.architecture)));
        text.push_str(&format!("    # Layers: {}\n", c.red(manifest.layers.len())));
        for (number, layer) in (1..).zip(&manifest.layers) {
            let number = c.red(format!("{number:02}"));
            text.push_str(&format!(
                "      layer {number}: digest = {}\n",
                c.yellow(&layer.digest)
            ));
        }
        text
    }

    fn index_text(&self, name: &str, index: &Index, manifests: &[Option<Manifest>], c: Colours) -> String {
        let all = index.manifests.len();
        let attestations = index
            .manifests
            .iter()
            .filter(|entry| entry.is_attestation())
            .count();
        let images = all - attestations;
        let plural = |count: usize, word: &str| {
            let end = if count > 1 { "s" } else { "" };
            format!("{} {word}{end}", c.red(count))
        };
        let mut text = format!(
            "Name:   {} (Type: {})\n",
            c.green(name),
            c.green(&self.descriptor.media_type)
        );
        text.push_str(&format!("Digest: {}\n", c.yellow(&self.descriptor.digest)));
        text.push_str(&format!(
            " * Contains {} manifest references ({}, {}):\n",
            c.red(all),
            plural(images, "image"),
            plural(attestations, "attestation")
        ));
        for ((number, entry), manifest) in (1..).zip(&index.manifests).zip(manifests) {
            text.push_str(&entry_text(number, entry, manifest.as_ref(), c));
        }
        text
    }
}

fn entry_text(number: usize, entry: &Descriptor, manifest: Option<&Manifest>, c: Colours) -> String {
    let remark = if entry.is_attestation() {
        c.green(" (vnd.docker.reference.type=attestation-manifest)")
    } else {
        c.green("")
    };
    let mut lines = vec![
        format!("    Type: {}{remark}", c.green(&entry.media_type)),
        format!("  Digest: {}", c.yellow(&entry.digest)),
        format!("  Length: {}", c.blue(entry.size)),
    ];
    let mut tail = String::new();
    match manifest {
        None => tail = format!("Unknown media type for further display: {}\n", entry.media_type),
        Some(_) if entry.is_attestation() => {
            let subject = entry
                .annotation("vnd.docker.reference.digest")
                .unwrap_or_default();
            lines.push(format!("      >>> Attestation for digest: {}", c.yellow(subject)));
            tail.push('\n');
        }
        Some(manifest) => {
            let platform = entry.platform.clone().unwrap_or_default();
            lines.push("Platform:".to_owned());
            lines.push(format!("   -      OS: {}", c.green(&platform.os)));
            if !platform.os_version.is_empty() {
                lines.push(format!("   - OS Vers: {}", c.green(&platform.os_version)));
            }
            if !platform.os_features.is_empty() {
                let features = format!("[{}]", platform.os_features.join(" "));
                lines.push(format!("   - OS Feat: {}", c.green(features)));
            }
            lines.push(format!("   -    Arch: {}", c.green(&platform.architecture)));
            if !platform.variant.is_empty() {
                lines.push(format!("   - Variant: {}", c.green(&platform.variant)));
            }
            lines.push(format!("# Layers: {}", c.red(manifest.layers.len())));
            for (layer_number, layer) in (1..).zip(&manifest.layers) {
                let layer_number = c.red(format!("{layer_number:02}"));
                tail.push_str(&format!(
                    "     layer {layer_number}: digest = {}\n                 type = {}\n",
                    c.yellow(&layer.digest),
                    c.green(&layer.media_type)
                ));
            }
            tail.push('\n');
        }
    }
    let lines = lines.iter().map(|line| format!("[{number}] {line}\n"));
    lines.chain(std::iter::once(tail)).collect()
}
