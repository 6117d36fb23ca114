//! `value.attribute`, `value[index]`, `value[*].attribute`.

use super::Scope;
use crate::error::{Outcome, Problem};
use crate::module::Module;
use crate::source::Span;
use crate::syntax::{Access, Expr, Kind, Step};
use crate::value::Value;
use crate::value::convert::{convert, text};
use crate::value::shape::Shape;

impl Module<'_> {
    pub(super) fn traverse(&self, base: &Expr, steps: &[Step], scope: &Scope<'_>) -> Outcome<Value> {
        // Of a target only the attribute in question is evaluated, so that targets may refer to each other.
        if let Kind::Variable(root) = &base.kind
            && scope.find(root).is_none()
            && self.is_block_kind(root)
        {
            let (value, used) = self.block_value(root, steps, base.span)?;
            return self.follow(value, &steps[used..], scope);
        }
        let value = self.evaluate(base, scope)?;
        self.follow(value, steps, scope)
    }

    fn follow(&self, mut value: Value, steps: &[Step], scope: &Scope<'_>) -> Outcome<Value> {
        for (at, step) in steps.iter().enumerate() {
            let rest = &steps[at + 1..];
            let (inner, after) = match &step.access {
                Access::Attribute(name) => {
                    value = attribute(value, name, step.span)?;
                    continue;
                }
                Access::Index(expr) => {
                    let key = self.evaluate(expr, scope)?;
                    value = index(value, &key, expr.span)?;
                    continue;
                }
                Access::FullSplat => (rest, &[] as &[Step]),
                Access::AttributeSplat => {
                    let run = rest
                        .iter()
                        .take_while(|step| matches!(step.access, Access::Attribute(_)))
                        .count();
                    rest.split_at(run)
                }
            };
            let elements = match value {
                Value::Null => Vec::new(),
                Value::List(elements) | Value::Tuple(elements) | Value::Set(elements) => elements,
                other => vec![other],
            };
            let elements = elements
                .into_iter()
                .map(|element| self.follow(element, inner, scope))
                .collect::<Outcome<_>>()?;
            return self.follow(Value::Tuple(elements), after, scope);
        }
        Ok(value)
    }
}

fn attribute(value: Value, name: &str, span: Span) -> Outcome<Value> {
    let unsupported = |detail: String| Err(Problem::new("Unsupported attribute", detail, span));
    match value {
        Value::Object(mut entries) => match entries.remove(name) {
            Some(value) => Ok(value),
            None => unsupported(format!(
                "This object does not have an attribute named \"{name}\"."
            )),
        },
        Value::Map(mut entries) => match entries.remove(name) {
            Some(value) => Ok(value),
            None => Err(Problem::new(
                "Missing map element",
                format!("This map does not have an element with the key \"{name}\"."),
                span,
            )),
        },
        Value::Null => Err(Problem::new(
            "Attempt to get attribute from null value",
            "This value is null, so it does not have any attributes.",
            span,
        )),
        other => unsupported(format!(
            "Can't access attributes on a value of type {}.",
            other.kind()
        )),
    }
}

pub(crate) fn index(value: Value, key: &Value, span: Span) -> Outcome<Value> {
    let invalid = |detail: &str| Err(Problem::new("Invalid index", detail, span));
    if value.is_null() {
        return Err(Problem::new(
            "Attempt to index null value",
            "This value is null, so it does not have any indices.",
            span,
        ));
    }
    if key.is_null() {
        return invalid("Can't use a null value as an indexing key.");
    }
    match value {
        Value::List(mut elements) | Value::Tuple(mut elements) => {
            let Ok(Value::Number(number)) = convert(key.clone(), &Shape::Number) else {
                return invalid(
                    "The given key does not identify an element in this collection value: number required.",
                );
            };
            match number.int().and_then(|at| usize::try_from(at).ok()) {
                Some(at) if at < elements.len() => Ok(elements.swap_remove(at)),
                _ => invalid(
                    "The given key does not identify an element in this collection value: the given index is not an index of the collection.",
                ),
            }
        }
        Value::Map(mut entries) | Value::Object(mut entries) => {
            match text(key).and_then(|key| entries.remove(&key)) {
                Some(value) => Ok(value),
                None => invalid("The given key does not identify an element in this collection value."),
            }
        }
        Value::Set(_) => invalid(
            "Elements of a set are identified only by their value and don't have any separate index or key to select with.",
        ),
        _ => invalid("This value does not have any indices."),
    }
}
