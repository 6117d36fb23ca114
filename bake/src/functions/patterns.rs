//! Regular expressions.

use std::collections::BTreeMap;

use regex::{Captures, Regex};

use super::{Arguments, Fault, Function, Outcome};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("regex", &["pattern", "string"], |a| {
        let pattern = compile(a, 0)?;
        let text = a.text(1)?;
        let captures = pattern
            .captures(&text)
            .ok_or("pattern did not match any part of the given string")?;
        result(&pattern, &captures)
    }),
    Function::new("regexall", &["pattern", "string"], |a| {
        let pattern = compile(a, 0)?;
        let text = a.text(1)?;
        let found = pattern
            .captures_iter(&text)
            .map(|captures| result(&pattern, &captures));
        Ok(Value::List(found.collect::<Result<_, _>>()?))
    }),
    Function::new("regex_replace", &["string", "pattern", "replace"], |a| {
        let pattern = compile(a, 1)?;
        let (text, replacement) = (a.text(0)?, a.text(2)?);
        Ok(Value::text(pattern.replace_all(&text, replacement.as_str())))
    }),
];

fn compile(arguments: &Arguments<'_>, at: usize) -> Result<Regex, Fault> {
    let pattern = arguments.text(at)?;
    Regex::new(&pattern).map_err(|error| {
        // The last line says what is wrong, those before it show where.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default();
        Fault::of(at, format!("invalid regexp pattern \"{pattern}\": {reason}"))
    })
}

/// The match itself, its groups, or its groups by name.
fn result(pattern: &Regex, captures: &Captures<'_>) -> Outcome {
    let value =
        |found: Option<regex::Match<'_>>| found.map_or(Value::Null, |found| Value::text(found.as_str()));
    let names: Vec<Option<&str>> = pattern.capture_names().skip(1).collect();
    if names.is_empty() {
        return Ok(value(captures.get(0)));
    }
    if names.iter().all(Option::is_none) {
        return Ok(Value::Tuple(captures.iter().skip(1).map(value).collect()));
    }
    let mut groups = BTreeMap::new();
    for name in names {
        let name = name.ok_or("cannot mix both named and unnamed capture groups")?;
        groups.insert(name.to_owned(), value(captures.name(name)));
    }
    Ok(Value::Object(groups))
}
