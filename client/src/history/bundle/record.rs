//! A record in JSON, as Go's encoder writes the message: names and order are its structures'.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proto::control::{self, BuildHistoryRecord};
use proto::rpc;
use serde::{Deserialize, Serialize};

use crate::history::local_state::{LocalState, StateGroup};

/// A record and what its machine knew beside the daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    pub record: BuildHistoryRecord,
    pub default_platform: String,
    pub local_state: Option<LocalState>,
    pub state_group: Option<StateGroup>,
}

type Strings = BTreeMap<String, String>;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    #[serde(rename = "Ref", skip_serializing_if = "is_default")]
    id: String,
    #[serde(rename = "Frontend", skip_serializing_if = "is_default")]
    frontend: String,
    #[serde(rename = "FrontendAttrs", skip_serializing_if = "is_default")]
    frontend_attrs: Strings,
    #[serde(rename = "Exporters", skip_serializing_if = "is_default")]
    exporters: Vec<Exporter>,
    #[serde(rename = "error", skip_serializing_if = "is_default")]
    error: Option<Error>,
    #[serde(rename = "CreatedAt", skip_serializing_if = "is_default")]
    created_at: Option<Time>,
    #[serde(rename = "CompletedAt", skip_serializing_if = "is_default")]
    completed_at: Option<Time>,
    #[serde(skip_serializing_if = "is_default")]
    logs: Option<Descriptor>,
    #[serde(rename = "ExporterResponse", skip_serializing_if = "is_default")]
    exporter_response: Strings,
    #[serde(rename = "Result", skip_serializing_if = "is_default")]
    result: Option<ResultInfo>,
    #[serde(rename = "Results", skip_serializing_if = "is_default")]
    results: BTreeMap<String, ResultInfo>,
    #[serde(rename = "Generation", skip_serializing_if = "is_default")]
    generation: i32,
    #[serde(skip_serializing_if = "is_default")]
    trace: Option<Descriptor>,
    #[serde(skip_serializing_if = "is_default")]
    pinned: bool,
    #[serde(rename = "numCachedSteps", skip_serializing_if = "is_default")]
    cached_steps: i32,
    #[serde(rename = "numTotalSteps", skip_serializing_if = "is_default")]
    total_steps: i32,
    #[serde(rename = "numCompletedSteps", skip_serializing_if = "is_default")]
    completed_steps: i32,
    #[serde(rename = "externalError", skip_serializing_if = "is_default")]
    external_error: Option<Descriptor>,
    #[serde(rename = "numWarnings", skip_serializing_if = "is_default")]
    warnings: i32,
    #[serde(rename = "DefaultPlatform")]
    default_platform: String,
    #[serde(rename = "localState", skip_serializing_if = "is_default")]
    local_state: Option<LocalState>,
    #[serde(rename = "stateGroup", skip_serializing_if = "is_default")]
    state_group: Option<StateGroup>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Exporter {
    #[serde(skip_serializing_if = "is_default")]
    r#type: String,
    #[serde(skip_serializing_if = "is_default")]
    attrs: Strings,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Error {
    #[serde(skip_serializing_if = "is_default")]
    code: i32,
    #[serde(skip_serializing_if = "is_default")]
    message: String,
    #[serde(skip_serializing_if = "is_default")]
    details: Vec<Detail>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Detail {
    #[serde(skip_serializing_if = "is_default")]
    type_url: String,
    /// Base64.
    #[serde(skip_serializing_if = "is_default")]
    value: String,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Time {
    #[serde(skip_serializing_if = "is_default")]
    seconds: i64,
    #[serde(skip_serializing_if = "is_default")]
    nanos: i32,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Descriptor {
    #[serde(skip_serializing_if = "is_default")]
    media_type: String,
    #[serde(skip_serializing_if = "is_default")]
    digest: String,
    #[serde(skip_serializing_if = "is_default")]
    size: i64,
    #[serde(skip_serializing_if = "is_default")]
    annotations: Strings,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ResultInfo {
    #[serde(skip_serializing_if = "is_default")]
    result_deprecated: Option<Descriptor>,
    #[serde(skip_serializing_if = "is_default")]
    attestations: Vec<Descriptor>,
    #[serde(skip_serializing_if = "is_default")]
    results: BTreeMap<i64, Descriptor>,
}

impl Kept {
    pub fn to_json(&self) -> Record {
        let record = self.record.clone();
        Record {
            id: record.r#ref,
            frontend: record.frontend,
            frontend_attrs: record.frontend_attrs,
            exporters: record
                .exporters
                .into_iter()
                .map(|exporter| Exporter {
                    r#type: exporter.r#type,
                    attrs: exporter.attrs,
                })
                .collect(),
            error: record.error.map(|error| Error {
                code: error.code,
                message: error.message,
                details: error
                    .details
                    .into_iter()
                    .map(|any| Detail {
                        type_url: any.type_url,
                        value: BASE64_STANDARD.encode(any.value),
                    })
                    .collect(),
            }),
            created_at: record.created_at.map(Time::from),
            completed_at: record.completed_at.map(Time::from),
            logs: record.logs.map(Descriptor::from),
            exporter_response: record.exporter_response,
            result: record.result.map(ResultInfo::from),
            results: record
                .results
                .into_iter()
                .map(|(platform, result)| (platform, result.into()))
                .collect(),
            generation: record.generation,
            trace: record.trace.map(Descriptor::from),
            pinned: record.pinned,
            cached_steps: record.num_cached_steps,
            total_steps: record.num_total_steps,
            completed_steps: record.num_completed_steps,
            external_error: record.external_error.map(Descriptor::from),
            warnings: record.num_warnings,
            default_platform: self.default_platform.clone(),
            local_state: self.local_state.clone(),
            state_group: self.state_group.clone(),
        }
    }

    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Record = serde_json::from_slice(json)?;
        Ok(Self {
            default_platform: record.default_platform,
            local_state: record.local_state,
            state_group: record.state_group,
            record: BuildHistoryRecord {
                r#ref: record.id,
                frontend: record.frontend,
                frontend_attrs: record.frontend_attrs,
                exporters: record
                    .exporters
                    .into_iter()
                    .map(|exporter| control::Exporter {
                        r#type: exporter.r#type,
                        attrs: exporter.attrs,
                    })
                    .collect(),
                error: record.error.map(|error| rpc::Status {
                    code: error.code,
                    message: error.message,
                    details: error
                        .details
                        .into_iter()
                        .map(|detail| prost_types::Any {
                            type_url: detail.type_url,
                            // What cannot be read is a detail that nobody knows.
                            value: BASE64_STANDARD.decode(detail.value).unwrap_or_default(),
                        })
                        .collect(),
                }),
                created_at: record.created_at.map(Time::into),
                completed_at: record.completed_at.map(Time::into),
                logs: record.logs.map(Descriptor::into),
                exporter_response: record.exporter_response,
                result: record.result.map(ResultInfo::into),
                results: record
                    .results
                    .into_iter()
                    .map(|(platform, result)| (platform, result.into()))
                    .collect(),
                generation: record.generation,
                trace: record.trace.map(Descriptor::into),
                pinned: record.pinned,
                num_cached_steps: record.cached_steps,
                num_total_steps: record.total_steps,
                num_completed_steps: record.completed_steps,
                external_error: record.external_error.map(Descriptor::into),
                num_warnings: record.warnings,
            },
        })
    }
}

impl From<prost_types::Timestamp> for Time {
    fn from(time: prost_types::Timestamp) -> Self {
        Self {
            seconds: time.seconds,
            nanos: time.nanos,
        }
    }
}

impl From<Time> for prost_types::Timestamp {
    fn from(time: Time) -> Self {
        Self {
            seconds: time.seconds,
            nanos: time.nanos,
        }
    }
}

impl From<control::Descriptor> for Descriptor {
    fn from(descriptor: control::Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type,
            digest: descriptor.digest,
            size: descriptor.size,
            annotations: descriptor.annotations,
        }
    }
}

impl From<Descriptor> for control::Descriptor {
    fn from(descriptor: Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type,
            digest: descriptor.digest,
            size: descriptor.size,
            annotations: descriptor.annotations,
        }
    }
}

impl From<control::BuildResultInfo> for ResultInfo {
    fn from(result: control::BuildResultInfo) -> Self {
        Self {
            result_deprecated: result.result_deprecated.map(Descriptor::from),
            attestations: result.attestations.into_iter().map(Descriptor::from).collect(),
            results: result
                .results
                .into_iter()
                .map(|(number, descriptor)| (number, descriptor.into()))
                .collect(),
        }
    }
}

impl From<ResultInfo> for control::BuildResultInfo {
    fn from(result: ResultInfo) -> Self {
        Self {
            result_deprecated: result.result_deprecated.map(Descriptor::into),
            attestations: result.attestations.into_iter().map(Descriptor::into).collect(),
            results: result
                .results
                .into_iter()
                .map(|(number, descriptor)| (number, descriptor.into()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_json() {
        let descriptor = control::Descriptor {
            media_type: "application/json".to_owned(),
            digest: "sha256:00".to_owned(),
            size: 3,
            annotations: [("a".to_owned(), "b".to_owned())].into(),
        };
        let kept = Kept {
            record: BuildHistoryRecord {
                r#ref: "id".to_owned(),
                error: Some(rpc::Status {
                    code: 2,
                    message: "it failed".to_owned(),
                    details: vec![prost_types::Any {
                        type_url: "x".to_owned(),
                        value: vec![1, 2, 3],
                    }],
                }),
                created_at: Some(prost_types::Timestamp { seconds: 5, nanos: 6 }),
                result: Some(control::BuildResultInfo {
                    result_deprecated: None,
                    attestations: vec![descriptor.clone()],
                    results: [(0, descriptor.clone())].into(),
                }),
                logs: Some(descriptor),
                num_total_steps: 7,
                ..BuildHistoryRecord::default()
            },
            default_platform: "linux/amd64".to_owned(),
            ..Kept::default()
        };
        let json = serde_json::to_string(&kept.to_json()).unwrap();
        assert_eq!(
            json,
            r#"{"Ref":"id","error":{"code":2,"message":"it failed","details":[{"type_url":"x","value":"AQID"}]},"CreatedAt":{"seconds":5,"nanos":6},"logs":{"media_type":"application/json","digest":"sha256:00","size":3,"annotations":{"a":"b"}},"Result":{"Attestations":[{"media_type":"application/json","digest":"sha256:00","size":3,"annotations":{"a":"b"}}],"Results":{"0":{"media_type":"application/json","digest":"sha256:00","size":3,"annotations":{"a":"b"}}}},"numTotalSteps":7,"DefaultPlatform":"linux/amd64"}"#
        );
        assert_eq!(Kept::from_json(json.as_bytes()).unwrap(), kept);
    }
}
