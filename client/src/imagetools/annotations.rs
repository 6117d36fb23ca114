//! `--annotation` of `imagetools create`: `[TYPE[PLATFORM][,TYPE…]:]KEY=VALUE`.

use binfmt::{ParsePlatformError, Platform};

/// What an annotation is put on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The index itself.
    Index,
    /// The images in it: they become other images.
    Manifest(Option<Platform>),
    /// The entries of the index that name the images.
    ManifestDescriptor(Option<Platform>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    pub target: Target,
    pub key: String,
    pub value: String,
}

#[derive(Debug, thiserror::Error)]
pub enum AnnotationError {
    #[error("invalid annotation {text:?}, expected key=value")]
    NoValue { text: String },
    #[error("invalid annotation type {text:?}, expected type and optional platform in square brackets")]
    Type { text: String },
    #[error(
        "unknown annotation type {text:?}, expected index, index-descriptor, manifest or manifest-descriptor"
    )]
    Unknown { text: String },
    #[error(
        "\"index-descriptor\" annotations are invalid while creating an image: nothing names the index yet"
    )]
    IndexDescriptor,
    #[error("invalid platform in annotation type {text:?}")]
    Platform {
        text: String,
        source: ParsePlatformError,
    },
}

/// Reads all values of the flag. Without a type, an annotation is for every image.
pub fn parse(values: &[String]) -> Result<Vec<Annotation>, AnnotationError> {
    let mut annotations = Vec::new();
    for text in values.iter().filter(|text| !text.is_empty()) {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| AnnotationError::NoValue { text: text.clone() })?;
        let (types, key) = name.split_once(':').unwrap_or(("manifest", name));
        for text in types.split(',') {
            annotations.push(Annotation {
                target: target(text)?,
                key: key.to_owned(),
                value: value.to_owned(),
            });
        }
    }
    Ok(annotations)
}

fn target(text: &str) -> Result<Target, AnnotationError> {
    let (name, platform) = match text.split_once('[') {
        None => (text, None),
        Some((name, rest)) => {
            let platform = rest.strip_suffix(']').ok_or_else(|| AnnotationError::Type {
                text: text.to_owned(),
            })?;
            let platform = platform.parse().map_err(|source| AnnotationError::Platform {
                text: text.to_owned(),
                source,
            })?;
            (name, Some(platform))
        }
    };
    match name {
        "index" => Ok(Target::Index),
        "index-descriptor" => Err(AnnotationError::IndexDescriptor),
        "manifest" => Ok(Target::Manifest(platform)),
        "manifest-descriptor" => Ok(Target::ManifestDescriptor(platform)),
        _ if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') => {
            Err(AnnotationError::Unknown {
                text: name.to_owned(),
            })
        }
        _ => Err(AnnotationError::Type {
            text: text.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_platforms_are_read() {
        let parsed = parse(&[
            "index,manifest-descriptor[linux/arm64/v8]:a=b=c".to_owned(),
            "x=".to_owned(),
        ]);
        let expected = [
            (Target::Index, "a", "b=c"),
            (
                Target::ManifestDescriptor(Some(Platform::linux("arm64"))),
                "a",
                "b=c",
            ),
            (Target::Manifest(None), "x", ""),
        ];
        let expected = expected.map(|(target, key, value)| Annotation {
            target,
            key: key.to_owned(),
            value: value.to_owned(),
        });
        assert_eq!(parsed.unwrap(), expected);
        for (text, message) in [
            ("a", "invalid annotation \"a\", expected key=value"),
            (
                "image:a=b",
                "unknown annotation type \"image\", expected index, index-descriptor, manifest or manifest-descriptor",
            ),
            (
                "manifest[linux/amd64:a=b",
                "invalid annotation type \"manifest[linux/amd64\", expected type and optional platform in square brackets",
            ),
            (
                "manifest[/]:a=b",
                "invalid platform in annotation type \"manifest[/]\"",
            ),
            (
                "index-descriptor:a=b",
                "\"index-descriptor\" annotations are invalid while creating an image: nothing names the index yet",
            ),
        ] {
            assert_eq!(parse(&[text.to_owned()]).unwrap_err().to_string(), message);
        }
    }
}
