//! What came out of a build, as files: `--metadata-file`, `--iidfile`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use serde_json::Value;

use super::solve::Response;
use crate::builders::write_atomically;
use crate::progress::status::VertexWarning;
use crate::settings::Settings;

/// The id of the image: the digest of its configuration, else of its manifest or index.
pub fn image_id(response: &Response) -> &str {
    response
        .get("containerimage.config.digest")
        .or_else(|| response.get("containerimage.digest"))
        .map_or("", String::as_str)
}

/// Whether the user wants the warnings of the build in the file.
pub fn wants_warnings(settings: &Settings) -> bool {
    settings.flag("BUILDX_METADATA_WARNINGS")
}

/// What is written down about one build: all answers of the exporters. A value that is an encoded object, or a list of
/// them, is written as such.
pub fn of_build(response: &Response, warnings: Option<&[VertexWarning]>) -> anyhow::Result<Value> {
    let mut values: BTreeMap<&str, Value> = response
        .iter()
        .map(|(name, value)| (name.as_str(), decode(value)))
        .collect();
    if let Some(warnings) = warnings.filter(|warnings| !warnings.is_empty()) {
        let warnings = serde_json::to_value(warnings).context("writing warnings into build metadata")?;
        values.insert("buildx.build.warnings", warnings);
    }
    let object = values.into_iter().map(|(name, value)| (name.to_owned(), value));
    Ok(Value::Object(object.collect()))
}

pub fn write(path: &Path, metadata: &Value) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(metadata).context("writing build metadata")?;
    write_atomically(path, &text).with_context(|| format!("writing build metadata to {}", path.display()))
}

fn decode(value: &str) -> Value {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(value)
        .unwrap_or_default();
    let is_object = |value: &Value| value.as_object().is_some_and(|object| !object.is_empty());
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(object) if is_object(&object) => object,
        Ok(Value::Array(list)) if !list.is_empty() && list.iter().all(Value::is_object) => Value::Array(list),
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
            ("buildx.build.ref".to_owned(), "b/b0/ref".to_owned()),
        ]);
        write(&path, &of_build(&response, Some(&[])).unwrap()).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\n  \"buildx.build.ref\": \"b/b0/ref\",\n  \"containerimage.descriptor\": {\n    \"size\": 3,\n    \"digest\": \"sha256:x\"\n  },\n  \"containerimage.digest\": \"sha256:x\",\n  \"image.name\": \"abcd\"\n}"
        );
        assert_eq!(image_id(&response), "sha256:x");
    }
}
