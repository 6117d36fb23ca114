//! All files of a definition together: its variables, functions and blocks, evaluated when somebody needs them.
//!
//! Everything may refer to everything else; what is being evaluated is remembered, so that a cycle is an error that names
//! its members.

mod blocks;
mod function;
mod place;
mod variable;

use std::cell::RefCell;
use std::collections::BTreeMap;

use blocks::Blocks;
pub(crate) use blocks::{Kind, is_valid_name};
pub use variable::Variable;

use crate::error::{Outcome, Problem};
use crate::evaluate::call::Function;
use crate::evaluate::{Budget, Scope};
use crate::source::Span;
use crate::syntax::{Attribute, Block, Body};
use crate::target::{Group, Target};
use crate::value::Value;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Module<'a> {
    pub world: &'a World<'a>,
    pub functions: BTreeMap<&'a str, Function<'a>>,
    pub budget: Budget,
    declared: BTreeMap<&'a str, &'a Block>,
    attributes: BTreeMap<&'a str, &'a Attribute>,
    values: RefCell<BTreeMap<String, Value>>,
    /// Variables that are being evaluated, the first asked for first.
    doing: RefCell<Vec<String>>,
    blocks: Blocks<'a>,
}

/// What the HCL and JSON files say.
#[derive(Debug, Default)]
pub(crate) struct Evaluated {
    pub groups: Vec<Group>,
    pub targets: Vec<Target>,
    pub variables: Vec<Variable>,
    /// Labels of blocks and the names that matrices made of them.
    pub renamed: Vec<(String, Vec<String>)>,
}

/// Evaluates all of it. Names of files are wanted for the folders that contexts are relative to.
pub(crate) fn evaluate(
    bodies: &[Body],
    folders: &[Option<String>],
    world: &World<'_>,
) -> Result<Evaluated, Vec<Problem>> {
    let one = |problem: Box<Problem>| vec![*problem];
    let mut module = Module {
        world,
        functions: BTreeMap::new(),
        budget: Budget::default(),
        declared: BTreeMap::new(),
        attributes: BTreeMap::new(),
        values: RefCell::default(),
        doing: RefCell::default(),
        blocks: Blocks::default(),
    };
    let mut order = Vec::new();
    for body in bodies {
        module.collect(body, &mut order).map_err(one)?;
    }
    function::check(&module.functions).map_err(one)?;
    let mut variables = Vec::new();
    order.retain(|name| !Kind::is_reserved(name));
    for name in order {
        if let Some(block) = module.declared.get(name) {
            variables.push(module.describe(name, block).map_err(one)?);
        }
    }
    let problems = module.validate();
    if !problems.is_empty() {
        return Err(problems);
    }
    for body in bodies {
        module.blocks.collect(body);
    }
    module.name_blocks().map_err(one)?;
    let mut evaluated = module.evaluate_blocks(folders)?;
    for (name, attribute) in &module.attributes {
        module.global(name, attribute.span).map_err(one)?;
    }
    evaluated.variables = variables;
    Ok(evaluated)
}

impl<'a> Module<'a> {
    fn collect(&mut self, body: &'a Body, order: &mut Vec<&'a str>) -> Outcome<()> {
        for attribute in &body.attributes {
            let name = attribute.name.as_str();
            if !Kind::is_reserved(name) && !self.world.builtins.contains_key(name) {
                self.attributes.insert(name, attribute);
            }
        }
        for block in &body.blocks {
            if !matches!(block.kind.as_str(), "variable" | "function") {
                continue;
            }
            let [(name, _)] = block.labels.as_slice() else {
                return Err(Problem::new(
                    "Invalid block",
                    format!("A {} block has one label, its name.", block.kind),
                    block.span,
                ));
            };
            if Kind::is_reserved(name) || self.world.builtins.contains_key(name) {
                continue;
            }
            if block.kind == "variable" {
                if self.declared.insert(name, block).is_none() {
                    order.push(name);
                }
            } else {
                self.functions.insert(name, function::read(block)?);
            }
        }
        Ok(())
    }

    /// A value that has no narrower scope.
    pub fn global(&self, name: &str, span: Span) -> Outcome<Value> {
        if let Some(value) = self.values.borrow().get(name) {
            return Ok(value.clone());
        }
        if let Some(text) = self.world.builtins.get(name) {
            return Ok(Value::text(text));
        }
        let is_known = self.attributes.contains_key(name) || self.declared.contains_key(name);
        if !is_known {
            return Err(Problem::new(
                "Unknown variable",
                format!("There is no variable named \"{name}\"."),
                span,
            ));
        }
        self.enter(name, span)?;
        let outcome = match self.attributes.get(name) {
            Some(attribute) => self.evaluate(&attribute.expr, &Scope::default()),
            None => self.declared_value(name, self.declared[name]),
        };
        self.doing.borrow_mut().pop();
        let value = outcome?;
        self.budget.charge(value.weight(), span)?;
        self.values.borrow_mut().insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn enter(&self, name: &str, span: Span) -> Outcome<()> {
        let mut doing = self.doing.borrow_mut();
        if let Some(from) = doing.iter().position(|known| known == name) {
            let mut cycle = doing[from..].to_vec();
            cycle.push(name.to_owned());
            return Err(Problem::fatal(
                "Invalid expression",
                format!("variable cycle not allowed for {name}: {}.", cycle.join(" -> ")),
                span,
            ));
        }
        doing.push(name.to_owned());
        Ok(())
    }
}
