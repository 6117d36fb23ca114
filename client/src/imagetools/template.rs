//! `--format`: a Go template over an image.

use std::collections::BTreeMap;

use registry::Client;
use registry::manifest::Document;
use serde_json::{Value, json};

use super::build_info;
use super::load::{self, Asset, Image, InspectError, Needs};
use super::print::summary;
use super::schema;
use crate::format::{Data, FormatError, Json, Nil, Template, map};

#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("the manifest cannot be shown as JSON")]
    Json(#[from] serde_json::Error),
}

/// Parses `--format` of `imagetools inspect`.
pub fn parse(format: &str) -> Result<Template, FormatError> {
    Template::parse(format, Json::Indented)
}

/// What `template` makes of the image; `format` is its text and `name` what the user called the image.
pub async fn render(
    client: &Client,
    image: &Image,
    name: &str,
    (format, template): (&str, &Template),
) -> Result<String, TemplateError> {
    if is_only(format, ".Manifest") {
        return Ok(summary(image));
    }
    let uses = |field: &str| template.uses(field) || template.uses_whole();
    let needs = Needs {
        configs: uses("Image") || uses("BuildInfo"),
        // JSON of the whole does not have these two.
        provenance: template.uses("Provenance"),
        sbom: template.uses("SBOM"),
    };
    let assets = if needs == Needs::default() {
        BTreeMap::new()
    } else {
        load::assets(client, image, needs).await?
    };
    let infos: BTreeMap<String, Value> = assets
        .iter()
        .filter_map(|(platform, asset)| Some((platform.clone(), build_info::of_config(&asset.config)?)))
        .collect();
    if is_only(format, ".BuildInfo") {
        return Ok(build_info::printed(&image.reference.to_string(), &infos));
    }
    let infos = infos
        .iter()
        .map(|(platform, info)| (platform.clone(), schema::BUILD_INFO.read(info)))
        .collect();
    let many = assets.len() > 1;
    let configs = assets
        .iter()
        .map(|(platform, asset)| (platform.clone(), schema::IMAGE.read(&asset.config)))
        .collect();
    let root = schema::root(
        name,
        manifest(image)?,
        by_platform(configs, many),
        by_platform(infos, many),
        statements(&assets, many, provenance),
        statements(&assets, many, sbom),
    );
    Ok(template.render(&root)?)
}

/// Whether the template is this field and nothing else, which has a layout of its own.
fn is_only(format: &str, field: &str) -> bool {
    let inside = format
        .trim()
        .strip_prefix("{{")
        .and_then(|rest| rest.strip_suffix("}}"));
    inside.is_some_and(|inside| inside.trim() == field)
}

/// One value for one platform, a map for several.
fn by_platform(mut values: BTreeMap<String, Data>, many: bool) -> Data {
    if many {
        return map(values, Data::Nil(Nil::Pointer));
    }
    values
        .pop_first()
        .map_or(Data::Nil(Nil::Pointer), |(_, value)| value)
}

/// The documents of all platforms that have some; for one platform, an empty one if it has none.
fn statements(assets: &BTreeMap<String, Asset>, many: bool, read: fn(&Asset) -> Option<Data>) -> Data {
    let mut found: BTreeMap<String, Data> = assets
        .iter()
        .filter_map(|(platform, asset)| Some((platform.clone(), read(asset)?)))
        .collect();
    let nothing = read(&Asset::default()).unwrap_or_else(schema::no_document);
    if many {
        return map(found, nothing);
    }
    found.pop_first().map_or(nothing, |(_, value)| value)
}

fn provenance(asset: &Asset) -> Option<Data> {
    asset
        .statements
        .provenance
        .as_ref()
        .map(|predicate| schema::provenance(Data::any(predicate)))
}

fn sbom(asset: &Asset) -> Option<Data> {
    let (first, others) = asset.statements.sboms.split_first()?;
    Some(schema::sbom(
        Data::any(first),
        Data::list(others.iter().map(Data::any)),
    ))
}

fn manifest(image: &Image) -> Result<Data, serde_json::Error> {
    let descriptor = image.raw.descriptor();
    match &image.document {
        None => Ok(Data::Nil(Nil::Any)),
        Some(Document::Manifest(_)) => Ok(schema::DESCRIPTOR.read(&serde_json::to_value(descriptor)?)),
        Some(Document::Index(index)) => {
            let mut value = serde_json::to_value(index)?;
            value["digest"] = json!(descriptor.digest);
            value["size"] = json!(descriptor.size);
            Ok(schema::INDEX.read(&value))
        }
    }
}

#[cfg(test)]
mod tests;
