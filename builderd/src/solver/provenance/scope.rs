//! Requests within requests: a client asks for a frontend, which may ask for another one.
//!
//! A result is told with everything that its scope solved and looked up: a Dockerfile that was read is no part of the
//! image's graph, but the image was made from it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use proto::pb;

use super::request::Asked;
use super::{ImageMaterial, lock};

/// A definition that was solved, by the id of its reference.
type Solved = (Arc<str>, Arc<pb::Definition>);

#[derive(Debug, Default)]
pub struct Scope {
    /// The request of a frontend; the client itself was not asked for anything.
    pub(super) asked: Option<Asked>,
    /// The request that began the build.
    pub(super) root: Option<Asked>,
    images: Mutex<Vec<ImageMaterial>>,
    solved: Mutex<Vec<Solved>>,
    children: Mutex<Vec<Arc<Self>>>,
}

impl Scope {
    pub(super) fn of_build(root: Asked) -> Self {
        Self {
            root: Some(root),
            ..Self::default()
        }
    }

    /// The scope of a frontend that is asked from this one.
    pub fn child(&self, asked: Asked) -> Arc<Self> {
        let says_something = |asked: &&Asked| !asked.is_empty();
        let root = self.root.as_ref().filter(says_something).or(self.asked.as_ref());
        let child = Arc::new(Self {
            root: root.cloned(),
            asked: Some(asked),
            ..Self::default()
        });
        lock(&self.children).push(Arc::clone(&child));
        child
    }

    /// Notes an image that somebody looked up.
    pub fn looked_up(&self, image: ImageMaterial) {
        let mut images = lock(&self.images);
        if !images.contains(&image) {
            images.push(image);
        }
    }

    /// Notes a definition that was solved; `id` is its reference's.
    pub fn solved(&self, id: Arc<str>, definition: Arc<pb::Definition>) {
        lock(&self.solved).push((id, definition));
    }

    /// The request as others tell it whose input is a result of it.
    pub fn told(&self) -> Option<serde_json::Value> {
        let asked = self.asked.as_ref()?;
        Some(asked.told(&super::capture::Sources::default()).to_json())
    }

    /// All images that were looked up, here and below.
    pub(super) fn images(&self) -> Vec<ImageMaterial> {
        let mut images = lock(&self.images).clone();
        let children = lock(&self.children).clone();
        images.extend(children.iter().flat_map(|child| child.images()));
        images
    }

    /// All definitions that were solved here and below, besides those with these ids.
    pub(super) fn others(&self, without: &BTreeSet<Arc<str>>) -> Vec<Arc<pb::Definition>> {
        let wanted = |(id, _): &&Solved| !without.contains(id);
        let mut found: Vec<_> = lock(&self.solved)
            .iter()
            .filter(wanted)
            .map(|(_, definition)| Arc::clone(definition))
            .collect();
        let children = lock(&self.children).clone();
        found.extend(children.iter().flat_map(|child| child.others(without)));
        found
    }
}
