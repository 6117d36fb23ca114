//! Whether a result is for the platforms that were asked for. If not it is exported all the same, with a warning.

use std::collections::BTreeMap;

use binfmt::Platform;
use proto::control::VertexWarning;
use serde::Deserialize;

use super::build::Build;
use crate::solver::{Outcome, References};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Platforms {
    platforms: Option<Vec<Named>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    platform: Platform,
}

/// Warns of a result for other platforms than those that the request names, in a vertex of its own.
pub(super) fn run(build: &Build, outcome: &Outcome, attributes: &BTreeMap<String, String>) {
    let requested = attributes.get("platform").map(String::as_str);
    let Some(short) = mismatch(requested, outcome) else {
        return;
    };
    let vertex = build.progress().internal_vertex("Verifying build result");
    vertex.start();
    build.progress().warn(VertexWarning {
        vertex: vertex.digest().to_owned(),
        short: short.into_bytes().into(),
        ..VertexWarning::default()
    });
    vertex.complete();
}

fn mismatch(requested: Option<&str>, outcome: &Outcome) -> Option<String> {
    let results = results(outcome)?;
    let mut asked: Vec<Platform> = Vec::new();
    for text in requested.into_iter().flat_map(|requested| requested.split(',')) {
        match text.parse::<Platform>() {
            Ok(platform) if asked.contains(&platform) => {
                return Some(format!("Duplicate platform result requested {text:?}"));
            }
            Ok(platform) => asked.push(platform),
            Err(error) => return Some(format!("Invalid platform result requested {text:?}: {error}")),
        }
    }
    if asked.is_empty() {
        asked.push(Platform::host());
    }
    if let ([asked], [made]) = (&asked[..], &results[..]) {
        // Whoever asks for no version of an operating system takes any.
        let fits = asked == made || *asked == made.clone().with_os_version("");
        return (!fits)
            .then(|| format!("Requested platform \"{asked}\" does not match result platform \"{made}\""));
    }
    let is_map = matches!(outcome.references, References::Platforms(_));
    if !is_map && asked.len() > 1 {
        return Some("Multiple platforms requested but result is not multi-platform".to_owned());
    }
    let fits = asked.len() == results.len() && results.iter().all(|made| asked.contains(made));
    (!fits).then(|| {
        format!(
            "Requested platforms {} do not match result platforms {}",
            listed(&asked),
            listed(&results)
        )
    })
}

/// The platforms of the results; nothing if there is no result, or it does not say.
fn results(outcome: &Outcome) -> Option<Vec<Platform>> {
    if let Some(text) = outcome.metadata.get("refs.platforms") {
        let platforms: Platforms = serde_json::from_slice(text).ok()?;
        let named = platforms.platforms?.into_iter();
        return Some(named.map(|named| named.platform).collect());
    }
    match &outcome.references {
        References::One(Some(_)) => {
            let config = outcome.metadata.get("containerimage.config");
            let config = config.and_then(|text| serde_json::from_slice::<registry::ImageConfig>(text).ok());
            let named = config.filter(|config| !config.os.is_empty() && !config.architecture.is_empty());
            Some(vec![named.map_or_else(Platform::host, |config| {
                Platform::new(&config.os, &config.architecture, &config.variant)
                    .with_os_version(&config.os_version)
            })])
        }
        References::One(None) | References::Platforms(_) => None,
    }
}

fn listed(platforms: &[Platform]) -> String {
    let mut names: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    names.sort();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(references: References, platforms: &[&str]) -> Outcome {
        let named = platforms.iter().map(|text| {
            let platform: Platform = text.parse().unwrap();
            serde_json::json!({"ID": text, "Platform": platform})
        });
        let json = serde_json::json!({"Platforms": named.collect::<Vec<_>>()});
        Outcome {
            references,
            metadata: BTreeMap::from([("refs.platforms".to_owned(), json.to_string().into_bytes())]),
            sources: Vec::new(),
            attestations: BTreeMap::new(),
        }
    }

    #[test]
    fn results_for_other_platforms_are_told() {
        let one = |platforms: &[&str]| made(References::One(None), platforms);
        let map = |platforms: &[&str]| made(References::Platforms(BTreeMap::new()), platforms);
        let both = Some("linux/arm64,linux/amd64");
        for (requested, outcome, warning) in [
            (both, map(&["linux/amd64", "linux/arm64"]), None),
            (Some("windows/amd64"), one(&["windows(10.1)/amd64"]), None),
            (
                both,
                one(&["linux/amd64"]),
                Some("Multiple platforms requested but result is not multi-platform"),
            ),
            (
                both,
                map(&["linux/amd64", "linux/s390x"]),
                Some(
                    "Requested platforms linux/amd64,linux/arm64 do not match result platforms linux/amd64,linux/s390x",
                ),
            ),
            (
                Some("linux/s390x"),
                one(&["linux/arm64"]),
                Some("Requested platform \"linux/s390x\" does not match result platform \"linux/arm64\""),
            ),
            (
                Some("arm,armhf"),
                one(&["linux/arm"]),
                Some("Duplicate platform result requested \"armhf\""),
            ),
        ] {
            assert_eq!(mismatch(requested, &outcome).as_deref(), warning, "{requested:?}");
        }
        let mut silent = one(&[]);
        silent.metadata.clear();
        assert_eq!(mismatch(both, &silent), None);
    }
}
