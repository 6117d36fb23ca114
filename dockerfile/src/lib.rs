//! The Dockerfile language: text in, typed instructions with source positions out.
//!
//! Everything here is pure: no files, no network, no clock. What an instruction *does* belongs to the frontend of
//! the daemon; what it *says* is decided here, in BuildKit's terms and with BuildKit's messages.

pub mod address;
pub mod expand;
pub mod glob;
pub mod ignore;
pub mod instruction;
pub mod lint;
pub mod parser;
pub mod suggest;

pub use instruction::{Dockerfile, parse};
pub use parser::{Lines, ParseError};
