//! Text.

use super::{Arguments, Fault, Function, LARGEST, Outcome};
use crate::value::Value;
use crate::value::convert::text;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("basename", &["path"], |a| Ok(Value::text(base_name(&a.text(0)?)))),
    Function::new("dirname", &["path"], |a| {
        Ok(Value::text(folder_name(&a.text(0)?)))
    }),
    Function::new("homedir", &[], |a| Ok(Value::text(&a.world.home))),
    Function::new("chomp", &["str"], |a| {
        Ok(Value::text(a.text(0)?.trim_end_matches(['\r', '\n'])))
    }),
    Function::new("indent", &["spaces", "str"], |a| {
        let spaces: usize = a.int(0)?;
        let text = a.text(1)?;
        if spaces.saturating_mul(text.len()) > LARGEST * 16 {
            return Err(Fault::of(0, "the result would be too long"));
        }
        let line = format!("\n{}", " ".repeat(spaces));
        Ok(Value::text(text.replace('\n', &line)))
    }),
    Function::new("join", &["separator"], |a| {
        let mut parts = Vec::new();
        for at in a.from(1) {
            for value in a.elements(at)? {
                let part = text(value).ok_or_else(|| Fault::of(at, "list of string required"))?;
                parts.push(part);
            }
        }
        Ok(Value::text(parts.join(&a.text(0)?)))
    })
    .and_others("lists"),
    Function::new("lower", &["str"], |a| Ok(Value::text(a.text(0)?.to_lowercase()))),
    Function::new("upper", &["str"], |a| Ok(Value::text(a.text(0)?.to_uppercase()))),
    Function::new("title", &["str"], |a| {
        let mut start = true;
        let mut out = String::new();
        for c in a.text(0)?.chars() {
            if start {
                out.extend(c.to_uppercase());
            } else {
                out.push(c);
            }
            start = !(c.is_alphanumeric() || c == '_');
        }
        Ok(Value::String(out))
    }),
    Function::new("replace", &["str", "substr", "replace"], |a| {
        let (text, from, to) = (a.text(0)?, a.text(1)?, a.text(2)?);
        if text.matches(&from).count().saturating_mul(to.len()) > LARGEST * 16 {
            return Err("the result would be too long".into());
        }
        Ok(Value::text(text.replace(&from, &to)))
    }),
    Function::new("reverse", &["str"], |a| {
        Ok(Value::String(a.text(0)?.chars().rev().collect()))
    }),
    Function::new("sanitize", &["name"], |a| {
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let replaced = a
            .text(0)?
            .chars()
            .map(|c| if safe(c) { c } else { '_' })
            .collect();
        Ok(Value::String(replaced))
    }),
    Function::new("split", &["separator", "str"], |a| {
        let (separator, text) = (a.text(0)?, a.text(1)?);
        let parts: Vec<Value> = if separator.is_empty() {
            text.chars().map(Value::text).collect()
        } else {
            text.split(&separator).map(Value::text).collect()
        };
        Ok(Value::List(parts))
    }),
    Function::new("strlen", &["str"], |a| {
        let count = a.text(0)?.chars().count();
        Ok(Value::int(i128::try_from(count).unwrap_or(i128::MAX)))
    }),
    Function::new("substr", &["str", "offset", "length"], substr),
    Function::new("trim", &["str", "cutset"], |a| {
        let cut: Vec<char> = a.text(1)?.chars().collect();
        Ok(Value::text(a.text(0)?.trim_matches(cut.as_slice())))
    }),
    Function::new("trimprefix", &["str", "prefix"], |a| {
        let text = a.text(0)?;
        Ok(Value::text(text.strip_prefix(&a.text(1)?).unwrap_or(&text)))
    }),
    Function::new("trimsuffix", &["str", "suffix"], |a| {
        let text = a.text(0)?;
        Ok(Value::text(text.strip_suffix(&a.text(1)?).unwrap_or(&text)))
    }),
    Function::new("trimspace", &["str"], |a| Ok(Value::text(a.text(0)?.trim()))),
    // There is no way to make a value of bytes that these could be given.
    Function::new("byteslen", &["buf"], |_| Err(Fault::of(0, "bytes required"))),
    Function::new("bytesslice", &["buf", "offset", "length"], |_| {
        Err(Fault::of(0, "bytes required"))
    }),
];

fn substr(arguments: &Arguments<'_>) -> Outcome {
    let text: Vec<char> = arguments.text(0)?.chars().collect();
    let count = i128::try_from(text.len()).unwrap_or(i128::MAX);
    let offset: i128 = arguments.int(1)?;
    let length: i128 = arguments.int(2)?;
    // From the end if negative.
    let start = if offset < 0 {
        (count + offset).max(0)
    } else {
        offset.min(count)
    };
    let end = if length < 0 {
        count
    } else {
        start.saturating_add(length).min(count)
    };
    let at = |index: i128| usize::try_from(index).unwrap_or_default();
    let part = text.get(at(start)..at(end)).unwrap_or_default();
    Ok(Value::String(part.iter().collect()))
}

/// As Go's `path.Base`.
fn base_name(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return "/";
    }
    path.rsplit('/').next().unwrap_or(path)
}

/// As Go's `path.Dir`.
fn folder_name(path: &str) -> String {
    crate::paths::parent(path)
}
