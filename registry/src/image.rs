//! The config of an image: how to run it, what it was made of, and the diff ids of its layers.
//!
//! Field order and omissions are those of BuildKit's encoder. Fields this code does not know pass through untouched.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::json;
use crate::platform::Platform;

/// Go's `map[string]struct{}`.
pub type Set = BTreeMap<String, Empty>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The config document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RunConfig,
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<History>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// What a container of the image starts with. Docker writes these names with capitals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub user: String,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub exposed_ports: Set,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub volumes: Set,
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub working_dir: String,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub labels: BTreeMap<String, String>,
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_is_default")]
    pub args_escaped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Durations are nanoseconds; zero means the engine's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
        }
    }
}

/// How one layer, or one change of the config, came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

impl ImageConfig {
    pub fn for_platform(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            os_features: platform.os_features.clone(),
            variant: platform.variant.clone(),
            ..Self::default()
        }
    }

    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
    }

    /// As a frontend hands it to an exporter: fields in declaration order.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        json::compact(self)
    }

    /// As an exporter stores it: BuildKit writes the outermost level sorted by name.
    pub fn to_stored_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let sorted: BTreeMap<String, Value> = serde_json::from_value(serde_json::to_value(self)?)?;
        json::compact(&sorted)
    }
}

/// Docker writes `null` for empty lists and maps.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes references"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes references"
)]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of a config that Docker 20.10 writes; no field of it may be lost or moved.
    const DOCKER: &str = concat!(
        r#"{"architecture":"arm64","config":{"User":"app","ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin","A=\u003cb\u003e"],"#,
        r#""Entrypoint":["/e"],"Cmd":["sh"],"Volumes":{"/data":{}},"WorkingDir":"/w","Labels":{"a":"1","b":"2"},"#,
        r#""StopSignal":"SIGINT","ArgsEscaped":true,"Healthcheck":{"Test":["CMD","x"],"Interval":5000000000},"#,
        r#""OnBuild":["RUN x"],"Shell":["/bin/bash","-c"],"Domainname":"d"},"created":"2024-01-02T03:04:05.000000006Z","#,
        r#""history":[{"created":"2024-01-02T03:04:05Z","created_by":"RUN a \u0026\u0026 b","comment":"c"},{"created_by":"ENV","empty_layer":true}],"#,
        r#""moby.buildkit.buildinfo.v1":"eA==","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]},"variant":"v8"}"#
    );

    #[test]
    fn a_stored_config_survives_byte_for_byte() {
        let config = ImageConfig::parse(DOCKER.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(config.to_stored_bytes().unwrap()).unwrap(),
            DOCKER
        );
        assert_eq!(config.platform(), Platform::new("linux", "arm64", "v8"));
    }

    #[test]
    fn nulls_are_read_as_empty_and_not_written() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Volumes":null,"Cmd":["a"]},"history":null,"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(config.to_bytes().unwrap()).unwrap(),
            r#"{"architecture":"amd64","os":"linux","config":{"Cmd":["a"]},"rootfs":{"type":"layers","diff_ids":[]}}"#
        );
    }
}
