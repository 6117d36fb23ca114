//! The YAML file of `push from-spec`.

use std::collections::BTreeMap;

use registry::Platform;
use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("cannot unmarshal YAML file {file:?}: line {line}, column {column}: {message}")]
    Yaml {
        file: String,
        line: u64,
        column: u64,
        message: String,
    },
    #[error("cannot unmarshal YAML file {file:?}: {message}")]
    Document { file: String, message: String },
}

/// An index to be made: its name, further tags, and the images for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    pub image: String,
    pub tags: Vec<String>,
    pub manifests: Vec<Source>,
    pub annotations: BTreeMap<String, String>,
}

/// An image, and what is to be written about its platform. What is empty is taken from its config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub image: String,
    pub platform: Platform,
}

type Unknown = BTreeMap<String, IgnoredAny>;

#[derive(Deserialize)]
struct Document {
    image: Option<String>,
    tags: Option<Vec<String>>,
    manifests: Option<Vec<Entry>>,
    annotations: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Deserialize)]
struct Entry {
    image: Option<String>,
    platform: Option<EntryPlatform>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// With the names of the OCI specification, and those without a dot that the original reads.
#[derive(Default, Deserialize)]
struct EntryPlatform {
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
    #[serde(alias = "os.version")]
    osversion: Option<String>,
    #[serde(alias = "os.features")]
    osfeatures: Option<Vec<String>>,
    /// CPU features: lists had them once, and no reader of lists knows them any more.
    features: Option<Vec<String>>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl Spec {
    /// Reads a spec; `file` is its name in messages. Beside it, remarks on what has no effect.
    pub fn parse(text: &str, file: &str) -> Result<(Self, Vec<String>), SpecError> {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
        };
        let document: Document =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| failed(file, &error))?;
        let mut remarks = Vec::new();
        let mut unknown = |place: &str, keys: &Unknown| {
            for key in keys.keys() {
                remarks.push(format!(
                    "{file}: {place} has an unknown key {key:?}, which has no effect"
                ));
            }
        };
        unknown("the spec", &document.unknown);
        let mut manifests = Vec::new();
        for entry in document.manifests.unwrap_or_default() {
            let image = entry.image.unwrap_or_default();
            let platform = entry.platform.unwrap_or_default();
            unknown(&format!("image {image:?}"), &entry.unknown);
            unknown(&format!("the platform of image {image:?}"), &platform.unknown);
            if platform.features.is_some_and(|features| !features.is_empty()) {
                let features = BTreeMap::from([("features".to_owned(), IgnoredAny)]);
                unknown(&format!("the platform of image {image:?}"), &features);
            }
            manifests.push(Source {
                image,
                platform: Platform {
                    architecture: platform.architecture.unwrap_or_default(),
                    os: platform.os.unwrap_or_default(),
                    os_version: platform.osversion.unwrap_or_default(),
                    os_features: platform.osfeatures.unwrap_or_default(),
                    variant: platform.variant.unwrap_or_default(),
                },
            });
        }
        let spec = Self {
            image: document.image.unwrap_or_default(),
            tags: document.tags.unwrap_or_default(),
            manifests,
            annotations: document.annotations.unwrap_or_default(),
        };
        Ok((spec, remarks))
    }
}

fn failed(file: &str, error: &serde_saphyr::Error) -> SpecError {
    let error = error.without_snippet();
    let file = file.to_owned();
    let message = error.to_string();
    match error.location() {
        Some(at) => {
            let (line, column) = (at.line(), at.column());
            // Said once is enough.
            let place = format!(" at line {line}, column {column}");
            SpecError::Yaml {
                file,
                line,
                column,
                message: message.replacen(&place, "", 1).trim().to_owned(),
            }
        }
        None => SpecError::Document { file, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Spec, Vec<String>), String> {
        Spec::parse(text, "s.yaml").map_err(|error| error.to_string())
    }

    #[test]
    fn scalars_keep_the_text_they_are_written_in() {
        let text = "image: r/a:1\ntags: [1.10, 1, 010, yes, 'x']\nmanifests:\n- image: r/b\n  platform:\n    \
            architecture: 386\n    os: linux\n    osversion: 10.0\n    os.features: [a]\n    variant:\n- image: r/c\n\
            annotations: {a: true, b: 1.50, c: 'x'}\n";
        let (spec, remarks) = parse(text).unwrap();
        assert_eq!(spec.tags, ["1.10", "1", "010", "yes", "x"]);
        let platform = &spec.manifests[0].platform;
        assert_eq!(
            (platform.architecture.as_str(), platform.os_version.as_str()),
            ("386", "10.0")
        );
        assert_eq!(platform.os_features, ["a"]);
        assert_eq!(spec.manifests[1].platform, Platform::default());
        let annotations: Vec<&str> = spec.annotations.values().map(String::as_str).collect();
        assert_eq!(annotations, ["true", "1.50", "x"]);
        assert_eq!(remarks, Vec::<String>::new());
    }

    #[test]
    fn what_has_no_effect_is_remarked() {
        let text = "image: a\nmanifest: []\nmanifests:\n- imago: b\n- image: c\n  platform: {features: [sse4], cpu: x}\n";
        let (_, remarks) = parse(text).unwrap();
        assert_eq!(
            remarks,
            [
                "s.yaml: the spec has an unknown key \"manifest\", which has no effect",
                "s.yaml: image \"\" has an unknown key \"imago\", which has no effect",
                "s.yaml: the platform of image \"c\" has an unknown key \"cpu\", which has no effect",
                "s.yaml: the platform of image \"c\" has an unknown key \"features\", which has no effect",
            ]
        );
    }

    #[test]
    fn errors_say_where() {
        for (text, place) in [
            (
                "image: a\nmanifests:\n  - image: [a\n  - b: c\n",
                "line 3, column 12: ",
            ),
            ("image: a\ntags: [a\nmanifests:\n", "line "),
            ("image: a\nmanifests: 5\n", "line 2, column 12: "),
            ("image: a\nimage: b\n", "line 2, column 1: "),
            ("image: a\nmanifests:\n- image: {a: b}\n", "line 3, column 10: "),
            ("image: a\n\ttags: []\n", "line "),
            ("- a\n", "line 1, column 1: "),
            ("image: a\n---\nimage: b\n", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with(&format!("cannot unmarshal YAML file \"s.yaml\": {place}")),
                "{error}"
            );
        }
    }
}
