//! What a target can be given: build arguments, secrets and agents that it or a stage it needs asks for.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile::Lines;

use super::plan::{Base, Plan};

/// An ARG instruction's argument.
#[derive(Clone, Debug, Default)]
pub(super) struct Declared {
    pub(super) value: String,
    pub(super) description: String,
    /// Other global arguments that its value is made of.
    pub(super) uses: BTreeSet<String>,
    pub(super) lines: Lines,
}

/// A secret or an agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) required: bool,
    pub(super) lines: Lines,
}

/// What one stage asks for itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Arguments with what they are if it is the stage that says so.
    args: BTreeMap<String, Option<Declared>>,
    secrets: BTreeMap<String, Wanted>,
    agents: BTreeMap<String, Wanted>,
}

impl Asked {
    /// An argument of the stage, or with `None` one that stands above the first FROM.
    pub(super) fn arg(&mut self, name: &str, declared: Option<Declared>) {
        let known = self.args.entry(name.to_owned()).or_default();
        if declared.is_some() {
            *known = declared;
        }
    }

    pub(super) fn secret(&mut self, id: &str, wanted: Wanted) {
        self.secrets.entry(id.to_owned()).or_insert(wanted);
    }

    pub(super) fn agent(&mut self, id: &str, wanted: Wanted) {
        self.agents.entry(id.to_owned()).or_insert(wanted);
    }
}

/// All that a target and what it needs ask for, in the order of the file. What several stages ask for under one name is
/// what the stage next to the target means by it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outline {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) args: Vec<(String, Declared)>,
    pub(super) secrets: Vec<(String, Wanted)>,
    pub(super) agents: Vec<(String, Wanted)>,
}

impl Plan {
    /// `asked` holds what every finished stage asks for.
    pub(super) fn outline(&self, asked: &[Option<Asked>]) -> Outline {
        let mut args = BTreeMap::new();
        let (mut secrets, mut agents) = (BTreeMap::new(), BTreeMap::new());
        for at in self.nearest_first() {
            let Some(asked) = &asked[at] else { continue };
            let own = |name: &str| asked.args.get(name).and_then(Option::as_ref);
            let names = self.stages[at].from_args.iter().chain(asked.args.keys());
            for name in self.with_used(names.cloned().collect(), |name| own(name).is_some()) {
                let own = own(&name);
                if let Some(declared) = own.or_else(|| self.globals.declared.get(&name)) {
                    args.entry(name).or_insert_with(|| declared.clone());
                }
            }
            for (all, own) in [(&mut secrets, &asked.secrets), (&mut agents, &asked.agents)] {
                for (id, wanted) in own {
                    all.entry(id.clone()).or_insert(*wanted);
                }
            }
        }
        let target = &self.stages[self.target];
        Outline {
            name: target.declared.clone().unwrap_or_default(),
            description: target.description.clone(),
            args: by_line(args, |declared| declared.lines),
            secrets: by_line(secrets, |wanted| wanted.lines),
            agents: by_line(agents, |wanted| wanted.lines),
        }
    }

    /// The target, then what it starts from, then what it copies from, and so on.
    fn nearest_first(&self) -> Vec<usize> {
        let mut order = Vec::new();
        let mut seen = vec![false; self.stages.len()];
        let mut open = vec![self.target];
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            order.push(at);
            let stage = &self.stages[at];
            open.extend(stage.steps.iter().flat_map(|step| step.sources.iter().flatten()));
            if let Base::Stage(base) = stage.base {
                open.push(base);
            }
        }
        order
    }

    /// Names, and those that the values of global arguments among them are made of.
    fn with_used(&self, mut open: Vec<String>, is_own: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        while let Some(name) = open.pop() {
            if let Some(declared) = self.globals.declared.get(&name)
                && !all.contains(&name)
                && !is_own(&name)
            {
                open.extend(declared.uses.iter().cloned());
            }
            all.insert(name);
        }
        all
    }
}

fn by_line<T>(all: BTreeMap<String, T>, lines: impl Fn(&T) -> Lines) -> Vec<(String, T)> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(_, one)| lines(one).first);
    all
}
