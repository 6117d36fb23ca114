//! Images in registries: what `imagetools inspect` shows, in the shapes that scripts around buildx expect, and how
//! `imagetools create` makes new ones of old ones.
//!
//! [`combine`] is for everybody who assembles an index, wherever its parts come from.

pub mod annotations;
mod attestations;
mod build_info;
pub mod combine;
mod load;
mod print;
mod schema;
pub mod sources;
mod template;

pub use load::inspect;
pub use print::summary;
pub use template::{parse as parse_format, render};
