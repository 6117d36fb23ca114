//! One index over the images that several nodes have pushed.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use registry::docker_config::DockerConfig;
use registry::manifest::{Annotations, Document};
use registry::{Client, Descriptor, Digest, Index, Platform, RawManifest, Reference, media_type};

use super::parts::Merge;
use super::run;
use super::solve::Response;
use crate::imagetools::combine::index_of;
use crate::progress::{self, Work};
use crate::registries::Registries;

const DESCRIPTOR: &str = "containerimage.descriptor";
const DIGEST: &str = "containerimage.digest";

/// Writes the index under all names, and answers for the nodes.
pub async fn merge(
    responses: &[Response],
    wanted: &Merge,
    with: &run::Work<'_>,
    progress: &progress::Sender,
) -> anyhow::Result<Response> {
    let names = wanted.names.join(",");
    let work = Work::begin(progress, &format!("merging manifest list {names}")).await;
    let merged = push(responses, wanted, with).await;
    let merged = merged.with_context(|| format!("merging manifest list {names}"));
    let digest = work.end(merged).await?;
    Ok(Response::from([(DIGEST.to_owned(), digest.to_string())]))
}

async fn push(responses: &[Response], wanted: &Merge, with: &run::Work<'_>) -> anyhow::Result<Digest> {
    let names = wanted
        .names
        .iter()
        .map(|name| Ok(name.parse::<Reference>()?.or_latest()))
        .collect::<anyhow::Result<Vec<Reference>>>()?;
    let first = names.first().context("tag is needed when pushing to registry")?;
    let mut registries = Registries::of(Some(with.builder))?;
    if wanted.insecure {
        for name in &names {
            registries.config.allow_insecure(name.repository().registry());
        }
    }
    let credentials = DockerConfig::load(&with.settings.docker_config_folder())?;
    let client = Client::new(registries.config.clone(), Arc::new(credentials));
    let mut entries: Vec<Descriptor> = Vec::new();
    for response in responses {
        let digest = pushed(response)?;
        // Every node has pushed to all repositories.
        let raw = client.manifest(&first.repository().with_digest(digest)).await?;
        let of_node = match raw.parse()? {
            Document::Index(index) => index.manifests,
            Document::Manifest(_) => vec![raw.descriptor()],
        };
        entries.extend(of_node);
    }
    let raw = RawManifest::from_index(&index(entries, wanted)?)?;
    for name in &names {
        client.put_manifest(name, &raw).await?;
    }
    Ok(raw.digest)
}

/// What a node has pushed.
fn pushed(response: &Response) -> anyhow::Result<Digest> {
    if let Some(encoded) = response.get(DESCRIPTOR) {
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded)?;
        let descriptor: Descriptor =
            serde_json::from_slice(&bytes).context("failed to unmarshal descriptor")?;
        return Ok(descriptor.digest);
    }
    let digest = response
        .get(DIGEST)
        .context("a node does not say what it has pushed")?;
    Ok(digest.parse()?)
}

/// Of Docker's type if all entries are, else of OCI's, which alone has annotations.
fn index(entries: Vec<Descriptor>, wanted: &Merge) -> anyhow::Result<Index> {
    let mut index = index_of(entries);
    let is_docker = index.media_type == media_type::DOCKER_INDEX;
    for (attribute, value) in &wanted.annotations {
        if is_docker {
            bail!("annotations need OCI media types: leave oci-mediatypes=false out");
        }
        let Some((place, key)) = attribute.split_once('.') else {
            continue;
        };
        let (place, platform) = match place.split_once('[') {
            Some((place, platform)) => (place, Some(platform.trim_end_matches(']'))),
            None => (place, None),
        };
        match place {
            "annotation-index" => {
                let own = index.annotations.get_or_insert_with(Annotations::new);
                own.insert(key.to_owned(), value.clone());
            }
            _ => {
                let platform = platform.map(str::parse::<binfmt::Platform>).transpose()?;
                for entry in &mut index.manifests {
                    if is_for(platform.as_ref(), entry.platform.as_ref()) {
                        entry.set_annotation(key, value.as_str());
                    }
                }
            }
        }
    }
    Ok(index)
}

/// Whether a choice of a platform, or of none, means this entry.
fn is_for(wanted: Option<&binfmt::Platform>, found: Option<&Platform>) -> bool {
    wanted
        .is_none_or(|wanted| found.is_some_and(|found| found.normalised().to_string() == wanted.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_go_to_the_index_and_its_entries() {
        let entry =
            |architecture: &str| {
                Descriptor::of(media_type::OCI_MANIFEST, architecture.as_bytes())
                    .with_platform(Platform::new("linux", architecture, ""))
            };
        let annotations = [
            ("annotation-index.a.b", "1"),
            ("annotation-manifest-descriptor.c", "2"),
            ("annotation-manifest-descriptor[linux/arm64].d", "3"),
        ];
        let mut wanted = Merge {
            names: Vec::new(),
            insecure: false,
            annotations: annotations
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        let made = index(vec![entry("amd64"), entry("arm64")], &wanted).unwrap();
        assert_eq!(made.media_type, media_type::OCI_INDEX);
        assert_eq!(made.annotations.unwrap()["a.b"], "1");
        assert_eq!(made.manifests[0].annotation("c"), Some("2"));
        assert_eq!(made.manifests[0].annotation("d"), None);
        assert_eq!(made.manifests[1].annotation("d"), Some("3"));
        let docker = Descriptor::of(media_type::DOCKER_MANIFEST, b"x");
        assert!(index(vec![docker.clone()], &wanted).is_err());
        wanted.annotations.clear();
        assert_eq!(
            index(vec![docker], &wanted).unwrap().media_type,
            media_type::DOCKER_INDEX
        );
    }

    #[test]
    fn a_node_says_what_it_has_pushed() {
        let digest = Digest::of(b"x").to_string();
        let plain = Response::from([(DIGEST.to_owned(), digest.clone())]);
        assert_eq!(pushed(&plain).unwrap().to_string(), digest);
        assert!(pushed(&Response::new()).is_err());
    }
}
