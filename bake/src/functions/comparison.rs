//! Comparisons, logic, and the choice of what is there.

use super::{Arguments, Fault, Function, Outcome};
use crate::value::Value;
use crate::value::convert::unify;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("and", &["a", "b"], |a| Ok(Value::Bool(a.flag(0)? && a.flag(1)?))),
    Function::new("or", &["a", "b"], |a| Ok(Value::Bool(a.flag(0)? || a.flag(1)?))),
    Function::new("not", &["val"], |a| Ok(Value::Bool(!a.flag(0)?))),
    Function::new("equal", &["a", "b"], |a| {
        Ok(Value::Bool(a.value(0) == a.value(1)))
    })
    .with_null(),
    Function::new("notequal", &["a", "b"], |a| {
        Ok(Value::Bool(a.value(0) != a.value(1)))
    })
    .with_null(),
    Function::new("greaterthan", &["a", "b"], |a| {
        Ok(Value::Bool(a.number(0)?.compare(a.number(1)?).is_gt()))
    }),
    Function::new("greaterthanorequalto", &["a", "b"], |a| {
        Ok(Value::Bool(a.number(0)?.compare(a.number(1)?).is_ge()))
    }),
    Function::new("lessthan", &["a", "b"], |a| {
        Ok(Value::Bool(a.number(0)?.compare(a.number(1)?).is_lt()))
    }),
    Function::new("lessthanorequalto", &["a", "b"], |a| {
        Ok(Value::Bool(a.number(0)?.compare(a.number(1)?).is_le()))
    }),
    Function::new("coalesce", &[], coalesce)
        .and_others("vals")
        .with_null(),
    Function::new("coalescelist", &[], coalesce_list)
        .and_others("vals")
        .with_null(),
];

fn coalesce(arguments: &Arguments<'_>) -> Outcome {
    unify(arguments.values.to_vec())
        .into_iter()
        .find(|value| !value.is_null())
        .ok_or_else(|| "no non-null arguments".into())
}

fn coalesce_list(arguments: &Arguments<'_>) -> Outcome {
    for at in arguments.from(0) {
        let value = arguments.value(at);
        if value.is_null() {
            continue;
        }
        let elements = value
            .elements()
            .ok_or_else(|| Fault::of(at, "coalescelist arguments must be lists or tuples"))?;
        if !elements.is_empty() {
            return Ok(value.clone());
        }
    }
    Err("no non-null arguments".into())
}
