//! Values as JSON and back, and JSON text as Go writes it: `<`, `>` and `&` are escaped.

use serde_json::Value as Json;

use super::{Number, Value};

/// Compact JSON with keys in order.
pub(crate) fn encode(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => quote(text, out),
        Value::List(elements) | Value::Tuple(elements) | Value::Set(elements) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(element, out);
            }
            out.push(']');
        }
        Value::Map(entries) | Value::Object(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quote(key, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

/// A string as Go's encoder writes it.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// The type of a value, in the JSON that HCL has for types.
pub(crate) fn kind(value: &Value) -> String {
    let object = |entries: &std::collections::BTreeMap<String, Value>| {
        let mut out = String::new();
        for (key, value) in entries {
            let comma = if out.is_empty() { "" } else { "," };
            out.push_str(comma);
            quote(key, &mut out);
            out.push(':');
            out.push_str(&kind(value));
        }
        out
    };
    let first = |elements: &[Value]| elements.first().map_or_else(|| "\"dynamic\"".to_owned(), kind);
    match value {
        Value::List(elements) => format!("[\"list\",{}]", first(elements)),
        Value::Set(elements) => format!("[\"set\",{}]", first(elements)),
        Value::Tuple(elements) => {
            let kinds: Vec<String> = elements.iter().map(kind).collect();
            format!("[\"tuple\",[{}]]", kinds.join(","))
        }
        Value::Map(entries) => {
            let element = entries
                .values()
                .next()
                .map_or_else(|| "\"dynamic\"".to_owned(), kind);
            format!("[\"map\",{element}]")
        }
        Value::Object(entries) => format!("[\"object\",{{{}}}]", object(entries)),
        scalar => format!("\"{}\"", scalar.kind()),
    }
}

pub(crate) fn decode(text: &str) -> Result<Value, String> {
    serde_json::from_str::<Json>(text)
        .map(of)
        .map_err(|error| error.to_string())
}

fn of(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => Number::parse(&number.to_string()).map_or(Value::Null, Value::Number),
        Json::String(text) => Value::String(text),
        Json::Array(elements) => Value::Tuple(elements.into_iter().map(of).collect()),
        Json::Object(entries) => {
            Value::Object(entries.into_iter().map(|(key, value)| (key, of(value))).collect())
        }
    }
}
