//! HCL text to the structure of a definition. The grammar is the parser's; here its tree becomes ours.

use hcl_edit::Span as _;
use hcl_edit::expr::{BinaryOperator, Expression, ObjectKey, TraversalOperator, UnaryOperator};
use hcl_edit::parser;
use hcl_edit::structure::{BlockLabel, Structure};
use hcl_edit::template::{Directive, Element, Strip, Template};

use super::{Access, Attribute, Block, Body, Call, Expr, For, Key, Kind, Operator, Part, Step};
use crate::error::{Outcome, Problem};
use crate::source::Span;
use crate::value::{Number, Value};

/// A whole file.
pub(crate) fn body(text: &str, file: usize) -> Outcome<Body> {
    let parsed = parser::parse_body(text).map_err(|error| {
        let at = error.location().offset().min(text.len());
        syntax_problem(&error, Span::new(file, at..text.len().min(at + 1)))
    })?;
    let place = Lowering {
        file,
        offset: 0,
        within: None,
    };
    place.body(&parsed)
}

/// An expression inside a string of JSON, which lies at `span`.
pub(crate) fn expression(text: &str, span: Span) -> Outcome<Expr> {
    let parsed = parser::parse_expr(text).map_err(|error| syntax_problem(&error, span))?;
    Ok(Lowering::inside(span).expr(&parsed))
}

/// A template inside a string of JSON, which lies at `span`.
pub(crate) fn template(text: &str, span: Span) -> Outcome<Expr> {
    let parsed = parser::parse_template(text).map_err(|error| syntax_problem(&error, span))?;
    Ok(Lowering::inside(span).template(&parsed, span))
}

fn syntax_problem(error: &parser::Error, span: Span) -> Box<Problem> {
    if error.message().contains("redefined attribute") {
        let text = "Each argument may be set only once.";
        return Problem::new("Attribute redefined", text.to_owned(), span);
    }
    Problem::new(
        "Invalid syntax",
        format!("{}.", error.message().replace('\n', " ")),
        span,
    )
}

/// Where the parsed text lies.
struct Lowering {
    file: usize,
    offset: usize,
    /// Escapes inside a string of JSON make places in it rough; they never leave it.
    within: Option<Span>,
}

impl Lowering {
    fn inside(span: Span) -> Self {
        Self {
            file: span.file,
            offset: span.start + 1,
            within: Some(span),
        }
    }

    fn span(&self, range: Option<std::ops::Range<usize>>) -> Span {
        let range = range.unwrap_or_default();
        let mut span = Span::new(self.file, range.start + self.offset..range.end + self.offset);
        if let Some(within) = self.within {
            span.start = span.start.min(within.end);
            span.end = span.end.min(within.end);
        }
        span
    }

    fn body(&self, body: &hcl_edit::structure::Body) -> Outcome<Body> {
        let mut result = Body::default();
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => {
                    let name = attribute.key.as_str().to_owned();
                    let key_span = self.span(attribute.key.span());
                    let expr = self.expr(&attribute.value);
                    result.attributes.push(Attribute {
                        name,
                        span: key_span.to(expr.span),
                        expr,
                    });
                }
                Structure::Block(block) => {
                    let mut span = self.span(block.ident.span());
                    let labels: Vec<(String, Span)> = block
                        .labels
                        .iter()
                        .map(|label| match label {
                            BlockLabel::Ident(ident) => (ident.as_str().to_owned(), self.span(ident.span())),
                            BlockLabel::String(text) => (text.value().clone(), self.span(text.span())),
                        })
                        .collect();
                    if let Some((_, last)) = labels.last() {
                        span = span.to(*last);
                    }
                    result.blocks.push(Block {
                        kind: block.ident.as_str().to_owned(),
                        labels,
                        span,
                        body: self.body(&block.body)?,
                    });
                }
            }
        }
        Ok(result)
    }

    fn expr(&self, expr: &Expression) -> Expr {
        let span = self.span(expr.span());
        let kind = match expr {
            Expression::Null(_) => Kind::Literal(Value::Null),
            Expression::Bool(flag) => Kind::Literal(Value::Bool(*flag.value())),
            Expression::Number(number) => {
                Kind::Literal(Number::parse(&number.value().to_string()).map_or(Value::Null, Value::Number))
            }
            Expression::String(text) => Kind::Literal(Value::String(text.value().clone())),
            Expression::Array(array) => Kind::Tuple(array.iter().map(|element| self.expr(element)).collect()),
            Expression::Object(object) => Kind::Object(
                object
                    .iter()
                    .map(|(key, value)| (self.key(key), self.expr(value.expr())))
                    .collect(),
            ),
            Expression::StringTemplate(template) => return self.template(template, span),
            Expression::HeredocTemplate(heredoc) => {
                // A heredoc is text, also if it is one interpolation.
                Kind::Template(self.parts(&heredoc.template))
            }
            Expression::Parenthesis(inner) => {
                return Expr {
                    span,
                    ..self.expr(inner.inner())
                };
            }
            Expression::Variable(name) => Kind::Variable(name.as_str().to_owned()),
            Expression::Conditional(conditional) => Kind::Conditional(Box::new([
                self.expr(&conditional.cond_expr),
                self.expr(&conditional.true_expr),
                self.expr(&conditional.false_expr),
            ])),
            Expression::FuncCall(call) => {
                let mut name: String = call
                    .name
                    .namespace
                    .iter()
                    .map(|part| format!("{}::", part.as_str()))
                    .collect();
                name.push_str(call.name.name.as_str());
                Kind::Call(Box::new(Call {
                    name,
                    name_span: self.span(call.name.name.span()),
                    arguments: call.args.iter().map(|argument| self.expr(argument)).collect(),
                    expand: call.args.expand_final(),
                }))
            }
            Expression::Traversal(traversal) => {
                let steps = traversal
                    .operators
                    .iter()
                    .map(|operator| Step {
                        access: self.access(operator.value()),
                        span: self.span(operator.span()),
                    })
                    .collect();
                Kind::Traversal(Box::new(self.expr(&traversal.expr)), steps)
            }
            Expression::UnaryOp(operation) => {
                let inner = Box::new(self.expr(&operation.expr));
                match operation.operator.value() {
                    UnaryOperator::Neg => Kind::Negate(inner),
                    UnaryOperator::Not => Kind::Not(inner),
                }
            }
            Expression::BinaryOp(operation) => Kind::Binary(
                operator(*operation.operator.value()),
                Box::new([self.expr(&operation.lhs_expr), self.expr(&operation.rhs_expr)]),
            ),
            Expression::ForExpr(each) => Kind::For(Box::new(For {
                key_name: each.intro.key_var.as_ref().map(|name| name.as_str().to_owned()),
                value_name: each.intro.value_var.as_str().to_owned(),
                collection: self.expr(&each.intro.collection_expr),
                key: each.key_expr.as_ref().map(|key| self.expr(key)),
                value: self.expr(&each.value_expr),
                condition: each.cond.as_ref().map(|condition| self.expr(&condition.expr)),
                grouping: each.grouping,
            })),
        };
        Expr { kind, span }
    }

    fn key(&self, key: &ObjectKey) -> Key {
        match key {
            ObjectKey::Ident(name) => Key::Name(name.as_str().to_owned()),
            ObjectKey::Expression(expr) => Key::Expr(self.expr(expr)),
        }
    }

    fn access(&self, operator: &TraversalOperator) -> Access {
        match operator {
            TraversalOperator::AttrSplat(_) => Access::AttributeSplat,
            TraversalOperator::FullSplat(_) => Access::FullSplat,
            TraversalOperator::GetAttr(name) => Access::Attribute(name.as_str().to_owned()),
            TraversalOperator::Index(index) => Access::Index(self.expr(index)),
            TraversalOperator::LegacyIndex(index) => Access::Index(Expr {
                kind: Kind::Literal(Value::int(*index.value())),
                span: self.span(operator.span()),
            }),
        }
    }

    fn template(&self, template: &Template, span: Span) -> Expr {
        let mut parts = self.parts(template);
        let kind = match parts.as_mut_slice() {
            [] => Kind::Literal(Value::text("")),
            [Part::Text(text)] => Kind::Literal(Value::String(std::mem::take(text))),
            [Part::Value(_)] => match parts.pop() {
                Some(Part::Value(expr)) => Kind::Wrap(Box::new(expr)),
                _ => Kind::Template(parts),
            },
            _ => Kind::Template(parts),
        };
        Expr { kind, span }
    }

    fn parts(&self, template: &Template) -> Vec<Part> {
        let mut parts = Vec::new();
        // Whether a marker "~}" stands before what comes next.
        let mut trim = false;
        for element in template {
            match element {
                Element::Literal(text) => {
                    let text = text.value();
                    let text = if trim { text.trim_start() } else { text };
                    parts.push(Part::Text(text.to_owned()));
                    trim = false;
                }
                Element::Interpolation(interpolation) => {
                    if starts(interpolation.strip) {
                        trim_end(&mut parts);
                    }
                    parts.push(Part::Value(self.expr(&interpolation.expr)));
                    trim = ends(interpolation.strip);
                }
                Element::Directive(directive) => {
                    let (start, end) = directive_strips(directive);
                    if starts(start) {
                        trim_end(&mut parts);
                    }
                    parts.push(self.directive(directive));
                    trim = ends(end);
                }
            }
        }
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        parts
    }

    fn directive(&self, directive: &Directive) -> Part {
        match directive {
            Directive::If(condition) => {
                let after = condition
                    .else_expr
                    .as_ref()
                    .map_or(condition.endif_expr.strip, |otherwise| otherwise.strip);
                Part::If {
                    condition: self.expr(&condition.if_expr.cond_expr),
                    then: self.inner(&condition.if_expr.template, condition.if_expr.strip, after),
                    otherwise: condition.else_expr.as_ref().map_or_else(Vec::new, |otherwise| {
                        self.inner(&otherwise.template, otherwise.strip, condition.endif_expr.strip)
                    }),
                }
            }
            Directive::For(each) => Part::For {
                key_name: each
                    .for_expr
                    .key_var
                    .as_ref()
                    .map(|name| name.as_str().to_owned()),
                value_name: each.for_expr.value_var.as_str().to_owned(),
                collection: self.expr(&each.for_expr.collection_expr),
                body: self.inner(
                    &each.for_expr.template,
                    each.for_expr.strip,
                    each.endfor_expr.strip,
                ),
            },
        }
    }

    /// What stands between two markers.
    fn inner(&self, template: &Template, before: Strip, after: Strip) -> Vec<Part> {
        let mut parts = self.parts(template);
        if ends(before)
            && let Some(Part::Text(text)) = parts.first_mut()
        {
            *text = text.trim_start().to_owned();
        }
        if starts(after) {
            trim_end(&mut parts);
        }
        parts
    }
}

fn trim_end(parts: &mut [Part]) {
    if let Some(Part::Text(text)) = parts.last_mut() {
        text.truncate(text.trim_end().len());
    }
}

fn starts(strip: Strip) -> bool {
    matches!(strip, Strip::Start | Strip::Both)
}

fn ends(strip: Strip) -> bool {
    matches!(strip, Strip::End | Strip::Both)
}

/// Of the first and of the last marker.
fn directive_strips(directive: &Directive) -> (Strip, Strip) {
    match directive {
        Directive::If(condition) => (condition.if_expr.strip, condition.endif_expr.strip),
        Directive::For(each) => (each.for_expr.strip, each.endfor_expr.strip),
    }
}

fn operator(operator: BinaryOperator) -> Operator {
    match operator {
        BinaryOperator::Eq => Operator::Equal,
        BinaryOperator::NotEq => Operator::NotEqual,
        BinaryOperator::LessEq => Operator::LessOrEqual,
        BinaryOperator::GreaterEq => Operator::GreaterOrEqual,
        BinaryOperator::Less => Operator::Less,
        BinaryOperator::Greater => Operator::Greater,
        BinaryOperator::Plus => Operator::Add,
        BinaryOperator::Minus => Operator::Subtract,
        BinaryOperator::Mul => Operator::Multiply,
        BinaryOperator::Div => Operator::Divide,
        BinaryOperator::Mod => Operator::Modulo,
        BinaryOperator::And => Operator::And,
        BinaryOperator::Or => Operator::Or,
    }
}
