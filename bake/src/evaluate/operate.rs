//! Operators.

use super::Scope;
use crate::error::{Outcome, Problem};
use crate::module::Module;
use crate::source::Span;
use crate::syntax::{Expr, Operator};
use crate::value::convert::convert;
use crate::value::shape::Shape;
use crate::value::{Number, Value};

impl Module<'_> {
    pub(super) fn binary(
        &self,
        operator: Operator,
        [left, right]: &[Expr; 2],
        span: Span,
        scope: &Scope<'_>,
    ) -> Outcome<Value> {
        let first = self.evaluate(left, scope);
        let second = self.evaluate(right, scope);
        match operator {
            Operator::Equal => return Ok(Value::Bool(first? == second?)),
            Operator::NotEqual => return Ok(Value::Bool(first? != second?)),
            Operator::And | Operator::Or => {
                let first = first.and_then(|value| self.operand(value, &Shape::Bool, "left ", left.span));
                let second = second.and_then(|value| self.operand(value, &Shape::Bool, "right ", right.span));
                return logic(operator == Operator::Or, first, second);
            }
            _ => {}
        }
        let a = self.number(first?, "left ", left.span)?;
        let b = self.number(second?, "right ", right.span)?;
        let failed = |why: &str| {
            Problem::new(
                "Operation failed",
                format!("Error during operation: {why}."),
                span,
            )
        };
        let too_large = || failed("the result is no finite number");
        let number = match operator {
            Operator::Less => return Ok(Value::Bool(a.compare(b).is_lt())),
            Operator::LessOrEqual => return Ok(Value::Bool(a.compare(b).is_le())),
            Operator::Greater => return Ok(Value::Bool(a.compare(b).is_gt())),
            Operator::GreaterOrEqual => return Ok(Value::Bool(a.compare(b).is_ge())),
            Operator::Add => a.add(b),
            Operator::Subtract => a.subtract(b),
            Operator::Multiply => a.multiply(b),
            Operator::Divide | Operator::Modulo if b.is_zero() => {
                return Err(failed("division by zero"));
            }
            Operator::Divide => a.divide(b),
            _ => a.modulo(b),
        };
        number.map(Value::Number).ok_or_else(too_large)
    }

    pub(super) fn negate(&self, inner: &Expr, span: Span, scope: &Scope<'_>) -> Outcome<Value> {
        let value = self.evaluate(inner, scope)?;
        let number = self.number(value, "", inner.span)?;
        number
            .negate()
            .map(Value::Number)
            .ok_or_else(|| Problem::new("Operation failed", "The result is no finite number.", span))
    }

    fn number(&self, value: Value, side: &str, span: Span) -> Outcome<Number> {
        match self.operand(value, &Shape::Number, side, span)? {
            Value::Number(number) => Ok(number),
            other => Err(Problem::new(
                "Invalid operand",
                format!("{} is no number.", other.kind()),
                span,
            )),
        }
    }

    pub(super) fn operand(&self, value: Value, shape: &Shape, side: &str, span: Span) -> Outcome<Value> {
        let invalid = |why: &str| {
            Problem::new(
                "Invalid operand",
                format!("Unsuitable value for {side}operand: {why}."),
                span,
            )
        };
        if value.is_null() {
            return Err(invalid("argument must not be null"));
        }
        convert(value, shape).map_err(|why| invalid(&why))
    }
}

/// One side alone can decide.
fn logic(deciding: bool, first: Outcome<Value>, second: Outcome<Value>) -> Outcome<Value> {
    let deciding = Value::Bool(deciding);
    match (first, second) {
        (Err(problem), _) | (_, Err(problem)) if problem.fatal => Err(problem),
        (Ok(value), _) | (_, Ok(value)) if value == deciding => Ok(value),
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
        (Ok(_), Ok(second)) => Ok(second),
    }
}
