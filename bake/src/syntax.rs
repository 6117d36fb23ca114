//! The structure of a definition: blocks, attributes and expressions, from HCL or from JSON, with the places where they
//! were written. Parsing bounds the nesting, so that walking what was parsed cannot exhaust the stack.

pub(crate) mod hcl;
pub(crate) mod json;

use crate::source::Span;
use crate::value::Value;

#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub attributes: Vec<Attribute>,
    pub blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub name: String,
    /// Of the whole attribute.
    pub span: Span,
    pub expr: Expr,
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub kind: String,
    pub labels: Vec<(String, Span)>,
    /// Of type and labels.
    pub span: Span,
    pub body: Body,
}

impl Body {
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub kind: Kind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Value),
    /// Text with interpolations: its value is a string.
    Template(Vec<Part>),
    /// Text that is one interpolation: its value is that of the expression.
    Wrap(Box<Expr>),
    Variable(String),
    Traversal(Box<Expr>, Vec<Step>),
    Call(Box<Call>),
    Conditional(Box<[Expr; 3]>),
    Binary(Operator, Box<[Expr; 2]>),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    Tuple(Vec<Expr>),
    Object(Vec<(Key, Expr)>),
    For(Box<For>),
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub access: Access,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum Access {
    Attribute(String),
    Index(Expr),
    AttributeSplat,
    FullSplat,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub name: String,
    pub name_span: Span,
    pub arguments: Vec<Expr>,
    /// The last argument is a list of arguments.
    pub expand: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
}

#[derive(Clone, Debug)]
pub(crate) enum Key {
    Name(String),
    Expr(Expr),
}

#[derive(Clone, Debug)]
pub(crate) struct For {
    pub key_name: Option<String>,
    pub value_name: String,
    pub collection: Expr,
    /// An object comes out if there is a key.
    pub key: Option<Expr>,
    pub value: Expr,
    pub condition: Option<Expr>,
    pub grouping: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Part {
    Text(String),
    Value(Expr),
    If {
        condition: Expr,
        then: Vec<Self>,
        otherwise: Vec<Self>,
    },
    For {
        key_name: Option<String>,
        value_name: String,
        collection: Expr,
        body: Vec<Self>,
    },
}

impl Expr {
    /// The name, if the expression is nothing but one, also in JSON's quotes.
    pub fn keyword(&self) -> Option<String> {
        match &self.kind {
            Kind::Variable(name) => Some(name.clone()),
            Kind::Literal(Value::String(text)) => {
                let inner = hcl::expression(text, self.span).ok()?;
                match inner.kind {
                    Kind::Variable(name) => Some(name),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Calls `visit` for this expression and everything inside it.
    pub fn walk(&self, visit: &mut dyn FnMut(&Self)) {
        visit(self);
        match &self.kind {
            Kind::Literal(_) | Kind::Variable(_) => {}
            Kind::Template(parts) => walk_parts(parts, visit),
            Kind::Wrap(inner) | Kind::Negate(inner) | Kind::Not(inner) => inner.walk(visit),
            Kind::Traversal(base, steps) => {
                base.walk(visit);
                for step in steps {
                    if let Access::Index(index) = &step.access {
                        index.walk(visit);
                    }
                }
            }
            Kind::Call(call) => call.arguments.iter().for_each(|argument| argument.walk(visit)),
            Kind::Conditional(three) => three.iter().for_each(|expr| expr.walk(visit)),
            Kind::Binary(_, two) => two.iter().for_each(|expr| expr.walk(visit)),
            Kind::Tuple(elements) => elements.iter().for_each(|element| element.walk(visit)),
            Kind::Object(entries) => {
                for (key, value) in entries {
                    if let Key::Expr(key) = key {
                        key.walk(visit);
                    }
                    value.walk(visit);
                }
            }
            Kind::For(each) => {
                each.collection.walk(visit);
                for expr in each.key.iter().chain([&each.value]).chain(&each.condition) {
                    expr.walk(visit);
                }
            }
        }
    }
}

fn walk_parts(parts: &[Part], visit: &mut dyn FnMut(&Expr)) {
    for part in parts {
        match part {
            Part::Text(_) => {}
            Part::Value(expr) => expr.walk(visit),
            Part::If {
                condition,
                then,
                otherwise,
            } => {
                condition.walk(visit);
                walk_parts(then, visit);
                walk_parts(otherwise, visit);
            }
            Part::For { collection, body, .. } => {
                collection.walk(visit);
                walk_parts(body, visit);
            }
        }
    }
}
