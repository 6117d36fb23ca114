//! Named contexts: what a request puts in place of an image or of a stage.
//!
//! `context:<name>` names the source, for one platform only if `::<platform>` follows. A stage of that name is not built:
//! the context is its result. Elsewhere the name stands for an image, in FROM, `COPY --from` and `RUN --mount=from`.

use std::collections::BTreeMap;

use base64::Engine as _;
use binfmt::Platform;
use bytes::Bytes;
use dockerfile::address::{Address, without_credentials};
use proto::pb;
use registry::{ImageConfig, Reference};

use super::context::{DOWNLOAD, internal};
use super::plan::Base;
use super::remote::{self, GitOptions};
use super::{Attributes, Layout, Problem};
use crate::graph::builder::{Note, Operation};

/// Names that always mean what they mean.
const RESERVED: [&str; 2] = ["scratch", "context"];
const CONFIG: &str = "containerimage.config";

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    Scratch,
    Image(Reference),
    /// An image in an OCI layout of the client.
    Layout(Reference, Layout),
    /// A folder of the client, by its name in the session.
    Local(String),
    /// A definition that came with the request.
    Input(String),
    /// What the daemon fetches by itself.
    Remote(Address),
    /// The same, in a policy's words.
    Given(Box<pb::SourceOp>),
}

/// A context that is an image.
#[derive(Clone, Debug)]
pub(super) struct ImageContext {
    pub(super) name: String,
    /// Where it is, if that is no registry.
    pub(super) layout: Option<Layout>,
}

#[derive(Clone, Debug)]
pub(super) struct NamedContext {
    /// With the platform, if it is for one platform only.
    pub(super) name: String,
    pub(super) source: Source,
    /// The image that an input is the result of.
    pub(super) config: Option<KnownConfig>,
}

/// An image config, as it came and as it is read.
#[derive(Clone, Debug)]
pub(super) struct KnownConfig {
    pub(super) image: ImageConfig,
    pub(super) bytes: Bytes,
}

impl NamedContext {
    /// The operation that fetches it, if the daemon does so by itself.
    pub(super) fn remote(&self) -> Option<Operation> {
        let note = |what: &str| Note {
            name: format!("[context {}] {}", self.name, without_credentials(what)),
            ..Note::default()
        };
        let address = match &self.source {
            Source::Remote(address) => address,
            Source::Given(source) => {
                let note = note(&source.identifier);
                return Some(remote::source(source.as_ref().clone(), note));
            }
            _ => return None,
        };
        Some(match address {
            Address::Git(reference) => {
                let name = format!("load git source {}", without_credentials(&reference.remote));
                remote::repository(reference, &GitOptions::default(), internal(&name))
            }
            Address::Http(url) => remote::file(url, DOWNLOAD, None, note(url)),
        })
    }

    /// The folder of the client that it is, by its name in the session.
    pub(super) fn local(&self) -> Option<&str> {
        match &self.source {
            Source::Local(local) => Some(local),
            _ => None,
        }
    }

    /// The context that stands for `name` on a platform, if there is one.
    pub(super) fn find(
        attributes: &Attributes,
        name: &str,
        platform: &Platform,
    ) -> Result<Option<Self>, Problem> {
        if attributes.contexts.is_empty() || RESERVED.contains(&name.to_lowercase().as_str()) {
            return Ok(None);
        }
        let reference: Result<Reference, _> = name.parse();
        let reference = reference.map_err(|problem| Problem::ContextName {
            name: name.to_owned(),
            problem: Box::new(problem),
        })?;
        let familiar = reference.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
        let for_platform = format!("{name}::{platform}");
        for name in [for_platform.as_str(), name] {
            if let Some(value) = attributes.contexts.get(name) {
                return Self::read(attributes, name, value).map(Some);
            }
        }
        Ok(None)
    }

    /// The context that a policy made of another one.
    pub(super) fn moved(attributes: &Attributes, name: &str, source: &pb::SourceOp) -> Result<Self, Problem> {
        let identifier = &source.identifier;
        let given = |source| Self {
            name: name.to_owned(),
            source,
            config: None,
        };
        match identifier.split_once("://") {
            Some(("git", _)) => Ok(given(Source::Given(Box::new(source.clone())))),
            Some(("http" | "https", _)) => {
                let mut source = source.clone();
                let name = source.attrs.entry(remote::FILE_NAME.to_owned());
                name.or_insert_with(|| DOWNLOAD.to_owned());
                Ok(given(Source::Given(Box::new(source))))
            }
            Some(("local", folder)) => Ok(given(Source::Local(folder.to_owned()))),
            _ => Self::read(attributes, name, identifier),
        }
    }

    fn read(attributes: &Attributes, name: &str, value: &str) -> Result<Self, Problem> {
        let (kind, rest) = value.split_once(':').ok_or_else(|| Problem::ContextSpecifier {
            name: name.to_owned(),
            value: value.to_owned(),
        })?;
        let mut config = None;
        let source = match kind {
            "docker-image" => match rest.trim_start_matches("//") {
                "scratch" => Source::Scratch,
                text => {
                    let reference: Result<Reference, _> = text.parse();
                    let reference = reference.map_err(|problem| Problem::ContextName {
                        name: text.to_owned(),
                        problem: Box::new(problem),
                    })?;
                    Source::Image(reference.or_latest())
                }
            },
            "oci-layout" => layout(name, rest.trim_start_matches("//"))?,
            "local" => Source::Local(rest.to_owned()),
            "input" => {
                if let Some(metadata) = attributes.input_metadata.get(rest) {
                    config = read_metadata(rest, metadata)?;
                }
                Source::Input(rest.to_owned())
            }
            other => match Address::parse(value).map_err(Problem::Address)? {
                Some(address) => Source::Remote(address),
                None => {
                    return Err(Problem::ContextSource {
                        kind: other.to_owned(),
                        name: name.to_owned(),
                    });
                }
            },
        };
        Ok(Self {
            name: name.to_owned(),
            source,
            config,
        })
    }
}

impl From<NamedContext> for Base {
    fn from(context: NamedContext) -> Self {
        match context.source {
            Source::Scratch => Self::Scratch,
            Source::Image(reference) => Self::image(reference, context.name, None),
            Source::Layout(reference, layout) => Self::image(reference, context.name, Some(layout)),
            Source::Local(_) | Source::Input(_) | Source::Remote(_) | Source::Given(_) => {
                Self::Named(Box::new(context))
            }
        }
    }
}

impl Base {
    fn image(reference: Reference, name: String, layout: Option<Layout>) -> Self {
        Self::Image {
            written: reference.to_string(),
            reference,
            context: Some(ImageContext { name, layout }),
            found: None,
        }
    }
}

/// `<layout>[:<tag>]@<digest>`: the image is shown under the name of its context.
fn layout(name: &str, text: &str) -> Result<Source, Problem> {
    let failed = |problem| Problem::ContextName {
        name: text.to_owned(),
        problem: Box::new(problem),
    };
    let (store, digest) = text.split_once('@').ok_or_else(|| Problem::LayoutDigest {
        name: name.to_owned(),
        value: text.to_owned(),
    })?;
    // A colon before the last slash belongs to a host.
    let store = match store.rsplit_once(':') {
        Some((store, tag)) if !tag.contains('/') => store,
        _ => store,
    };
    let image = name.split("::").next().unwrap_or(name);
    let reference: Reference = format!("{image}@{digest}").parse().map_err(failed)?;
    let layout = Layout {
        name: store.to_owned(),
        session: None,
    };
    Ok(Source::Layout(reference, layout))
}

/// The image config in the metadata of an input: a JSON object of encoded bytes.
fn read_metadata(input: &str, metadata: &str) -> Result<Option<KnownConfig>, Problem> {
    let failed = |source| Problem::InputMetadata {
        input: input.to_owned(),
        source,
    };
    let values: BTreeMap<String, String> =
        serde_json::from_str(metadata).map_err(|error| failed(error.into()))?;
    let Some(encoded) = values.get(CONFIG) else {
        return Ok(None);
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|error| failed(error.into()))?;
    let image = ImageConfig::parse(&bytes).map_err(Problem::ImageConfig)?;
    let bytes = bytes.into();
    Ok(Some(KnownConfig { image, bytes }))
}
