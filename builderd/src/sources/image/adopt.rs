//! Layers that no image named to this build, but a build cache.

use super::Images;
use crate::store::{LayerError, LayerId, RemoteLayer, Snapshot};

impl Images {
    /// Records layers, lowest first, with what they can be had from.
    pub fn adopt(&self, layers: Vec<RemoteLayer>) -> Result<Snapshot, LayerError> {
        self.note_blobs(&layers);
        let snapshot = layers
            .iter()
            .map(|layer| LayerId::of_image(&layer.diff_id))
            .collect();
        self.store.record_remote_layers(layers)?;
        Ok(snapshot)
    }
}
