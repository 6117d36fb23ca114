//! What a daemon tells about a running build, in the client's own words.
//!
//! The wire message is translated here once. Displays see vertices with real times, and the raw JSON display serialises
//! exactly these structures: the field names and their order are those that readers of buildx's `rawjson` expect.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vertexes: Vec<Vertex>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<VertexStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<VertexLog>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<VertexWarning>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Vertex {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_time")]
    pub started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_time")]
    pub completed: Option<Timestamp>,
    #[serde(skip_serializing_if = "is_false")]
    pub cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    #[serde(rename = "progressGroup", skip_serializing_if = "Option::is_none")]
    pub group: Option<ProgressGroup>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProgressGroup {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "is_false")]
    pub weak: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VertexStatus {
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vertex: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
    pub current: i64,
    #[serde(serialize_with = "time")]
    pub timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_time")]
    pub started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_time")]
    pub completed: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VertexLog {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vertex: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub stream: i64,
    #[serde(serialize_with = "base64_bytes")]
    pub data: Vec<u8>,
    #[serde(serialize_with = "time")]
    pub timestamp: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VertexWarning {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vertex: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub level: i64,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "base64_bytes")]
    pub short: Vec<u8>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "base64_list")]
    pub detail: Vec<Vec<u8>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceInfo>,
    #[serde(rename = "range", skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "base64_bytes")]
    pub data: Vec<u8>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub language: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Range {
    pub start: Position,
    pub end: Position,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Position {
    pub line: i32,
    #[serde(skip_serializing_if = "is_zero_i32")]
    pub character: i32,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_zero_i32(value: &i32) -> bool {
    *value == 0
}

fn time<S: Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn optional_time<S: Serializer>(value: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn base64_bytes<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    use base64::Engine as _;
    serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(value))
}

fn base64_list<S: Serializer>(value: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
    use base64::Engine as _;
    serializer.collect_seq(
        value
            .iter()
            .map(|bytes| base64::engine::general_purpose::STANDARD.encode(bytes)),
    )
}
