//! Conversions between types, as HCL does them on its own: `5` where a string is wanted is "5".

use std::collections::BTreeMap;

use super::shape::Shape;
use super::{Number, Value};

/// The value as the type, or what is wrong with it.
pub(crate) fn convert(value: Value, shape: &Shape) -> Result<Value, String> {
    if value.is_null() || *shape == Shape::Any {
        return Ok(value);
    }
    let wrong = || Err(format!("{} required", shape.name()));
    match shape {
        Shape::Any => Ok(value),
        Shape::String => match text(&value) {
            Some(text) => Ok(Value::String(text)),
            None => wrong(),
        },
        Shape::Number => match value {
            Value::Number(_) => Ok(value),
            Value::String(text) => Number::parse(&text)
                .map(Value::Number)
                .ok_or_else(|| "a number is required".to_owned()),
            _ => wrong(),
        },
        Shape::Bool => match value {
            Value::Bool(_) => Ok(value),
            Value::String(text) => match text.as_str() {
                "true" | "1" => Ok(Value::Bool(true)),
                "false" | "0" => Ok(Value::Bool(false)),
                _ => Err("a bool is required".to_owned()),
            },
            _ => wrong(),
        },
        Shape::List(element) | Shape::Set(element) => {
            let Some(elements) = value.elements() else {
                return wrong();
            };
            let elements = elements
                .iter()
                .enumerate()
                .map(|(at, value)| {
                    convert(value.clone(), element).map_err(|error| format!("element {at}: {error}"))
                })
                .collect::<Result<Vec<_>, _>>()?;
            Ok(match shape {
                Shape::Set(_) => Value::set(elements),
                _ => Value::List(unify(elements)),
            })
        }
        Shape::Map(element) => {
            let Some(entries) = value.entries() else {
                return wrong();
            };
            let converted = entries
                .iter()
                .map(|(key, value)| match convert(value.clone(), element) {
                    Ok(value) => Ok((key.clone(), value)),
                    Err(error) => Err(format!("element \"{key}\": {error}")),
                })
                .collect::<Result<_, _>>()?;
            Ok(Value::Map(converted))
        }
        Shape::Tuple(shapes) => {
            let Some(elements) = value.elements().filter(|elements| elements.len() == shapes.len()) else {
                return wrong();
            };
            let converted = elements
                .iter()
                .zip(shapes)
                .enumerate()
                .map(|(at, (value, shape))| {
                    convert(value.clone(), shape).map_err(|error| format!("element {at}: {error}"))
                })
                .collect::<Result<_, _>>()?;
            Ok(Value::Tuple(converted))
        }
        Shape::Object(fields) => {
            let Some(entries) = value.entries() else {
                return wrong();
            };
            let mut converted = BTreeMap::new();
            for (name, field) in fields {
                let value = match entries.get(name) {
                    Some(value) => convert(value.clone(), &field.shape)
                        .map_err(|error| format!("attribute \"{name}\": {error}"))?,
                    None if field.optional => Value::Null,
                    None => return Err(format!("attribute \"{name}\" is required")),
                };
                converted.insert(name.clone(), value);
            }
            Ok(Value::Object(converted))
        }
    }
}

/// A primitive value as text.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// The elements as one type: strings if primitive types are mixed.
pub(crate) fn unify(elements: Vec<Value>) -> Vec<Value> {
    let primitive = |value: &Value| text(value).is_some() || value.is_null();
    let mut kinds: Vec<&str> = elements
        .iter()
        .filter(|value| !value.is_null())
        .map(Value::kind)
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.len() < 2 || !elements.iter().all(primitive) {
        return elements;
    }
    elements
        .into_iter()
        .map(|value| text(&value).map_or(Value::Null, Value::String))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_those_of_hcl() {
        let list = Shape::List(Box::new(Shape::String));
        for (value, shape, expected) in [
            (Value::int(5), Shape::String, Ok(Value::text("5"))),
            (Value::Bool(true), Shape::String, Ok(Value::text("true"))),
            (
                Value::text("1.50"),
                Shape::Number,
                Ok(Value::Number(Number::Float(1.5))),
            ),
            (Value::text("true"), Shape::Bool, Ok(Value::Bool(true))),
            (Value::Null, Shape::Bool, Ok(Value::Null)),
            (
                Value::Tuple(vec![Value::int(1), Value::text("a")]),
                list.clone(),
                Ok(Value::List(vec![Value::text("1"), Value::text("a")])),
            ),
            (Value::text("a"), list, Err("list of string required".to_owned())),
            (
                Value::text("yes"),
                Shape::Bool,
                Err("a bool is required".to_owned()),
            ),
        ] {
            assert_eq!(convert(value, &shape), expected);
        }
    }
}
