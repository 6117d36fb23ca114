//! Typed details of errors, as BuildKit's clients read them.
//!
//! A gRPC status carries them in `grpc-status-details-bin` as `google.rpc.Status`; each detail is an `Any` whose
//! type URL is `github.com/moby/buildkit/<name>+json` and whose value is JSON, not an encoded message.
//! Details that are not known here are skipped.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tonic::{Code, Status};

use crate::{pb, rpc};

const URL_PREFIX: &str = "github.com/moby/buildkit/";
const URL_SUFFIX: &str = "+json";
/// Bytes of the largest definition that a detail repeats.
const MAX_DEFINITION: usize = 4096;

/// One detail of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The vertex that failed.
    Vertex(Vertex),
    /// The lines of a source text that caused the error.
    Source(Source),
    /// The frontend that failed.
    Frontend(Frontend),
    /// A capability that the frontend lacks; with code `Unimplemented`.
    FrontendCap(Named),
    /// A subrequest that is not known; with code `Unimplemented`.
    Subrequest(Named),
    /// The build needs a feature that the requested compatibility version lacks.
    CompatibilityFeature(CompatibilityFeature),
    /// How the failing process ended.
    Exit(Exit),
    /// A source policy denied a source.
    Decision(Decision),
    /// The operation that failed, and what is left of it to look at.
    Solve(Box<Solve>),
    /// What provenance that must be complete cannot name.
    ProvenanceGaps(ProvenanceGaps),
    /// Which program reported the error, and where in it.
    Stack(Stack),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenanceGaps {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incomplete: Vec<ProvenanceGap>,
}

/// A folder, or a request of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProvenanceGap {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vertex {
    #[serde(default)]
    pub digest: String,
}

/// A place in a program, as clients print it when they are asked for more than the words of an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Frame>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmdline: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pid: i32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Frame {
    pub name: String,
    pub file: String,
    pub line: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    #[serde(default)]
    pub info: SourceInfo,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
}

impl Source {
    /// The text and the lines around the place, as every client shows it; empty for a place outside the text.
    pub fn excerpt(&self) -> String {
        crate::excerpt::around(self)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filename: String,
    #[serde(
        default,
        skip_serializing_if = "Bytes::is_empty",
        serialize_with = "to_base64",
        deserialize_with = "from_base64"
    )]
    pub data: Bytes,
    /// How to get the text once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub language: String,
}

/// A definition without what is only shown of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub def: Vec<Encoded>,
}

/// Bytes that are base64 in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoded(#[serde(serialize_with = "to_base64", deserialize_with = "from_base64")] pub Bytes);

/// Both ends are always written: clients read `end` without a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    #[serde(default)]
    pub start: Position,
    #[serde(default)]
    pub end: Position,
}

/// Lines count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    #[serde(default, skip_serializing_if = "is_zero")]
    pub line: i32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub character: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompatibilityFeature {
    #[serde(default)]
    pub version: i64,
    #[serde(default)]
    pub feature: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    #[serde(default, rename = "Code")]
    pub code: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// A number of [`crate::sourcepolicy::PolicyAction`].
    #[serde(default)]
    pub action: i32,
    #[serde(default, rename = "denyMessages", skip_serializing_if = "Vec::is_empty")]
    pub deny_messages: Vec<Denial>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    #[serde(default)]
    pub message: String,
}

impl From<&pb::SourceInfo> for SourceInfo {
    fn from(info: &pb::SourceInfo) -> Self {
        // A definition that is not small would crowd out the text: details travel in headers.
        let small = |definition: &&pb::Definition| definition.encoded_len() <= MAX_DEFINITION;
        Self {
            filename: info.filename.clone(),
            data: info.data.clone(),
            definition: info
                .definition
                .as_ref()
                .filter(small)
                .map(|definition| Definition {
                    def: definition.def.iter().map(|op| Encoded(op.clone())).collect(),
                }),
            language: info.language.clone(),
        }
    }
}

/// Ids of results are empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Solve {
    /// What the operation started from, by input.
    #[serde(default, rename = "inputIDs", skip_serializing_if = "Vec::is_empty")]
    pub input_ids: Vec<String>,
    /// What it left when it failed, by mount or action.
    #[serde(default, rename = "mountIDs", skip_serializing_if = "Vec::is_empty")]
    pub mount_ids: Vec<String>,
    /// The operation as [`op_json`] writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<serde_json::Value>,
    /// The action of a file operation that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileAction>,
    /// The input whose contents could not be looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<ContentCache>,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub description: std::collections::BTreeMap<String, String>,
}

// JSON as it is used here has no floating point numbers that are not equal to themselves.
impl Eq for Solve {}

/// 64-bit numbers are text in the JSON form of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAction {
    #[serde(default)]
    pub index: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentCache {
    #[serde(default)]
    pub index: String,
}

/// An operation in the JSON form of its message; `None` if it is longer than `limit`.
pub fn op_json(op: &crate::pb::Op, limit: usize) -> Option<serde_json::Value> {
    static POOL: std::sync::LazyLock<Option<prost_reflect::DescriptorPool>> =
        std::sync::LazyLock::new(|| prost_reflect::DescriptorPool::decode(DESCRIPTORS).ok());
    const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/wire.bin"));
    let encoded = op.encode_to_vec();
    if encoded.len() > limit {
        return None;
    }
    let kind = POOL.as_ref()?.get_message_by_name("pb.Op")?;
    let message = prost_reflect::DynamicMessage::decode(kind, &encoded[..]).ok()?;
    serde_json::to_value(message).ok()
}

impl Detail {
    pub fn to_any(&self) -> prost_types::Any {
        let (name, json) = match self {
            Self::Vertex(detail) => ("errdefs.Vertex", to_json(detail)),
            Self::Source(detail) => ("errdefs.Source", to_json(detail)),
            Self::Frontend(detail) => ("errdefs.Frontend", to_json(detail)),
            Self::FrontendCap(detail) => ("errdefs.FrontendCap", to_json(detail)),
            Self::Subrequest(detail) => ("errdefs.Subrequest", to_json(detail)),
            Self::CompatibilityFeature(detail) => ("errdefs.CompatibilityFeature", to_json(detail)),
            Self::Exit(detail) => ("gatewayapi.ExitMessage", to_json(detail)),
            Self::Decision(detail) => ("policysession.DecisionResponse", to_json(detail)),
            Self::Solve(detail) => ("errdefs.Solve", to_json(detail)),
            Self::ProvenanceGaps(detail) => ("errdefs.ProvenanceMaterialsIncomplete", to_json(detail)),
            Self::Stack(detail) => ("stack.Stack", to_json(detail)),
        };
        prost_types::Any {
            type_url: format!("{URL_PREFIX}{name}{URL_SUFFIX}"),
            value: json,
        }
    }

    /// `None` for a detail of another kind or one that is not well-formed.
    pub fn from_any(any: &prost_types::Any) -> Option<Self> {
        let name = any.type_url.strip_prefix(URL_PREFIX)?.strip_suffix(URL_SUFFIX)?;
        let json = &any.value;
        match name {
            "errdefs.Vertex" => from_json(json).map(Self::Vertex),
            "errdefs.Source" => from_json(json).map(Self::Source),
            "errdefs.Frontend" => from_json(json).map(Self::Frontend),
            "errdefs.FrontendCap" => from_json(json).map(Self::FrontendCap),
            "errdefs.Subrequest" => from_json(json).map(Self::Subrequest),
            "errdefs.CompatibilityFeature" => from_json(json).map(Self::CompatibilityFeature),
            "gatewayapi.ExitMessage" => from_json(json).map(Self::Exit),
            "policysession.DecisionResponse" => from_json(json).map(Self::Decision),
            "errdefs.Solve" => from_json(json).map(Box::new).map(Self::Solve),
            "errdefs.ProvenanceMaterialsIncomplete" => from_json(json).map(Self::ProvenanceGaps),
            "stack.Stack" => from_json(json).map(Self::Stack),
            _ => None,
        }
    }
}

/// A gRPC status that carries `details`.
pub fn status(code: Code, message: impl Into<String>, details: &[Detail]) -> Status {
    let message = message.into();
    if details.is_empty() {
        return Status::new(code, message);
    }
    let carrier = rpc::Status {
        code: code.into(),
        message: message.clone(),
        details: details.iter().map(Detail::to_any).collect(),
    };
    Status::with_details(code, message, carrier.encode_to_vec().into())
}

/// The status with one more detail.
pub fn with_detail(status: &Status, detail: &Detail) -> Status {
    let carried = rpc::Status::decode(status.details()).unwrap_or_default();
    let mut details = carried.details;
    details.push(detail.to_any());
    let carrier = rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details,
    };
    Status::with_details(status.code(), status.message(), carrier.encode_to_vec().into())
}

/// The details a gRPC status carries.
pub fn details(status: &Status) -> Vec<Detail> {
    let Ok(carrier) = rpc::Status::decode(status.details()) else {
        return Vec::new();
    };
    carrier.details.iter().filter_map(Detail::from_any).collect()
}

fn to_json<T: Serialize>(detail: &T) -> Vec<u8> {
    serde_json::to_vec(detail).expect("details are plain structs with string keys")
}

fn from_json<T: for<'a> Deserialize<'a>>(json: &[u8]) -> Option<T> {
    serde_json::from_slice(json).ok()
}

fn to_base64<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(data))
}

fn from_base64<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    let data = BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)?;
    Ok(data.into())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(line: i32) -> Position {
        Position { line, character: 0 }
    }

    #[test]
    fn details_are_json_under_buildkit_type_urls() {
        let source = Detail::Source(Source {
            info: SourceInfo {
                filename: "Dockerfile".into(),
                data: Bytes::from_static(b"FROM x\n"),
                definition: None,
                language: "Dockerfile".into(),
            },
            ranges: vec![Range {
                start: line(3),
                end: line(3),
            }],
        });
        let any = source.to_any();
        assert_eq!(any.type_url, "github.com/moby/buildkit/errdefs.Source+json");
        assert_eq!(
            String::from_utf8(any.value).unwrap(),
            r#"{"info":{"filename":"Dockerfile","data":"RlJPTSB4Cg==","language":"Dockerfile"},"ranges":[{"start":{"line":3},"end":{"line":3}}]}"#
        );
        let exit = Detail::Exit(Exit { code: 3 }).to_any();
        assert_eq!(exit.value, br#"{"Code":3}"#);
        assert_eq!(
            exit.type_url,
            "github.com/moby/buildkit/gatewayapi.ExitMessage+json"
        );
    }

    #[test]
    fn an_operation_is_written_in_the_json_form_of_its_message() {
        let op = crate::pb::Op {
            inputs: vec![crate::pb::Input {
                digest: "sha256:00".into(),
                index: 1,
            }],
            op: Some(crate::pb::op::Op::Source(crate::pb::SourceOp {
                identifier: "local://a".into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let expected = serde_json::json!({
            "inputs": [{"digest": "sha256:00", "index": "1"}],
            "source": {"identifier": "local://a"},
        });
        assert_eq!(op_json(&op, 1024), Some(expected));
        assert_eq!(op_json(&op, 4), None);
    }

    #[test]
    fn details_survive_a_status() {
        let all = vec![
            Detail::Vertex(Vertex {
                digest: "sha256:00".into(),
            }),
            Detail::Source(Source::default()),
            Detail::Frontend(Frontend {
                name: "dockerfile.v0".into(),
                source: String::new(),
            }),
            Detail::FrontendCap(Named { name: "a".into() }),
            Detail::Subrequest(Named { name: "b".into() }),
            Detail::CompatibilityFeature(CompatibilityFeature {
                version: 20,
                feature: "f".into(),
            }),
            Detail::Exit(Exit { code: 137 }),
            Detail::Decision(Decision {
                action: 1,
                deny_messages: vec![Denial { message: "no".into() }],
            }),
            Detail::Stack(Stack {
                frames: vec![Frame {
                    name: "solve".into(),
                    file: "solve.rs".into(),
                    line: 3,
                }],
                pid: 7,
                ..Stack::default()
            }),
            Detail::Solve(Box::new(Solve {
                mount_ids: vec!["a".into(), String::new()],
                file: Some(FileAction { index: "2".into() }),
                ..Solve::default()
            })),
        ];
        let status = status(Code::Unknown, "it failed", &all);
        assert_eq!(status.message(), "it failed");
        assert_eq!(details(&status), all);
        let more = Detail::FrontendCap(Named { name: "c".into() });
        assert_eq!(details(&with_detail(&status, &more)), [all, vec![more]].concat());
    }

    #[test]
    fn unknown_and_damaged_details_are_skipped() {
        let any = |url: &str, value: &[u8]| prost_types::Any {
            type_url: url.into(),
            value: value.to_vec(),
        };
        for detail in [
            any("github.com/moby/buildkit/errdefs.Unknown+json", b"{}"),
            any("type.googleapis.com/errdefs.Vertex", b""),
            any("github.com/moby/buildkit/errdefs.Vertex+json", b"{"),
        ] {
            assert_eq!(Detail::from_any(&detail), None, "{}", detail.type_url);
        }
    }
}
