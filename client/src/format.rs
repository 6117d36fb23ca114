//! `--format`: Go templates over typed values, as Docker's commands offer them.
//!
//! A command describes what it shows as [`Data`]: a [`record`] whose fields have the names that templates use, next to
//! the names that JSON uses, in the order in which JSON prints them.
//!
//! - One value (`imagetools inspect`, `history inspect`): [`Template::parse`], then [`Template::render`].
//! - Rows (`ls`, `du`, `history ls`): [`Listing::parse`] takes what the user wrote (`json`, `table`, `table {{.A}}\t{{.B}}`
//!   or a template), then [`Listing::render`] prints all rows, with a heading above a table.
//!
//! Before a costly field is filled, [`Template::uses`] and [`Listing::uses`] say whether anybody looks at it.
//!
//! What is wrong with a template is said with line and column, at parsing as far as it is known there: syntax,
//! functions that do not exist, variables that were never declared. Missing fields are found while rendering.

mod blocks;
mod compare;
mod data;
mod engine;
mod functions;
mod json;
mod listing;
mod printf;
mod printing;
mod template;

pub use data::{Data, Field, Nil, field, map, record};
pub use json::{Json, to_json};
pub use listing::Listing;
pub use template::{FormatError, Template};
