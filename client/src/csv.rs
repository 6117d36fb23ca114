//! Comma-separated values on command lines: `type=local,"dest=a,b"`.

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CsvError {
    #[error("a quote in \"{text}\" is not closed")]
    OpenQuote { text: String },
    #[error("a quote in \"{text}\" is not at the border of a field")]
    StrayQuote { text: String },
}

/// The fields of one record. A field may be quoted as a whole; a quote inside is then doubled.
pub fn fields(text: &str) -> Result<Vec<String>, CsvError> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = rest
                .split_once(',')
                .map_or((rest, None), |(field, after)| (field, Some(after)));
            if field.contains('"') {
                return Err(CsvError::StrayQuote {
                    text: text.to_owned(),
                });
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut from = quoted;
        loop {
            let Some((part, after)) = from.split_once('"') else {
                return Err(CsvError::OpenQuote {
                    text: text.to_owned(),
                });
            };
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(after) => {
                    field.push('"');
                    from = after;
                }
                None => {
                    from = after;
                    break;
                }
            }
        }
        fields.push(field);
        match from.strip_prefix(',') {
            Some(after) => rest = after,
            None if from.is_empty() => return Ok(fields),
            None => {
                return Err(CsvError::StrayQuote {
                    text: text.to_owned(),
                });
            }
        }
    }
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
        ] {
            assert_eq!(fields(text).unwrap(), expected);
        }
        for text in ["a\"b", "\"a", "\"a\"b"] {
            assert!(fields(text).is_err(), "{text}");
        }
    }
}
