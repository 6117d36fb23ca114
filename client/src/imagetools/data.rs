//! A value as Go programs have it: structures with ordered fields that have one name in templates and another in JSON.
//!
//! Templates navigate by the Go names, `json` prints by the JSON names in the order of the fields. As a template engine
//! knows only maps, [`Values`] remembers which map came from which value, by its address, so that `json` can print the
//! original.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use gotmpl::Value;
use serde_json::Number;

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    List(Vec<Self>),
    Map(BTreeMap<String, Self>),
    Struct(Vec<Field>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// As templates call it.
    pub name: &'static str,
    /// As JSON calls it.
    pub key: &'static str,
    pub omit_empty: bool,
    pub value: Data,
}

impl Data {
    /// What `omitempty` leaves out. A structure is never empty.
    fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Flag(value) => !value,
            Self::Number(number) => number.as_f64() == Some(0.0),
            Self::Text(text) => text.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
            Self::Struct(_) => false,
        }
    }

    /// Any JSON, where nothing is known of its shape.
    pub fn any(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Flag(*value),
            serde_json::Value::Number(number) => Self::Number(number.clone()),
            serde_json::Value::String(text) => Self::Text(text.clone()),
            serde_json::Value::Array(items) => Self::List(items.iter().map(Self::any).collect()),
            serde_json::Value::Object(entries) => Self::Map(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), Self::any(value)))
                    .collect(),
            ),
        }
    }

    /// Indented by two spaces, escaped as Go does it: also `<`, `>` and `&`.
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, 0);
        text
    }

    fn write(&self, text: &mut String, depth: usize) {
        match self {
            Self::Null => text.push_str("null"),
            Self::Flag(value) => text.push_str(if *value { "true" } else { "false" }),
            Self::Number(number) => text.push_str(&number.to_string()),
            Self::Text(value) => write_text(text, value),
            Self::List(items) => {
                let items = items.iter().map(|item| (None, item));
                write_all(text, depth, ['[', ']'], items);
            }
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (Some(key.as_str()), value));
                write_all(text, depth, ['{', '}'], entries);
            }
            Self::Struct(fields) => {
                let shown = fields
                    .iter()
                    .filter(|field| !(field.omit_empty && field.value.is_empty()));
                write_all(
                    text,
                    depth,
                    ['{', '}'],
                    shown.map(|field| (Some(field.key), &field.value)),
                );
            }
        }
    }
}

fn write_all<'a>(
    text: &mut String,
    depth: usize,
    [open, close]: [char; 2],
    items: impl Iterator<Item = (Option<&'a str>, &'a Data)>,
) {
    text.push(open);
    let mut is_first = true;
    for (key, value) in items {
        if !std::mem::take(&mut is_first) {
            text.push(',');
        }
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth + 1));
        if let Some(key) = key {
            write_text(text, key);
            text.push_str(": ");
        }
        value.write(text, depth + 1);
    }
    if !is_first {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    }
    text.push(close);
}

fn write_text(text: &mut String, value: &str) {
    text.push('"');
    for character in value.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escape(text, character),
            control if control < ' ' => escape(text, control),
            other => text.push(other),
        }
    }
    text.push('"');
}

fn escape(text: &mut String, character: char) {
    text.push_str(&format!("\\u{:04x}", u32::from(character)));
}

/// The values of one template, and where they came from.
#[derive(Clone, Debug, Default)]
pub struct Values {
    origins: Arc<Mutex<HashMap<usize, Origin>>>,
}

#[derive(Debug)]
struct Origin {
    data: Data,
    /// Keeps the address in use.
    _value: Value,
}

impl Values {
    pub fn convert(&self, data: &Data) -> Value {
        match data {
            Data::Null => Value::Nil,
            Data::Flag(value) => Value::Bool(*value),
            Data::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Value::Int(number),
                (None, Some(number)) => Value::Uint(number),
                (None, None) => Value::Float(number.as_f64().unwrap_or_default()),
            },
            Data::Text(text) => Value::String(text.as_str().into()),
            Data::List(items) => Value::List(items.iter().map(|item| self.convert(item)).collect()),
            Data::Map(entries) => self.remember(
                data,
                entries
                    .iter()
                    .map(|(key, value)| (key.as_str().into(), self.convert(value)))
                    .collect(),
            ),
            Data::Struct(fields) => self.remember(
                data,
                fields
                    .iter()
                    .map(|field| (field.name.into(), self.convert(&field.value)))
                    .collect(),
            ),
        }
    }

    fn remember(&self, data: &Data, map: BTreeMap<Arc<str>, Value>) -> Value {
        let map = Arc::new(map);
        let origin = Origin {
            data: data.clone(),
            _value: Value::Map(Arc::clone(&map)),
        };
        if let Ok(mut origins) = self.origins.lock() {
            origins.insert(Arc::as_ptr(&map) as usize, origin);
        }
        Value::Map(map)
    }

    /// What a value of the template was before.
    pub fn original(&self, value: &Value) -> Data {
        match value {
            Value::Bool(value) => Data::Flag(*value),
            Value::Int(number) => Data::Number((*number).into()),
            Value::Uint(number) => Data::Number((*number).into()),
            Value::Float(number) => Number::from_f64(*number).map_or(Data::Null, Data::Number),
            Value::String(text) => Data::Text(text.to_string()),
            Value::List(items) => Data::List(items.iter().map(|item| self.original(item)).collect()),
            Value::Map(map) => {
                let known = self.origins.lock().ok().and_then(|origins| {
                    origins
                        .get(&(Arc::as_ptr(map) as usize))
                        .map(|origin| origin.data.clone())
                });
                known.unwrap_or_else(|| {
                    Data::Map(
                        map.iter()
                            .map(|(key, value)| (key.to_string(), self.original(value)))
                            .collect(),
                    )
                })
            }
            _ => Data::Null,
        }
    }
}
