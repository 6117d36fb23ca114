//! Lists and maps.

use std::collections::BTreeMap;

use super::{Arguments, Fault, Function, LARGEST, Outcome, list_like};
use crate::evaluate::index;
use crate::source::Span;
use crate::value::convert::{text, unify};
use crate::value::{Number, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("chunklist", &["list", "size"], chunk_list),
    Function::new("compact", &["list"], |a| {
        let texts = a.elements(0)?.iter().filter_map(text);
        Ok(Value::List(
            texts.filter(|text| !text.is_empty()).map(Value::String).collect(),
        ))
    }),
    Function::new("concat", &[], concat).and_others("seqs"),
    Function::new("contains", &["list", "value"], |a| {
        Ok(Value::Bool(a.elements(0)?.contains(a.value(1))))
    }),
    Function::new("distinct", &["list"], |a| {
        let mut seen: Vec<Value> = Vec::new();
        for element in a.elements(0)? {
            if !seen.contains(element) {
                seen.push(element.clone());
            }
        }
        Ok(Value::List(seen))
    }),
    Function::new("element", &["list", "index"], element),
    Function::new("flatten", &["list"], |a| {
        let mut flat = Vec::new();
        flatten(a.elements(0)?, &mut flat);
        Ok(Value::Tuple(flat))
    }),
    Function::new("hasindex", &["collection", "key"], |a| {
        Ok(Value::Bool(
            index(a.value(0).clone(), a.value(1), NOWHERE).is_ok(),
        ))
    }),
    Function::new("index", &["collection", "key"], |a| {
        index(a.value(0).clone(), a.value(1), NOWHERE).map_err(|problem| problem.detail.into())
    }),
    Function::new("indexof", &["list", "value"], |a| {
        let elements = match a.value(0) {
            Value::List(elements) | Value::Tuple(elements) => elements,
            _ => return Err("argument must be a list or tuple".into()),
        };
        if elements.is_empty() {
            return Err("cannot search an empty list".into());
        }
        let at = elements.iter().position(|element| element == a.value(1));
        at.map(position).ok_or_else(|| "item not found".into())
    }),
    Function::new("keys", &["inputMap"], |a| {
        Ok(Value::List(a.entries(0)?.keys().map(Value::text).collect()))
    }),
    Function::new("length", &["collection"], |a| match a.value(0).entries() {
        Some(entries) => Ok(position(entries.len())),
        None => Ok(position(
            a.value(0)
                .elements()
                .ok_or_else(|| Fault::of(0, "collection must be a list, a map or a tuple"))?
                .len(),
        )),
    }),
    Function::new("lookup", &["inputMap", "key", "default"], |a| {
        Ok(a.entries(0)?.get(&a.text(1)?).unwrap_or(a.value(2)).clone())
    }),
    Function::new("merge", &[], |a| {
        let mut merged = BTreeMap::new();
        for at in a.from(0).filter(|at| !a.value(*at).is_null()) {
            merged.extend(a.entries(at)?.clone());
        }
        Ok(Value::Object(merged))
    })
    .and_others("maps")
    .with_null(),
    Function::new("range", &[], range).and_others("params"),
    Function::new("reverselist", &["list"], |a| {
        Ok(list_like(
            a.value(0),
            a.elements(0)?.iter().rev().cloned().collect(),
        ))
    }),
    Function::new("slice", &["list", "start_index", "end_index"], slice),
    Function::new("sort", &["list"], |a| {
        let mut texts = a.texts(0)?;
        texts.sort();
        Ok(Value::List(texts.into_iter().map(Value::String).collect()))
    }),
    Function::new("values", &["mapping"], |a| {
        let values = a.entries(0)?.values().cloned().collect();
        Ok(match a.value(0) {
            Value::Map(_) => Value::List(values),
            _ => Value::Tuple(values),
        })
    }),
    Function::new("zipmap", &["keys", "values"], |a| {
        let (keys, values) = (a.texts(0)?, a.elements(1)?);
        if keys.len() != values.len() {
            return Err(Fault::of(
                1,
                format!(
                    "number of keys ({}) does not match number of values ({})",
                    keys.len(),
                    values.len()
                ),
            ));
        }
        Ok(Value::Object(
            keys.into_iter().zip(values.iter().cloned()).collect(),
        ))
    }),
];

/// The place of what is no expression of its own.
const NOWHERE: Span = Span {
    file: usize::MAX,
    start: 0,
    end: 0,
};

fn position(at: usize) -> Value {
    Value::int(i128::try_from(at).unwrap_or(i128::MAX))
}

fn chunk_list(arguments: &Arguments<'_>) -> Outcome {
    let elements = arguments.elements(0)?;
    let size: usize = arguments
        .int(1)
        .map_err(|_| Fault::of(1, "the size argument must be positive"))?;
    let chunk = |elements: &[Value]| list_like(arguments.value(0), elements.to_vec());
    Ok(Value::List(match size {
        _ if elements.is_empty() => Vec::new(),
        0 => vec![chunk(elements)],
        size => elements.chunks(size).map(chunk).collect(),
    }))
}

fn concat(arguments: &Arguments<'_>) -> Outcome {
    let mut joined = Vec::new();
    let mut all_lists = true;
    for at in arguments.from(0) {
        joined.extend_from_slice(arguments.elements(at)?);
        all_lists &= matches!(arguments.value(at), Value::List(_));
    }
    if all_lists && !arguments.values.is_empty() {
        return Ok(Value::List(unify(joined)));
    }
    Ok(Value::Tuple(joined))
}

fn element(arguments: &Arguments<'_>) -> Outcome {
    let elements = match arguments.value(0) {
        Value::Set(_) => return Err(Fault::of(0, "cannot read elements from a set")),
        _ => arguments.elements(0)?,
    };
    if elements.is_empty() {
        return Err(Fault::of(0, "cannot use element function with an empty list"));
    }
    let count = i128::try_from(elements.len()).unwrap_or(i128::MAX);
    let at: i128 = arguments.int(1)?;
    let at = usize::try_from(at.rem_euclid(count)).unwrap_or_default();
    Ok(elements[at].clone())
}

fn flatten(elements: &[Value], flat: &mut Vec<Value>) {
    for element in elements {
        match element.elements() {
            Some(inner) => flatten(inner, flat),
            None => flat.push(element.clone()),
        }
    }
}

fn range(arguments: &Arguments<'_>) -> Outcome {
    let zero = Number::Int(0);
    let (start, end, step) = match arguments.values.len() {
        1 => (zero, arguments.number(0)?, None),
        2 => (arguments.number(0)?, arguments.number(1)?, None),
        3 => (
            arguments.number(0)?,
            arguments.number(1)?,
            Some(arguments.number(2)?),
        ),
        _ => return Err("must have one, two, or three arguments".into()),
    };
    let down = end.compare(start).is_lt();
    let step = step.unwrap_or(Number::Int(if down { -1 } else { 1 }));
    if step.is_zero() {
        return Err(Fault::of(2, "step must not be zero"));
    }
    if down != step.compare(zero).is_lt() && end != start {
        return Err(Fault::of(2, "step must lead from start to end"));
    }
    let mut numbers = Vec::new();
    let mut number = start;
    loop {
        let order = number.compare(end);
        if if down { order.is_le() } else { order.is_ge() } {
            return Ok(Value::List(numbers));
        }
        // The same bound as in HCL tools.
        if numbers.len() >= 1024 {
            return Err("more than 1024 values were generated; either decrease the difference between start and end or use a smaller step".into());
        }
        numbers.push(Value::Number(number));
        number = number.add(step).ok_or("the result is no finite number")?;
    }
}

fn slice(arguments: &Arguments<'_>) -> Outcome {
    let elements = arguments.elements(0)?;
    let start: usize = arguments
        .int(1)
        .map_err(|_| Fault::of(1, "start index must not be less than zero"))?;
    let end: usize = arguments
        .int(2)
        .map_err(|_| Fault::of(2, "end index must not be less than zero"))?;
    if start > end {
        return Err(Fault::of(1, "start index must not be greater than end index"));
    }
    let part = elements.get(start..end);
    let part =
        part.ok_or_else(|| Fault::of(2, "end index must not be greater than the length of the list"))?;
    Ok(list_like(arguments.value(0), part.to_vec()))
}

/// All combinations of elements of several lists, in order of the lists.
pub(super) fn product(lists: &[&[Value]]) -> Result<Vec<Vec<Value>>, Fault> {
    let mut rows = vec![Vec::new()];
    for list in lists {
        if rows.len().saturating_mul(list.len()) > LARGEST {
            return Err(format!("more than {LARGEST} combinations").into());
        }
        rows = rows
            .into_iter()
            .flat_map(|row: Vec<Value>| {
                list.iter().map(move |value| {
                    let mut row = row.clone();
                    row.push(value.clone());
                    row
                })
            })
            .collect();
    }
    Ok(rows)
}
