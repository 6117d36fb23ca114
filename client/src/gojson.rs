//! JSON as Go's encoder writes it unless told otherwise.

/// Escapes what HTML could take for its own. In JSON these characters only ever stand in strings.
pub fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes_mean_what_they_replace() {
        let text = "</script> & \u{2028}";
        let json = super::escape(&serde_json::to_string(text).unwrap());
        assert_eq!(json, r#""\u003c/script\u003e \u0026 \u2028""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
