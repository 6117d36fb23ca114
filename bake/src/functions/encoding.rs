//! Base64, URLs, JSON, CSV.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Arguments, Fault, Function, Outcome};
use crate::csv;
use crate::value::{Value, json};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("base64encode", &["str"], |a| {
        Ok(Value::String(STANDARD.encode(a.text(0)?)))
    }),
    Function::new("base64decode", &["str"], |a| {
        let bytes = STANDARD
            .decode(a.text(0)?)
            .map_err(|error| Fault::from(format!("failed to decode base64 data: {error}")))?;
        String::from_utf8(bytes)
            .map(Value::String)
            .map_err(|_| "the result of decoding the provided string is not valid UTF-8".into())
    }),
    Function::new("urlencode", &["str"], |a| {
        let mut out = String::new();
        for byte in a.text(0)?.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(char::from(byte));
                }
                b' ' => out.push('+'),
                other => out.push_str(&format!("%{other:02X}")),
            }
        }
        Ok(Value::String(out))
    }),
    Function::new("jsonencode", &["val"], |a| {
        Ok(Value::String(json::encode(a.value(0))))
    })
    .with_null(),
    Function::new("jsondecode", &["str"], |a| {
        json::decode(&a.text(0)?).map_err(|why| Fault::of(0, why))
    }),
    Function::new("csvdecode", &["str"], csv_decode),
];

fn csv_decode(arguments: &Arguments<'_>) -> Outcome {
    let text = arguments.text(0)?;
    let mut records = records(&text)?.into_iter();
    let header = records.next().ok_or("missing header line")?;
    let mut rows = Vec::new();
    for (at, record) in records.enumerate() {
        if record.len() != header.len() {
            return Err(format!("record on line {}: wrong number of fields", at + 2).into());
        }
        let cells = header.iter().cloned().zip(record.into_iter().map(Value::String));
        rows.push(Value::Object(cells.collect()));
    }
    Ok(Value::List(rows))
}

/// A quoted field may hold the end of a line.
fn records(text: &str) -> Result<Vec<Vec<String>>, Fault> {
    let mut records = Vec::new();
    let mut record = String::new();
    for line in text.split('\n') {
        if !record.is_empty() {
            record.push('\n');
        }
        record.push_str(line);
        if record.matches('"').count() % 2 == 1 {
            continue;
        }
        let whole = record.strip_suffix('\r').unwrap_or(&record);
        if !whole.is_empty() {
            records.push(csv::fields(whole, ',').map_err(String::from)?);
        }
        record.clear();
    }
    if record.is_empty() {
        Ok(records)
    } else {
        Err("a quote is not closed".into())
    }
}
