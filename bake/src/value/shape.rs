//! Types as variables declare them: `string`, `list(number)`, `object({a = string, b = optional(bool, true)})`.

use std::collections::BTreeMap;

use crate::error::{Outcome, Problem};
use crate::syntax::{Expr, Key, Kind};
use crate::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Any,
    String,
    Number,
    Bool,
    List(Box<Self>),
    Set(Box<Self>),
    Map(Box<Self>),
    Tuple(Vec<Self>),
    Object(BTreeMap<String, Field>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub shape: Shape,
    /// May be left out.
    pub optional: bool,
}

const SUMMARY: &str = "Invalid type specification";

impl Shape {
    /// A type as an expression of a definition.
    pub fn read(expr: &Expr) -> Outcome<Self> {
        let invalid = |detail: &str| Err(Problem::new(SUMMARY, detail, expr.span));
        match &expr.kind {
            Kind::Variable(name) => match name.as_str() {
                "any" => Ok(Self::Any),
                "string" => Ok(Self::String),
                "number" => Ok(Self::Number),
                "bool" => Ok(Self::Bool),
                "list" | "set" | "map" => invalid(&format!(
                    "The {name} type constructor requires one argument specifying the element type."
                )),
                "object" => invalid(
                    "The object type constructor requires one argument specifying the attribute types and values as a map.",
                ),
                "tuple" => invalid(
                    "The tuple type constructor requires one argument specifying the element types as a list.",
                ),
                _ => invalid(&format!(
                    "The keyword \"{name}\" is not a valid type specification."
                )),
            },
            Kind::Call(call) => {
                let [argument] = call.arguments.as_slice() else {
                    return invalid(&format!(
                        "The {} type constructor requires one argument.",
                        call.name
                    ));
                };
                match call.name.as_str() {
                    "list" => Ok(Self::List(Box::new(Self::read(argument)?))),
                    "set" => Ok(Self::Set(Box::new(Self::read(argument)?))),
                    "map" => Ok(Self::Map(Box::new(Self::read(argument)?))),
                    "tuple" => match &argument.kind {
                        Kind::Tuple(elements) => Ok(Self::Tuple(
                            elements.iter().map(Self::read).collect::<Outcome<_>>()?,
                        )),
                        _ => invalid("Tuple type constructor requires a list of element types."),
                    },
                    "object" => match &argument.kind {
                        Kind::Object(entries) => Self::object(entries),
                        _ => invalid(
                            "Object type constructor requires a map whose keys are attribute names and whose values are the corresponding attribute types.",
                        ),
                    },
                    other => invalid(&format!("Keyword \"{other}\" is not a valid type constructor.")),
                }
            }
            // In JSON a type is written as text.
            Kind::Literal(Value::String(text)) => match crate::syntax::hcl::expression(text, expr.span) {
                Ok(inner) if !matches!(inner.kind, Kind::Literal(_)) => Self::read(&inner),
                _ => invalid(
                    "A type specification is either a primitive type keyword (bool, number, string) or a complex type constructor call, like list(string).",
                ),
            },
            _ => invalid(
                "A type specification is either a primitive type keyword (bool, number, string) or a complex type constructor call, like list(string).",
            ),
        }
    }

    fn object(entries: &[(Key, Expr)]) -> Outcome<Self> {
        let mut fields = BTreeMap::new();
        for (key, expr) in entries {
            let Key::Name(name) = key else {
                return Err(Problem::new(
                    SUMMARY,
                    "Object constructor map keys must be attribute names.",
                    expr.span,
                ));
            };
            let field = match &expr.kind {
                Kind::Call(call) if call.name == "optional" => {
                    let [inner] = call.arguments.as_slice() else {
                        return Err(Problem::new(
                            SUMMARY,
                            "Optional attribute modifier requires the attribute type as its argument.",
                            expr.span,
                        ));
                    };
                    Field {
                        shape: Self::read(inner)?,
                        optional: true,
                    }
                }
                _ => Field {
                    shape: Self::read(expr)?,
                    optional: false,
                },
            };
            fields.insert(name.clone(), field);
        }
        Ok(Self::Object(fields))
    }

    pub fn is_primitive(&self) -> bool {
        matches!(self, Self::String | Self::Number | Self::Bool)
    }

    /// As messages and lists name it.
    pub fn name(&self) -> String {
        match self {
            Self::Any => "any type".to_owned(),
            Self::String => "string".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::List(element) => format!("list of {}", element.name()),
            Self::Set(element) => format!("set of {}", element.name()),
            Self::Map(element) => format!("map of {}", element.name()),
            Self::Tuple(_) => "tuple".to_owned(),
            Self::Object(_) => "object".to_owned(),
        }
    }
}
