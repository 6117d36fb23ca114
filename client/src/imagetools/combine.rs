//! Assembles an index from images and indexes that exist, as `imagetools create` does.
//!
//! Pure: what is needed of the sources was fetched before ([`super::sources`]), and [`registry::client::Copier`] moves
//! what the new index names. [`index_of`] alone serves everybody who has descriptors and wants an index of them.

use std::collections::BTreeMap;

use registry::manifest::{Annotations, Document, ManifestError};
use registry::{Descriptor, Digest, Index, Platform, RawManifest, Reference, media_type};

use super::annotations::{Annotation, Target};

#[derive(Debug, thiserror::Error)]
pub enum CombineError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("writing the index")]
    Write(#[from] serde_json::Error),
    #[error("input platform {found} does not match any of the provided platforms")]
    OtherPlatform { found: Platform },
    #[error("cannot filter platforms from a manifest without platform information")]
    NoPlatform,
    #[error("none of the manifests match the provided platforms, there are: {found}")]
    NoMatch { found: String },
    #[error(
        "{digest} is a Docker manifest, which cannot have annotations: use manifest-descriptor or index annotations"
    )]
    DockerManifest { digest: Digest },
}

/// An image or an index that becomes part of a new one.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it is.
    pub reference: Reference,
    /// Of an image, with its platform.
    pub descriptor: Descriptor,
    pub raw: RawManifest,
    pub document: Document,
}

/// An index that is not stored yet, or one image that is only to be copied.
#[derive(Clone, Debug)]
pub struct Combined {
    pub raw: RawManifest,
    pub descriptor: Descriptor,
    /// What it names, and where that is. For one image, the image itself.
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub descriptor: Descriptor,
    pub from: Reference,
}

/// An index of these entries: of Docker's type if all of them are, else of OCI's. Entries of one digest become one,
/// whose annotations are those of all.
pub fn index_of(entries: impl IntoIterator<Item = Descriptor>) -> Index {
    let mut merged: Vec<Descriptor> = Vec::new();
    for entry in entries {
        match merged.iter_mut().find(|known| known.digest == entry.digest) {
            Some(known) => merge(known, entry),
            None => merged.push(entry),
        }
    }
    let is_docker = |entry: &Descriptor| entry.media_type.starts_with("application/vnd.docker.");
    let media_type = if merged.iter().all(is_docker) {
        media_type::DOCKER_INDEX
    } else {
        media_type::OCI_INDEX
    };
    Index::new(media_type, merged)
}

fn merge(known: &mut Descriptor, entry: Descriptor) {
    if known.media_type.is_empty() {
        known.media_type = entry.media_type;
    }
    if entry.platform.is_some() {
        known.platform = entry.platform;
    }
    known
        .annotations
        .get_or_insert_default()
        .extend(entry.annotations.unwrap_or_default());
}

/// Makes one of many. A single source without annotations stays as it is, byte for byte, if it is an index or if no
/// index is preferred.
pub fn combine(
    sources: &[Source],
    annotations: &[Annotation],
    prefer_index: bool,
) -> Result<Combined, CombineError> {
    if let ([source], []) = (sources, annotations) {
        match &source.document {
            Document::Index(index) => return Ok(carbon_copy(source, index.manifests.clone())),
            Document::Manifest(_) if !prefer_index => {
                return Ok(carbon_copy(source, vec![source.descriptor.clone()]));
            }
            Document::Manifest(_) => {}
        }
    }
    let mut places: BTreeMap<Digest, Reference> = BTreeMap::new();
    let mut entries = Vec::new();
    for source in sources {
        let named = match &source.document {
            Document::Index(index) => index.manifests.clone(),
            Document::Manifest(_) => vec![source.descriptor.clone()],
        };
        for entry in named {
            // Of several places the last one is asked, as everywhere in this.
            places.insert(entry.digest.clone(), source.reference.clone());
            entries.push(entry);
        }
    }
    let mut index = index_of(entries);
    if index.media_type == media_type::OCI_INDEX {
        annotate(&mut index, annotations);
    }
    let entries = index.manifests.iter().filter_map(|entry| {
        Some(Entry {
            descriptor: entry.clone(),
            from: places.get(&entry.digest)?.clone(),
        })
    });
    let entries = entries.collect();
    written(&index, entries)
}

fn carbon_copy(source: &Source, entries: Vec<Descriptor>) -> Combined {
    let entries = entries.into_iter().map(|descriptor| Entry {
        descriptor,
        from: source.reference.clone(),
    });
    Combined {
        raw: source.raw.clone(),
        descriptor: source.descriptor.clone(),
        entries: entries.collect(),
    }
}

fn written(index: &Index, entries: Vec<Entry>) -> Result<Combined, CombineError> {
    let raw = RawManifest::from_index(index)?;
    Ok(Combined {
        descriptor: raw.descriptor(),
        raw,
        entries,
    })
}

/// Docker's lists know no annotations: the caller has said so.
fn annotate(index: &mut Index, annotations: &[Annotation]) {
    for Annotation { target, key, value } in annotations {
        match target {
            Target::Index => {
                let own = index.annotations.get_or_insert_with(Annotations::new);
                own.insert(key.clone(), value.clone());
            }
            Target::ManifestDescriptor(platform) => {
                for entry in &mut index.manifests {
                    if is_for(platform.as_ref(), entry) {
                        entry.set_annotation(key, value);
                    }
                }
            }
            // These change the manifests, see `rewrite`.
            Target::Manifest(_) => {}
        }
    }
}

/// Whether a choice of a platform, or of none, means this entry.
pub fn is_for(platform: Option<&binfmt::Platform>, entry: &Descriptor) -> bool {
    platform.is_none_or(|wanted| {
        entry
            .platform
            .as_ref()
            .is_some_and(|found| matches(wanted, found))
    })
}

fn matches(wanted: &binfmt::Platform, found: &Platform) -> bool {
    found.normalised().to_string() == wanted.to_string()
}

/// Leaves only the images for these platforms, and what accompanies them; all if none is named.
pub fn filter(combined: Combined, platforms: &[binfmt::Platform]) -> Result<Combined, CombineError> {
    if platforms.is_empty() {
        return Ok(combined);
    }
    let wanted = |platform: &Platform| platforms.iter().any(|wanted| matches(wanted, platform));
    let Document::Index(mut index) = combined.raw.parse()? else {
        let platform = combined
            .descriptor
            .platform
            .as_ref()
            .ok_or(CombineError::NoPlatform)?;
        return if wanted(platform) {
            Ok(combined)
        } else {
            Err(CombineError::OtherPlatform {
                found: platform.clone(),
            })
        };
    };
    let fits = |entry: &Descriptor| entry.platform.as_ref().is_none_or(wanted);
    let follows_one_that_fits = |entry: &Descriptor| {
        entry.is_attestation()
            && entry
                .annotation("vnd.docker.reference.digest")
                .is_some_and(|subject| {
                    let subject = index
                        .manifests
                        .iter()
                        .find(|entry| entry.digest.as_str() == subject);
                    subject.is_some_and(fits)
                })
    };
    let kept: Vec<Descriptor> = index
        .manifests
        .iter()
        .filter(|entry| fits(entry) || follows_one_that_fits(entry))
        .cloned()
        .collect();
    if kept.is_empty() {
        let found: Vec<String> = index.platforms().iter().map(ToString::to_string).collect();
        return Err(CombineError::NoMatch {
            found: found.join(", "),
        });
    }
    if kept.len() == index.manifests.len() {
        return Ok(combined);
    }
    let entries = combined
        .entries
        .into_iter()
        .filter(|entry| kept.iter().any(|kept| kept.digest == entry.descriptor.digest))
        .collect();
    index.manifests = kept;
    let mut filtered = written(&index, entries)?;
    filtered.descriptor.annotations = combined.descriptor.annotations;
    Ok(filtered)
}

/// Puts annotations on images themselves: `manifests` has the images they are meant for, by digest. What names such an
/// image, also as its subject, names the new one afterwards. Returns the new images.
pub fn rewrite(
    combined: &mut Combined,
    manifests: &BTreeMap<Digest, RawManifest>,
    annotations: &[Annotation],
) -> Result<BTreeMap<Digest, RawManifest>, CombineError> {
    let mut renamed: BTreeMap<Digest, RawManifest> = BTreeMap::new();
    let mut index = combined.raw.index()?;
    for entry in &mut index.manifests {
        let wanted: Vec<&Annotation> = for_image(entry, annotations).collect();
        let Some(raw) = manifests.get(&entry.digest).filter(|_| !wanted.is_empty()) else {
            continue;
        };
        if raw.media_type != media_type::OCI_MANIFEST {
            return Err(CombineError::DockerManifest {
                digest: raw.digest.clone(),
            });
        }
        let mut manifest = raw.manifest()?;
        let own = manifest.annotations.get_or_insert_with(Annotations::new);
        own.extend(
            wanted
                .iter()
                .map(|annotation| (annotation.key.clone(), annotation.value.clone())),
        );
        let new = RawManifest::from_manifest(&manifest)?;
        let old = std::mem::replace(&mut entry.digest, new.digest.clone());
        entry.size = new.bytes.len() as u64;
        entry.media_type.clone_from(&new.media_type);
        renamed.insert(old, new);
    }
    for entry in &mut index.manifests {
        let subject = entry.annotation("vnd.docker.reference.digest");
        if let Some(new) = subject.and_then(|subject| renamed.get(&subject.parse().ok()?)) {
            let digest = new.digest.to_string();
            entry.set_annotation("vnd.docker.reference.digest", digest);
        }
    }
    for (entry, new) in combined.entries.iter_mut().zip(&index.manifests) {
        entry.descriptor = new.clone();
    }
    *combined = written(&index, std::mem::take(&mut combined.entries))?;
    Ok(renamed
        .into_values()
        .map(|raw| (raw.digest.clone(), raw))
        .collect())
}

/// The annotations that change this image.
pub fn for_image<'a>(
    entry: &'a Descriptor,
    annotations: &'a [Annotation],
) -> impl Iterator<Item = &'a Annotation> {
    annotations
        .iter()
        .filter(move |annotation| match &annotation.target {
            Target::Manifest(platform) => {
                media_type::is_manifest(&entry.media_type)
                    && !entry.is_attestation()
                    && is_for(platform.as_ref(), entry)
            }
            Target::Index | Target::ManifestDescriptor(_) => false,
        })
}

#[cfg(test)]
mod tests;
