//! The default output: the image, and the manifests of its index.

use registry::manifest::Document;
use registry::{Descriptor, Index, Reference};

use super::load::Image;
use crate::table::{self, Line};

pub fn summary(image: &Image) -> String {
    let reference = &image.reference;
    let mut text = table::aligned(&[
        Line::pair("Name:", reference),
        Line::pair("MediaType:", &image.raw.media_type),
        Line::pair("Digest:", &image.raw.digest),
    ]);
    if let Some(Document::Index(index)) = &image.document {
        text.push_str(&manifests(reference, index));
    }
    text
}

fn manifests(reference: &Reference, index: &Index) -> String {
    let mut text = table::aligned(&[Line::pair("", ""), Line::pair("Manifests:", "")]);
    // Lines share a column until annotations interrupt them.
    let mut lines = Vec::new();
    for (position, entry) in index.manifests.iter().enumerate() {
        if position > 0 {
            lines.push(Line::pair("", ""));
        }
        describe(reference, entry, &mut lines);
        if let Some(annotations) = entry
            .annotations
            .as_ref()
            .filter(|map| entry.platform.is_some() && !map.is_empty())
        {
            lines.push(Line::pair("  Annotations:", ""));
            text.push_str(&table::aligned(&lines));
            lines.clear();
            let pairs: Vec<Line> = annotations
                .iter()
                .map(|(key, value)| Line::pair(&format!("    {key}:"), value))
                .collect();
            text.push_str(&table::aligned(&pairs));
        }
    }
    text.push_str(&table::aligned(&lines));
    text
}

fn describe(reference: &Reference, entry: &Descriptor, lines: &mut Vec<Line>) {
    lines.push(Line::pair(
        "  Name:",
        &reference.clone().pinned(entry.digest.clone()),
    ));
    lines.push(Line::pair("  MediaType:", &entry.media_type));
    let Some(platform) = &entry.platform else { return };
    let name = if platform.os.is_empty() {
        "unknown".to_owned()
    } else {
        platform.to_string()
    };
    lines.push(Line::pair("  Platform:", &name));
    if !platform.os_version.is_empty() {
        lines.push(Line::pair("  OSVersion:", &platform.os_version));
    }
    if !platform.os_features.is_empty() {
        lines.push(Line::pair("  OSFeatures:", &platform.os_features.join(", ")));
    }
    if !entry.urls.is_empty() {
        lines.push(Line::pair("  URLs:", &entry.urls.join(", ")));
    }
}
