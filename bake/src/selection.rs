//! Which targets are built, with all that they inherit and all that they are linked to.

use std::collections::BTreeMap;

use crate::definition::{Definition, rebased};
use crate::error::Error;
use crate::json::Node;
use crate::pattern;
use crate::target::overrides::{self, Grants, Overrides};
use crate::target::{Export, Group, Target};

/// What a call of `bake` is about.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub groups: BTreeMap<String, Group>,
    pub targets: BTreeMap<String, Target>,
    /// What the overrides allow.
    pub grants: Grants,
}

impl Definition {
    /// `names` may be names of groups and patterns; `environment` is where arguments without a value get it from.
    pub fn select(
        &self,
        names: &[String],
        overrides: &[String],
        environment: &BTreeMap<String, String>,
    ) -> Result<Selection, Error> {
        let mut wanted: Vec<String> = Vec::new();
        for name in names {
            for name in self.named(&sanitize(name))? {
                if !wanted.contains(&name) {
                    wanted.push(name);
                }
            }
        }
        let known: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let overrides = overrides::parse(overrides, &known, environment).map_err(Error::Invalid)?;
        let mut resolver = Resolver::new(self, overrides);
        let mut selection = Selection::default();
        for name in &wanted {
            let members = self.members(name)?;
            for target in members.targets {
                let resolved = resolver.resolve(&target)?;
                selection.targets.insert(target, resolved);
            }
            for group in members.groups {
                if let Some(found) = self.groups.iter().find(|known| known.name == group) {
                    selection.groups.entry(group).or_insert_with(|| found.clone());
                }
            }
        }
        selection.default_group(&wanted);
        let names: Vec<String> = selection.targets.keys().cloned().collect();
        for name in names {
            resolver.link(&name, &mut selection.targets, &mut Vec::new())?;
        }
        selection.grants = resolver.grants;
        Ok(selection)
    }

    fn named(&self, name: &str) -> Result<Vec<String>, Error> {
        if !pattern::is_pattern(name) {
            return Ok(vec![name.to_owned()]);
        }
        let groups = self.groups.iter().map(|group| &group.name);
        let targets = self.targets.iter().map(|target| &target.name);
        let found: Vec<String> = groups
            .chain(targets)
            .filter(|known| pattern::matches(name, known))
            .cloned()
            .collect();
        if found.is_empty() {
            return Err(Error::invalid(format!(
                "could not find any target matching \"{name}\""
            )));
        }
        Ok(found)
    }

    /// The targets and groups that a name stands for.
    fn members(&self, name: &str) -> Result<Members, Error> {
        let mut members = Members::default();
        self.add_members(name, &mut members, &mut Vec::new())?;
        Ok(members)
    }

    fn add_members(&self, name: &str, members: &mut Members, path: &mut Vec<String>) -> Result<(), Error> {
        let Some(group) = self.groups.iter().find(|group| group.name == name) else {
            if !members.targets.iter().any(|known| known == name) {
                members.targets.push(name.to_owned());
            }
            return Ok(());
        };
        if let Some(from) = path.iter().position(|known| known == name) {
            let mut cycle = path[from..].to_vec();
            cycle.push(name.to_owned());
            return Err(Error::invalid(format!(
                "group cycle not allowed for {name}: {}",
                cycle.join(" -> ")
            )));
        }
        if members.groups.iter().any(|known| known == name) {
            return Ok(());
        }
        if path.len() > DEEPEST {
            return Err(Error::invalid(format!(
                "groups are members of each other more than {DEEPEST} levels deep"
            )));
        }
        members.groups.push(name.to_owned());
        path.push(name.to_owned());
        for member in group.targets.iter().flatten() {
            self.add_members(member, members, path)?;
        }
        path.pop();
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Members {
    targets: Vec<String>,
    groups: Vec<String>,
}

impl Selection {
    /// What was asked for is the group "default" of what is printed.
    fn default_group(&mut self, wanted: &[String]) {
        for name in wanted {
            if name == "default" && self.groups.contains_key("default") {
                continue;
            }
            let group = self.groups.entry("default".to_owned()).or_insert_with(|| Group {
                name: "default".to_owned(),
                ..Group::default()
            });
            group.targets.get_or_insert_default().push(name.clone());
        }
        if let Some(Group {
            targets: Some(targets),
            ..
        }) = self.groups.get_mut("default")
        {
            targets.sort();
            targets.dedup();
        }
    }

    /// What `--print` prints.
    pub fn json(&self) -> String {
        let groups: Vec<(String, Node)> = self
            .groups
            .iter()
            .map(|(name, group)| (name.clone(), group.json()))
            .collect();
        let targets = self
            .targets
            .iter()
            .map(|(name, target)| (name.clone(), target.json()))
            .collect();
        let mut fields = Vec::new();
        if !groups.is_empty() {
            fields.push(("group".to_owned(), Node::Object(groups)));
        }
        fields.push(("target".to_owned(), Node::Object(targets)));
        Node::Object(fields).to_string()
    }
}

struct Resolver<'a> {
    targets: BTreeMap<&'a str, &'a Target>,
    overrides: Overrides,
    grants: Grants,
    /// Targets that others inherit from are resolved once.
    done: BTreeMap<String, Target>,
}

impl<'a> Resolver<'a> {
    fn new(definition: &'a Definition, overrides: Overrides) -> Self {
        Self {
            targets: definition
                .targets
                .iter()
                .map(|target| (target.name.as_str(), target))
                .collect(),
            overrides,
            grants: Grants::default(),
            done: BTreeMap::new(),
        }
    }

    fn resolve(&mut self, name: &str) -> Result<Target, Error> {
        let mut target = self.inherit(name, &mut Vec::new())?.unwrap_or_default();
        target.inherits = None;
        if target.context.is_none() {
            let base = target.base.file.as_deref().filter(|_| target.base.is_default);
            target.context = Some(base.map_or_else(|| ".".to_owned(), |base| rebased(base, ".")));
        }
        if target.dockerfile.as_ref().is_none_or(String::is_empty) {
            target.dockerfile = Some("Dockerfile".to_owned());
        }
        Ok(target)
    }

    /// Nothing for a target that is being resolved: in buildx, inheriting from oneself adds nothing.
    fn inherit(&mut self, name: &str, doing: &mut Vec<String>) -> Result<Option<Target>, Error> {
        if let Some(target) = self.done.get(name) {
            return Ok(Some(target.clone()));
        }
        if doing.iter().any(|known| known == name) {
            return Ok(None);
        }
        let own = *self
            .targets
            .get(name)
            .ok_or_else(|| Error::invalid(self.missing(name)))?;
        if doing.len() >= DEEPEST {
            return Err(Error::invalid(format!(
                "targets inherit from each other more than {DEEPEST} levels deep: {}",
                doing.join(" -> ")
            )));
        }
        doing.push(name.to_owned());
        let mut target = Target::default();
        for parent in own.inherits.iter().flatten() {
            if let Some(parent) = self.inherit(parent, doing)? {
                target.merge(&parent);
            }
        }
        doing.pop();
        target.merge(own);
        name.clone_into(&mut target.name);
        if let Some(overrides) = self.overrides.get(name) {
            target
                .apply(overrides, &mut self.grants)
                .map_err(Error::Invalid)?;
        }
        target.normalize();
        // Inside a cycle the result depends on where one came from.
        if doing.is_empty() {
            self.done.insert(name.to_owned(), target.clone());
        }
        Ok(Some(target))
    }

    fn missing(&self, name: &str) -> String {
        let mut text = format!("failed to find target {name}");
        let names: Vec<&str> = self
            .targets
            .keys()
            .copied()
            .filter(|name| !name.starts_with('_'))
            .collect();
        if names.is_empty() {
            text.push_str(": the definition has no targets");
        } else if names.len() <= 20 {
            text.push_str(": targets are ");
            text.push_str(&names.join(", "));
        }
        text
    }

    /// Adds the targets whose results the target uses.
    fn link(
        &mut self,
        name: &str,
        targets: &mut BTreeMap<String, Target>,
        visited: &mut Vec<String>,
    ) -> Result<(), Error> {
        visited.push(name.to_owned());
        let contexts = targets.get(name).and_then(|target| target.contexts.clone());
        let links: Vec<String> = contexts
            .iter()
            .flatten()
            .filter_map(|(_, path)| path.strip_prefix("target:").map(str::to_owned))
            .collect();
        for other in links {
            if other == name {
                return Err(Error::invalid(format!("target {other} cannot link to itself")));
            }
            if visited.contains(&other) {
                return Err(Error::invalid(format!("infinite loop from {name} to {other}")));
            }
            if !targets.contains_key(&other) {
                let mut linked = self.resolve(&other)?;
                linked.outputs = Some(vec![Export {
                    kind: "cacheonly".to_owned(),
                    ..Export::default()
                }]);
                linked.linked = true;
                targets.insert(other.clone(), linked);
            }
            self.link(&other, targets, visited)?;
            join(name, &other, targets)?;
        }
        visited.pop();
        Ok(())
    }
}

const DEEPEST: usize = 200;

/// A target needs what the targets need that it uses.
fn join(name: &str, other: &str, targets: &mut BTreeMap<String, Target>) -> Result<(), Error> {
    let Some(linked) = targets.get(other).cloned() else {
        return Ok(());
    };
    let Some(target) = targets.get_mut(name) else {
        return Ok(());
    };
    for entitlement in linked.entitlements.iter().flatten() {
        let entitlements = target.entitlements.get_or_insert_default();
        if !entitlements.contains(entitlement) {
            entitlements.push(entitlement.clone());
        }
    }
    let (mine, theirs) = (
        target.platforms.as_deref().unwrap_or_default(),
        linked.platforms.as_deref().unwrap_or_default(),
    );
    let several = mine.len() > 1 && theirs.len() > 1;
    if several && !mine.iter().all(|platform| theirs.contains(platform)) {
        return Err(Error::invalid(format!(
            "target {other} can't be used by {name} because its platforms [{}] are not a subset of [{}]",
            mine.join(" "),
            theirs.join(" ")
        )));
    }
    Ok(())
}

/// Dots are allowed in names of services, not in names of targets.
pub(crate) fn sanitize(name: &str) -> String {
    name.replace('.', "_")
}
