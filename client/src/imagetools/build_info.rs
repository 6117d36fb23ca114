//! Build information as BuildKit wrote it into configurations in 2022, and as buildx 0.8 and 0.9 printed it.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

use crate::table::{self, Line};

const KEY: &str = "moby.buildkit.buildinfo.v1";

/// What a configuration says of its build: JSON in base64 inside of JSON. What cannot be decoded is not there.
pub fn of_config(config: &Value) -> Option<Value> {
    let text = config.get(KEY)?.as_str()?;
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Info {
    frontend: String,
    attrs: BTreeMap<String, Option<String>>,
    sources: Vec<Source>,
    deps: BTreeMap<String, Self>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    r#type: String,
    r#ref: String,
    pin: String,
}

/// `{{.BuildInfo}}` alone: one block, or one for each platform under its name.
pub fn printed(name: &str, infos: &BTreeMap<String, Value>) -> String {
    let mut text = table::aligned(&[Line::pair("Name:", name)]);
    for (platform, info) in infos {
        let info = Info::deserialize(info).unwrap_or_default();
        if infos.len() > 1 {
            // The platform stood in a column of its own.
            text.push_str(&format!("          \nPlatform: {platform} \n"));
        }
        text.push_str(&block(&info, ""));
    }
    text
}

/// Each heading ends a run of lines whose values stand in one column.
fn block(info: &Info, indent: &str) -> String {
    let inner = format!("{indent}  ");
    let mut text = String::new();
    let mut run = vec![Line::pair(&format!("{indent}Frontend:"), &info.frontend)];
    let mut heading = |run: &mut Vec<Line>, name: &str| {
        run.push(Line::pair(&format!("{indent}{name}:"), ""));
        text.push_str(&table::aligned(&std::mem::take(run)));
    };
    if !info.attrs.is_empty() {
        heading(&mut run, "Attrs");
        for (key, value) in &info.attrs {
            let value = value.as_deref().unwrap_or_default();
            run.push(Line::pair(&format!("{inner}{key}:"), value));
        }
    }
    if !info.sources.is_empty() {
        heading(&mut run, "Sources");
        for (position, source) in info.sources.iter().enumerate() {
            if position > 0 {
                run.push(Line::pair("", ""));
            }
            run.push(Line::pair(&format!("{inner}Type:"), &source.r#type));
            run.push(Line::pair(&format!("{inner}Ref:"), &source.r#ref));
            run.push(Line::pair(&format!("{inner}Pin:"), &source.pin));
        }
    }
    if !info.deps.is_empty() {
        heading(&mut run, "Deps");
        for (position, (name, dependency)) in info.deps.iter().enumerate() {
            if position > 0 {
                run.push(Line::pair("", ""));
            }
            run.push(Line::pair(&format!("{inner}Name:"), name));
            text.push_str(&table::aligned(&std::mem::take(&mut run)));
            text.push_str(&block(dependency, &inner));
        }
    }
    text.push_str(&table::aligned(&run));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_2022() {
        let info = serde_json::json!({
            "frontend": "dockerfile.v0",
            "attrs": {"filename": "Dockerfile", "build-arg:FOO": "bar", "none": null},
            "sources": [
                {"type": "docker-image", "ref": "docker.io/library/alpine:3.16", "pin": "sha256:00"},
                {"type": "git", "ref": "https://example.com/a.git", "pin": "0123"},
            ],
            "deps": {"base": {"frontend": "gateway.v0"}},
        });
        let block = "Frontend: dockerfile.v0\nAttrs:    \n  build-arg:FOO: bar\n  filename:      Dockerfile\n  none:          \nSources:         \n  Type: docker-image\n  Ref:  docker.io/library/alpine:3.16\n  Pin:  sha256:00\n        \n  Type: git\n  Ref:  https://example.com/a.git\n  Pin:  0123\nDeps:   \n  Name: base\n  Frontend: gateway.v0\n";
        let one = BTreeMap::from([("linux/amd64".to_owned(), info.clone())]);
        assert_eq!(printed("x", &one), format!("Name: x\n{block}"));
        let two = BTreeMap::from([
            ("linux/amd64".to_owned(), info.clone()),
            ("linux/arm64".to_owned(), info),
        ]);
        let line = "          \n";
        assert_eq!(
            printed("x", &two),
            format!("Name: x\n{line}Platform: linux/amd64 \n{block}{line}Platform: linux/arm64 \n{block}")
        );
        assert_eq!(printed("x", &BTreeMap::new()), "Name: x\n");
    }
}
