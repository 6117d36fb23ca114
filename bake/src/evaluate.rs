//! Expressions to values. What an evaluation may cost is bounded: its depth, and the sum of all values that it makes.

pub(crate) mod call;
mod operate;
mod traverse;

pub(crate) use traverse::index;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::error::{Outcome, Problem};
use crate::module::Module;
use crate::source::Span;
use crate::syntax::{Expr, For, Key, Kind, Part};
use crate::value::Value;
use crate::value::convert::{convert, text, unify};
use crate::value::shape::Shape;

const DEEPEST: usize = 1000;
/// Roughly bytes.
const BUDGET: usize = 512 << 20;
/// What any expression costs: a bound on steps, too.
const STEP: usize = 32;

/// Names that are known in a part of an expression only.
#[derive(Debug, Default)]
pub(crate) struct Scope<'a> {
    pub names: Vec<(String, Value)>,
    pub parent: Option<&'a Self>,
}

impl Scope<'_> {
    pub fn find(&self, name: &str) -> Option<&Value> {
        let own = self.names.iter().rev().find(|(known, _)| known == name);
        match own {
            Some((_, value)) => Some(value),
            None => self.parent?.find(name),
        }
    }
}

/// What has been spent.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    depth: Cell<usize>,
    spent: Cell<usize>,
}

impl Budget {
    pub fn charge(&self, cost: usize, span: Span) -> Outcome<()> {
        let spent = self.spent.get().saturating_add(cost);
        self.spent.set(spent);
        if spent > BUDGET {
            return Err(Problem::fatal(
                "Evaluation limit reached",
                "The definition makes more values than are allowed: is something repeated without end?",
                span,
            ));
        }
        Ok(())
    }
}

impl Module<'_> {
    pub(crate) fn evaluate(&self, expr: &Expr, scope: &Scope<'_>) -> Outcome<Value> {
        let depth = self.budget.depth.get();
        if depth >= DEEPEST {
            return Err(Problem::fatal(
                "Evaluation limit reached",
                format!("Expressions depend on each other more than {DEEPEST} levels deep."),
                expr.span,
            ));
        }
        self.budget.depth.set(depth + 1);
        let outcome = self
            .budget
            .charge(STEP, expr.span)
            .and_then(|()| self.evaluate_kind(expr, scope));
        self.budget.depth.set(depth);
        outcome
    }

    fn evaluate_kind(&self, expr: &Expr, scope: &Scope<'_>) -> Outcome<Value> {
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Template(parts) => {
                let mut out = String::new();
                self.template(parts, scope, &mut out)?;
                Ok(Value::String(out))
            }
            Kind::Wrap(inner) => self.evaluate(inner, scope),
            Kind::Variable(name) => self.variable(name, expr.span, scope),
            Kind::Traversal(base, steps) => self.traverse(base, steps, scope),
            Kind::Call(call) => self.call(call, expr.span, scope),
            Kind::Conditional(three) => self.conditional(three, scope),
            Kind::Binary(operator, two) => self.binary(*operator, two, expr.span, scope),
            Kind::Negate(inner) => self.negate(inner, expr.span, scope),
            Kind::Not(inner) => {
                let value = self.evaluate(inner, scope)?;
                let flag = self.operand(value, &Shape::Bool, "", inner.span)?;
                Ok(Value::Bool(flag != Value::Bool(true)))
            }
            Kind::Tuple(elements) => Ok(Value::Tuple(
                elements
                    .iter()
                    .map(|element| self.evaluate(element, scope))
                    .collect::<Outcome<_>>()?,
            )),
            Kind::Object(entries) => self.object(entries, scope),
            Kind::For(each) => self.each(each, scope),
        }
    }

    fn variable(&self, name: &str, span: Span, scope: &Scope<'_>) -> Outcome<Value> {
        let value = match scope.find(name) {
            Some(value) => value.clone(),
            None => self.global(name, span)?,
        };
        self.budget.charge(value.weight(), span)?;
        Ok(value)
    }

    fn template(&self, parts: &[Part], scope: &Scope<'_>, out: &mut String) -> Outcome<()> {
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(expr) => {
                    let value = self.evaluate(expr, scope)?;
                    let invalid = |detail: &str| {
                        Err(Problem::new(
                            "Invalid template interpolation value",
                            detail,
                            expr.span,
                        ))
                    };
                    if value.is_null() {
                        return invalid(
                            "The expression result is null. Cannot include a null value in a string template.",
                        );
                    }
                    let Some(text) = text(&value) else {
                        return invalid(
                            "Cannot include the given value in a string template: string required.",
                        );
                    };
                    self.budget.charge(text.len(), expr.span)?;
                    out.push_str(&text);
                }
                Part::If {
                    condition,
                    then,
                    otherwise,
                } => {
                    let chosen = if self.condition(condition, scope)? {
                        then
                    } else {
                        otherwise
                    };
                    self.template(chosen, scope, out)?;
                }
                Part::For {
                    key_name,
                    value_name,
                    collection,
                    body,
                } => {
                    let source = self.evaluate(collection, scope)?;
                    for (key, value) in self.pairs(source, collection.span)? {
                        let inner = names(key_name.as_ref(), value_name, key, value, scope);
                        self.budget.charge(STEP, collection.span)?;
                        self.template(body, &inner, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn condition(&self, expr: &Expr, scope: &Scope<'_>) -> Outcome<bool> {
        let value = self.evaluate(expr, scope)?;
        if value.is_null() {
            return Err(Problem::new(
                "Null condition",
                "The condition value is null. Conditions must either be true or false.",
                expr.span,
            ));
        }
        match convert(value, &Shape::Bool) {
            Ok(value) => Ok(value == Value::Bool(true)),
            Err(_) => Err(Problem::new(
                "Incorrect condition type",
                "The condition expression must be of type bool.",
                expr.span,
            )),
        }
    }

    fn conditional(&self, [condition, yes, no]: &[Expr; 3], scope: &Scope<'_>) -> Outcome<Value> {
        let chosen_yes = self.condition(condition, scope)?;
        let yes = self.evaluate(yes, scope);
        let no = self.evaluate(no, scope);
        let (chosen, other) = if chosen_yes { (yes, no) } else { (no, yes) };
        let chosen = chosen?;
        match other {
            // The branch that is not taken may be wrong, but it gives the result its type.
            Ok(other) => {
                let mut both = unify(vec![chosen, other]);
                Ok(both.swap_remove(0))
            }
            Err(problem) if problem.fatal => Err(problem),
            Err(_) => Ok(chosen),
        }
    }

    fn object(&self, entries: &[(Key, Expr)], scope: &Scope<'_>) -> Outcome<Value> {
        let mut object = BTreeMap::new();
        for (key, value) in entries {
            let key = match key {
                Key::Name(name) => name.clone(),
                Key::Expr(expr) => self.key(expr, scope)?,
            };
            object.insert(key, self.evaluate(value, scope)?);
        }
        Ok(Value::Object(object))
    }

    fn key(&self, expr: &Expr, scope: &Scope<'_>) -> Outcome<String> {
        let value = self.evaluate(expr, scope)?;
        if value.is_null() {
            return Err(Problem::new(
                "Null value as key",
                "Can't use a null value as a key.",
                expr.span,
            ));
        }
        text(&value).ok_or_else(|| {
            Problem::new(
                "Incorrect key type",
                "Can't use this value as a key: string required.",
                expr.span,
            )
        })
    }

    fn each(&self, each: &For, scope: &Scope<'_>) -> Outcome<Value> {
        let source = self.evaluate(&each.collection, scope)?;
        let mut list = Vec::new();
        let mut object: BTreeMap<String, Value> = BTreeMap::new();
        let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (key, value) in self.pairs(source, each.collection.span)? {
            let inner = names(each.key_name.as_ref(), &each.value_name, key, value, scope);
            if let Some(condition) = &each.condition
                && !self.condition(condition, &inner)?
            {
                continue;
            }
            let Some(key) = &each.key else {
                list.push(self.evaluate(&each.value, &inner)?);
                continue;
            };
            let name = self.key(key, &inner)?;
            let value = self.evaluate(&each.value, &inner)?;
            if each.grouping {
                groups.entry(name).or_default().push(value);
                continue;
            }
            match object.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(entry) => {
                    return Err(Problem::new(
                        "Duplicate object key",
                        format!(
                            "Two different items produced the key \"{}\" in this 'for' expression. If duplicates are expected, use the ellipsis (...) after the value expression to enable grouping by key.",
                            entry.key()
                        ),
                        key.span,
                    ));
                }
            }
        }
        object.extend(
            groups
                .into_iter()
                .map(|(name, group)| (name, Value::Tuple(group))),
        );
        Ok(if each.key.is_some() {
            Value::Object(object)
        } else {
            Value::Tuple(list)
        })
    }

    /// Keys and values of anything that can be walked through.
    fn pairs(&self, value: Value, span: Span) -> Outcome<Vec<(Value, Value)>> {
        self.budget.charge(value.weight(), span)?;
        match value {
            Value::Null => Err(Problem::new(
                "Iteration over null value",
                "A null value cannot be used as the collection in a 'for' expression.",
                span,
            )),
            Value::List(elements) | Value::Tuple(elements) => Ok((0_u32..)
                .zip(elements)
                .map(|(at, element)| (Value::int(at), element))
                .collect()),
            Value::Set(elements) => Ok(elements
                .into_iter()
                .map(|element| (element.clone(), element))
                .collect()),
            Value::Map(entries) | Value::Object(entries) => Ok(entries
                .into_iter()
                .map(|(key, value)| (Value::String(key), value))
                .collect()),
            other => Err(Problem::new(
                "Iteration over non-iterable value",
                format!(
                    "A value of type {} cannot be used as the collection in a 'for' expression.",
                    other.kind()
                ),
                span,
            )),
        }
    }
}

fn names<'a>(
    key_name: Option<&String>,
    value_name: &str,
    key: Value,
    value: Value,
    parent: &'a Scope<'a>,
) -> Scope<'a> {
    let mut names = vec![(value_name.to_owned(), value)];
    if let Some(name) = key_name {
        names.push((name.clone(), key));
    }
    Scope {
        names,
        parent: Some(parent),
    }
}
