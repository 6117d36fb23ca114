//! `function` blocks. One may call another, but none itself, also not by way of others.

use std::collections::BTreeMap;

use crate::error::{Outcome, Problem};
use crate::evaluate::call::{Function, SPECIAL};
use crate::functions;
use crate::source::Span;
use crate::syntax::{Block, Expr, Kind};

type Functions<'a> = BTreeMap<&'a str, Function<'a>>;

const DEEPEST: usize = 100;

pub(super) fn read(block: &Block) -> Outcome<Function<'_>> {
    let name = block.labels.first().map_or("", |(name, _)| name);
    let attribute = |wanted: &str| {
        block.body.attribute(wanted).ok_or_else(|| {
            Problem::new(
                "Invalid function",
                format!("empty {wanted} not allowed for {name}"),
                block.span,
            )
        })
    };
    let identifier = |expr: &Expr| {
        expr.keyword().ok_or_else(|| {
            Problem::new(
                "Invalid param element",
                "Each parameter name must be an identifier.",
                expr.span,
            )
        })
    };
    let result = &attribute("result")?.expr;
    let parameters = &attribute("params")?.expr;
    let Kind::Tuple(elements) = &parameters.kind else {
        return Err(Problem::new(
            "Invalid expression",
            "A static list expression is required.",
            parameters.span,
        ));
    };
    Ok(Function {
        parameters: elements.iter().map(identifier).collect::<Outcome<_>>()?,
        variadic: match block.body.attribute("variadic_params") {
            Some(attribute) => Some(identifier(&attribute.expr)?),
            None => None,
        },
        result,
    })
}

/// All functions that are called exist, and none needs itself.
pub(super) fn check(all: &Functions<'_>) -> Outcome<()> {
    let mut checked = Vec::new();
    for name in all.keys() {
        visit(name, all, &mut Vec::new(), &mut checked)?;
    }
    Ok(())
}

fn visit<'a>(
    name: &'a str,
    all: &'a Functions<'a>,
    path: &mut Vec<&'a str>,
    checked: &mut Vec<&'a str>,
) -> Outcome<()> {
    if checked.contains(&name) {
        return Ok(());
    }
    let Some(function) = all.get(name) else {
        return Ok(());
    };
    path.push(name);
    for (called, span) in calls(function.result) {
        let invalid = |why: String| Problem::fatal("Invalid function", why, span);
        let Some((called, _)) = all.get_key_value(called.as_str()) else {
            if functions::find(&called).is_none() && !SPECIAL.contains(&called.as_str()) {
                return Err(invalid(format!("function \"{called}\" does not exist")));
            }
            continue;
        };
        if let Some(from) = path.iter().position(|known| known == called) {
            let mut cycle = path[from..].to_vec();
            cycle.push(called);
            return Err(invalid(format!(
                "function cycle not allowed for {called}: {}",
                cycle.join(" -> ")
            )));
        }
        if path.len() > DEEPEST {
            return Err(invalid(format!(
                "functions call each other more than {DEEPEST} levels deep"
            )));
        }
        visit(called, all, path, checked)?;
    }
    path.pop();
    checked.push(name);
    Ok(())
}

fn calls(expr: &Expr) -> Vec<(String, Span)> {
    let mut found = Vec::new();
    expr.walk(&mut |expr| {
        if let Kind::Call(call) = &expr.kind {
            found.push((call.name.clone(), call.name_span));
        }
    });
    found
}
