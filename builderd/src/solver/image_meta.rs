//! What is known of images before anybody takes their files: looked up for frontends, clients and scanners.

use std::sync::Arc;

use proto::pb;

use super::Job;
use super::inputs::{IMAGE, LAYOUT, to_registry};
use super::platforms;
use super::provenance::ImageMaterial;
use super::rules::Rules;
use super::source_meta::SourceMetaError;
use crate::frontend::{ResolveMode, ResolvedImage, WantedImage};
use crate::sources::image::{Freshness, Image, ImageError};

impl Job {
    /// Looks up an image; with what provenance says of it.
    pub(crate) async fn looked_up(
        &self,
        wanted: WantedImage,
        rules: &Rules,
    ) -> Result<(ResolvedImage, ImageMaterial), SourceMetaError> {
        let platform = to_registry(&wanted.platform);
        let local = wanted.layout.is_some();
        let image = self.resolve_image(wanted, rules).await?;
        let material = ImageMaterial {
            reference: image.reference.to_string(),
            platform: Some(platform),
            digest: image.digest.clone(),
            local,
        };
        Ok((image, material))
    }

    /// Looks up the image that policies make of one, and its config, in a vertex of its own.
    pub(crate) async fn resolve_image(
        &self,
        mut wanted: WantedImage,
        rules: &Rules,
    ) -> Result<ResolvedImage, SourceMetaError> {
        let kind = match &wanted.layout {
            Some(_) => LAYOUT,
            None => IMAGE,
        };
        let source = pb::SourceOp {
            identifier: format!("{kind}://{}", wanted.reference),
            ..pb::SourceOp::default()
        };
        let platform = platforms::message(&wanted.platform);
        let allowed = self.allowed(&source, Some(&platform), rules).await?;
        if allowed.identifier != source.identifier {
            wanted.reference = match allowed.identifier.split_once("://") {
                Some((scheme, reference)) if scheme == kind => {
                    reference.parse().map_err(SourceMetaError::Reference)?
                }
                _ => return Err(SourceMetaError::Elsewhere(Box::new(allowed))),
            };
        }
        self.look_up_image(wanted)
            .await
            .map_err(|error| SourceMetaError::Image(Box::new(error)))
    }

    pub(super) async fn look_up_image(&self, wanted: WantedImage) -> Result<ResolvedImage, ImageError> {
        let progress = self.progress().internal_vertex(&wanted.name);
        let freshness = match wanted.mode {
            ResolveMode::PreferLocal => Freshness::PreferKnown,
            ResolveMode::Default | ResolveMode::ForcePull => Freshness::Ask,
        };
        let image = progress.during(self.find_image(&wanted, freshness)).await?;
        Ok(ResolvedImage {
            reference: wanted.reference,
            digest: image.digest.clone(),
            config: image.config.clone(),
        })
    }

    async fn find_image(&self, wanted: &WantedImage, freshness: Freshness) -> Result<Arc<Image>, ImageError> {
        let platform = to_registry(&wanted.platform);
        let Some(layout) = &wanted.layout else {
            return self
                .images()
                .resolve(&wanted.reference, &platform, freshness)
                .await;
        };
        let store = self.layout_store(layout.session.as_deref(), &layout.name).await;
        let store = store.map_err(|source| ImageError::Layout {
            reference: wanted.reference.to_string(),
            source: Box::new(source),
        })?;
        let image = self
            .images()
            .resolve_layout(&wanted.reference, &platform, &store)
            .await?;
        Ok(Arc::new(image))
    }
}
