//! The part of a build that one node does: its platforms, and outputs that fit together with those of other nodes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use binfmt::Platform;
use registry::Reference;

use super::outputs::Output;
use super::request::Plan;

#[derive(Clone, Debug)]
pub struct Part {
    pub attributes: BTreeMap<String, String>,
    pub outputs: Vec<Output>,
}

/// What is done with the images that several nodes have pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The names of the index over them.
    pub names: Vec<String>,
    /// The registry is spoken to without TLS.
    pub insecure: bool,
    /// Annotations of the index, by the attributes that gave them.
    pub annotations: BTreeMap<String, String>,
}

impl Plan {
    /// All of the build, for a node that does it alone.
    pub fn whole(&self) -> Part {
        Part {
            attributes: self.attributes.clone(),
            outputs: self.outputs.clone(),
        }
    }

    /// What one of several nodes does. Each pushes without a name; the names are for what is made of all of it.
    pub fn part(&self, platforms: &[Platform]) -> anyhow::Result<Part> {
        let mut part = self.whole();
        let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        part.attributes.insert("platform".to_owned(), platforms.join(","));
        // Also a single platform becomes an index, or a folder of its own.
        part.attributes
            .insert("multi-platform".to_owned(), "true".to_owned());
        for output in &mut part.outputs {
            if matches!(output.kind.as_str(), "oci" | "tar" | "docker") {
                bail!(
                    "{} for multi-node builds currently not supported: build on one node, or use --push or type=local",
                    output.kind
                );
            }
            if output.pushes() {
                let names = output.attributes.get("name").map_or("", String::as_str);
                let repositories = repositories(names)?;
                output.attributes.insert("name".to_owned(), repositories);
                output
                    .attributes
                    .insert("push-by-digest".to_owned(), "true".to_owned());
            }
        }
        Ok(part)
    }

    /// What is to be made of the images that several nodes push.
    pub fn merge(&self) -> anyhow::Result<Option<Merge>> {
        let Some(output) = self.outputs.iter().find(|output| output.pushes()) else {
            return Ok(None);
        };
        let names = output.attributes.get("name").map_or("", String::as_str);
        let names: Vec<String> = list(names).map(str::to_owned).collect();
        ensure!(!names.is_empty(), "tag is needed when pushing to registry");
        let is_true = |name: &str| {
            let value = output.attributes.get(name).map(String::as_str);
            matches!(value, Some("" | "true" | "1"))
        };
        // Nothing is named by who asked for digests only.
        if is_true("push-by-digest") {
            return Ok(None);
        }
        let annotations = output
            .attributes
            .iter()
            .filter(|(key, _)| {
                key.starts_with("annotation-index.")
                    || key.starts_with("annotation-index[")
                    || key.starts_with("annotation-manifest-descriptor")
            })
            .map(|(key, value)| (key.clone(), value.clone()));
        Ok(Some(Merge {
            names,
            insecure: is_true("registry.insecure"),
            annotations: annotations.collect(),
        }))
    }
}

fn list(names: &str) -> impl Iterator<Item = &str> {
    names.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// The repositories of a list of names, each once.
fn repositories(names: &str) -> anyhow::Result<String> {
    let repositories = list(names).map(|name| {
        let reference: Reference = name.parse().with_context(|| format!("invalid tag \"{name}\""))?;
        Ok(reference.repository().to_string())
    });
    let repositories = repositories.collect::<anyhow::Result<BTreeSet<String>>>()?;
    Ok(repositories.into_iter().collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::request::Flags;
    use crate::settings::Settings;

    fn plan(outputs: &[&str], tags: &[&str]) -> (tempfile::TempDir, Plan) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let flags = Flags {
            context: folder.path().to_str().unwrap().to_owned(),
            outputs: own(outputs),
            tags: own(tags),
            annotations: own(&["index:a=b", "c=d"]),
            ..Flags::default()
        };
        let plan = Plan::new(&flags, &Settings::of(&[])).unwrap();
        (folder, plan)
    }

    #[test]
    fn nodes_push_without_a_name_what_is_named_together() {
        let tags = ["localhost:5000/a/b:1", "localhost:5000/a/b:2", "c"];
        let (_folder, plan) = plan(&["type=registry", "type=local,dest=out"], &tags);
        let part = plan.part(&[Platform::linux("arm64")]).unwrap();
        assert_eq!(part.attributes["platform"], "linux/arm64");
        assert_eq!(part.attributes["multi-platform"], "true");
        let pushed = &part.outputs[0].attributes;
        assert_eq!(pushed["name"], "docker.io/library/c,localhost:5000/a/b");
        assert_eq!(pushed["push-by-digest"], "true");
        let merge = plan.merge().unwrap().unwrap();
        assert_eq!(
            merge.names,
            [
                "localhost:5000/a/b:1",
                "localhost:5000/a/b:2",
                "docker.io/library/c:latest"
            ]
        );
        assert_eq!(
            merge.annotations.keys().collect::<Vec<_>>(),
            ["annotation-index.a"]
        );
    }

    #[test]
    fn what_cannot_be_put_together_is_refused() {
        for output in ["type=oci,dest=x", "type=tar,dest=x", "type=docker,dest=x"] {
            let (_folder, plan) = plan(&[output], &[]);
            let error = plan.part(&[]).unwrap_err().to_string();
            assert!(error.contains("multi-node"), "{error}");
        }
        let (_folder, plan) = plan(&["type=image"], &["a"]);
        assert_eq!(plan.merge().unwrap(), None);
    }
}
