//! Manifest lists that are put together by hand, as `docker manifest` does: recorded locally, annotated, pushed.
//!
//! [`Lists`] shares its files with the Docker command line. [`lookup`] asks registries, [`Plan`] is what a push does.

mod document;
mod lists;
mod lookup;
mod member;
mod platforms;
mod push;
mod text;

pub use self::document::DockerList;
pub use self::lists::{Existing, Lists, ListsError, Snapshot};
pub use self::lookup::{LARGEST_CONFIG, Remote, image, lookup};
pub use self::member::Member;
pub use self::platforms::{docker_knows, manifest_tool_knows};
pub use self::push::{Plan, list_document};
pub use self::text::indent;
