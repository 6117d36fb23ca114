//! Sets.

use super::collections::product;
use super::{Arguments, Function, Outcome};
use crate::value::Value;
use crate::value::convert::unify;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("sethaselement", &["set", "elem"], |a| {
        Ok(Value::Bool(a.elements(0)?.contains(a.value(1))))
    }),
    Function::new("setunion", &["first_set"], |a| {
        let mut all = Vec::new();
        for at in a.from(0) {
            all.extend_from_slice(a.elements(at)?);
        }
        Ok(Value::set(unify(all)))
    })
    .and_others("other_sets"),
    Function::new("setintersection", &["first_set"], |a| {
        combine(a, |kept, other| {
            kept.into_iter().filter(|value| other.contains(value)).collect()
        })
    })
    .and_others("other_sets"),
    Function::new("setsubtract", &["a", "b"], |a| {
        combine(a, |kept, other| {
            kept.into_iter().filter(|value| !other.contains(value)).collect()
        })
    }),
    Function::new("setsymmetricdifference", &["first_set"], |a| {
        combine(a, |kept, other| {
            let only_here = kept.iter().filter(|value| !other.contains(value));
            let only_there = other.iter().filter(|value| !kept.contains(value));
            only_here.chain(only_there).cloned().collect()
        })
    })
    .and_others("other_sets"),
    Function::new("setproduct", &[], set_product).and_others("sets"),
];

fn combine(arguments: &Arguments<'_>, step: fn(Vec<Value>, &[Value]) -> Vec<Value>) -> Outcome {
    let mut kept = arguments.elements(0)?.to_vec();
    for at in arguments.from(1) {
        kept = step(kept, arguments.elements(at)?);
    }
    Ok(Value::set(unify(kept)))
}

fn set_product(arguments: &Arguments<'_>) -> Outcome {
    if arguments.values.len() < 2 {
        return Err("at least two arguments are required".into());
    }
    let lists = arguments
        .from(0)
        .map(|at| arguments.elements(at))
        .collect::<Result<Vec<_>, _>>()?;
    let rows = product(&lists)?.into_iter().map(Value::Tuple).collect();
    let all_sets = arguments
        .values
        .iter()
        .all(|value| matches!(value, Value::Set(_)));
    Ok(if all_sets {
        Value::set(rows)
    } else {
        Value::List(rows)
    })
}
