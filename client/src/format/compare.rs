//! `eq`, `ne`, `lt`, `le`, `gt`, `ge`.

use std::cmp::Ordering;

use super::data::Data;

/// Whether the first value equals any of the others.
pub fn equals_any(arguments: &[Data]) -> Result<bool, String> {
    let Some((first, others)) = arguments.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err("missing argument for comparison".to_owned());
    };
    for other in others {
        if equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equal(left: &Data, right: &Data) -> Result<bool, String> {
    match (left, right) {
        (Data::Nil(_), Data::Nil(_)) => Ok(true),
        (Data::Nil(_), _) | (_, Data::Nil(_)) => Ok(false),
        (Data::Flag(left), Data::Flag(right)) => Ok(left == right),
        (Data::Int(_) | Data::Float(_) | Data::Text(_) | Data::Time(_), _) => {
            Ok(order(left, right)? == Some(Ordering::Equal))
        }
        (Data::Flag(_), _) => Err("incompatible types for comparison".to_owned()),
        (other, _) => Err(format!("non-comparable type {}", other.type_name())),
    }
}

/// How two values compare: numbers with numbers, texts with texts. Not-a-number compares with nothing.
pub fn order(left: &Data, right: &Data) -> Result<Option<Ordering>, String> {
    match (left, right) {
        (Data::Int(left), Data::Int(right)) => Ok(Some(left.cmp(right))),
        (Data::Float(left), Data::Float(right)) => Ok(left.partial_cmp(right)),
        // In Go these differ in type; a value that came from JSON should still compare with a literal.
        (Data::Float(left), Data::Int(right)) => Ok(left.partial_cmp(&(*right as f64))),
        (Data::Int(left), Data::Float(right)) => Ok((*left as f64).partial_cmp(right)),
        (Data::Text(left) | Data::Time(left), Data::Text(right) | Data::Time(right)) => {
            Ok(Some(left.cmp(right)))
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}
