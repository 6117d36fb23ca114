//! The trace of a build: a span for each vertex, in the form that BuildKit's daemon writes and its clients read.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::control::{StatusResponse, Vertex};
use registry::Digest;
use serde_json::{Value, json};

pub(super) const MEDIA_TYPE: &str = "application/vnd.buildkit.otlp.json.v0";

/// Kinds of spans and codes of their ends, as OpenTelemetry counts them.
const INTERNAL: u32 = 1;
const SERVER: u32 = 2;
const UNSET: u32 = 0;
const FAILED: u32 = 1;

/// What is known of a vertex that is over.
#[derive(Debug)]
struct Span {
    name: String,
    started: prost_types::Timestamp,
    completed: prost_types::Timestamp,
    cached: bool,
    error: String,
}

/// The spans of a build, put together while its log is read.
#[derive(Debug, Default)]
pub(super) struct Spans(BTreeMap<String, Span>);

/// The build as a whole.
pub(super) struct Whole<'a> {
    pub(super) reference: &'a str,
    pub(super) started: Option<prost_types::Timestamp>,
    pub(super) completed: Option<prost_types::Timestamp>,
    pub(super) error: &'a str,
}

impl Spans {
    pub(super) fn add(&mut self, message: &StatusResponse) {
        for vertex in &message.vertexes {
            let Vertex {
                started: Some(started),
                completed: Some(completed),
                ..
            } = vertex
            else {
                continue;
            };
            let span = Span {
                name: vertex.name.clone(),
                started: *started,
                completed: *completed,
                cached: vertex.cached,
                error: vertex.error.clone(),
            };
            self.0.insert(vertex.digest.clone(), span);
        }
    }

    /// One object after the other, that of the build first.
    pub(super) fn to_json(&self, whole: &Whole<'_>) -> Bytes {
        let trace = id(whole.reference, 32);
        let root = id(&format!("build {}", whole.reference), 16);
        let context = |span: &str| json!({"TraceID": trace, "SpanID": span, "TraceFlags": "01", "TraceState": "", "Remote": false});
        let none = json!({
            "TraceID": "0".repeat(32), "SpanID": "0".repeat(16), "TraceFlags": "00", "TraceState": "", "Remote": false,
        });
        let mut text = Vec::new();
        let mut push = |span: Value| {
            text.extend_from_slice(span.to_string().as_bytes());
            text.push(b'\n');
        };
        push(json!({
            "Name": "moby.buildkit.v1.Control/Solve",
            "SpanContext": context(&root),
            "Parent": none,
            "SpanKind": SERVER,
            "StartTime": time(whole.started.unwrap_or_default()),
            "EndTime": time(whole.completed.unwrap_or_default()),
            "Attributes": [attribute("ref", &json!(whole.reference))],
            "Status": status(whole.error),
            "ChildSpanCount": self.0.len(),
            "Resource": resource(),
            "InstrumentationLibrary": {"Name": "builderd", "Version": crate::version::VERSION, "SchemaURL": ""},
        }));
        for (digest, span) in &self.0 {
            push(json!({
                "Name": span.name,
                "SpanContext": context(&id(&format!("{} {digest}", whole.reference), 16)),
                "Parent": context(&root),
                "SpanKind": INTERNAL,
                "StartTime": time(span.started),
                "EndTime": time(span.completed),
                "Attributes": [attribute("vertex", &json!(digest)), attribute("cached", &json!(span.cached))],
                "Status": status(&span.error),
                "ChildSpanCount": 0,
                "Resource": resource(),
                "InstrumentationLibrary": {"Name": "builderd", "Version": crate::version::VERSION, "SchemaURL": ""},
            }));
        }
        text.into()
    }
}

/// As long as OpenTelemetry wants it.
fn id(of: &str, length: usize) -> String {
    let digest = Digest::of(of.as_bytes());
    digest.hex().chars().take(length).collect()
}

fn time(at: prost_types::Timestamp) -> String {
    jiff::Timestamp::new(at.seconds, at.nanos)
        .unwrap_or_default()
        .to_string()
}

fn attribute(key: &str, value: &Value) -> Value {
    let kind = if value.is_boolean() { "BOOL" } else { "STRING" };
    json!({"Key": key, "Value": {"Type": kind, "Value": value}})
}

fn status(error: &str) -> Value {
    let code = if error.is_empty() { UNSET } else { FAILED };
    json!({"Code": code, "Description": error})
}

fn resource() -> Value {
    json!([
        attribute("service.name", &json!("builderd")),
        attribute("service.version", &json!(crate::version::VERSION)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vertex_that_is_over_is_a_span_below_that_of_the_build() {
        let at = |seconds| {
            Some(prost_types::Timestamp {
                seconds,
                nanos: 5_000,
            })
        };
        let vertex = |digest: &str, completed| Vertex {
            digest: digest.to_owned(),
            name: format!("step {digest}"),
            started: at(1),
            completed,
            error: "failed".to_owned(),
            ..Vertex::default()
        };
        let mut spans = Spans::default();
        for vertex in [vertex("a", None), vertex("a", at(2)), vertex("b", None)] {
            spans.add(&StatusResponse {
                vertexes: vec![vertex],
                ..StatusResponse::default()
            });
        }
        let text = spans.to_json(&Whole {
            reference: "ref",
            started: at(0),
            completed: at(3),
            error: "",
        });
        let spans: Vec<Value> = serde_json::Deserializer::from_slice(&text)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0]["EndTime"], "1970-01-01T00:00:03.000005Z");
        assert_eq!(spans[1]["Parent"]["SpanID"], spans[0]["SpanContext"]["SpanID"]);
        assert_eq!(spans[1]["SpanContext"]["TraceID"].as_str().unwrap().len(), 32);
        assert_eq!(spans[1]["Name"], "step a");
        assert_eq!(spans[1]["Status"], json!({"Code": 1, "Description": "failed"}));
    }
}
