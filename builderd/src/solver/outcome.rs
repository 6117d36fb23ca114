//! What a build comes to: references to results that may not be computed yet, and what is known about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::pb;

use crate::frontend::PinnedSource;
use crate::graph::Edge;

/// A result by its place in the build's graph. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Opaque to clients, unique in the build.
    pub id: Arc<str>,
    /// The definition that leads to it; a client may hand it to another build as an input.
    pub definition: Arc<pb::Definition>,
    /// `None` is scratch.
    pub(super) edge: Option<Edge>,
}

/// One result, or one for each platform by its name.
#[derive(Clone, Debug)]
pub enum References {
    One(Option<Reference>),
    Platforms(BTreeMap<String, Reference>),
}

impl References {
    pub fn iter(&self) -> impl Iterator<Item = &Reference> {
        let (one, platforms) = match self {
            Self::One(one) => (one.as_ref(), None),
            Self::Platforms(platforms) => (None, Some(platforms)),
        };
        one.into_iter()
            .chain(platforms.into_iter().flat_map(BTreeMap::values))
    }
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub references: References,
    /// By BuildKit's keys, such as `containerimage.config/linux/arm64`.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// Images the build rests on, for its build info.
    pub sources: Vec<PinnedSource>,
}
