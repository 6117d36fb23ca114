//! Function calls: the library, functions of the definition, and the few that see expressions in place of values.

use super::Scope;
use crate::error::{Outcome, Problem};
use crate::functions::{self, Arguments};
use crate::module::Module;
use crate::source::Span;
use crate::syntax::{Call, Expr};
use crate::value::Value;
use crate::value::convert::convert;
use crate::value::shape::Shape;

/// A `function` block.
#[derive(Debug)]
pub(crate) struct Function<'a> {
    pub parameters: Vec<String>,
    pub variadic: Option<String>,
    pub result: &'a Expr,
}

/// What is no function of values.
pub(crate) const SPECIAL: [&str; 3] = ["try", "can", "convert"];

impl Module<'_> {
    pub(super) fn call(&self, call: &Call, span: Span, scope: &Scope<'_>) -> Outcome<Value> {
        match call.name.as_str() {
            "try" => return self.try_each(call, span, scope),
            "can" => {
                let [argument] = call.arguments.as_slice() else {
                    return Err(arity(call, "1 argument", span));
                };
                return match self.evaluate(argument, scope) {
                    Err(problem) if problem.fatal => Err(problem),
                    outcome => Ok(Value::Bool(outcome.is_ok())),
                };
            }
            "convert" => {
                let [argument, shape] = call.arguments.as_slice() else {
                    return Err(arity(call, "2 arguments", span));
                };
                let shape = Shape::read(shape)?;
                let value = self.evaluate(argument, scope)?;
                return convert(value, &shape).map_err(|why| failed(&call.name, &why, span));
            }
            _ => {}
        }
        let mut values = call
            .arguments
            .iter()
            .map(|argument| self.evaluate(argument, scope))
            .collect::<Outcome<Vec<_>>>()?;
        if call.expand {
            let last = values.pop().unwrap_or(Value::Null);
            let Some(elements) = last.elements() else {
                return Err(Problem::new(
                    "Invalid expanding argument value",
                    "The expanding argument (indicated by ...) must be of a tuple, list, or set type.",
                    span,
                ));
            };
            values.extend_from_slice(elements);
        }
        let result = match self.functions.get(call.name.as_str()) {
            Some(function) => self.call_defined(call, function, values, span)?,
            None => self.call_library(call, &values, span)?,
        };
        self.budget.charge(result.weight(), span)?;
        Ok(result)
    }

    fn try_each(&self, call: &Call, span: Span, scope: &Scope<'_>) -> Outcome<Value> {
        let mut reasons = Vec::new();
        for argument in &call.arguments {
            match self.evaluate(argument, scope) {
                Err(problem) if !problem.fatal => reasons.push(problem.detail),
                outcome => return outcome,
            }
        }
        let why = format!("no expression succeeded: {}", reasons.join(" "));
        Err(failed(&call.name, why.trim_end_matches([' ', ':']), span))
    }

    fn call_defined(
        &self,
        call: &Call,
        function: &Function<'_>,
        mut values: Vec<Value>,
        span: Span,
    ) -> Outcome<Value> {
        let wanted = function.parameters.len();
        if values.len() < wanted || values.len() > wanted && function.variadic.is_none() {
            return Err(arity(call, &format!("{wanted} argument(s)"), span));
        }
        let others = values.split_off(wanted);
        let mut names: Vec<_> = function.parameters.iter().cloned().zip(values).collect();
        if let Some(name) = &function.variadic {
            names.push((name.clone(), Value::Tuple(others)));
        }
        let scope = Scope { names, parent: None };
        self.evaluate(function.result, &scope)
    }

    fn call_library(&self, call: &Call, values: &[Value], span: Span) -> Outcome<Value> {
        let Some(function) = functions::find(&call.name) else {
            return Err(Problem::new(
                "Call to unknown function",
                format!("There is no function named \"{}\".", call.name),
                call.name_span,
            ));
        };
        let named = function.parameters.len();
        if values.len() < named || values.len() > named && function.others.is_none() {
            return Err(arity(call, &function.count(), span));
        }
        let name_of = |at: usize| {
            function
                .parameters
                .get(at)
                .copied()
                .or(function.others)
                .unwrap_or("argument")
        };
        let span_of = |at: usize| call.arguments.get(at).map_or(span, |argument| argument.span);
        let invalid = |at: usize, why: &str| {
            Problem::new(
                "Invalid function argument",
                format!("Invalid value for \"{}\" parameter: {why}.", name_of(at)),
                span_of(at),
            )
        };
        if !function.takes_null
            && let Some(at) = values.iter().position(Value::is_null)
        {
            return Err(invalid(at, "argument must not be null"));
        }
        let arguments = Arguments {
            values,
            world: self.world,
        };
        (function.run)(&arguments).map_err(|fault| match fault.argument {
            Some(at) => invalid(at, &fault.text),
            None => failed(&call.name, &fault.text, span),
        })
    }
}

fn failed(name: &str, why: &str, span: Span) -> Box<Problem> {
    Problem::new(
        "Error in function call",
        format!("Call to function \"{name}\" failed: {why}."),
        span,
    )
}

fn arity(call: &Call, wanted: &str, span: Span) -> Box<Problem> {
    Problem::new(
        "Wrong number of function arguments",
        format!("Function \"{}\" expects {wanted}.", call.name),
        span,
    )
}
