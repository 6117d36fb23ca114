//! JSON text as Go's encoder writes it, so that the same image has the same digest whichever builder wrote it.

use serde::Serialize;

/// One line, as `json.Marshal`.
pub fn compact<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    Ok(escape(serde_json::to_string(value)?))
}

/// Indented by two spaces, as `json.MarshalIndent(value, "", "  ")`: the form of manifests and indexes.
pub fn indented<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    Ok(escape(serde_json::to_string_pretty(value)?))
}

/// Go escapes what HTML or JavaScript could trip over. These characters occur only inside strings.
fn escape(text: String) -> Vec<u8> {
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text.into_bytes();
    }
    let mut escaped = String::with_capacity(text.len() + 32);
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", character as u32));
            }
            other => escaped.push(other),
        }
    }
    escaped.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_escaped_as_go_does() {
        let text = compact(&"echo a && b > c < d \u{2028}é\u{7f}\u{1}").unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "\"echo a \\u0026\\u0026 b \\u003e c \\u003c d \\u2028é\u{7f}\\u0001\""
        );
    }
}
