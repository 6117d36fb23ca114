//! Build info: which frontend, attributes and sources an image was made from, inside its config.
//!
//! Everybody who pulls the image can read it, so only attributes that describe the build are taken, and credentials
//! in URLs are left out.

use std::collections::BTreeMap;

use base64::Engine as _;
use registry::Digest;
use serde::Serialize;

/// Where it stands in an image config.
pub(super) const CONFIG_KEY: &str = "moby.buildkit.buildinfo.v1";

/// Attributes that are taken besides those with a prefix of `PREFIXES`.
const KNOWN: [&str; 14] = [
    "add-hosts",
    "build-platform",
    "cgroup-parent",
    "cmdline",
    "context",
    "filename",
    "force-network-mode",
    "hostname",
    "image-resolve-mode",
    "platform",
    "shm-size",
    "source",
    "target",
    "ulimit",
];
const PREFIXES: [&str; 4] = ["build-arg:", "context:", "label:", "vcs:"];
/// Build arguments that steer the frontend and are no part of the result.
const CONTROL_ARGUMENTS: [&str; 2] = ["build-arg:BUILDKIT_", "build-arg:SOURCE_DATE_EPOCH"];

#[derive(Clone, Debug, Default)]
pub struct BuildInfo {
    pub frontend: String,
    pub attributes: BTreeMap<String, String>,
    /// Images the build rests on, and what they were.
    pub images: Vec<(String, Digest)>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    frontend: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<Source<'a>>,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Source<'a> {
    r#type: &'static str,
    r#ref: &'a str,
    pin: &'a str,
}

impl BuildInfo {
    pub(super) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut sources: Vec<Source<'_>> = self
            .images
            .iter()
            .map(|(reference, digest)| Source {
                r#type: "docker-image",
                r#ref: reference,
                pin: digest.as_str(),
            })
            .collect();
        sources.sort_unstable();
        sources.dedup();
        registry::json::compact(&Document {
            frontend: &self.frontend,
            attrs: self
                .attributes
                .iter()
                .filter(|(key, _)| is_told(key))
                .map(|(key, value)| (key.as_str(), without_credentials(value)))
                .collect(),
            sources,
        })
    }

    /// As it stands in a config and in responses.
    pub(super) fn to_base64(&self) -> serde_json::Result<String> {
        Ok(base64::engine::general_purpose::STANDARD.encode(self.to_json()?))
    }
}

fn is_told(key: &str) -> bool {
    let control = CONTROL_ARGUMENTS.iter().any(|prefix| key.starts_with(prefix));
    !control && (KNOWN.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
}

/// `https://user:password@host/…` without what stands before the `@`.
fn without_credentials(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else {
        return value.to_owned();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://{}", rest.get(at + 1..).unwrap_or_default()),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_describes_the_build_and_no_secrets() {
        let digest = Digest::of(b"");
        let info = BuildInfo {
            frontend: "dockerfile.v0".to_owned(),
            attributes: [
                ("filename", "Dockerfile"),
                ("build-arg:A", "b<c"),
                ("build-arg:BUILDKIT_INLINE_CACHE", "1"),
                ("context", "https://me:secret@example.com/repo.git#main"),
                ("local-sessionid:context", "xyz"),
                ("vcs:source", "https://example.com/a@b"),
            ]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
            images: vec![
                ("docker.io/library/b:1".to_owned(), digest.clone()),
                ("docker.io/library/a:1".to_owned(), digest.clone()),
                ("docker.io/library/b:1".to_owned(), digest.clone()),
            ],
        };
        let expected = format!(
            concat!(
                r#"{{"frontend":"dockerfile.v0","attrs":{{"build-arg:A":"b\u003cc","context":"https://example.com/repo.git#main","#,
                r#""filename":"Dockerfile","vcs:source":"https://example.com/a@b"}},"sources":[{{"type":"docker-image","#,
                r#""ref":"docker.io/library/a:1","pin":"{0}"}},{{"type":"docker-image","ref":"docker.io/library/b:1","pin":"{0}"}}]}}"#
            ),
            digest
        );
        assert_eq!(String::from_utf8(info.to_json().unwrap()).unwrap(), expected);
    }
}
