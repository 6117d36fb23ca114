//! Bake definitions: files in, targets out.
//!
//! [`Definition::load`] reads HCL, JSON and compose files, evaluates their expressions and lays them over each other;
//! [`Definition::select`] resolves what a user asks for: groups, inheritance, overrides, links between targets. Nothing is
//! read, written or run here: what a definition may see of the world is handed in as a [`World`].
//!
//! A definition is a program by somebody else. Parsing and evaluation are bounded in depth, steps and memory; what refers
//! to itself is an error that names the cycle.

mod compose;
pub mod csv;
mod definition;
mod error;
mod evaluate;
mod functions;
mod json;
pub mod list;
mod module;
pub mod paths;
mod pattern;
mod selection;
mod source;
mod syntax;
pub mod target;
mod value;
mod world;

pub use definition::{DEFAULT_FILES, Definition};
pub use error::{Diagnostic, Error};
pub use module::Variable;
pub use selection::Selection;
pub use source::{File, Place, Position};
pub use target::overrides::{Grants, Shorthands};
pub use target::{Group, Target};
pub use world::{Read, World};
