//! From files to a definition: the format of each, and all of them laid over each other.

use std::collections::BTreeMap;

use crate::compose;
use crate::error::{Error, Problem};
use crate::module::{self, Evaluated, Variable};
use crate::paths;
use crate::source::File;
use crate::syntax::{Body, hcl, json};
use crate::target::{Group, Target};
use crate::world::World;

/// The names that are looked for when the user names no file, in the order in which they are laid over each other.
pub const DEFAULT_FILES: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// Files that are read and evaluated.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    pub groups: Vec<Group>,
    pub targets: Vec<Target>,
    pub variables: Vec<Variable>,
}

/// Evaluation recurses; how deep is bounded, and that much fits here. It is address space, not memory.
const STACK: usize = 128 << 20;
const LARGEST_FILE: usize = 8 << 20;

impl Definition {
    pub fn load(files: &[File], world: &World<'_>) -> Result<Self, Error> {
        let files: Vec<File> = files
            .iter()
            .map(|file| File {
                name: file.name.clone(),
                text: file.text.trim_start_matches('\u{feff}').to_owned(),
            })
            .collect();
        if let Some(file) = files.iter().find(|file| file.text.len() > LARGEST_FILE) {
            let name = &file.name;
            return Err(Error::invalid(format!(
                "{name} is larger than {LARGEST_FILE} bytes"
            )));
        }
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("bake".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, || load(&files, world))
                .map_err(|error| Error::invalid(format!("cannot start a thread: {error}")))?;
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::invalid("the evaluation of the definition broke off")))
        })
    }
}

fn load(files: &[File], world: &World<'_>) -> Result<Definition, Error> {
    let mut composes = Vec::new();
    let mut bodies = Vec::new();
    for (at, file) in files.iter().enumerate() {
        match read(file, at, world)? {
            Format::Compose => composes.push(file),
            Format::Body(body) => bodies.push(body),
        }
    }
    let mut definition = Definition::default();
    if !composes.is_empty() {
        let (groups, targets) = compose::load(&composes, world)?;
        definition.groups = groups;
        definition.targets = targets;
    }
    if !bodies.is_empty() {
        let folders: Vec<Option<String>> = files
            .iter()
            .map(|file| world.file_relative_paths.then(|| folder(&file.name)).flatten())
            .collect();
        let evaluated =
            module::evaluate(&bodies, &folders, world).map_err(|problems| Error::of(problems, files))?;
        definition.lay_over(evaluated);
    }
    for group in &mut definition.groups {
        if let Some(targets) = &mut group.targets {
            let mut seen = std::collections::BTreeSet::new();
            targets.retain(|target| seen.insert(target.clone()));
        }
    }
    if world.file_relative_paths {
        definition.rebase();
    }
    Ok(definition)
}

enum Format {
    Compose,
    Body(Body),
}

/// By the suffix, or else what it can be read as.
fn read(file: &File, at: usize, world: &World<'_>) -> Result<Format, Error> {
    let text = &file.text;
    let error = |problem: Box<Problem>| {
        let mut problems = vec![*problem];
        // Only the one file is known here by its number.
        if let Some(span) = &mut problems[0].span {
            span.file = 0;
        }
        Error::of(problems, std::slice::from_ref(file))
    };
    let name = file.name.to_lowercase();
    if name.ends_with(".yml") || name.ends_with(".yaml") {
        return compose::check(file, world).map(|()| Format::Compose);
    }
    if name.ends_with(".json") {
        return json::body(text, at).map(Format::Body).map_err(error);
    }
    if name.ends_with(".hcl") {
        return hcl::body(text, at).map(Format::Body).map_err(error);
    }
    let yaml_error = match compose::check(file, world) {
        Ok(()) => return Ok(Format::Compose),
        Err(error) => error,
    };
    let hcl_error = match hcl::body(text, at) {
        Ok(body) => return Ok(Format::Body(body)),
        Err(problem) => error(problem),
    };
    match json::body(text, at) {
        Ok(body) => Ok(Format::Body(body)),
        Err(problem) if text.trim_start().starts_with('{') => Err(error(problem)),
        // What looks like YAML is told what is wrong with it as YAML.
        Err(_) if text.lines().any(|line| line.trim_end() == "services:") => Err(yaml_error),
        Err(_) => Err(hcl_error),
    }
}

fn folder(name: &str) -> Option<String> {
    (!name.is_empty() && name != "-" && !paths::is_remote(name)).then(|| paths::parent(name))
}

impl Definition {
    fn lay_over(&mut self, evaluated: Evaluated) {
        for group in evaluated.groups {
            match self.groups.iter_mut().find(|known| known.name == group.name) {
                Some(known) => *known = group,
                None => self.groups.push(group),
            }
        }
        let mut places: BTreeMap<String, usize> = self
            .targets
            .iter()
            .enumerate()
            .map(|(at, target)| (target.name.clone(), at))
            .collect();
        for target in evaluated.targets {
            match places.get(&target.name) {
                Some(at) => self.targets[*at].merge(&target),
                None => {
                    places.insert(target.name.clone(), self.targets.len());
                    self.targets.push(target);
                }
            }
        }
        for (label, mut names) in evaluated.renamed {
            let mut seen = std::collections::BTreeSet::new();
            names.retain(|name| seen.insert(name.clone()));
            if !names.is_empty() && names != [label.clone()] {
                self.groups.push(Group {
                    name: label,
                    targets: Some(names),
                    ..Group::default()
                });
            }
        }
        self.variables = evaluated.variables;
    }

    /// Contexts relative to the files that name them.
    fn rebase(&mut self) {
        let known: BTreeMap<String, (Option<String>, Option<String>)> = self
            .targets
            .iter()
            .map(|target| {
                let base = &target.base;
                (target.name.clone(), (base.context.clone(), base.file.clone()))
            })
            .collect();
        for target in &mut self.targets {
            let other = target.base.context_of.as_ref().and_then(|name| known.get(name));
            if let Some((context, file)) = other
                && let Some(base) = context.as_ref().or(file.as_ref())
            {
                target.base.context = Some(base.clone());
            }
            match (&mut target.context, &target.base.context) {
                (Some(context), Some(base)) => *context = rebased(base, context),
                (None, _) if target.base.file.is_some() => target.base.is_default = true,
                _ => {}
            }
            for (name, path) in target.contexts.iter_mut().flatten() {
                if let Some(base) = target.base.contexts.get(name) {
                    *path = rebased(base, path);
                }
            }
        }
    }
}

/// A path from another folder, unless it is none.
pub(crate) fn rebased(base: &str, path: &str) -> String {
    let special = ["cwd://", "target:", "docker-image:", "oci-layout://"];
    let stays = base.is_empty()
        || path.is_empty()
        || path.starts_with('/')
        || paths::is_remote(path)
        || special.iter().any(|prefix| path.starts_with(prefix));
    if stays {
        path.to_owned()
    } else {
        paths::join(base, path)
    }
}
