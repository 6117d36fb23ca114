//! Images in registries: what `imagetools inspect` shows, in the shapes that scripts around buildx expect, and how
//! `imagetools create` makes new ones of old ones.

mod attestations;
mod build_info;
mod load;
mod print;
mod schema;
mod template;

pub use load::inspect;
pub use print::summary;
pub use template::{parse as parse_format, render};
