//! Takes what looks like a secret out of what leaves the machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gojson;

const MASK: &str = "xxxxx";
/// Names of options whose values give access. Longer names end with one of these as well.
const KEYS: [&str; 5] = [
    "ghtoken",
    "token",
    "access_key_id",
    "secret_access_key",
    "session_token",
];

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CacheImport {
    r#type: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// Cache options with nothing but their names and scopes.
pub(super) fn clean_cache_imports(json: &str) -> Option<String> {
    let mut imports: Vec<CacheImport> = serde_json::from_str(json).ok()?;
    for import in &mut imports {
        import
            .attrs
            .retain(|key, _| matches!(key.as_str(), "scope" | "ref"));
    }
    serde_json::to_string(&imports).ok()
}

/// Spans, one JSON object after the other, with cleaned texts among their attributes.
pub(super) fn clean_trace(json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut cleaned = String::new();
    for span in serde_json::Deserializer::from_slice(json).into_iter::<Value>() {
        let mut span = span?;
        let attributes = span.get_mut("Attributes").and_then(Value::as_array_mut);
        for attribute in attributes.into_iter().flatten() {
            if let Some(Value::String(text)) = attribute.pointer_mut("/Value/Value") {
                *text = clean(text);
            }
        }
        cleaned.push_str(&gojson::escape(&serde_json::to_string_pretty(&span)?));
        cleaned.push('\n');
    }
    Ok(cleaned.into_bytes())
}

fn clean(text: &str) -> String {
    clean_tokens(&clean_options(text))
}

/// `token=…` up to a blank or comma.
fn clean_options(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut cleaned = String::new();
    let mut done = 0;
    while let Some(equals) = lower[done..].find('=').map(|at| done + at) {
        let value = equals + 1;
        let end = text[value..]
            .find([' ', ','])
            .map_or(text.len(), |length| value + length);
        let is_secret = KEYS.iter().any(|key| lower[done..equals].ends_with(key));
        cleaned.push_str(&text[done..value]);
        if is_secret && end > value {
            cleaned.push_str(MASK);
            done = end;
        } else {
            done = value;
        }
    }
    cleaned.push_str(&text[done..]);
    cleaned
}

/// Tokens of GitHub, wherever they stand.
fn clean_tokens(text: &str) -> String {
    let mut cleaned = text.to_owned();
    for (start, length) in [("ghu_", 36), ("ghs_", 36), ("github_pat_", 82)] {
        let mut from = 0;
        while let Some(at) = cleaned[from..].find(start).map(|at| from + at) {
            let secret = &cleaned[at + start.len()..];
            let characters = secret
                .bytes()
                .take_while(|byte| byte.is_ascii_alphanumeric() || (*byte == b'_' && length > 36))
                .count();
            if characters >= length {
                cleaned.replace_range(at..at + start.len() + length, MASK);
            }
            from = at + 1;
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_access_is_masked() {
        let token = format!("ghs_{}", "a1".repeat(18));
        let long = format!("github_pat_{}", "b_".repeat(41));
        for (text, cleaned) in [
            (
                "type=gha,token=abc,scope=x",
                "type=gha,token=xxxxx,scope=x".to_owned(),
            ),
            ("GHToken=abc rest", "GHToken=xxxxx rest".to_owned()),
            ("secret_access_key=a=b,c", "secret_access_key=xxxxx,c".to_owned()),
            ("token=", "token=".to_owned()),
            ("name=value", "name=value".to_owned()),
            (token.as_str(), MASK.to_owned()),
            (long.as_str(), MASK.to_owned()),
            ("ghs_short", "ghs_short".to_owned()),
            ("tökén=ü token=ü", "tökén=ü token=xxxxx".to_owned()),
        ] {
            assert_eq!(clean(text), cleaned);
        }
    }

    #[test]
    fn cache_options_keep_only_their_place() {
        assert_eq!(
            clean_cache_imports(r#"[{"Type":"s3","Attrs":{"ref":"r","access_key_id":"secret"}}]"#).unwrap(),
            r#"[{"Type":"s3","Attrs":{"ref":"r"}}]"#
        );
        assert_eq!(clean_cache_imports("no list"), None);
    }

    #[test]
    fn traces_are_cleaned_span_by_span() {
        let trace = br#"{"Name":"a","Attributes":[{"Key":"c","Value":{"Type":"STRING","Value":"token=s"}}]}{"Name":"b"}"#;
        let cleaned = String::from_utf8(clean_trace(trace).unwrap()).unwrap();
        assert!(cleaned.contains("token=xxxxx"), "{cleaned}");
        assert!(cleaned.ends_with("{\n  \"Name\": \"b\"\n}\n"), "{cleaned}");
        assert!(clean_trace(b"{").is_err());
    }
}
