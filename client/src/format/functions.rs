//! The functions of templates: those of Go, and those that Docker adds.

use super::compare;
use super::data::{Data, Nil};
use super::json::{Json, to_json};
use super::printf;
use super::printing::{plain, print_all};

/// What a template is rendered over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Values,
    /// The names of columns, which stay as they are.
    Headings,
}

/// Nobody wants more padding than this.
const MOST_PADDING: i64 = 10_000;

/// `and` and `or` are the engine's: they do not look at all of their arguments.
const NAMES: [&str; 27] = [
    "and", "call", "eq", "ge", "gt", "html", "index", "join", "js", "json", "le", "len", "lower", "lt", "ne",
    "not", "or", "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper",
    "urlquery",
];

pub fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function. The error is what comes behind the place in the message.
pub fn call(name: &str, arguments: &[Data], mode: Mode, json: Json) -> Result<Data, String> {
    let exactly = |count: usize| {
        if arguments.len() == count {
            Ok(())
        } else {
            let got = arguments.len();
            Err(format!("wrong number of args for {name}: want {count} got {got}"))
        }
    };
    let failed = |message: String| format!("error calling {name}: {message}");
    let heading = mode == Mode::Headings
        && matches!(
            name,
            "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate"
        );
    if let (true, Some(first)) = (heading, arguments.first()) {
        return Ok(first.clone());
    }
    let ordering = |test: fn(std::cmp::Ordering) -> bool| {
        exactly(2)?;
        let order = compare::order(&arguments[0], &arguments[1]).map_err(failed)?;
        Ok(Data::Flag(order.is_some_and(test)))
    };
    match name {
        "json" => exactly(1).map(|()| to_json(&arguments[0], json).into()),
        "split" => {
            exactly(2)?;
            let (text, separator) = (text(name, &arguments[0])?, text(name, &arguments[1])?);
            Ok(split(text, separator))
        }
        "join" => {
            exactly(2)?;
            let separator = text(name, &arguments[1])?;
            join(&arguments[0], separator).map(Data::from).map_err(failed)
        }
        "title" => one_text(name, arguments).map(title),
        "lower" => one_text(name, arguments).map(|text| text.to_lowercase().into()),
        "upper" => one_text(name, arguments).map(|text| text.to_uppercase().into()),
        "pad" => {
            exactly(3)?;
            let text = text(name, &arguments[0])?;
            let [before, after] = [&arguments[1], &arguments[2]].map(|count| spaces(name, count));
            let (before, after) = (before?, after?);
            Ok(if text.is_empty() {
                Data::from("")
            } else {
                format!("{before}{text}{after}").into()
            })
        }
        "truncate" => {
            exactly(2)?;
            let text = text(name, &arguments[0])?;
            let length = usize::try_from(integer(name, &arguments[1])?)
                .map_err(|_| failed("the length is negative".to_owned()))?;
            Ok(truncated(text, length).into())
        }
        "not" => exactly(1).map(|()| Data::Flag(!arguments[0].is_true())),
        "eq" => compare::equals_any(arguments).map(Data::Flag).map_err(failed),
        "ne" => {
            exactly(2)?;
            let equal = compare::equals_any(arguments).map_err(failed)?;
            Ok(Data::Flag(!equal))
        }
        "lt" => ordering(std::cmp::Ordering::is_lt),
        "le" => ordering(std::cmp::Ordering::is_le),
        "gt" => ordering(std::cmp::Ordering::is_gt),
        "ge" => ordering(std::cmp::Ordering::is_ge),
        "len" => {
            exactly(1)?;
            length(&arguments[0]).map(Data::from).map_err(failed)
        }
        "index" => index(arguments).map_err(failed),
        "slice" => slice(arguments).map_err(failed),
        "print" => Ok(print_all(arguments).into()),
        "println" => {
            let texts: Vec<String> = arguments.iter().map(plain).collect();
            Ok(format!("{}\n", texts.join(" ")).into())
        }
        "printf" => {
            let Some((format, values)) = arguments.split_first() else {
                return Err("wrong number of args for printf: want at least 1 got 0".to_owned());
            };
            Ok(printf::format(text(name, format)?, values).into())
        }
        "html" => Ok(html(&print_all(arguments)).into()),
        "js" => Ok(js(&print_all(arguments)).into()),
        "urlquery" => Ok(url_query(&print_all(arguments)).into()),
        "call" => Err(failed("no value of --format is a function".to_owned())),
        _ => Err(format!("{name:?} is not a defined function")),
    }
}

fn text<'a>(name: &str, value: &'a Data) -> Result<&'a str, String> {
    match value {
        Data::Text(text) | Data::Time(text) => Ok(text),
        other => Err(format!(
            "wrong type for value of {name}; expected string; got {}",
            other.type_name()
        )),
    }
}

fn one_text<'a>(name: &str, arguments: &'a [Data]) -> Result<&'a str, String> {
    match arguments {
        [argument] => text(name, argument),
        _ => Err(format!(
            "wrong number of args for {name}: want 1 got {}",
            arguments.len()
        )),
    }
}

fn integer(name: &str, value: &Data) -> Result<i64, String> {
    match value {
        Data::Int(number) => Ok(*number),
        other => Err(format!(
            "wrong type for value of {name}; expected int; got {}",
            other.type_name()
        )),
    }
}

fn spaces(name: &str, count: &Data) -> Result<String, String> {
    let count = integer(name, count)?;
    match usize::try_from(count) {
        Ok(length) if count <= MOST_PADDING => Ok(" ".repeat(length)),
        _ => Err(format!("error calling {name}: cannot pad with {count} spaces")),
    }
}

fn split(text: &str, separator: &str) -> Data {
    if separator.is_empty() {
        return Data::list(text.chars().map(String::from));
    }
    Data::list(text.split(separator))
}

fn join(items: &Data, separator: &str) -> Result<String, String> {
    match items {
        Data::Nil(_) => Ok(String::new()),
        Data::List(items) => Ok(items.iter().map(plain).collect::<Vec<_>>().join(separator)),
        Data::Map(map) => {
            let mut values: Vec<String> = map.entries.values().map(plain).collect();
            values.sort();
            Ok(values.join(separator))
        }
        other => Err(format!("expected slice, got {}", other.type_name())),
    }
}

/// The first letter of every word in upper case.
fn title(text: &str) -> Data {
    let mut before = ' ';
    let changed: String = text
        .chars()
        .flat_map(|character| {
            let starts = !(before.is_alphanumeric() || matches!(before, '_' | '\''));
            before = character;
            let upper = starts.then(|| character.to_uppercase());
            let same = (!starts).then_some(character);
            upper.into_iter().flatten().chain(same)
        })
        .collect();
    changed.into()
}

/// Docker counts bytes; a character is never cut in two.
fn truncated(text: &str, length: usize) -> &str {
    let end = (0..=length.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

fn length(value: &Data) -> Result<usize, String> {
    match value {
        Data::Text(text) => Ok(text.len()),
        Data::List(items) => Ok(items.len()),
        Data::Map(map) => Ok(map.entries.len()),
        Data::Nil(Nil::List | Nil::Map) => Ok(0),
        Data::Nil(_) => Err("len of nil pointer".to_owned()),
        other => Err(format!("len of type {}", other.type_name())),
    }
}

fn index(arguments: &[Data]) -> Result<Data, String> {
    let Some((value, keys)) = arguments.split_first() else {
        return Err("index of nothing".to_owned());
    };
    keys.iter()
        .try_fold(value.clone(), |value, key| match (&value, key) {
            (Data::Map(map), Data::Text(key)) => Ok(map
                .entries
                .get(&**key)
                .cloned()
                .unwrap_or_else(|| map.zero.clone())),
            (Data::Map(_) | Data::Nil(Nil::Map), other) if !matches!(other, Data::Text(_)) => {
                Err(format!("value has type {}; should be string", other.type_name()))
            }
            (Data::List(items), Data::Int(position)) => usize::try_from(*position)
                .ok()
                .and_then(|position| items.get(position).cloned())
                .ok_or_else(|| format!("index out of range: {position}")),
            (Data::Nil(Nil::List), Data::Int(position)) => Err(format!("index out of range: {position}")),
            (Data::Text(text), Data::Int(position)) => usize::try_from(*position)
                .ok()
                .and_then(|position| text.as_bytes().get(position))
                .map(|byte| Data::Int((*byte).into()))
                .ok_or_else(|| format!("index out of range: {position}")),
            (Data::List(_) | Data::Nil(Nil::List) | Data::Text(_), other) => Err(format!(
                "cannot index slice/array with type {}",
                other.type_name()
            )),
            (Data::Nil(Nil::Map), _) => Ok(Data::Nil(Nil::Any)),
            (Data::Nil(Nil::Any), _) => Err("index of untyped nil".to_owned()),
            (Data::Nil(Nil::Pointer), _) => Err("index of nil pointer".to_owned()),
            (other, _) => Err(format!("can't index item of type {}", other.type_name())),
        })
}

fn slice(arguments: &[Data]) -> Result<Data, String> {
    let Some((value, bounds)) = arguments.split_first() else {
        return Err("slice of nothing".to_owned());
    };
    let length = match value {
        Data::Text(_) | Data::List(_) => length(value)?,
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let bound = |position: usize, default: usize| match bounds.get(position) {
        None => Ok(default),
        Some(Data::Int(bound)) => usize::try_from(*bound)
            .ok()
            .filter(|bound| *bound <= length)
            .ok_or_else(|| format!("index out of range: {bound}")),
        Some(other) => Err(format!(
            "cannot index slice/array with type {}",
            other.type_name()
        )),
    };
    if bounds.len() > 2 {
        return Err(format!("too many slice indexes: {}", bounds.len()));
    }
    let (start, end) = (bound(0, 0)?, bound(1, length)?);
    if start > end {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    match value {
        Data::List(items) => Ok(Data::List(items[start..end].into())),
        Data::Text(text) => Ok(String::from_utf8_lossy(&text.as_bytes()[start..end])
            .into_owned()
            .into()),
        _ => Ok(value.clone()),
    }
}

fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\0' => escaped.push('\u{fffd}'),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn js(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '\'' | '"' => escaped.extend(['\\', character]),
            '<' | '>' | '&' | '=' => escaped.push_str(&format!("\\u{:04X}", u32::from(character))),
            control if control.is_control() => escaped.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => escaped.push(other),
        }
    }
    escaped
}

fn url_query(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            b' ' => escaped.push('+'),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}
