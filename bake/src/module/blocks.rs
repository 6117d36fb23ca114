//! `target` and `group` blocks. A matrix makes several targets of one block; of a block only what is asked for is
//! evaluated, attribute by attribute.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::place::place;
use super::{Evaluated, Module};
use crate::error::{Outcome, Problem};
use crate::evaluate::Scope;
use crate::source::Span;
use crate::syntax::{Access, Block, Body, Expr, Kind as Expression, Step};
use crate::target::{ATTRIBUTES, Group, Target};
use crate::value::Value;
use crate::value::convert::text;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Target,
    Group,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name {
            "target" => Some(Self::Target),
            "group" => Some(Self::Group),
            _ => None,
        }
    }

    /// Names of blocks are no names of variables.
    pub fn is_reserved(name: &str) -> bool {
        Self::of(name).is_some() || name == "function"
    }

    fn attributes(self) -> &'static [&'static str] {
        match self {
            Self::Target => &ATTRIBUTES,
            Self::Group => &["description", "targets"],
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Blocks<'a> {
    all: Vec<State<'a>>,
    /// Which blocks, and which target of their matrix, have a name.
    names: RefCell<BTreeMap<(Kind, String), Vec<Place>>>,
}

/// A block, and a target of its matrix.
type Place = (usize, usize);

#[derive(Debug)]
struct State<'a> {
    block: &'a Block,
    kind: Kind,
    /// One unless there is a matrix.
    variants: RefCell<Vec<Variant>>,
}

#[derive(Debug, Default)]
struct Variant {
    name: String,
    /// The variables of the matrix.
    values: Vec<(String, Value)>,
    done: BTreeSet<String>,
    doing: BTreeSet<String>,
    target: Target,
    group: Group,
}

impl<'a> Blocks<'a> {
    pub fn collect(&mut self, body: &'a Body) {
        for block in &body.blocks {
            if let Some(kind) = Kind::of(&block.kind) {
                self.all.push(State {
                    block,
                    kind,
                    variants: RefCell::default(),
                });
            }
        }
    }
}

impl Module<'_> {
    /// Variables come first: for them there are no targets.
    pub fn is_block_kind(&self, name: &str) -> bool {
        Kind::of(name).is_some() && !self.blocks.names.borrow().is_empty()
    }

    /// Evaluates matrices and names of all blocks.
    pub(super) fn name_blocks(&self) -> Outcome<()> {
        for (at, state) in self.blocks.all.iter().enumerate() {
            let [(label, span)] = state.block.labels.as_slice() else {
                return Err(Problem::new(
                    "Invalid block",
                    format!("A {} block has one label, its name.", state.block.kind),
                    state.block.span,
                ));
            };
            let invalid = |why: String| Problem::new("Invalid name", why, *span);
            let mut variants = self.variants(state)?;
            let mut seen = BTreeSet::new();
            for variant in &mut variants {
                variant.name = self.name_of(state, variant, label)?;
                for name in [label, &variant.name] {
                    if !is_valid_name(name) {
                        return Err(invalid(format!(
                            "\"{name}\": only \"[a-zA-Z0-9_-]+\" are allowed"
                        )));
                    }
                }
                variant.target.name.clone_from(&variant.name);
                variant.group.name.clone_from(&variant.name);
                if !seen.insert(variant.name.clone()) {
                    return Err(invalid(format!("duplicate name \"{}\"", variant.name)));
                }
            }
            let mut names = self.blocks.names.borrow_mut();
            for (index, variant) in variants.iter().enumerate() {
                let key = (state.kind, variant.name.clone());
                names.entry(key).or_default().push((at, index));
            }
            drop(names);
            *state.variants.borrow_mut() = variants;
        }
        Ok(())
    }

    fn variants(&self, state: &State<'_>) -> Outcome<Vec<Variant>> {
        let Some(attribute) = state.block.body.attribute("matrix") else {
            return Ok(vec![Variant::default()]);
        };
        let invalid = |why: &str| Problem::new("Invalid name", why, attribute.span);
        if state.kind == Kind::Group {
            return Err(invalid("matrix is not supported for groups"));
        }
        let matrix = self.evaluate(&attribute.expr, &Scope::default())?;
        let axes = matrix.entries().ok_or_else(|| invalid("matrix must be a map"))?;
        let mut variants: Vec<Vec<(String, Value)>> = vec![Vec::new()];
        for (name, axis) in axes {
            let values: Vec<Value> = match (axis.elements(), axis.entries()) {
                (Some(elements), _) => elements.to_vec(),
                (_, Some(entries)) => entries.values().cloned().collect(),
                _ => return Err(invalid("matrix values must be a list")),
            };
            let mut next = Vec::new();
            for value in values {
                for variant in &variants {
                    self.budget.charge(VARIANT + value.weight(), attribute.span)?;
                    let mut variant = variant.clone();
                    variant.push((name.clone(), value.clone()));
                    next.push(variant);
                }
            }
            variants = next;
        }
        Ok(variants
            .into_iter()
            .map(|values| Variant {
                values,
                ..Variant::default()
            })
            .collect())
    }

    fn name_of(&self, state: &State<'_>, variant: &Variant, label: &str) -> Outcome<String> {
        let Some(attribute) = state.block.body.attribute("name") else {
            return Ok(label.to_owned());
        };
        let invalid = |why: &str| Problem::new("Invalid name", why, attribute.span);
        if state.kind == Kind::Group {
            return Err(invalid("name is not supported for groups"));
        }
        if state.block.body.attribute("matrix").is_none() {
            return Err(invalid("name requires matrix"));
        }
        let value = self.evaluate(&attribute.expr, &scope_of(&variant.values))?;
        text(&value).ok_or_else(|| invalid("string required"))
    }

    /// `target.NAME.ATTRIBUTE`, or all of a target, and how many steps were used.
    pub fn block_value(&self, root: &str, steps: &[Step], span: Span) -> Outcome<(Value, usize)> {
        let invalid = |why: String| Problem::new("Invalid expression", why, span);
        let (Some(kind), Some(first)) = (Kind::of(root), steps.first()) else {
            return Err(invalid(format!("cannot access {root} as a variable")));
        };
        let Some(name) = static_name(&first.access) else {
            return Err(invalid(format!("cannot traverse {root} without attribute")));
        };
        let missing = |name: &str, span: Span| {
            Problem::new(
                "Unsupported attribute",
                format!("This object does not have an attribute named \"{name}\"."),
                span,
            )
        };
        let places = self.blocks.names.borrow().get(&(kind, name.to_owned())).cloned();
        let places = places.ok_or_else(|| missing(name, first.span))?;
        let wanted = match steps.get(1).map(|step| &step.access) {
            Some(Access::Attribute(attribute)) => Some(attribute.as_str()),
            _ => None,
        };
        let mut value = Value::Null;
        for (at, index) in places {
            let state = &self.blocks.all[at];
            match wanted {
                Some(attribute) => self.evaluate_attribute(state, index, attribute)?,
                None => {
                    for attribute in state.attributes() {
                        self.evaluate_attribute(state, index, attribute)?;
                    }
                }
            }
            let found = state.value(index, wanted);
            value = found.ok_or_else(|| {
                let span = steps.get(1).map_or(span, |step| step.span);
                missing(wanted.unwrap_or_default(), span)
            })?;
        }
        self.budget.charge(value.weight(), span)?;
        Ok((value, if wanted.is_some() { 2 } else { 1 }))
    }

    fn evaluate_attribute(&self, state: &State<'_>, index: usize, name: &str) -> Outcome<()> {
        let Some(attribute) = state.block.body.attribute(name) else {
            return Ok(());
        };
        let values = {
            let mut variants = state.variants.borrow_mut();
            let variant = &mut variants[index];
            if variant.done.contains(name) {
                return Ok(());
            }
            if !variant.doing.insert(name.to_owned()) {
                let (kind, target) = (&state.block.kind, &variant.name);
                return Err(Problem::fatal(
                    "Invalid expression",
                    format!("reference cycle not allowed for {kind}.{target}.{name}"),
                    attribute.span,
                ));
            }
            variant.values.clone()
        };
        let outcome = self.evaluate(&attribute.expr, &scope_of(&values));
        let mut variants = state.variants.borrow_mut();
        let variant = &mut variants[index];
        variant.doing.remove(name);
        variant.done.insert(name.to_owned());
        let value = outcome?;
        let set = match state.kind {
            Kind::Target => variant.target.set(name, value),
            Kind::Group => variant.group.set(name, value),
        };
        set.map_err(|why| {
            Problem::new(
                "Unsuitable value type",
                format!("Unsuitable value: {why}"),
                attribute.expr.span,
            )
        })
    }

    /// Everything. All that is wrong is told at once.
    pub(super) fn evaluate_blocks(&self, folders: &[Option<String>]) -> Result<Evaluated, Vec<Problem>> {
        let mut evaluated = Evaluated::default();
        let mut problems = Vec::new();
        for state in &self.blocks.all {
            let count = state.variants.borrow().len();
            for index in 0..count {
                for name in state.attributes() {
                    if let Err(problem) = self.evaluate_attribute(state, index, name) {
                        problems.push(*problem);
                    }
                }
            }
            if state.kind == Kind::Group && state.block.body.attribute("targets").is_none() {
                problems.push(*Problem::new(
                    "Missing required argument",
                    "The argument \"targets\" is required, but no definition was found.",
                    state.block.span,
                ));
            }
            if problems.iter().any(|problem| problem.fatal) {
                break;
            }
            let variants = state.variants.borrow();
            let label = state.block.labels.first().map_or("", |(label, _)| label);
            evaluated.rename(label, variants.iter().map(|variant| variant.name.clone()));
            let folder = folders.get(state.block.span.file).cloned().flatten();
            for variant in variants.iter() {
                match state.kind {
                    Kind::Target => {
                        let mut target = variant.target.clone();
                        place(&mut target, state.block, folder.clone());
                        evaluated.targets.push(target);
                    }
                    Kind::Group => evaluated.groups.push(variant.group.clone()),
                }
            }
        }
        if problems.is_empty() {
            Ok(evaluated)
        } else {
            Err(problems)
        }
    }
}

/// What a target of a matrix costs at least.
const VARIANT: usize = 1024;

impl Evaluated {
    fn rename(&mut self, label: &str, names: impl Iterator<Item = String>) {
        match self.renamed.iter_mut().find(|(known, _)| known == label) {
            Some((_, known)) => known.extend(names),
            None => self.renamed.push((label.to_owned(), names.collect())),
        }
    }
}

impl State<'_> {
    /// The attributes that the block sets and that mean something.
    fn attributes(&self) -> impl Iterator<Item = &str> {
        self.block
            .body
            .attributes
            .iter()
            .map(|attribute| attribute.name.as_str())
            .filter(|name| self.kind.attributes().contains(name))
    }

    fn value(&self, index: usize, attribute: Option<&str>) -> Option<Value> {
        let variants = self.variants.borrow();
        let variant = &variants[index];
        let get = |name: &str| match self.kind {
            Kind::Target => variant.target.get(name),
            Kind::Group => variant.group.get(name),
        };
        if let Some(name) = attribute {
            return get(name);
        }
        let names = self.kind.attributes().iter().chain(&["name"]);
        let entries = names.filter_map(|name| Some(((*name).to_owned(), get(name)?)));
        Some(Value::Object(entries.collect()))
    }
}

fn scope_of(values: &[(String, Value)]) -> Scope<'static> {
    Scope {
        names: values.to_vec(),
        parent: None,
    }
}

/// `.name` or `["name"]`.
pub(super) fn static_name(access: &Access) -> Option<&str> {
    match access {
        Access::Attribute(name) => Some(name),
        Access::Index(Expr {
            kind: Expression::Literal(Value::String(name)),
            ..
        }) => Some(name),
        _ => None,
    }
}

pub(crate) fn is_valid_name(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !name.is_empty() && name.chars().all(valid)
}
