//! The arguments of `push from-args`: source images by a name with placeholders.

use registry::Platform;

use super::spec::{Source, Spec};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error(
        "the --platforms argument must be a list where each value is of the form 'os/arch' or 'os/arch/variant': {0}"
    )]
    Platform(String),
    #[error("the --annotations argument must be a string in the form 'key=value': {0}")]
    Annotation(String),
}

/// One source for each platform: ARCH, OS and VARIANT in `template` stand for its parts, each once.
pub fn from_args(
    target: &str,
    template: &str,
    platforms: &[String],
    tags: &[String],
    annotations: &[String],
) -> Result<Spec, TemplateError> {
    let source = |platform: &String| {
        let parts: Vec<&str> = platform.split('/').collect();
        let (os, architecture, variant) = match *parts.as_slice() {
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return Err(TemplateError::Platform(platform.clone())),
        };
        Ok(Source {
            image: template
                .replacen("ARCH", architecture, 1)
                .replacen("OS", os, 1)
                .replacen("VARIANT", variant, 1),
            platform: Platform::new(os, architecture, variant),
        })
    };
    let annotation = |text: &String| {
        text.split_once('=')
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .ok_or_else(|| TemplateError::Annotation(text.clone()))
    };
    Ok(Spec {
        image: target.to_owned(),
        tags: tags.to_vec(),
        manifests: platforms.iter().map(source).collect::<Result<_, _>>()?,
        annotations: annotations.iter().map(annotation).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_once() {
        let platforms = ["linux/amd64".to_owned(), "linux/arm/v5".to_owned()];
        let spec = from_args(
            "r/t:1",
            "r/ARCHVARIANT-OS-OS:1",
            &platforms,
            &[],
            &["a=b=c".to_owned()],
        )
        .unwrap();
        let images: Vec<&str> = spec
            .manifests
            .iter()
            .map(|source| source.image.as_str())
            .collect();
        assert_eq!(images, ["r/amd64-linux-OS:1", "r/armv5-linux-OS:1"]);
        assert_eq!(spec.manifests[1].platform, Platform::new("linux", "arm", "v5"));
        assert_eq!(spec.annotations["a"], "b=c");
    }

    #[test]
    fn what_is_no_platform_is_named() {
        for text in ["amd64", "a/b/c/d", ""] {
            let failed = from_args("t", "x", &[text.to_owned()], &[], &[]);
            assert_eq!(failed, Err(TemplateError::Platform(text.to_owned())));
        }
        let failed = from_args("t", "x", &[], &[], &["a".to_owned()]);
        assert_eq!(failed, Err(TemplateError::Annotation("a".to_owned())));
    }
}
