//! YAML as a tree. Words such as `yes` are text and `08` is no number, as in YAML 1.2.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{Diagnostic, Error};
use crate::source::{File, Place, Position};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    /// As it is shown.
    Number(String),
    Text(String),
    List(Vec<Self>),
    Map(BTreeMap<String, Self>),
}

/// All documents of the file.
pub(super) fn parse(file: &File) -> Result<Vec<Yaml>, Error> {
    let tag = |line: &str| line.contains(": !reset") || line.contains(": !override");
    if let Some(at) = file.text.lines().position(tag) {
        return Err(problem(
            file,
            at + 1,
            1,
            "the tags !reset and !override are not supported: write the service without extending it"
                .to_owned(),
        ));
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(&file.text, options).map_err(|error| {
        let location = error.location();
        let at = |number: u64| usize::try_from(number).unwrap_or(1).max(1);
        let (line, column) = location.map_or((1, 1), |place| (at(place.line()), at(place.column())));
        problem(file, line, column, error.without_snippet().to_string())
    })
}

fn problem(file: &File, line: usize, column: usize, detail: String) -> Error {
    Error::Diagnostics(vec![Diagnostic {
        place: Some(Place::at(file, Position { line, column })),
        summary: "Invalid YAML".to_owned(),
        detail,
    }])
}

impl Yaml {
    /// A scalar as text.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text.clone()),
            Self::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.get(key).filter(|value| **value != Self::Null),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Yaml, E> {
        Ok(Yaml::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Yaml, E> {
        Ok(Yaml::Number(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Yaml, E> {
        Ok(Yaml::Number(number.to_string()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Yaml, E> {
        Ok(Yaml::Number(number.to_string()))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Yaml, E> {
        Ok(Yaml::Number(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Yaml, E> {
        Ok(Yaml::Number(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        Yaml::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Yaml, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = sequence.next_element()? {
            list.push(value);
        }
        Ok(Yaml::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Yaml, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<Yaml, Yaml>()? {
            let key = key.text().unwrap_or_else(|| "null".to_owned());
            entries.insert(key, value);
        }
        Ok(Yaml::Map(entries))
    }
}
