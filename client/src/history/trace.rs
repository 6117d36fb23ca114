//! The trace of a build, for Jaeger: BuildKit's spans in the form that Jaeger's pages take as an upload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gojson;

/// Spans of internal work have no kind.
const INTERNAL: i64 = 1;
const KINDS: [&str; 6] = [
    "unspecified",
    "internal",
    "server",
    "client",
    "producer",
    "consumer",
];
const DEFAULT_SERVICE: &str = "unknown_service:trimaran";

#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("the trace of the build cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("the trace of the build has no spans")]
    Empty,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Span {
    #[serde(default)]
    name: String,
    span_context: Context,
    #[serde(default)]
    parent: Context,
    #[serde(default)]
    span_kind: i64,
    start_time: String,
    end_time: String,
    #[serde(default)]
    attributes: Option<Vec<Attribute>>,
    #[serde(default)]
    events: Option<Vec<Event>>,
    #[serde(default)]
    links: Option<Vec<Link>>,
    #[serde(default)]
    status: Status,
    #[serde(default)]
    resource: Option<Vec<Attribute>>,
    #[serde(default)]
    instrumentation_library: Library,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    #[serde(rename = "TraceID")]
    trace: String,
    #[serde(rename = "SpanID")]
    span: String,
    #[serde(rename = "TraceFlags")]
    flags: String,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    key: String,
    value: Typed,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Typed {
    r#type: String,
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    #[serde(default)]
    name: String,
    #[serde(default)]
    attributes: Option<Vec<Attribute>>,
    #[serde(default)]
    dropped_attribute_count: i64,
    time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Link {
    span_context: Context,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Status {
    code: Code,
    description: String,
}

/// A number in what daemons write, a word in newer versions of the format.
#[derive(Deserialize)]
#[serde(untagged)]
enum Code {
    Number(i64),
    Word(String),
}

impl Default for Code {
    fn default() -> Self {
        Self::Number(0)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Unset,
    Error,
    Ok,
}

impl Code {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Number(1) => Verdict::Error,
            Self::Number(2) => Verdict::Ok,
            Self::Word(word) if word == "Error" => Verdict::Error,
            Self::Word(word) if word == "Ok" => Verdict::Ok,
            _ => Verdict::Unset,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Library {
    name: String,
    version: String,
}

/// A trace in Jaeger's form.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    #[serde(rename = "traceID")]
    id: String,
    spans: Vec<JaegerSpan>,
    processes: BTreeMap<String, Process>,
    warnings: Option<()>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JaegerSpan {
    #[serde(rename = "traceID")]
    trace: String,
    #[serde(rename = "spanID")]
    span: String,
    #[serde(skip_serializing_if = "is_zero")]
    flags: u32,
    operation_name: String,
    references: Vec<Reference>,
    start_time: i64,
    duration: i64,
    tags: Vec<Tag>,
    logs: Option<Vec<Log>>,
    #[serde(rename = "processID")]
    process: String,
    warnings: Option<()>,
}

#[derive(Debug, Serialize)]
struct Reference {
    #[serde(rename = "refType")]
    kind: &'static str,
    #[serde(rename = "traceID")]
    trace: String,
    #[serde(rename = "spanID")]
    span: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    service_name: String,
    tags: Option<Vec<Tag>>,
}

#[derive(Debug, Serialize)]
struct Tag {
    key: String,
    r#type: &'static str,
    value: Value,
}

#[derive(Debug, Serialize)]
struct Log {
    timestamp: i64,
    fields: Vec<Tag>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Reads BuildKit's spans, one JSON object after the other.
pub fn read(json: &[u8]) -> Result<Trace, TraceError> {
    let mut trace = Trace {
        id: String::new(),
        spans: Vec::new(),
        processes: BTreeMap::new(),
        warnings: None,
    };
    for (number, span) in serde_json::Deserializer::from_slice(json)
        .into_iter::<Span>()
        .enumerate()
    {
        let span = span?;
        if number == 0 {
            trace.id.clone_from(&span.span_context.trace);
        }
        let process = format!("p{number}");
        trace.processes.insert(
            process.clone(),
            service(span.resource.as_deref().unwrap_or_default()),
        );
        trace.spans.push(convert(span, process));
    }
    if trace.spans.is_empty() {
        return Err(TraceError::Empty);
    }
    Ok(trace)
}

/// What Jaeger's pages take as a file: all of these traces.
pub fn to_upload(traces: &[Trace]) -> Result<String, TraceError> {
    #[derive(Serialize)]
    struct Upload<'a> {
        data: &'a [Trace],
    }
    Ok(gojson::escape(&serde_json::to_string_pretty(&Upload {
        data: traces,
    })?))
}

fn service(resource: &[Attribute]) -> Process {
    let sorted: BTreeMap<&str, &Attribute> = resource
        .iter()
        .map(|attribute| (attribute.key.as_str(), attribute))
        .collect();
    let name = sorted
        .get("service.name")
        .and_then(|attribute| attribute.value.value.as_str())
        .filter(|name| !name.is_empty());
    let tags: Vec<Tag> = sorted
        .values()
        .filter(|attribute| attribute.key != "service.name")
        .filter_map(|attribute| tag(attribute))
        .collect();
    Process {
        service_name: name.unwrap_or(DEFAULT_SERVICE).to_owned(),
        tags: (!tags.is_empty()).then_some(tags),
    }
}

fn convert(span: Span, process: String) -> JaegerSpan {
    let mut tags = all_tags(span.attributes);
    let library = span.instrumentation_library;
    if !library.name.is_empty() {
        tags.push(text_tag("otel.library.name", &library.name));
        if !library.version.is_empty() {
            tags.push(text_tag("otel.library.version", &library.version));
        }
    }
    if span.span_kind != INTERNAL {
        let kind = usize::try_from(span.span_kind)
            .ok()
            .and_then(|kind| KINDS.get(kind));
        tags.push(text_tag("span.kind", kind.unwrap_or(&KINDS[0])));
    }
    let verdict = span.status.code.verdict();
    match verdict {
        Verdict::Ok => tags.push(text_tag("otel.status_code", "OK")),
        Verdict::Error => {
            tags.push(Tag {
                key: "error".to_owned(),
                r#type: "bool",
                value: true.into(),
            });
            tags.push(text_tag("otel.status_code", "ERROR"));
        }
        Verdict::Unset => {}
    }
    if verdict != Verdict::Unset && !span.status.description.is_empty() {
        tags.push(text_tag("otel.status_description", &span.status.description));
    }
    let events = span.events.unwrap_or_default();
    let logs: Vec<Log> = events.into_iter().map(log).collect();
    let links = span.links.unwrap_or_default().into_iter().map(|link| Reference {
        kind: "FOLLOWS_FROM",
        trace: link.span_context.trace,
        span: link.span_context.span,
    });
    let parent = Reference {
        kind: "CHILD_OF",
        trace: span.parent.trace,
        span: span.parent.span,
    };
    let start_time = microseconds(&span.start_time);
    JaegerSpan {
        trace: span.span_context.trace,
        span: span.span_context.span,
        flags: u32::from(span.span_context.flags == "01"),
        operation_name: span.name,
        references: links.chain([parent]).collect(),
        start_time,
        duration: (microseconds(&span.end_time) - start_time).max(0),
        tags,
        logs: (!logs.is_empty()).then_some(logs),
        process,
        warnings: None,
    }
}

fn log(event: Event) -> Log {
    let mut fields = Vec::new();
    if !event.name.is_empty() {
        fields.push(text_tag("event", &event.name));
    }
    fields.extend(all_tags(event.attributes));
    if event.dropped_attribute_count != 0 {
        fields.push(Tag {
            key: "otel.event.dropped_attributes_count".to_owned(),
            r#type: "int64",
            value: event.dropped_attribute_count.into(),
        });
    }
    Log {
        timestamp: microseconds(&event.time),
        fields,
    }
}

fn all_tags(attributes: Option<Vec<Attribute>>) -> Vec<Tag> {
    attributes.unwrap_or_default().iter().filter_map(tag).collect()
}

/// None for a type that nobody knows.
fn tag(attribute: &Attribute) -> Option<Tag> {
    let value = attribute.value.value.clone();
    let (r#type, value) = match attribute.value.r#type.as_str() {
        "STRING" => ("string", value),
        "BOOL" => ("bool", value),
        "INT64" => ("int64", value),
        "FLOAT64" => ("float64", value),
        "BOOLSLICE" | "INT64SLICE" | "FLOAT64SLICE" | "STRINGSLICE" => ("string", value.to_string().into()),
        _ => return None,
    };
    Some(Tag {
        key: attribute.key.clone(),
        r#type,
        value,
    })
}

fn text_tag(key: &str, value: &str) -> Tag {
    Tag {
        key: key.to_owned(),
        r#type: "string",
        value: value.into(),
    }
}

/// Since the epoch; a time that cannot be read is the epoch.
fn microseconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_microsecond)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_become_what_jaeger_reads() {
        let span = r#"{"Name":"solve","SpanContext":{"TraceID":"aa","SpanID":"bb","TraceFlags":"01"},"Parent":{"TraceID":"aa","SpanID":"cc"},
            "SpanKind":2,"StartTime":"2024-01-01T00:00:00.000001Z","EndTime":"2024-01-01T00:00:01Z",
            "Attributes":[{"Key":"n","Value":{"Type":"INT64","Value":5}},{"Key":"l","Value":{"Type":"STRINGSLICE","Value":["<a>"]}}],
            "Events":null,"Links":[],"Status":{"Code":"Error","Description":"bad"},
            "Resource":[{"Key":"service.name","Value":{"Type":"STRING","Value":"buildkitd"}}]}"#;
        let trace = read(span.as_bytes()).unwrap();
        let json: Value = serde_json::from_str(&to_upload(&[trace]).unwrap()).unwrap();
        let span = &json["data"][0]["spans"][0];
        assert_eq!(span["duration"], 999_999);
        assert_eq!(span["processID"], "p0");
        assert_eq!(json["data"][0]["processes"]["p0"]["serviceName"], "buildkitd");
        let tags: Vec<&str> = span["tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| tag["key"].as_str().unwrap())
            .collect();
        assert_eq!(
            tags,
            [
                "n",
                "l",
                "span.kind",
                "error",
                "otel.status_code",
                "otel.status_description"
            ]
        );
        assert_eq!(span["tags"][1]["value"], "[\"<a>\"]");
        assert!(matches!(read(b""), Err(TraceError::Empty)));
        assert!(read(b"{}").is_err());
    }
}
