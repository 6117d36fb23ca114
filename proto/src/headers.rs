//! Names of request metadata, and how values that headers cannot carry are escaped.

use tonic::metadata::{Ascii, AsciiMetadataKey, MetadataMap, MetadataValue};

pub const SESSION_ID: &str = "x-docker-expose-session-uuid";
pub const SESSION_NAME: &str = "x-docker-expose-session-name";
pub const SESSION_SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
/// Repeated: one full method name each, compared without case.
pub const SESSION_METHOD: &str = "x-docker-expose-session-grpc-method";
/// Milliseconds.
pub const SESSION_HEALTH_TIMEOUT: &str = "x-buildkit-session-health-custom-timeout";

/// The job that a call of `LLBBridge` belongs to.
pub const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// The daemon's clock in the headers of streams.
pub const CURRENT_TIMESTAMP: &str = "buildkit-current-timestamp";

pub const DIR_NAME: &str = "dir-name";
pub const INCLUDE_PATTERNS: &str = "include-patterns";
pub const EXCLUDE_PATTERNS: &str = "exclude-patterns";
pub const FOLLOW_PATHS: &str = "followpaths";

/// Index of the exporter that a `FileSend` call belongs to.
pub const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
/// Prefix of exporter response values in a `FileSend` call.
pub const EXPORTER_METADATA_PREFIX: &str = "exporter-md-";
/// `1` when an exported folder has one subfolder per platform.
pub const EXPORTER_MULTI_PLATFORM: &str = "buildkit-exporter-multi-platform";

pub const SSH_ID: &str = "buildkit.ssh.id";
pub const UPLOAD_PATH: &str = "urlpath";
pub const UPLOAD_HOST: &str = "urlhost";
/// Which content store of the session is meant: `local:<dir>`, `oci:<name>` or `export`.
pub const CONTENT_STORE: &str = "buildkit-attachable-store-id";

const ENCODED: &str = "-encoded";

#[derive(Debug, thiserror::Error)]
#[error("{key:?} is not a valid name of request metadata")]
pub struct KeyError {
    key: String,
}

/// Appends `values` under `key`. If one of them is not plain ASCII all are escaped, and `<key>-encoded` says so.
pub fn append<I>(metadata: &mut MetadataMap, key: &str, values: I) -> Result<(), KeyError>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let name = |key: &str| {
        AsciiMetadataKey::from_bytes(key.as_bytes()).map_err(|_| KeyError { key: key.to_owned() })
    };
    let values: Vec<_> = values.into_iter().collect();
    let parsed = if values.iter().all(|value| is_plain(value.as_ref())) {
        values
            .iter()
            .map(|value| ascii(value.as_ref()))
            .collect::<Option<Vec<_>>>()
    } else {
        None
    };
    let encoded = parsed.is_none();
    let parsed = parsed.unwrap_or_else(|| {
        values
            .iter()
            .filter_map(|value| ascii(&escape(value.as_ref())))
            .collect()
    });
    for value in parsed {
        metadata.append(name(key)?, value);
    }
    if encoded {
        metadata.insert(name(&format!("{key}{ENCODED}"))?, MetadataValue::from_static("1"));
    }
    Ok(())
}

/// The values of `key`, unescaped.
pub fn values(metadata: &MetadataMap, key: &str) -> Vec<String> {
    let encoded = metadata
        .get(format!("{key}{ENCODED}"))
        .is_some_and(|flag| flag == "1");
    metadata
        .get_all(key)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(|value| {
            if encoded {
                unescape(value)
            } else {
                value.to_owned()
            }
        })
        .collect()
}

/// The first value of `key`.
pub fn value(metadata: &MetadataMap, key: &str) -> Option<String> {
    values(metadata, key).into_iter().next()
}

/// Headers drop blanks at the ends and cannot hold control characters.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value
}

fn ascii(value: &str) -> Option<MetadataValue<Ascii>> {
    value.parse().ok()
}

/// The escaping of URL queries: blanks become `+`.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Undoes [`escape`]; what is not well-formed stays as it is.
fn unescape(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let escaped = (*byte == b'%')
            .then(|| after.get(..2))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, escaped) {
            (_, Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', None) => bytes.push(b' '),
            (byte, None) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_values_stay_as_they_are() {
        let mut metadata = MetadataMap::new();
        append(&mut metadata, INCLUDE_PATTERNS, ["a%20b", "**/*.rs", "!x y"]).unwrap();
        assert_eq!(values(&metadata, INCLUDE_PATTERNS), ["a%20b", "**/*.rs", "!x y"]);
        assert!(metadata.get("include-patterns-encoded").is_none());
    }

    #[test]
    fn other_values_are_escaped_as_in_a_url_query() {
        let mut metadata = MetadataMap::new();
        append(&mut metadata, DIR_NAME, ["ü b+%"]).unwrap();
        assert_eq!(metadata.get(DIR_NAME).unwrap(), "%C3%BC+b%2B%25");
        assert_eq!(metadata.get("dir-name-encoded").unwrap(), "1");
        assert_eq!(value(&metadata, DIR_NAME).as_deref(), Some("ü b+%"));
        append(&mut metadata, "Not a name", ["x"]).unwrap_err();
    }

    proptest! {
        #[test]
        fn every_text_comes_back(texts in prop::collection::vec(any::<String>(), 0..4)) {
            let mut metadata = MetadataMap::new();
            append(&mut metadata, FOLLOW_PATHS, &texts).unwrap();
            prop_assert_eq!(values(&metadata, FOLLOW_PATHS), texts);
        }
    }
}
