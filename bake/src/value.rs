//! Values of the expression language. Types are those of HCL: a tuple and an object know their own elements only, a list,
//! a set and a map have come out of a conversion.

pub(crate) mod convert;
pub(crate) mod json;
pub(crate) mod number;
pub(crate) mod shape;

use std::collections::BTreeMap;

pub(crate) use number::Number;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Self>),
    Tuple(Vec<Self>),
    /// Sorted and without duplicates.
    Set(Vec<Self>),
    Map(BTreeMap<String, Self>),
    Object(BTreeMap<String, Self>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    pub fn int(number: impl Into<i128>) -> Self {
        Self::Number(Number::Int(number.into()))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The type, as messages name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "dynamic",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Set(_) => "set",
            Self::Map(_) => "map",
            Self::Object(_) => "object",
        }
    }

    pub fn elements(&self) -> Option<&[Self]> {
        match self {
            Self::List(elements) | Self::Tuple(elements) | Self::Set(elements) => Some(elements),
            _ => None,
        }
    }

    pub fn entries(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Map(entries) | Self::Object(entries) => Some(entries),
            _ => None,
        }
    }

    /// Roughly the memory that a copy takes, to bound what an evaluation can make.
    pub fn weight(&self) -> usize {
        let own = 32;
        own + match self {
            Self::String(text) => text.len(),
            Self::List(elements) | Self::Tuple(elements) | Self::Set(elements) => {
                elements.iter().map(Self::weight).sum()
            }
            Self::Map(entries) | Self::Object(entries) => entries
                .iter()
                .map(|(key, value)| key.len() + value.weight())
                .sum(),
            _ => 0,
        }
    }

    /// A set: the elements in order, each once.
    pub fn set(mut elements: Vec<Self>) -> Self {
        elements.sort_by(Self::order);
        elements.dedup();
        Self::Set(elements)
    }

    /// A total order, for sets. Strings and numbers are in the order that HCL iterates in.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.compare(*b),
            (Self::String(a), Self::String(b)) => a.cmp(b),
            (a, b) => match (a.elements(), b.elements(), a.entries(), b.entries()) {
                (Some(a), Some(b), ..) => {
                    let unequal = a
                        .iter()
                        .zip(b)
                        .map(|(a, b)| a.order(b))
                        .find(|order| order.is_ne());
                    unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
                }
                (_, _, Some(a), Some(b)) => {
                    let unequal = a
                        .iter()
                        .zip(b)
                        .map(|(a, b)| a.0.cmp(b.0).then_with(|| a.1.order(b.1)))
                        .find(|order| order.is_ne());
                    unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
                }
                _ => a.kind().cmp(b.kind()),
            },
        }
    }
}
