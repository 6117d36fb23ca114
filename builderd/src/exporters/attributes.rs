//! The attributes of image exporters, read into one typed value.

use std::collections::BTreeMap;

use registry::media_type::Dialect;
use registry::{Platform, Reference};

use super::{ExportError, Results, Target};
use crate::store::{Compression, CompressionKind};

/// Where an annotation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Manifest,
    ManifestDescriptor,
    Index,
    IndexDescriptor,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    pub place: Place,
    /// For one platform only.
    pub platform: Option<String>,
    pub key: String,
    pub value: String,
}

#[derive(Clone, Debug)]
pub struct ImageOptions {
    pub names: Vec<Reference>,
    pub push: bool,
    pub push_by_digest: bool,
    /// No TLS checks, plain HTTP if there is no TLS.
    pub insecure: bool,
    pub dialect: Dialect,
    pub compression: Compression,
    /// Seconds since 1970.
    pub epoch: Option<i64>,
    /// Not even the one that the frontend says.
    pub no_epoch: bool,
    /// No file of the layers that the build made is younger than the epoch.
    pub rewrite_times: bool,
    /// Layers that can be had elsewhere are named with these places, and not pushed.
    pub keep_foreign: bool,
    pub annotations: Vec<Annotation>,
    /// Attestations are artifacts of their own that refer to the image, not images with a config.
    pub oci_artifact: bool,
    /// Attestations that are for images alone make an index even for one platform.
    pub inline_attestations: bool,
    /// Into a folder of the client instead of one archive.
    pub folder: bool,
    /// Replaces the config that the frontend made.
    pub config: Option<Vec<u8>>,
}

impl ImageOptions {
    /// Reads what a client sent. Attributes that concern a local image store are accepted and mean nothing: there is
    /// none beside the layers, which are always kept.
    pub fn parse(attributes: &BTreeMap<String, String>, results: &Results) -> Result<Self, ExportError> {
        let mut options = Self {
            names: Vec::new(),
            push: false,
            push_by_digest: false,
            insecure: false,
            dialect: Dialect::Oci,
            compression: Compression::default(),
            epoch: None,
            annotations: Vec::new(),
            oci_artifact: true,
            no_epoch: false,
            rewrite_times: false,
            keep_foreign: false,
            inline_attestations: false,
            folder: false,
            config: None,
        };
        for (key, value) in &results.metadata {
            options
                .annotations
                .extend(annotation(key, &String::from_utf8_lossy(value)));
        }
        let mut names = "";
        for (key, value) in attributes {
            match key.as_str() {
                "name" => names = value,
                "push" => options.push = flag(key, value)?,
                "push-by-digest" => options.push_by_digest = flag(key, value)?,
                "registry.insecure" => options.insecure = flag(key, value)?,
                "oci-mediatypes" => {
                    options.dialect = if flag(key, value)? {
                        Dialect::Oci
                    } else {
                        Dialect::Docker
                    };
                }
                "compression" => options.compression.kind = compression(key, value)?,
                "compression-level" => options.compression.level = Some(number(key, value)?),
                "force-compression" => options.compression.force = flag(key, value)?,
                "oci-artifact" => options.oci_artifact = flag(key, value)?,
                "attestation-inline" => options.inline_attestations = flag(key, value)?,
                "containerimage.config" => options.config = Some(value.clone().into_bytes()),
                "source-date-epoch" if value.is_empty() => options.no_epoch = true,
                "source-date-epoch" => options.epoch = Some(number(key, value)?),
                "tar" => options.folder = !flag(key, value)?,
                "rewrite-timestamp" => options.rewrite_times = flag(key, value)?,
                "prefer-nondist-layers" => options.keep_foreign = flag(key, value)?,
                _ => options.annotations.extend(annotation(key, value)),
            }
        }
        if names == "*" {
            let found = results
                .metadata
                .get("image.name")
                .map(|name| String::from_utf8_lossy(name));
            options.names = references(found.as_deref().unwrap_or_default(), options.push_by_digest)?;
        } else {
            options.names = references(names, options.push_by_digest)?;
        }
        if options.push && options.names.is_empty() {
            return Err(ExportError::NoName);
        }
        if options.compression.kind == CompressionKind::Estargz {
            // Without annotations nobody can use its table; BuildKit turns to OCI's types without a word, and so its
            // clients expect.
            options.dialect = Dialect::Oci;
        }
        options.check(results)?;
        Ok(options)
    }

    fn check(&self, results: &Results) -> Result<(), ExportError> {
        if self.dialect == Dialect::Docker && self.annotations.iter().any(|a| a.place != Place::Manifest) {
            return Err(unsupported(
                "oci-mediatypes",
                "false",
                "annotations need OCI media types",
            ));
        }
        for annotation in &self.annotations {
            if let Some(platform) = &annotation.platform
                && !results
                    .targets
                    .iter()
                    .any(|target| same_platform(&target.platform, platform))
            {
                return Err(ExportError::AnnotationPlatform {
                    platform: platform.clone(),
                });
            }
        }
        Ok(())
    }

    /// The moment after which nothing of this result was made, as far as readers can tell.
    pub fn epoch_of(&self, target: &Target) -> Option<i64> {
        match self.no_epoch {
            true => None,
            false => self.epoch.or(target.epoch),
        }
    }

    /// The annotations for a place, those for all platforms first.
    pub fn annotations(&self, place: Place, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let applies = |annotation: &&Annotation| {
            annotation.place == place
                && annotation
                    .platform
                    .as_ref()
                    .is_none_or(|wanted| platform.is_some_and(|platform| same_platform(platform, wanted)))
        };
        let mut found: Vec<&Annotation> = self.annotations.iter().filter(applies).collect();
        found.sort_by_key(|annotation| annotation.platform.is_some());
        found
            .into_iter()
            .map(|annotation| (annotation.key.clone(), annotation.value.clone()))
            .collect()
    }
}

fn same_platform(platform: &Platform, text: &str) -> bool {
    let mut parts = text.split('/');
    let mut next = || parts.next().unwrap_or_default();
    let wanted = Platform::new(next(), next(), next()).normalised();
    platform.normalised().to_string() == wanted.to_string()
}

fn references(names: &str, untagged: bool) -> Result<Vec<Reference>, ExportError> {
    let mut references = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let reference: Reference = name.parse().map_err(|source| ExportError::Name {
            name: name.to_owned(),
            source,
        })?;
        if untagged && reference.tag().is_some() {
            return Err(ExportError::TaggedByDigest {
                name: name.to_owned(),
            });
        }
        let reference = if untagged {
            reference
        } else {
            reference.or_latest()
        };
        if !references.contains(&reference) {
            references.push(reference);
        }
    }
    Ok(references)
}

/// An empty value is true.
pub(crate) fn flag(key: &str, value: &str) -> Result<bool, ExportError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ExportError::Attribute {
            key: key.to_owned(),
            value: value.to_owned(),
            expected: "true or false",
        }),
    }
}

pub(crate) fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, ExportError> {
    value.parse().map_err(|_| ExportError::Attribute {
        key: key.to_owned(),
        value: value.to_owned(),
        expected: "a whole number",
    })
}

pub(crate) fn compression(key: &str, value: &str) -> Result<CompressionKind, ExportError> {
    match value {
        "uncompressed" => Ok(CompressionKind::Uncompressed),
        "gzip" => Ok(CompressionKind::Gzip),
        "zstd" => Ok(CompressionKind::Zstd),
        "estargz" => Ok(CompressionKind::Estargz),
        _ => Err(ExportError::Attribute {
            key: key.to_owned(),
            value: value.to_owned(),
            expected: "gzip, estargz, zstd or uncompressed",
        }),
    }
}

fn unsupported(key: &str, value: &str, way_out: &'static str) -> ExportError {
    ExportError::Unsupported {
        key: key.to_owned(),
        value: value.to_owned(),
        way_out,
    }
}

/// `annotation[-manifest|-index|-manifest-descriptor|-index-descriptor][[platform]].<key>`.
fn annotation(attribute: &str, value: &str) -> Option<Annotation> {
    let rest = attribute.strip_prefix("annotation")?;
    // Longest first: `-manifest` begins `-manifest-descriptor`.
    let (place, rest) = [
        ("-manifest-descriptor", Place::ManifestDescriptor),
        ("-index-descriptor", Place::IndexDescriptor),
        ("-manifest", Place::Manifest),
        ("-index", Place::Index),
        ("", Place::Manifest),
    ]
    .into_iter()
    .find_map(|(prefix, place)| Some((place, rest.strip_prefix(prefix)?)))?;
    let (platform, rest) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (platform, rest) = rest.split_once(']')?;
            (Some(platform.to_owned()), rest)
        }
        None => (None, rest),
    };
    let key = rest.strip_prefix('.').filter(|key| !key.is_empty())?;
    Some(Annotation {
        place,
        platform,
        key: key.to_owned(),
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(attributes: &[(&str, &str)]) -> Result<ImageOptions, ExportError> {
        let attributes = attributes
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let results = Results {
            targets: Vec::new(),
            multi_platform: false,
            build_info: None,
            metadata: BTreeMap::from([("image.name".to_owned(), b"from/frontend".to_vec())]),
        };
        ImageOptions::parse(&attributes, &results)
    }

    #[test]
    fn names_are_completed_and_listed_once() {
        let options = parse(&[("name", "a, localhost:5000/b:1,a:latest"), ("push", "")]).unwrap();
        let names: Vec<String> = options.names.iter().map(Reference::to_string).collect();
        assert_eq!(names, ["docker.io/library/a:latest", "localhost:5000/b:1"]);
        assert!(options.push);
        let options = parse(&[("name", "*")]).unwrap();
        assert_eq!(options.names[0].to_string(), "docker.io/from/frontend:latest");
        assert!(matches!(parse(&[("push", "true")]), Err(ExportError::NoName)));
        let by_digest = parse(&[("name", "a:1"), ("push-by-digest", "true")]);
        assert!(matches!(by_digest, Err(ExportError::TaggedByDigest { .. })));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (key, value, expected) in [
            (
                "push",
                "maybe",
                "invalid value \"maybe\" of exporter attribute push: expected true or false",
            ),
            (
                "compression",
                "lzma",
                "invalid value \"lzma\" of exporter attribute compression: expected gzip, estargz, zstd or uncompressed",
            ),
            (
                "compression-level",
                "x",
                "invalid value \"x\" of exporter attribute compression-level: expected a whole number",
            ),
            ("name", "A", "invalid image name \"A\""),
        ] {
            assert_eq!(parse(&[(key, value)]).unwrap_err().to_string(), expected);
        }
        let dialect = |compression| {
            let options = parse(&[("compression", compression), ("oci-mediatypes", "false")]);
            options.unwrap().dialect
        };
        assert_eq!(dialect("zstd"), Dialect::Docker);
        assert_eq!(dialect("estargz"), Dialect::Oci);
    }

    #[test]
    fn annotations_go_where_their_attribute_says() {
        for (attribute, place, platform, key) in [
            ("annotation.a.b", Place::Manifest, None, "a.b"),
            (
                "annotation-manifest[linux/arm64].k",
                Place::Manifest,
                Some("linux/arm64"),
                "k",
            ),
            (
                "annotation-manifest-descriptor.k",
                Place::ManifestDescriptor,
                None,
                "k",
            ),
            ("annotation-index.k", Place::Index, None, "k"),
            ("annotation-index-descriptor.k", Place::IndexDescriptor, None, "k"),
            (
                "annotation[linux/amd64].k",
                Place::Manifest,
                Some("linux/amd64"),
                "k",
            ),
        ] {
            let found = annotation(attribute, "v").unwrap();
            assert_eq!(
                (found.place, found.platform.as_deref(), found.key.as_str()),
                (place, platform, key),
                "{attribute}"
            );
        }
        for attribute in [
            "annotation",
            "annotation.",
            "annotations.x",
            "annotation[x.k",
            "containerimage.config",
        ] {
            assert_eq!(annotation(attribute, ""), None, "{attribute}");
        }
    }
}
