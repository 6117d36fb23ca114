//! The config of a cache, in BuildKit's public format `application/vnd.buildkit.cacheconfig.v0`.

use registry::Digest;
use serde::{Deserialize, Serialize};

pub(super) const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// The member of an image config that holds the records of its inline cache.
pub(in crate::solver) const INLINE: &str = "moby.buildkit.cache.v0";
/// Annotations of layers.
pub(super) const DIFF_ID: &str = "containerd.io/uncompressed";
pub(super) const CREATED: &str = "buildkit/createdat";
pub(super) const DESCRIPTION: &str = "buildkit/description";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheConfig {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<CacheLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<CacheRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheLayer {
    pub blob: Digest,
    /// Index of the layer below, negative if there is none.
    #[serde(default, skip_serializing_if = "is_first")]
    pub parent: i64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference to the field"
)]
fn is_first(index: &i64) -> bool {
    *index == 0
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheRecord {
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<CacheResult>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<ChainedResult>,
    pub digest: Digest,
    /// For each input the records that may stand for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<CacheInput>>,
}

/// A layer with all that are below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CacheResult {
    #[serde(default)]
    pub layer: usize,
    #[serde(default)]
    pub created_at: String,
}

/// Layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChainedResult {
    #[serde(default)]
    pub layers: Vec<usize>,
    #[serde(default)]
    pub created_at: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheInput {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    #[serde(default)]
    pub link: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_reads_as_it_was_written_and_leaves_out_what_go_leaves_out() {
        let digest = Digest::of(b"x");
        let config = CacheConfig {
            layers: [-1, 0]
                .map(|parent| CacheLayer {
                    blob: digest.clone(),
                    parent,
                })
                .into(),
            records: vec![CacheRecord {
                results: vec![CacheResult {
                    layer: 1,
                    created_at: "2024-01-01T00:00:00Z".to_owned(),
                }],
                chains: Vec::new(),
                digest: digest.clone(),
                inputs: vec![vec![CacheInput {
                    selector: String::new(),
                    link: 0,
                }]],
            }],
        };
        let text = serde_json::to_string(&config).unwrap();
        let expected = format!(
            r#"{{"layers":[{{"blob":"{digest}","parent":-1}},{{"blob":"{digest}"}}],"records":[{{"layers":[{{"layer":1,"createdAt":"2024-01-01T00:00:00Z"}}],"digest":"{digest}","inputs":[[{{"link":0}}]]}}]}}"#
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<CacheConfig>(&text).unwrap(), config);
    }
}
