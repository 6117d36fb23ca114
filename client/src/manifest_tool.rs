//! What `manifest-tool` does: indexes from a YAML file or from arguments, and a look at images that shows every layer.
//!
//! Differs from [`crate::manifest`] in having no state of its own: a [`Spec`] says everything, [`gather`] finds out
//! what it means, [`push`] makes it so.

mod assemble;
mod gather;
mod inspect;
mod raw;
mod spec;
mod template;

pub use self::assemble::{AssembleError, Kind, push};
pub use self::gather::{Missing, gather};
pub use self::inspect::{Colours, inspect};
pub use self::raw::raw_json;
pub use self::spec::Spec;
pub use self::template::from_args;
