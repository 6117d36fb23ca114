//! Compose files: each service that is built is a target, and all of them are the group "default".
//!
//! Of a compose file only what says how images are built is looked at, and the key `x-bake` inside `build`.

mod canonical;
mod dotenv;
mod extends;
mod interpolate;
mod service;
mod yaml;

use std::collections::BTreeMap;

use crate::error::Error;
use crate::module::is_valid_name;
use crate::selection::sanitize;
use crate::source::File;
use crate::target::{Group, Target};
use crate::world::World;
use yaml::Yaml;

/// What the files say once they are laid over each other.
#[derive(Debug, Default)]
struct Project {
    services: BTreeMap<String, Yaml>,
    secrets: BTreeMap<String, Yaml>,
}

type Variables = BTreeMap<String, String>;

/// Whether the file can be read as a compose file.
pub(crate) fn check(file: &File, world: &World<'_>) -> Result<(), Error> {
    let variables = variables(world)?;
    read(file, &variables).map(|_| ())
}

pub(crate) fn load(files: &[&File], world: &World<'_>) -> Result<(Vec<Group>, Vec<Target>), Error> {
    let variables = variables(world)?;
    let mut project = Project::default();
    for file in files {
        let next = extends::complete(read(file, &variables)?, file, &variables, world)?;
        project.lay_over(next);
    }
    let mut targets = Vec::new();
    for (name, service) in &project.services {
        let failed =
            |why: String| Error::invalid(format!("failed to parse compose file: services.{name}: {why}"));
        let target_name = sanitize(name);
        let Some(mut target) =
            service::target(service, &project.secrets, &variables, world).map_err(failed)?
        else {
            continue;
        };
        if !is_valid_name(&target_name) {
            return Err(Error::invalid(format!(
                "failed to parse compose file: invalid service name \"{target_name}\": only \"[a-zA-Z0-9_-]+\" are allowed"
            )));
        }
        target.name = target_name;
        if world.file_relative_paths
            && let Some(first) = files.first()
        {
            place(&mut target, &crate::paths::parent(&first.name));
        }
        targets.push(target);
    }
    if project.services.is_empty() {
        return Ok((Vec::new(), targets));
    }
    let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
    let group = Group {
        name: "default".to_owned(),
        targets: (!names.is_empty()).then_some(names),
        ..Group::default()
    };
    Ok((vec![group], targets))
}

/// The environment, completed by the file `.env` of the working folder, and what was given for this run.
fn variables(world: &World<'_>) -> Result<Variables, Error> {
    let mut variables = world.environment.clone();
    match (world.read)(".env") {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let found = dotenv::parse(&text, &variables)
                .map_err(|why| Error::invalid(format!("failed to read .env: {why}")))?;
            for (name, value) in found {
                variables.entry(name).or_insert(value);
            }
        }
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory
            ) => {}
        Err(source) => {
            return Err(Error::Read {
                path: ".env".to_owned(),
                source,
            });
        }
    }
    variables.extend(world.variables.clone());
    Ok(variables)
}

/// One file, with variables filled in and everything in its long form.
fn read(file: &File, variables: &Variables) -> Result<BTreeMap<String, Yaml>, Error> {
    let mut root = BTreeMap::new();
    for document in yaml::parse(file)? {
        match document {
            Yaml::Null => {}
            Yaml::Map(entries) => {
                for (key, value) in entries {
                    let known = root.remove(&key).unwrap_or(Yaml::Null);
                    root.insert(key, canonical::merge(known, value));
                }
            }
            _ => {
                return Err(Error::invalid(format!(
                    "{}: top-level object must be a mapping",
                    file.name
                )));
            }
        }
    }
    let known = ["services", "secrets", "include"];
    root.retain(|key, _| known.contains(&key.as_str()));
    if root.is_empty() {
        return Err(Error::invalid(format!("{}: empty compose file", file.name)));
    }
    for (key, value) in &mut root {
        interpolate::all(value, variables)
            .map_err(|why| Error::invalid(format!("{}: error while interpolating {key}{why}", file.name)))?;
    }
    if let Some(services) = root.get_mut("services") {
        canonical::services(services).map_err(|why| Error::invalid(format!("{}: {why}", file.name)))?;
    }
    Ok(root)
}

impl Project {
    fn lay_over(&mut self, other: Self) {
        for (name, service) in other.services {
            let known = self.services.remove(&name).unwrap_or(Yaml::Null);
            self.services.insert(name, canonical::merge(known, service));
        }
        self.secrets.extend(other.secrets);
    }
}

fn place(target: &mut Target, folder: &str) {
    target.base.file = Some(folder.to_owned());
    if target.context.is_some() {
        target.base.context = Some(folder.to_owned());
    }
    target.base.contexts = target
        .contexts
        .iter()
        .flat_map(BTreeMap::keys)
        .map(|name| (name.clone(), folder.to_owned()))
        .collect();
}
