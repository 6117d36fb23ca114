//! `variable` blocks: a default, a type, a value from outside, and rules that the value must obey.

use std::collections::BTreeMap;

use super::Module;
use crate::csv;
use crate::error::{Outcome, Problem};
use crate::evaluate::Scope;
use crate::syntax::{Block, Expr, Kind};
use crate::target::entries::parse_bool;
use crate::value::convert::{convert, text};
use crate::value::shape::Shape;
use crate::value::{Number, Value, json};

/// A variable as `--list` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub description: String,
    /// Empty unless the definition names a type.
    pub shape: String,
    pub value: Option<String>,
}

/// A value of this name with the suffix is JSON.
const JSON_SUFFIX: &str = "_JSON";

enum Given<'a> {
    Plain(&'a str),
    Json(&'a str),
}

impl Module<'_> {
    pub(super) fn declared_value(&self, name: &str, block: &Block) -> Outcome<Value> {
        let shape = shape(block)?;
        let label = block.labels.first().map_or(block.span, |(_, span)| *span);
        let invalid = |why: String| Problem::new("Invalid value", why, label);
        let default = block.body.attribute("default");
        let value = match (default, &shape) {
            (Some(attribute), None) => self.evaluate(&attribute.expr, &Scope::default())?,
            (Some(attribute), Some(shape)) => {
                let value = self.evaluate(&attribute.expr, &Scope::default())?;
                convert(value, shape).map_err(|why| {
                    let named = shape.name();
                    Problem::new(
                        "Invalid value",
                        format!("invalid type {named} for variable {name} default value: {why}"),
                        attribute.expr.span,
                    )
                })?
            }
            (None, Some(_)) => Value::Null,
            (None, None) => Value::text(""),
        };
        match (self.given(name, shape.is_some()), &shape) {
            (None, _) => Ok(value),
            (Some(Given::Json(text)), Some(shape)) => json::decode(text)
                .and_then(|value| convert(value, shape))
                .map_err(|why| invalid(format!("failed to convert variable {name} from JSON: {why}"))),
            (Some(Given::Plain(text)), Some(shape)) => from_text(name, text, shape).map_err(invalid),
            (Some(Given::Plain(text) | Given::Json(text)), None) => {
                let inferred = match &value {
                    Value::Null | Value::String(_) => Shape::String,
                    Value::Number(_) => Shape::Number,
                    Value::Bool(_) => Shape::Bool,
                    other => {
                        return Err(invalid(format!(
                            "unsupported type {} for variable {name}: declare its type to set it from outside",
                            other.kind()
                        )));
                    }
                };
                primitive(name, text, &inferred).map_err(invalid)
            }
        }
    }

    /// What the user or the environment says.
    fn given(&self, name: &str, has_shape: bool) -> Option<Given<'_>> {
        let plain = self.world.lookup(name);
        if plain.is_none() || has_shape {
            let other = format!("{name}{JSON_SUFFIX}");
            let is_own =
                self.declared.contains_key(other.as_str()) || self.world.builtins.contains_key(&other);
            if !is_own && let Some(text) = self.world.lookup(&other) {
                return Some(Given::Json(text));
            }
        }
        plain.map(Given::Plain)
    }

    pub(super) fn describe(&self, name: &str, block: &Block) -> Outcome<Variable> {
        let value = self.global(name, block.span)?;
        let shape = shape(block)?;
        let description = match block.body.attribute("description") {
            Some(attribute) => text(&self.evaluate(&attribute.expr, &Scope::default())?).unwrap_or_default(),
            None => String::new(),
        };
        let shown = match (&value, &shape) {
            (Value::Null, _) => None,
            (Value::String(text), Some(Shape::String)) => {
                let mut quoted = String::new();
                json::quote(text, &mut quoted);
                Some(quoted.trim_matches('"').to_owned())
            }
            // A value of no fixed type is shown with the one that it has.
            (_, Some(Shape::Any)) => {
                let (shown, kind) = (json::encode(&value), json::kind(&value));
                Some(format!("{{\"value\":{shown},\"type\":{kind}}}"))
            }
            (_, Some(_)) => Some(json::encode(&value)),
            (value, None) => Some(text(value).unwrap_or_else(|| json::encode(value))),
        };
        Ok(Variable {
            name: name.to_owned(),
            description,
            shape: shape.map(|shape| shape.name()).unwrap_or_default(),
            value: shown,
        })
    }

    /// What breaks the rules of the variables.
    pub(super) fn validate(&self) -> Vec<Problem> {
        let rules = self
            .declared
            .values()
            .flat_map(|block| &block.body.blocks)
            .filter(|block| block.kind == "validation");
        rules
            .filter_map(|rule| self.validate_rule(rule).err())
            .map(|problem| *problem)
            .collect()
    }

    fn validate_rule(&self, rule: &Block) -> Outcome<()> {
        let required = |name: &str| {
            rule.body.attribute(name).ok_or_else(|| {
                Problem::new(
                    "Missing required argument",
                    format!("The argument \"{name}\" is required, but no definition was found."),
                    rule.span,
                )
            })
        };
        let condition: &Expr = &required("condition")?.expr;
        let message: &Expr = &required("error_message")?.expr;
        let scope = Scope::default();
        let invalid = |detail: &str| Problem::new("Invalid condition result", detail, condition.span);
        let result = self.evaluate(condition, &scope)?;
        if result.is_null() {
            return Err(invalid(
                "Condition expression must return either true or false, not null.",
            ));
        }
        let result = convert(result, &Shape::Bool)
            .map_err(|why| invalid(&format!("Invalid condition result value: {why}")))?;
        if result == Value::Bool(true) {
            return Ok(());
        }
        let message = text(&self.evaluate(message, &scope)?)
            .unwrap_or_else(|| "This check failed, but has an invalid error message.".to_owned());
        Err(Problem::new("Validation failed", message, condition.span))
    }
}

/// The declared type, if any.
fn shape(block: &Block) -> Outcome<Option<Shape>> {
    match block.body.attribute("type").map(|attribute| &attribute.expr) {
        None => Ok(None),
        Some(expr) if matches!(expr.kind, Kind::Literal(Value::Null)) => Ok(None),
        Some(expr) => Shape::read(expr).map(Some),
    }
}

fn from_text(name: &str, text: &str, shape: &Shape) -> Result<Value, String> {
    let failed = |why: String| format!("failed to convert variable {name} from CSV: {why}");
    let fields = || csv::fields(text, ',').map_err(|error| failed(error.into()));
    let element_of = |field: &str, element: &Shape| {
        if element.is_primitive() {
            primitive(name, field, element).map_err(failed)
        } else {
            let named = shape.name();
            Err(failed(format!("unsupported type {named} for CSV specification")))
        }
    };
    match shape {
        Shape::List(element) | Shape::Set(element) => {
            let elements = fields()?
                .iter()
                .map(|field| element_of(field, element))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(match shape {
                Shape::Set(_) => Value::set(elements),
                _ => Value::List(elements),
            })
        }
        Shape::Tuple(shapes) => {
            let fields = fields()?;
            if fields.len() != shapes.len() {
                return Err(failed(format!(
                    "tuple expects {} elements but only {} provided",
                    shapes.len(),
                    fields.len()
                )));
            }
            let elements = fields
                .iter()
                .zip(shapes)
                .map(|(field, shape)| element_of(field, shape))
                .collect::<Result<_, _>>()?;
            Ok(Value::Tuple(elements))
        }
        Shape::Map(element) => {
            let mut entries = BTreeMap::new();
            for field in fields()? {
                let pair = csv::fields(&field, ':').map_err(|error| failed(error.into()))?;
                let [key, value] = pair.as_slice() else {
                    return Err(failed(format!(
                        "expected one k/v pair but got {} pieces from {field}",
                        pair.len()
                    )));
                };
                entries.insert(key.clone(), element_of(value, element)?);
            }
            Ok(Value::Map(entries))
        }
        Shape::Any => Ok(Value::text(text)),
        shape if shape.is_primitive() => primitive(name, text, shape),
        shape => Err(format!(
            "unsupported type {} for variable {name}: give its value as JSON in {name}{JSON_SUFFIX}",
            shape.name()
        )),
    }
}

fn primitive(name: &str, text: &str, shape: &Shape) -> Result<Value, String> {
    match shape {
        Shape::Bool => parse_bool(text)
            .map(Value::Bool)
            .ok_or_else(|| format!("failed to parse {name} as bool: invalid syntax \"{text}\"")),
        Shape::Number => Number::parse(text)
            .map(Value::Number)
            .ok_or_else(|| format!("failed to parse {name} as number: invalid syntax \"{text}\"")),
        _ => Ok(Value::text(text)),
    }
}
