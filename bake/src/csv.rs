//! One record of comma-separated values: `type=local,"dest=a,b"`. Maps on the command line use colons in its place.

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CsvError {
    #[error("a quote in \"{text}\" is not closed")]
    OpenQuote { text: String },
    #[error("a quote in \"{text}\" is not at the border of a field")]
    StrayQuote { text: String },
}

impl From<CsvError> for String {
    fn from(error: CsvError) -> Self {
        error.to_string()
    }
}

/// The fields of one record. A field may be quoted as a whole; a quote inside is then doubled.
pub fn fields(text: &str, separator: char) -> Result<Vec<String>, CsvError> {
    let stray = || CsvError::StrayQuote {
        text: text.to_owned(),
    };
    let open = || CsvError::OpenQuote {
        text: text.to_owned(),
    };
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let after = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (field, after) = quoted_field(quoted).ok_or_else(open)?;
                fields.push(field);
                after
            }
            None => {
                let end = rest.find(separator).unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(stray());
                }
                fields.push(rest[..end].to_owned());
                &rest[end..]
            }
        };
        if after.is_empty() {
            return Ok(fields);
        }
        rest = after.strip_prefix(separator).ok_or_else(stray)?;
    }
}

/// What is inside the quotes, of which two mean one, and what comes after them.
fn quoted_field(mut rest: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        let Some(next) = after.strip_prefix('"') else {
            return Some((field, after));
        };
        field.push('"');
        rest = next;
    }
}

/// Writes `key=value` fields, quoted where they must be.
pub(crate) fn join<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (key, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        let pair = format!("{key}={value}");
        if pair.contains([',', '"']) {
            out.push('"');
            out.push_str(&pair.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&pair);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        for (text, expected) in [
            ("", vec![""]),
            ("type=local,dest=out", vec!["type=local", "dest=out"]),
            (r#"a,"b,c=""d""",e"#, vec!["a", "b,c=\"d\"", "e"]),
            ("a,", vec!["a", ""]),
        ] {
            assert_eq!(fields(text, ',').unwrap(), expected);
        }
        for text in ["a\"b", "\"a", "\"a\"b"] {
            assert!(fields(text, ',').is_err(), "{text}");
        }
        assert_eq!(join([("a", "b"), ("c", "d,\"e\"")]), "a=b,\"c=d,\"\"e\"\"\"");
    }
}
