//! The functions that every definition can call, by the names and with the meaning that they have in HCL tools.

mod collections;
mod comparison;
mod encoding;
mod format;
mod hashing;
mod network;
mod numbers;
mod patterns;
mod rsa;
mod sets;
mod strings;
mod time;
mod version;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::value::convert::{convert, text};
use crate::value::shape::Shape;
use crate::value::{Number, Value};
use crate::world::World;

pub(crate) struct Function {
    pub name: &'static str,
    pub parameters: &'static [&'static str],
    /// The name of any number of further arguments.
    pub others: Option<&'static str>,
    pub takes_null: bool,
    pub run: fn(&Arguments<'_>) -> Outcome,
}

pub(crate) type Outcome = Result<Value, Fault>;

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Which argument is to blame, from 0.
    pub argument: Option<usize>,
    pub text: String,
}

impl Fault {
    fn of(at: usize, text: impl Into<String>) -> Self {
        Self {
            argument: Some(at),
            text: text.into(),
        }
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self { argument: None, text }
    }
}

impl From<&str> for Fault {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

pub(crate) struct Arguments<'a> {
    pub values: &'a [Value],
    pub world: &'a World<'a>,
}

/// The most elements that a function makes.
const LARGEST: usize = 1 << 20;

impl Function {
    const fn new(
        name: &'static str,
        parameters: &'static [&'static str],
        run: fn(&Arguments<'_>) -> Outcome,
    ) -> Self {
        Self {
            name,
            parameters,
            others: None,
            takes_null: false,
            run,
        }
    }

    const fn and_others(mut self, name: &'static str) -> Self {
        self.others = Some(name);
        self
    }

    const fn with_null(mut self) -> Self {
        self.takes_null = true;
        self
    }

    /// How many arguments there may be.
    pub fn count(&self) -> String {
        let least = if self.others.is_some() { "at least " } else { "" };
        let names = self.parameters.join(", ");
        match self.parameters.len() {
            0 => format!("{least}0 argument(s)"),
            count => format!("{least}{count} argument(s): {names}"),
        }
    }
}

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    static ALL: LazyLock<BTreeMap<&'static str, &'static Function>> = LazyLock::new(|| {
        [
            collections::FUNCTIONS,
            comparison::FUNCTIONS,
            encoding::FUNCTIONS,
            format::FUNCTIONS,
            hashing::FUNCTIONS,
            network::FUNCTIONS,
            numbers::FUNCTIONS,
            patterns::FUNCTIONS,
            rsa::FUNCTIONS,
            sets::FUNCTIONS,
            strings::FUNCTIONS,
            time::FUNCTIONS,
            version::FUNCTIONS,
        ]
        .into_iter()
        .flatten()
        .map(|function| (function.name, function))
        .collect()
    });
    ALL.get(name).copied()
}

impl<'a> Arguments<'a> {
    fn value(&self, at: usize) -> &'a Value {
        self.values.get(at).unwrap_or(&Value::Null)
    }

    fn convert(&self, at: usize, shape: &Shape) -> Outcome {
        convert(self.value(at).clone(), shape).map_err(|why| Fault::of(at, why))
    }

    fn text(&self, at: usize) -> Result<String, Fault> {
        text(self.value(at)).ok_or_else(|| Fault::of(at, "string required"))
    }

    fn number(&self, at: usize) -> Result<Number, Fault> {
        match self.convert(at, &Shape::Number)? {
            Value::Number(number) => Ok(number),
            _ => Err(Fault::of(at, "number required")),
        }
    }

    fn int<T: TryFrom<i128>>(&self, at: usize) -> Result<T, Fault> {
        let number = self.number(at)?.int();
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| Fault::of(at, "a whole number in range is required"))
    }

    fn flag(&self, at: usize) -> Result<bool, Fault> {
        Ok(self.convert(at, &Shape::Bool)? == Value::Bool(true))
    }

    fn elements(&self, at: usize) -> Result<&'a [Value], Fault> {
        self.value(at)
            .elements()
            .ok_or_else(|| Fault::of(at, "a list, tuple or set is required"))
    }

    fn entries(&self, at: usize) -> Result<&'a BTreeMap<String, Value>, Fault> {
        self.value(at)
            .entries()
            .ok_or_else(|| Fault::of(at, "a map or object is required"))
    }

    fn texts(&self, at: usize) -> Result<Vec<String>, Fault> {
        self.elements(at)?
            .iter()
            .map(|value| text(value).ok_or_else(|| Fault::of(at, "list of string required")))
            .collect()
    }

    /// Arguments from here on, with their places.
    fn from(&self, start: usize) -> impl Iterator<Item = usize> + use<> {
        start..self.values.len()
    }
}

fn list_like(model: &Value, elements: Vec<Value>) -> Value {
    match model {
        Value::List(_) => Value::List(elements),
        _ => Value::Tuple(elements),
    }
}
