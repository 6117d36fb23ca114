//! `manifest-tool inspect --raw`: what [`super::inspect`] found, as JSON. Only fields of the OCI specification are in it.

use registry::manifest::Annotations;
use registry::{Descriptor, ImageConfig, Manifest};
use serde::Serialize;

use super::inspect::{Content, InspectError, Inspected};
use crate::manifest::indent;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexJson<'a> {
    name: &'a str,
    digest: &'a registry::Digest,
    schema_version: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    media_type: &'a str,
    manifests: Vec<Manifest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a Annotations>,
}

#[derive(Serialize)]
struct ImageJson<'a> {
    name: &'a str,
    digest: &'a registry::Digest,
    #[serde(skip_serializing_if = "str::is_empty")]
    os: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    architecture: &'a str,
    #[serde(flatten)]
    manifest: Manifest,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExpandedJson<'a> {
    schema_version: u32,
    name: &'a str,
    digest: &'a registry::Digest,
    #[serde(skip_serializing_if = "str::is_empty")]
    os: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    architecture: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    media_type: &'a str,
    config: ImageConfig,
    layers: &'a [Descriptor],
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a Annotations>,
}

/// With `expand`, the config of an image stands in place of its descriptor.
pub fn raw_json(inspected: &Inspected, name: &str, expand: bool) -> Result<String, InspectError> {
    let digest = &inspected.descriptor.digest;
    match &inspected.content {
        Content::Index(index, manifests) => {
            let mut known = Vec::new();
            for (entry, manifest) in index.manifests.iter().zip(manifests) {
                let manifest = manifest
                    .as_ref()
                    .ok_or_else(|| InspectError::Kind(entry.media_type.clone()))?;
                known.push(specified(manifest));
            }
            text(&IndexJson {
                name,
                digest,
                schema_version: index.schema_version,
                media_type: &index.media_type,
                manifests: known,
                annotations: not_empty(index.annotations.as_ref()),
            })
        }
        Content::Image(manifest, config) if expand => text(&ExpandedJson {
            schema_version: manifest.schema_version,
            name,
            digest,
            os: &config.os,
            architecture: &config.architecture,
            media_type: &manifest.media_type,
            config: specified_config(config),
            layers: &manifest.layers,
            subject: manifest.subject.as_ref(),
            annotations: not_empty(manifest.annotations.as_ref()),
        }),
        Content::Image(manifest, config) => text(&ImageJson {
            name,
            digest,
            os: &config.os,
            architecture: &config.architecture,
            manifest: specified(manifest),
        }),
    }
}

fn not_empty(annotations: Option<&Annotations>) -> Option<&Annotations> {
    annotations.filter(|annotations| !annotations.is_empty())
}

fn text<T: Serialize>(value: &T) -> Result<String, InspectError> {
    let compact = registry::json::compact(value).map_err(InspectError::Encode)?;
    Ok(format!(
        "{}\n",
        indent(&String::from_utf8_lossy(&compact), "    ")
    ))
}

fn specified(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    manifest.other.clear();
    manifest
}

fn specified_config(config: &ImageConfig) -> ImageConfig {
    let mut config = config.clone();
    config.other.clear();
    config.config.other.clear();
    config.config.healthcheck = None;
    config.config.on_build.clear();
    config.config.shell.clear();
    config.config.stop_timeout = None;
    let times = std::iter::once(&mut config.created).chain(config.history.iter_mut().map(|h| &mut h.created));
    for time in times.flatten() {
        *time = go_time(time);
    }
    config
}

/// Go writes no zeros at the end of a fraction.
fn go_time(time: &str) -> String {
    let Some((seconds, rest)) = time.split_once('.') else {
        return time.to_owned();
    };
    let zone = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(zone);
    match fraction.trim_end_matches('0') {
        "" => format!("{seconds}{zone}"),
        fraction => format!("{seconds}.{fraction}{zone}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_of_seconds_end_without_zeros() {
        for (time, expected) in [
            ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
            ("2024-01-01T00:00:00.000Z", "2024-01-01T00:00:00Z"),
            ("2024-01-01T00:00:00.120+01:00", "2024-01-01T00:00:00.12+01:00"),
        ] {
            assert_eq!(go_time(time), expected);
        }
    }
}
