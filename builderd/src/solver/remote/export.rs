//! Writes caches: layers, the config with the records, the manifest that names them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use registry::client::HostConfig;
use registry::manifest::RawManifest;
use registry::media_type::{Compression as Packing, Dialect};
use registry::{Client, Descriptor, Digest, Index, Manifest, Reference};

use super::destination::Destination;
use super::format::{CONFIG, CREATED, CacheConfig, CacheLayer, DIFF_ID};
use super::records::{self, Extent, Placed};
use super::{CacheError, CacheOptions};
use crate::exporters::{Response, attributes};
use crate::graph::Edge;
use crate::progress::VertexProgress;
use crate::solver::{Job, Outcome, Reference as Target, SolveError};
use crate::store::{Compression, LayerBlob, LayerBlobError, LayerId, Snapshot};

/// The response key that names the manifest of a cache.
const MANIFEST: &str = "cache.manifest";

/// How a cache is written.
#[derive(Debug)]
struct Style {
    max: bool,
    dialect: Dialect,
    image_manifest: bool,
    compression: Compression,
}

/// The client that reaches the registry of a cache.
pub(super) fn client(
    client: &Client,
    reference: &Reference,
    options: &CacheOptions,
) -> Result<Client, CacheError> {
    if !flag(options, "registry.insecure", false)? {
        return Ok(client.clone());
    }
    let registry = reference.repository().registry();
    let known = client.config().hosts.get(registry).cloned();
    let host = HostConfig {
        insecure: true,
        ..known.unwrap_or_default()
    };
    Ok(client.with_host(registry, host))
}

fn flag(options: &CacheOptions, key: &str, default: bool) -> Result<bool, CacheError> {
    match options.attributes.get(key) {
        Some(value) => attributes::flag(key, value).map_err(|error| CacheError::Options(Box::new(error))),
        None => Ok(default),
    }
}

impl Style {
    fn of(options: &CacheOptions) -> Result<Self, CacheError> {
        let max = match options.attribute("mode") {
            None | Some("min") => false,
            Some("max") => true,
            Some(other) => {
                return Err(CacheError::Attribute {
                    key: "mode",
                    value: other.to_owned(),
                    expected: "min or max",
                });
            }
        };
        let oci = flag(options, "oci-mediatypes", true)?;
        let image_manifest = flag(options, "image-manifest", oci)?;
        if image_manifest && !oci {
            return Err(CacheError::DockerManifest);
        }
        let mut compression = Compression::default();
        let failed = |error| CacheError::Options(Box::new(error));
        if let Some(kind) = options.attribute("compression") {
            compression.kind = attributes::compression("compression", kind).map_err(failed)?;
        }
        if let Some(level) = options.attribute("compression-level") {
            compression.level = Some(attributes::number("compression-level", level).map_err(failed)?);
        }
        compression.force = flag(options, "force-compression", false)?;
        Ok(Self {
            max,
            dialect: if oci { Dialect::Oci } else { Dialect::Docker },
            image_manifest,
            compression,
        })
    }

    fn media_type(&self, layer: &Descriptor) -> String {
        match Packing::of_layer(&layer.media_type) {
            Some(packing) => self.dialect.layer(packing).to_owned(),
            None => layer.media_type.clone(),
        }
    }
}

impl Job {
    /// Exports what was built as caches. One that may fail is shown as failed and left out.
    pub fn export_caches<'a>(
        self: &'a Arc<Self>,
        outcome: &'a Outcome,
        wanted: &'a [CacheOptions],
    ) -> BoxFuture<'a, Result<Response, SolveError>> {
        self.write_caches(outcome, wanted).boxed()
    }

    async fn write_caches(
        self: &Arc<Self>,
        outcome: &Outcome,
        wanted: &[CacheOptions],
    ) -> Result<Response, SolveError> {
        let mut response = Response::new();
        for options in wanted.iter().filter(|options| !options.is_inline()) {
            let title = match options.kind.as_str() {
                "registry" => "exporting cache to registry".to_owned(),
                "local" => "exporting cache to client directory".to_owned(),
                kind => format!("exporting cache to {kind}"),
            };
            let vertex = self.progress().internal_vertex(&title);
            vertex.start();
            let export = self.export_cache(outcome, options, &vertex);
            let exported = tokio::select! {
                exported = export => exported,
                () = self.cancellation().cancelled() => return Err(SolveError::Canceled),
            };
            match exported {
                Ok(manifest) => {
                    response.extend(manifest.map(|manifest| (MANIFEST.to_owned(), manifest)));
                    vertex.complete();
                }
                Err(error) => {
                    vertex.fail(&proto::chain(&error));
                    if !flag(options, "ignore-error", false).unwrap_or(false) {
                        return Err(SolveError::Cache(Arc::new(error)));
                    }
                }
            }
        }
        Ok(response)
    }

    /// The records of one result for the config of its image.
    pub(in crate::solver) fn inline_cache<'a>(
        self: &'a Arc<Self>,
        target: &'a Target,
        snapshot: &'a Snapshot,
    ) -> BoxFuture<'a, Result<Option<String>, SolveError>> {
        self.inline_records(target, snapshot).boxed()
    }

    async fn inline_records(
        self: &Arc<Self>,
        target: &Target,
        snapshot: &Snapshot,
    ) -> Result<Option<String>, SolveError> {
        let Some(edge) = target.edge else {
            return Ok(None);
        };
        let entries = records::collect(self, &[edge], &Extent::Within(snapshot.clone())).await;
        let created = |layer: &LayerId| self.created(layer);
        let records = records::records(entries, created, |result| Placed::within(snapshot, result));
        if records
            .iter()
            .all(|record| record.results.is_empty() && record.chains.is_empty())
        {
            return Ok(None);
        }
        let text = serde_json::to_vec(&records)
            .map_err(|error| SolveError::Cache(Arc::new(CacheError::Config(error))))?;
        Ok(Some(base64::engine::general_purpose::STANDARD.encode(text)))
    }

    fn created(&self, layer: &LayerId) -> String {
        let record = self.store().layer(layer);
        let at = record.map_or(SystemTime::UNIX_EPOCH, |record| record.created_at);
        jiff::Timestamp::try_from(at).unwrap_or_default().to_string()
    }

    async fn export_cache(
        self: &Arc<Self>,
        outcome: &Outcome,
        options: &CacheOptions,
        vertex: &VertexProgress,
    ) -> Result<Option<String>, CacheError> {
        let style = Style::of(options)?;
        let destination = self.destination(options).await?;
        let status = vertex.status(
            "preparing build cache for export",
            "preparing build cache for export",
        );
        let edges: Vec<Edge> = outcome
            .references
            .iter()
            .filter_map(|target| target.edge)
            .collect();
        let extent = if style.max {
            Extent::Everything
        } else {
            let results = edges.iter().filter_map(|edge| {
                let digest = self.graph().vertex(edge.vertex).digest.clone();
                self.finished_output(&digest, edge.output)?
                    .get(edge.output)
                    .cloned()
            });
            Extent::Targets(results.collect())
        };
        let entries = records::collect(self, &edges, &extent).await;
        let mut layers: Vec<LayerId> = Vec::new();
        for entry in &entries {
            let used = entry.result.iter().flat_map(Snapshot::layers);
            let fresh: Vec<LayerId> = used.filter(|layer| !layers.contains(layer)).cloned().collect();
            layers.extend(fresh);
        }
        let mut blobs: HashMap<LayerId, LayerBlob> = HashMap::new();
        for layer in layers {
            match self
                .cache_blob(&layer, style.compression, &destination, vertex)
                .await
            {
                Ok(blob) => {
                    blobs.insert(layer, blob);
                }
                // A result less: whoever imports the cache computes it.
                Err(error) => tracing::warn!(%layer, error, "left out of the cache"),
            }
        }
        status.complete();
        let mut table = Table::default();
        let created = |layer: &LayerId| self.created(layer);
        let records = records::records(entries, created, |result| table.place(result, &blobs));
        if table.layers.is_empty() {
            let text = "skipping cache export for empty result";
            vertex.status(text, text).complete();
            return Ok(None);
        }
        let config = CacheConfig {
            layers: table.layers,
            records,
        };
        let descriptors = table
            .placed
            .iter()
            .map(|layer| self.describe(layer, &blobs, &style));
        let descriptors: Vec<Descriptor> = descriptors.flatten().collect();
        let sources: Vec<(Descriptor, LayerBlob)> = blobs
            .into_values()
            .filter(|blob| descriptors.iter().any(|one| one.digest == blob.descriptor.digest))
            .map(|blob| {
                let descriptor = Descriptor::new(
                    &blob.descriptor.media_type,
                    blob.descriptor.digest.clone(),
                    blob.descriptor.size,
                );
                (descriptor, blob)
            })
            .collect();
        let bytes: Bytes = serde_json::to_vec(&config)?.into();
        let manifest = manifest(&style, descriptors, Descriptor::of(CONFIG, &bytes))?;
        destination
            .write(self, sources, &bytes, &manifest, style.image_manifest, vertex)
            .await?;
        let descriptor = manifest.descriptor();
        Ok(Some(serde_json::to_string(&descriptor)?))
    }

    async fn destination(&self, options: &CacheOptions) -> Result<Destination, CacheError> {
        match options.kind.as_str() {
            "registry" => {
                let name = options.needed("ref")?;
                let reference: Result<Reference, _> = name.parse();
                let reference = reference.map_err(|source| CacheError::Reference {
                    name: name.to_owned(),
                    source,
                })?;
                let reference = reference.or_latest();
                let client = client(self.images().client(), &reference, options)?;
                Ok(Destination::Registry(client, reference))
            }
            "local" => {
                let id = format!("local:{}", options.needed("dest")?);
                let store = self.sessions().store_named(None, &id).await?;
                Ok(Destination::Folder(store))
            }
            kind => Err(CacheError::Kind {
                kind: kind.to_owned(),
            }),
        }
    }

    /// The blob of a layer, its bytes here if the destination cannot get them from where they are.
    async fn cache_blob(
        &self,
        layer: &LayerId,
        compression: Compression,
        destination: &Destination,
        vertex: &VertexProgress,
    ) -> Result<LayerBlob, Box<dyn std::error::Error + Send + Sync>> {
        let images = self.images();
        let came_as = images.blobs_of(layer).into_iter().next();
        let made = self
            .store()
            .layer_blob(layer, compression, came_as.as_ref())
            .await;
        let blob = match made {
            Err(LayerBlobError::Absent { remote, .. }) => {
                images.fetch_blob(&remote, vertex).await?;
                self.store()
                    .layer_blob(layer, compression, came_as.as_ref())
                    .await?
            }
            made => made?,
        };
        let stays = blob
            .remote
            .as_ref()
            .filter(|remote| remote.repositories.is_empty() || matches!(destination, Destination::Folder(_)));
        if let Some(remote) = stays {
            images.fetch_blob(remote, vertex).await?;
        }
        Ok(blob)
    }

    fn describe(
        &self,
        layer: &LayerId,
        blobs: &HashMap<LayerId, LayerBlob>,
        style: &Style,
    ) -> Option<Descriptor> {
        let blob = blobs.get(layer)?;
        let known = &blob.descriptor;
        let mut descriptor = Descriptor::new(&known.media_type, known.digest.clone(), known.size);
        descriptor.media_type = style.media_type(&descriptor);
        for (key, value) in &known.annotations {
            descriptor.set_annotation(key, value);
        }
        descriptor.set_annotation(DIFF_ID, blob.diff_id.as_str());
        descriptor.set_annotation(CREATED, self.created(layer));
        Some(descriptor)
    }
}

/// The layers of a cache, each with the one below it.
#[derive(Default)]
struct Table {
    layers: Vec<CacheLayer>,
    placed: Vec<LayerId>,
    by_place: HashMap<(i64, Digest), usize>,
}

impl Table {
    fn place(&mut self, result: &Snapshot, blobs: &HashMap<LayerId, LayerBlob>) -> Option<Placed> {
        if !result.layers().iter().all(|layer| blobs.contains_key(layer)) {
            return None;
        }
        let mut parent = -1;
        let mut top = None;
        for layer in result.layers() {
            let blob = &blobs.get(layer)?.descriptor.digest;
            let index = *self.by_place.entry((parent, blob.clone())).or_insert_with(|| {
                self.layers.push(CacheLayer {
                    blob: blob.clone(),
                    parent,
                });
                self.placed.push(layer.clone());
                self.layers.len() - 1
            });
            parent = i64::try_from(index).ok()?;
            top = Some(index);
        }
        top.map(Placed::Top)
    }
}

fn manifest(style: &Style, layers: Vec<Descriptor>, config: Descriptor) -> Result<RawManifest, CacheError> {
    if style.image_manifest {
        let manifest = Manifest::new(style.dialect.manifest(), config, layers);
        return Ok(RawManifest::from_manifest(&manifest)?);
    }
    let entries = layers.into_iter().chain([config]).collect();
    Ok(RawManifest::from_index(&Index::new(
        style.dialect.index(),
        entries,
    ))?)
}
