//! What a result was made from, as an SLSA provenance predicate in BuildKit's terms.
//!
//! It says what is known: the request, the images that were resolved, and when the build ran. It claims neither
//! that nothing else was used nor that a repetition gives the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::control::BuildHistoryRecord;
use registry::Reference;
use serde_json::{Map, Value, json};

use crate::exporters::BuildInfo;

pub(super) const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
pub(super) const PREDICATE_KEY: &str = "in-toto.io/predicate-type";
pub(super) const PREDICATE: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
/// About how the build is run or what is done with it, not about what is built.
const LEFT_OUT: [&str; 5] = [
    "cgroup-parent",
    "image-resolve-mode",
    "platform",
    "cache-imports",
    "attest:",
];

/// The predicate for the result for `platform`.
pub(super) fn predicate(
    record: &BuildHistoryRecord,
    info: &BuildInfo,
    platform: &str,
) -> Result<Bytes, serde_json::Error> {
    let dependencies: Vec<Value> = info
        .images
        .iter()
        .map(|(reference, digest)| {
            let digest = Map::from_iter([(digest.algorithm().name().to_owned(), digest.hex().into())]);
            json!({ "uri": package_url(reference, platform), "digest": digest })
        })
        .collect();
    let args: BTreeMap<&String, &String> = info
        .attributes
        .iter()
        .filter(|(key, _)| !LEFT_OUT.iter().any(|left_out| key.starts_with(left_out)))
        .collect();
    let file = info
        .attributes
        .get("filename")
        .map_or("Dockerfile", String::as_str);
    let builder = attestation_value(&info.attributes, "builder-id").unwrap_or_default();
    let predicate = json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "configSource": { "path": file },
                "request": {
                    "frontend": info.frontend,
                    "args": args,
                    "locals": [{ "name": "context" }, { "name": "dockerfile" }],
                },
            },
            "internalParameters": { "builderPlatform": binfmt::Platform::host().to_string() },
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": { "id": builder },
            "metadata": {
                "invocationId": record.r#ref,
                "startedOn": time(record.created_at.as_ref()),
                "finishedOn": time(record.completed_at.as_ref()),
                "buildkit_hermetic": false,
                "buildkit_completeness": { "request": true, "resolvedDependencies": false },
                "buildkit_reproducible": false,
            },
        },
    });
    serde_json::to_vec_pretty(&predicate).map(Bytes::from)
}

/// A key of the attribute `attest:provenance`.
fn attestation_value(attributes: &BTreeMap<String, String>, key: &str) -> Option<String> {
    let fields = attributes.get("attest:provenance")?.split(',');
    let mut pairs = fields.filter_map(|field| field.split_once('='));
    pairs
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.to_owned())
}

fn time(time: Option<&prost_types::Timestamp>) -> Option<String> {
    let time = time?;
    let time = jiff::Timestamp::new(time.seconds, time.nanos).ok()?;
    Some(time.to_string())
}

/// `pkg:docker/alpine@3.20?platform=linux%2Famd64`.
fn package_url(reference: &str, platform: &str) -> String {
    let name = match reference.parse::<Reference>() {
        Ok(reference) => {
            let repository = reference.repository().to_string();
            let short = repository
                .strip_prefix("docker.io/library/")
                .or_else(|| repository.strip_prefix("docker.io/"))
                .unwrap_or(&repository);
            match reference.tag() {
                Some(tag) => format!("{}@{}", escaped(short), escaped(tag)),
                None => escaped(short),
            }
        }
        Err(_) => escaped(reference),
    };
    format!(
        "pkg:docker/{name}?platform={}",
        escaped(platform).replace('/', "%2F")
    )
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use registry::Digest;

    use super::*;

    #[test]
    fn images_are_named_as_packages() {
        for (reference, url) in [
            (
                "docker.io/library/alpine:3.20",
                "pkg:docker/alpine@3.20?platform=linux%2Farm%2Fv7",
            ),
            (
                "docker.io/user/app:1",
                "pkg:docker/user/app@1?platform=linux%2Farm%2Fv7",
            ),
            (
                "localhost:5000/a/b:latest",
                "pkg:docker/localhost:5000/a/b@latest?platform=linux%2Farm%2Fv7",
            ),
        ] {
            assert_eq!(package_url(reference, "linux/arm/v7"), url);
        }
    }

    #[test]
    fn a_predicate_tells_the_request_and_the_images() {
        let attribute = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let info = BuildInfo {
            frontend: "dockerfile.v0".to_owned(),
            attributes: BTreeMap::from([
                attribute("filename", "other"),
                attribute("build-arg:A", "b"),
                attribute("platform", "linux/arm64"),
                attribute("attest:provenance", "mode=max,builder-id=me"),
            ]),
            images: vec![("docker.io/library/alpine:3".to_owned(), Digest::of(b"alpine"))],
        };
        let record = BuildHistoryRecord {
            r#ref: "ref".to_owned(),
            created_at: Some(prost_types::Timestamp::default()),
            ..BuildHistoryRecord::default()
        };
        let predicate: Value =
            serde_json::from_slice(&predicate(&record, &info, "linux/arm64").unwrap()).unwrap();
        let definition = &predicate["buildDefinition"];
        assert_eq!(definition["externalParameters"]["configSource"]["path"], "other");
        assert_eq!(
            definition["externalParameters"]["request"]["args"],
            json!({ "build-arg:A": "b", "filename": "other" })
        );
        assert_eq!(
            definition["resolvedDependencies"],
            json!([{
                "uri": "pkg:docker/alpine@3?platform=linux%2Farm64",
                "digest": { "sha256": Digest::of(b"alpine").hex() },
            }])
        );
        assert_eq!(predicate["runDetails"]["builder"]["id"], "me");
        assert_eq!(
            predicate["runDetails"]["metadata"]["startedOn"],
            "1970-01-01T00:00:00Z"
        );
    }
}
