//! `--format`: a Go template over an image.

use gotmpl::Template;
use registry::Client;
use registry::manifest::Document;
use serde_json::{Value, json};

use super::data::{Data, Values};
use super::load::{self, Image, InspectError};
use super::print::summary;
use super::schema;

#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("in the template of --format")]
    Template(#[from] gotmpl::TemplateError),
    #[error("{field} is not supported yet in --format: use .Name, .Manifest, .Image and .BuildInfo")]
    Unsupported { field: &'static str },
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("the manifest cannot be shown as JSON")]
    Json(#[from] serde_json::Error),
}

pub async fn render(
    client: &Client,
    image: &Image,
    name: &str,
    format: &str,
) -> Result<String, TemplateError> {
    for field in [".SBOM", ".Provenance"] {
        if format.contains(field) {
            return Err(TemplateError::Unsupported { field });
        }
    }
    let values = Values::default();
    let json_values = values.clone();
    let template = Template::new("format")
        .func("json", move |arguments| {
            let value = arguments
                .first()
                .map_or(Data::Null, |value| json_values.original(value));
            Ok(gotmpl::Value::String(value.to_json().into()))
        })
        .parse(format)?;
    if is_whole_manifest(format) {
        return Ok(summary(image));
    }
    // A template that asks only for names needs no configuration.
    let needs_configs = format.contains(".Image") || format.contains(".BuildInfo") || !only_names(format);
    let configs = if needs_configs {
        load::configs(client, image).await?
    } else {
        load::Configs::default()
    };
    let platforms = configs.images.len();
    let read = |shape: schema::Shape, map: std::collections::BTreeMap<String, Value>| {
        let map = map
            .into_iter()
            .map(|(platform, value)| (platform, shape.read(&value)))
            .collect();
        schema::by_platform(map, platforms)
    };
    let root = schema::root(
        name,
        manifest(image)?,
        read(schema::IMAGE, configs.images),
        read(schema::BUILD_INFO, configs.build_infos),
    );
    Ok(template.execute_to_string(&values.convert(&root))?)
}

/// `{{.Manifest}}` alone is the default output.
fn is_whole_manifest(format: &str) -> bool {
    let inside = format
        .trim()
        .strip_prefix("{{")
        .and_then(|rest| rest.strip_suffix("}}"));
    inside.is_some_and(|inside| inside.trim() == ".Manifest")
}

/// Whether every action of the template begins with a field that needs no configuration.
fn only_names(format: &str) -> bool {
    format.split("{{").skip(1).all(|action| {
        let action = action.trim_start_matches('-').trim_start();
        let action = action.strip_prefix("json ").unwrap_or(action);
        action.starts_with(".Name") || action.starts_with(".Manifest")
    })
}

fn manifest(image: &Image) -> Result<Data, serde_json::Error> {
    let descriptor = image.raw.descriptor();
    match &image.document {
        Document::Manifest(_) => Ok(schema::DESCRIPTOR.read(&serde_json::to_value(descriptor)?)),
        Document::Index(index) => {
            let mut value = serde_json::to_value(index)?;
            value["digest"] = json!(descriptor.digest);
            value["size"] = json!(descriptor.size);
            Ok(schema::INDEX.read(&value))
        }
    }
}

#[cfg(test)]
mod tests;
