//! `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, `${NAME:+other}`; `$$` is a dollar sign.

use super::Variables;
use super::yaml::Yaml;

const DEEPEST: usize = 32;

/// Fills in all text of a tree. An error names the way to the text.
pub(super) fn all(tree: &mut Yaml, variables: &Variables) -> Result<(), String> {
    match tree {
        Yaml::Text(value) if value.contains('$') => {
            *value = text(value, variables).map_err(|why| format!(": {why}"))?;
            Ok(())
        }
        Yaml::List(list) => list
            .iter_mut()
            .enumerate()
            .try_for_each(|(at, value)| all(value, variables).map_err(|why| format!(".[{at}]{why}"))),
        Yaml::Map(entries) => entries
            .iter_mut()
            .try_for_each(|(key, value)| all(value, variables).map_err(|why| format!(".{key}{why}"))),
        _ => Ok(()),
    }
}

pub(super) fn text(text: &str, variables: &Variables) -> Result<String, String> {
    fill(text, variables, 0)
}

fn fill(text: &str, variables: &Variables, depth: usize) -> Result<String, String> {
    if depth > DEEPEST {
        return Err("defaults are nested too deeply".to_owned());
    }
    let invalid = || {
        format!("invalid interpolation format for \"{text}\": you may need to escape any $ with another $")
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = closing(inner).ok_or_else(invalid)?;
            let value =
                expression(&inner[..end], variables, depth).map_err(|why| why.unwrap_or_else(invalid))?;
            out.push_str(&value);
            rest = &inner[end + 1..];
        } else {
            let length = name_length(after);
            if length == 0 {
                return Err(invalid());
            }
            out.push_str(variables.get(&after[..length]).map_or("", String::as_str));
            rest = &after[length..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Nothing as the error: the form itself is wrong.
fn expression(inner: &str, variables: &Variables, depth: usize) -> Result<String, Option<String>> {
    let length = name_length(inner);
    let (name, rest) = inner.split_at(length);
    if name.is_empty() {
        return Err(None);
    }
    let value = variables.get(name).map(String::as_str);
    if rest.is_empty() {
        return Ok(value.unwrap_or_default().to_owned());
    }
    // With a colon an empty value counts as none.
    let (value, rest) = match rest.strip_prefix(':') {
        Some(rest) => (value.filter(|value| !value.is_empty()), rest),
        None => (value, rest),
    };
    let mut letters = rest.chars();
    let operator = letters.next();
    let other = letters.as_str();
    let other = || fill(other, variables, depth + 1).map_err(Some);
    match (operator, value) {
        (Some('-' | '?'), Some(value)) => Ok(value.to_owned()),
        (Some('-'), None) | (Some('+'), Some(_)) => other(),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => {
            let message = other()?;
            let message = if message.is_empty() {
                String::new()
            } else {
                format!(": {message}")
            };
            Err(Some(format!(
                "required variable {name} is missing a value{message}"
            )))
        }
        _ => Err(None),
    }
}

fn name_length(text: &str) -> usize {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(first) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// The brace that closes, past those of inner expressions.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        previous = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let variables = Variables::from([("A".to_owned(), "a".to_owned()), ("E".to_owned(), String::new())]);
        for (input, expected) in [
            ("$A-${A}-$$A", "a-a-$A"),
            ("${X:-d}${X-d}${E:-d}${E-d}", "ddd"),
            ("${A:+y}${X:+y}${E+y}", "yy"),
            ("${X:-${A}/${Y:-z}}", "a/z"),
            ("${X}", ""),
        ] {
            assert_eq!(text(input, &variables).unwrap(), expected, "{input}");
        }
        assert_eq!(
            text("${X:?set it}", &variables).unwrap_err(),
            "required variable X is missing a value: set it"
        );
        for wrong in ["${", "$ ", "${A", "${1}", "${A!b}"] {
            assert!(text(wrong, &variables).unwrap_err().contains("escape"), "{wrong}");
        }
    }
}
