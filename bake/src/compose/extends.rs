//! `extends` and `include`: services that are described elsewhere.

use std::collections::BTreeMap;

use super::yaml::Yaml;
use super::{Project, Variables, canonical, read};
use crate::error::Error;
use crate::paths;
use crate::source::File;
use crate::world::World;

const DEEPEST: usize = 32;

/// The file's services with everything that they and the file refer to.
pub(super) fn complete(
    root: BTreeMap<String, Yaml>,
    file: &File,
    variables: &Variables,
    world: &World<'_>,
) -> Result<Project, Error> {
    Loader { variables, world }.complete(root, &file.name, 0)
}

struct Loader<'a> {
    variables: &'a Variables,
    world: &'a World<'a>,
}

impl Loader<'_> {
    fn complete(&self, mut root: BTreeMap<String, Yaml>, name: &str, depth: usize) -> Result<Project, Error> {
        let mut project = Project::default();
        if let Some(Yaml::List(includes)) = root.remove("include") {
            for include in includes {
                for path in included(&include) {
                    project.lay_over(self.other_file(&path, name, depth)?);
                }
            }
        }
        let services = map(root.remove("services"));
        let mut own = Project {
            services: BTreeMap::new(),
            secrets: map(root.remove("secrets")),
        };
        for service in services.keys() {
            let completed = self.service(service, &services, name, &mut Vec::new(), depth)?;
            own.services.insert(service.clone(), completed);
        }
        project.lay_over(own);
        Ok(project)
    }

    fn service(
        &self,
        name: &str,
        services: &BTreeMap<String, Yaml>,
        file: &str,
        path: &mut Vec<String>,
        depth: usize,
    ) -> Result<Yaml, Error> {
        let service = services.get(name).ok_or_else(|| {
            Error::invalid(format!(
                "failed to parse compose file: {file}: cannot extend service \"{name}\": service not found"
            ))
        })?;
        let Some(extends) = service.get("extends") else {
            return Ok(service.clone());
        };
        if path.iter().any(|known| known == name) {
            path.push(name.to_owned());
            return Err(Error::invalid(format!(
                "failed to parse compose file: {file}: circular reference with extends: {}",
                path.join(" -> ")
            )));
        }
        if path.len() > DEEPEST {
            return Err(too_deep(file));
        }
        path.push(name.to_owned());
        let base_name = extends
            .text()
            .or_else(|| extends.get("service").and_then(Yaml::text))
            .ok_or_else(|| {
                Error::invalid(format!(
                    "failed to parse compose file: {file}: extends.service of \"{name}\" is required"
                ))
            })?;
        let base = match extends.get("file").and_then(Yaml::text) {
            Some(other) => {
                let project = self.other_file(&other, file, depth)?;
                project.services.get(&base_name).cloned().ok_or_else(|| {
                    Error::invalid(format!(
                        "failed to parse compose file: cannot extend service \"{base_name}\" in {other}: service not found"
                    ))
                })?
            }
            None => self.service(&base_name, services, file, path, depth)?,
        };
        path.pop();
        Ok(canonical::merge(base, service.clone()))
    }

    /// Paths of another file are relative to its folder.
    fn other_file(&self, path: &str, from: &str, depth: usize) -> Result<Project, Error> {
        if depth > DEEPEST {
            return Err(too_deep(path));
        }
        if paths::is_remote(path) {
            return Err(Error::invalid(format!(
                "failed to parse compose file: {path}: remote files cannot be included, fetch it first"
            )));
        }
        let folder = paths::parent(from);
        let relative = if path.starts_with('/') {
            path.to_owned()
        } else {
            paths::join(&folder, path)
        };
        let bytes = (self.world.read)(&relative).map_err(|source| Error::Read {
            path: relative.clone(),
            source,
        })?;
        let file = File {
            name: relative,
            text: String::from_utf8(bytes)
                .map_err(|_| Error::invalid(format!("failed to parse compose file: {path} is not UTF-8")))?,
        };
        let mut project = self.complete(read(&file, self.variables)?, &file.name, depth + 1)?;
        let there = paths::parent(path);
        for service in project.services.values_mut() {
            move_paths(service, &there);
        }
        for secret in project.secrets.values_mut() {
            if let Yaml::Map(entries) = secret {
                move_path(entries, "file", &there);
            }
        }
        Ok(project)
    }
}

fn too_deep(file: &str) -> Error {
    Error::invalid(format!(
        "failed to parse compose file: {file}: files and services refer to each other more than {DEEPEST} levels deep"
    ))
}

fn map(value: Option<Yaml>) -> BTreeMap<String, Yaml> {
    match value {
        Some(Yaml::Map(entries)) => entries,
        _ => BTreeMap::new(),
    }
}

/// A path, or a mapping with one or several.
fn included(include: &Yaml) -> Vec<String> {
    let path = include.get("path").unwrap_or(include);
    match path {
        Yaml::List(list) => list.iter().filter_map(Yaml::text).collect(),
        other => other.text().into_iter().collect(),
    }
}

fn move_paths(service: &mut Yaml, folder: &str) {
    let Yaml::Map(entries) = service else { return };
    let Some(Yaml::Map(build)) = entries.get_mut("build") else {
        return;
    };
    if !build.contains_key("context") {
        build.insert("context".to_owned(), Yaml::Text(".".to_owned()));
    }
    move_path(build, "context", folder);
    if let Some(Yaml::Map(contexts)) = build.get_mut("additional_contexts") {
        let names: Vec<String> = contexts.keys().cloned().collect();
        for name in names {
            move_path(contexts, &name, folder);
        }
    }
}

fn move_path(entries: &mut BTreeMap<String, Yaml>, key: &str, folder: &str) {
    if let Some(Yaml::Text(path)) = entries.get_mut(key) {
        let is_local = !path.contains("://") && !path.contains(':') && !path.starts_with(['/', '~']);
        if is_local {
            *path = crate::definition::rebased(folder, path);
        }
    }
}
