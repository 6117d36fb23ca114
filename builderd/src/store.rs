//! The state folder: blobs, layer folders, cache records. Nobody else touches it.
//!
//! A *layer* is an immutable folder in overlayfs upper format; a *snapshot* is a list of layers, lowest first.

use std::fmt;
use std::sync::Arc;

/// Name of a layer folder: a random id for layers built here, the diff id (`sha256:…`) for layers of images.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
pub struct LayerId(Arc<str>);

impl LayerId {
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for LayerId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file system: its layers, lowest first. Empty is `scratch`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<LayerId>", into = "Vec<LayerId>")]
pub struct Snapshot(Arc<[LayerId]>);

impl Snapshot {
    pub fn new(layers: impl Into<Arc<[LayerId]>>) -> Self {
        Self(layers.into())
    }

    pub fn layers(&self) -> &[LayerId] {
        &self.0
    }

    pub fn is_scratch(&self) -> bool {
        self.0.is_empty()
    }

    /// The snapshot that has `layer` on top of this one.
    pub fn with(&self, layer: LayerId) -> Self {
        self.0
            .iter()
            .cloned()
            .chain([layer])
            .collect::<Vec<_>>()
            .into_iter()
            .collect()
    }
}

impl From<Vec<LayerId>> for Snapshot {
    fn from(layers: Vec<LayerId>) -> Self {
        Self(layers.into())
    }
}

impl From<Snapshot> for Vec<LayerId> {
    fn from(snapshot: Snapshot) -> Self {
        snapshot.0.to_vec()
    }
}

impl FromIterator<LayerId> for Snapshot {
    fn from_iter<I: IntoIterator<Item = LayerId>>(layers: I) -> Self {
        Self(layers.into_iter().collect())
    }
}
