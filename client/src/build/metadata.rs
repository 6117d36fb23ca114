//! What came out of a build, as files: `--metadata-file`, `--iidfile`.

use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use serde_json::{Map, Value};

use super::solve::Response;
use crate::builders::write_atomically;

/// The id of the image: the digest of its configuration, else of its manifest or index.
pub fn image_id(response: &Response) -> &str {
    response
        .get("containerimage.config.digest")
        .or_else(|| response.get("containerimage.digest"))
        .map_or("", String::as_str)
}

/// All answers of the exporters; a value that is an encoded object is written as that object.
pub fn write(path: &Path, response: &Response, build: &str) -> anyhow::Result<()> {
    let mut values: std::collections::BTreeMap<&str, Value> = response
        .iter()
        .map(|(name, value)| (name.as_str(), decode(value)))
        .collect();
    values.insert("buildx.build.ref", Value::String(build.to_owned()));
    let object: Map<String, Value> = values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let text = serde_json::to_vec_pretty(&object).context("writing build metadata")?;
    write_atomically(path, &text).with_context(|| format!("writing build metadata to {}", path.display()))
}

fn decode(value: &str) -> Value {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(value)
        .unwrap_or_default();
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(object @ Value::Object(_)) => object,
        _ => Value::String(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_objects_are_written_as_objects() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        let descriptor =
            base64::engine::general_purpose::STANDARD.encode(r#"{"size":3,"digest":"sha256:x"}"#);
        let response = Response::from([
            ("containerimage.digest".to_owned(), "sha256:x".to_owned()),
            ("containerimage.descriptor".to_owned(), descriptor),
            ("image.name".to_owned(), "abcd".to_owned()),
        ]);
        write(&path, &response, "b/b0/ref").unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\n  \"buildx.build.ref\": \"b/b0/ref\",\n  \"containerimage.descriptor\": {\n    \"size\": 3,\n    \"digest\": \"sha256:x\"\n  },\n  \"containerimage.digest\": \"sha256:x\",\n  \"image.name\": \"abcd\"\n}"
        );
        assert_eq!(image_id(&response), "sha256:x");
    }
}
