//! What a client hands in with its result, looked at before anything is made of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

const CONFIG: &str = "containerimage.config";
const PLATFORMS: &str = "refs.platforms";

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Platforms {
    platforms: Option<Vec<Named>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: Config,
}

/// Refuses metadata that no exporter could use.
pub(super) fn metadata(metadata: &BTreeMap<String, Bytes>) -> Result<(), String> {
    for (key, value) in metadata {
        let key = key.as_str();
        if key == CONFIG || key.strip_prefix(CONFIG).is_some_and(|rest| rest.starts_with('/')) {
            image_config(value)?;
        }
        if key == PLATFORMS {
            platforms(value)?;
        }
    }
    Ok(())
}

fn image_config(value: &[u8]) -> Result<(), String> {
    let invalid = |error: serde_json::Error| format!("failed to unmarshal image config: {error}");
    let Some(config) = serde_json::from_slice::<Option<Config>>(value).map_err(invalid)? else {
        return Err("invalid null image config for export".to_owned());
    };
    if config.os.is_empty() != config.architecture.is_empty() {
        return Err("invalid image config: os and architecture must be specified together".to_owned());
    }
    Ok(())
}

fn platforms(value: &[u8]) -> Result<(), String> {
    let invalid = |error: serde_json::Error| format!("failed to parse platforms passed to exporter: {error}");
    let platforms = serde_json::from_slice::<Option<Platforms>>(value).map_err(invalid)?;
    let list = platforms
        .and_then(|platforms| platforms.platforms)
        .unwrap_or_default();
    if list.is_empty() {
        return Err("invalid empty platforms index for exporter".to_owned());
    }
    for named in list {
        if named.id.is_empty() {
            return Err("invalid empty platform key for exporter".to_owned());
        }
        if named.platform.os.is_empty() || named.platform.architecture.is_empty() {
            return Err(format!("invalid platform value of {}", named.id));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_that_no_exporter_could_use_is_refused() {
        for (key, value, refusal) in [
            (
                "containerimage.config",
                "null",
                "invalid null image config for export",
            ),
            (
                "containerimage.config/linux/amd64",
                r#"{"architecture":"amd64"}"#,
                "os and architecture must be specified together",
            ),
            ("refs.platforms", "null", "invalid empty platforms index"),
            (
                "refs.platforms",
                r#"{"Platforms":[{}]}"#,
                "invalid empty platform key",
            ),
            (
                "refs.platforms",
                r#"{"Platforms":[{"ID":"a"}]}"#,
                "invalid platform value",
            ),
        ] {
            let given = [(key.to_owned(), Bytes::from_static(value.as_bytes()))].into();
            assert!(metadata(&given).unwrap_err().contains(refusal), "{value}");
        }
        let config = Bytes::from_static(br#"{"os":"linux","architecture":"amd64"}"#);
        assert_eq!(
            metadata(&[("containerimage.config".to_owned(), config)].into()),
            Ok(())
        );
    }
}
