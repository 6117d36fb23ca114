//! Sources: where the files that a build starts from come from.

pub mod blob;
pub mod git;
pub mod http;
pub mod image;
pub mod local;
mod one_file;
pub mod signature;
