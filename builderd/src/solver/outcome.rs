//! What a build comes to: references to results that may not be computed yet, and what is known about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::pb;

use super::provenance::Scope;
use crate::exporters::AttestationSubject;
use crate::frontend::PinnedSource;
use crate::graph::Edge;

/// A result by its place in the build's graph. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Opaque to clients, unique in the build.
    pub id: Arc<str>,
    /// The definition that leads to it; a client may hand it to another build as an input.
    pub definition: Arc<pb::Definition>,
    /// What a scanner of packages looks at beside the result, by name.
    pub(super) scanned: Arc<BTreeMap<String, pb::Definition>>,
    /// Whose request made it.
    pub(super) scope: Arc<Scope>,
    /// `None` is scratch.
    pub(super) edge: Option<Edge>,
}

/// A statement about a result that a frontend hands in, not computed yet.
#[derive(Clone, Debug)]
pub struct Attested {
    /// A folder of statements instead of one predicate.
    pub bundle: bool,
    pub reference: Option<Reference>,
    pub path: String,
    pub predicate_type: String,
    pub subjects: Vec<AttestationSubject>,
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// One result, or one for each platform by its name.
#[derive(Clone, Debug)]
pub enum References {
    One(Option<Reference>),
    Platforms(BTreeMap<String, Reference>),
}

impl References {
    /// The result for a platform; one result stands for whatever platform it has.
    pub fn find(&self, platform: &str) -> Option<&Reference> {
        match self {
            Self::One(one) => one.as_ref(),
            Self::Platforms(platforms) => platforms.get(platform),
        }
    }

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
    /// By the names of platforms.
    pub attestations: BTreeMap<String, Vec<Attested>>,
}
