//! A value as Go programs have it: structures with ordered fields that have one name in templates and another in JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Cheap to clone: everything large is shared.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Nil(Nil),
    Flag(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    /// A time as JSON has it (RFC 3339); templates print it as Go does.
    Time(Arc<str>),
    List(Arc<[Self]>),
    Map(Arc<Map>),
    Record(Arc<Record>),
}

/// What is absent. All of them are `null` in JSON and false in conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nil {
    /// A missing entry of a map, and JSON's null: prints `<no value>`, and so does every field of it.
    Any,
    /// An absent structure: prints `<nil>`; it is an error to ask for its fields.
    Pointer,
    /// A list that is not there: prints `[]`.
    List,
    /// A map that is not there: prints `map[]`.
    Map,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    pub entries: BTreeMap<String, Data>,
    /// What `index` finds under a key that is not there.
    pub zero: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// As errors call it.
    pub type_name: &'static str,
    pub fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// As templates call it; empty if only JSON has it.
    pub name: &'static str,
    /// As JSON calls it; empty if only templates have it.
    pub key: &'static str,
    pub omit_empty: bool,
    pub value: Data,
}

/// A structure. JSON prints the fields in this order.
pub fn record(type_name: &'static str, fields: impl IntoIterator<Item = Field>) -> Data {
    Data::Record(Arc::new(Record {
        type_name,
        fields: fields.into_iter().collect(),
    }))
}

/// A field that is `name` in templates and `key` in JSON.
pub fn field(name: &'static str, key: &'static str, value: impl Into<Data>) -> Field {
    Field {
        name,
        key,
        omit_empty: false,
        value: value.into(),
    }
}

/// A map, always in the order of its keys.
pub fn map<K: Into<String>, V: Into<Data>>(entries: impl IntoIterator<Item = (K, V)>, zero: Data) -> Data {
    let entries = entries
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    Data::Map(Arc::new(Map { entries, zero }))
}

impl Field {
    /// JSON leaves it out where it is empty.
    #[must_use]
    pub fn omit_empty(mut self) -> Self {
        self.omit_empty = true;
        self
    }

    /// A field that JSON does not show.
    pub fn template_only(name: &'static str, value: impl Into<Data>) -> Self {
        field(name, "", value)
    }

    /// A field that templates do not know.
    pub fn json_only(key: &'static str, value: impl Into<Data>) -> Self {
        field("", key, value)
    }
}

impl Data {
    /// A row as most of Docker's lists have it: JSON has the same names, sorted.
    pub fn row(type_name: &'static str, fields: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        let mut fields: Vec<Field> = fields
            .into_iter()
            .map(|(name, value)| field(name, name, value))
            .collect();
        fields.sort_by_key(|field| field.name);
        record(type_name, fields)
    }

    /// Any JSON, where nothing is known of its shape. Numbers are what Go makes of them: floating point.
    pub fn any(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Nil(Nil::Any),
            serde_json::Value::Bool(value) => Self::Flag(*value),
            serde_json::Value::Number(number) => Self::Float(number.as_f64().unwrap_or_default()),
            serde_json::Value::String(text) => Self::from(text.as_str()),
            serde_json::Value::Array(items) => Self::List(items.iter().map(Self::any).collect()),
            serde_json::Value::Object(entries) => map(
                entries.iter().map(|(key, value)| (key.clone(), Self::any(value))),
                Self::Nil(Nil::Any),
            ),
        }
    }

    /// A time in RFC 3339.
    pub fn time(text: &str) -> Self {
        Self::Time(text.into())
    }

    pub fn list<T: Into<Self>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }

    /// What `omitempty` leaves out. A structure is never empty.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Nil(_) => true,
            Self::Flag(value) => !value,
            Self::Int(number) => *number == 0,
            Self::Float(number) => *number == 0.0,
            Self::Text(text) => text.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Map(map) => map.entries.is_empty(),
            Self::Record(_) | Self::Time(_) => false,
        }
    }

    /// Whether a condition on it holds.
    pub(super) fn is_true(&self) -> bool {
        !self.is_empty()
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil(Nil::Any | Nil::Pointer) => "nil",
            Self::Flag(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Time(_) => "time.Time",
            Self::Nil(Nil::List) | Self::List(_) => "[]interface {}",
            Self::Nil(Nil::Map) | Self::Map(_) => "map[string]interface {}",
            Self::Record(record) => record.type_name,
        }
    }
}

impl From<&str> for Data {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Data {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&String> for Data {
    fn from(text: &String) -> Self {
        Self::Text(text.as_str().into())
    }
}

impl From<bool> for Data {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<i64> for Data {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Data {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Data {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
