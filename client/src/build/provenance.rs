//! What a build was made from, for `--metadata-file`: the provenance of its record.

use anyhow::Context as _;
use base64::Engine as _;
use proto::control::{BuildHistoryRequest, BuildResultInfo};
use serde_json::{Map, Value};
use tonic::Code;
use tonic::transport::Channel;

use super::solve::Response;
use crate::daemon;
use crate::history::blobs::Blobs;
use crate::progress::{self, Work};
use crate::settings::Settings;

const VARIABLE: &str = "BUILDX_METADATA_PROVENANCE";
const KEY: &str = "buildx.build.provenance";
const PREDICATE: &str = "in-toto.io/predicate-type";
/// Provenance with all steps and the whole Dockerfile is a few hundred kilobytes.
const LARGEST: usize = 64 << 20;

/// How much of it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Not the steps and times.
    Min,
    Max,
    None,
}

impl Detail {
    /// What the environment says.
    pub fn of(settings: &Settings) -> Self {
        match settings.get(VARIABLE) {
            Some("max") => Self::Max,
            Some("disabled" | "false" | "FALSE" | "False" | "f" | "F" | "0") => Self::None,
            _ => Self::Min,
        }
    }
}

/// Adds the provenance of a build that has ended to what its exporters answered.
pub async fn add(
    response: &mut Response,
    channel: Channel,
    reference: &str,
    detail: Detail,
    progress: &progress::Sender,
) -> anyhow::Result<()> {
    if detail == Detail::None {
        return Ok(());
    }
    let work = Work::begin(progress, "resolving provenance for metadata file").await;
    let found = find(channel, reference, detail).await;
    response.extend(work.end(found).await?);
    Ok(())
}

async fn find(channel: Channel, reference: &str, detail: Detail) -> anyhow::Result<Response> {
    let mut found = Response::new();
    let request = BuildHistoryRequest {
        r#ref: reference.to_owned(),
        early_exit: true,
        ..BuildHistoryRequest::default()
    };
    let events = daemon::control(channel.clone())
        .listen_build_history(request)
        .await;
    let mut events = match events {
        Ok(events) => events.into_inner(),
        // The daemon keeps no records.
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::NotFound) => return Ok(found),
        Err(status) => return Err(status).context("asking for the build record"),
    };
    let blobs = Blobs::daemon(channel);
    while let Some(event) = events.message().await.context("asking for the build record")? {
        let Some(record) = event.record else { continue };
        let one = record.result.iter().map(|result| (KEY.to_owned(), result));
        let several = record.results.iter();
        let several = several.map(|(platform, result)| (format!("{KEY}/{platform}"), result));
        for (key, result) in one.chain(several) {
            let Some(digest) = provenance_of(result) else {
                continue;
            };
            let bytes = blobs.read(digest, LARGEST).await?;
            let told = told(&bytes, detail).context("reading the provenance of the build record")?;
            found.insert(key, base64::engine::general_purpose::STANDARD.encode(told));
        }
    }
    Ok(found)
}

fn provenance_of(result: &BuildResultInfo) -> Option<&str> {
    let is_provenance = |kind: &String| kind.starts_with("https://slsa.dev/provenance/");
    let mut attested = result.attestations.iter();
    let found = attested.find(|one| one.annotations.get(PREDICATE).is_some_and(is_provenance));
    found.map(|one| one.digest.as_str())
}

/// A predicate as it is written into the file.
fn told(predicate: &[u8], detail: Detail) -> serde_json::Result<String> {
    let mut predicate: Map<String, Value> = serde_json::from_slice(predicate)?;
    // Version 0.2.
    let unnamed = |builder: &Value| builder.get("id").and_then(Value::as_str).unwrap_or_default() == "";
    if predicate.get("builder").is_some_and(unnamed) {
        predicate.remove("builder");
    }
    if detail == Detail::Min {
        for key in ["buildConfig", "metadata"] {
            predicate.remove(key);
        }
        for (path, key) in [
            ("/buildDefinition/internalParameters", "buildConfig"),
            ("/runDetails", "metadata"),
        ] {
            let mut keys = path.split('/').skip(1);
            let outer = keys.next().and_then(|key| predicate.get_mut(key));
            let place = keys.fold(outer, |place, key| place.and_then(|place| place.get_mut(key)));
            if let Some(place) = place.and_then(Value::as_object_mut) {
                place.remove(key);
            }
        }
    }
    serde_json::to_string(&predicate)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_environment_says_how_much_is_wanted() {
        for (value, expected) in [
            ("", Detail::Min),
            ("min", Detail::Min),
            ("max", Detail::Max),
            ("disabled", Detail::None),
            ("0", Detail::None),
        ] {
            assert_eq!(
                Detail::of(&Settings::of(&[(VARIABLE, value)])),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn little_provenance_has_neither_steps_nor_times() {
        let min = |predicate: Value| {
            let told = told(predicate.to_string().as_bytes(), Detail::Min).unwrap();
            serde_json::from_str::<Value>(&told).unwrap()
        };
        let old = json!({"builder": {"id": ""}, "buildType": "t", "buildConfig": {}, "metadata": {}});
        assert_eq!(min(old.clone()), json!({"buildType": "t"}));
        let new = json!({
            "buildDefinition": {"buildType": "t", "internalParameters": {"buildConfig": {}, "p": 1}},
            "runDetails": {"builder": {"id": "b"}, "metadata": {}},
        });
        let expected = json!({
            "buildDefinition": {"buildType": "t", "internalParameters": {"p": 1}},
            "runDetails": {"builder": {"id": "b"}},
        });
        assert_eq!(min(new), expected);
        let max = told(old.to_string().as_bytes(), Detail::Max).unwrap();
        let expected = json!({"buildType": "t", "buildConfig": {}, "metadata": {}});
        assert_eq!(serde_json::from_str::<Value>(&max).unwrap(), expected);
    }
}
