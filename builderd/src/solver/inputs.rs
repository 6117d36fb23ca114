//! Where a job's files come from: resolves its sources, and pulls the layers that an operation is about to read.

use std::sync::Arc;

use binfmt::Platform;
use proto::pb;
use registry::Reference;
use registry::digest::{Algorithm, Digest};

use super::Job;
use super::job::Done;
use super::platforms;
use super::provenance::{ImageMaterial, Material};
use crate::graph::Vertex;
use crate::ops::OpError;
use crate::progress::VertexProgress;
use crate::session::{ContentStore, SessionError};
use crate::sources::blob::{self, BlobSource};
use crate::sources::git::{self, Git, GitError, GitSource, Objects, Resolved};
use crate::sources::http::{self, HttpError, HttpSource, Loaded};
use crate::sources::image::{self, FetchError, Freshness, Image, ImageError};
use crate::sources::local::{self, LocalSource};
use crate::store::{CacheKey, CachedResult, Snapshot};

pub(super) const IMAGE: &str = "docker-image";
pub(super) const LAYOUT: &str = "oci-layout";
const LOCAL: &str = "local";
const GIT: &str = "git";
const HTTP: &str = "http";
const HTTPS: &str = "https";

/// Whether the objects behind a reference are wanted, which have to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WantedObjects {
    None,
    All,
}

/// What a source wants of an image besides its reference.
fn check_attributes(source: &pb::SourceOp, image: &Image) -> Result<(), OpError> {
    match source.attrs.get("image.checksum") {
        Some(checksum) if checksum != image.digest.as_str() => Err(OpError::Unsupported(format!(
            "image digest {} for {} does not match expected checksum {checksum}",
            image.digest,
            source.identifier.trim_start_matches("docker-image://"),
        ))),
        _ => Ok(()),
    }
}

/// How many of an image's layers a source takes, the lowest first.
fn layer_limit(source: &pb::SourceOp, key: &str) -> Result<Option<usize>, OpError> {
    let Some(text) = source.attrs.get(key) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(limit) if limit > 0 => Ok(Some(limit)),
        _ => Err(OpError::Unsupported(format!(
            "invalid layer limit {text:?} of {}: expected a number above 0",
            source.identifier
        ))),
    }
}

impl Job {
    pub(super) async fn source(
        &self,
        source: &pb::SourceOp,
        vertex: &Vertex,
        progress: &VertexProgress,
    ) -> Result<Done, OpError> {
        let permitted = self.permitted(source, vertex.op.platform.as_ref()).await;
        let source = &permitted.map_err(|error| OpError::Policy(Box::new(error)))?;
        let note = |material| self.notes().material(&vertex.digest, material);
        let snapshot = match source.identifier.split_once("://") {
            Some((LOCAL, _)) => {
                let source = LocalSource::parse(source)?;
                note(Material::Local {
                    name: source.files.name.clone(),
                });
                // Builds that share a session take the same folder one after the other: the second finds what the first
                // was sent, and asks for nothing but the rest.
                let _turn = self.solver().flights().lock(self.transfer_key(&source)).await;
                local::load(&source, self.sessions(), self.store(), progress).await?
            }
            Some((IMAGE, reference)) => {
                let mode = source.attrs.get("image.resolvemode").map_or("", String::as_str);
                let platform = platforms::of(vertex.op.platform.as_ref());
                let status = progress.status(&format!("resolve {reference}"), "resolve");
                let image = self
                    .image(reference, &platform, Freshness::from_mode(mode))
                    .await?;
                status.complete();
                check_attributes(source, &image)?;
                note(Material::Image(ImageMaterial {
                    reference: reference.to_owned(),
                    platform: Some(to_registry(&platform)),
                    digest: image.digest.clone(),
                    local: false,
                }));
                image::lowest(&image.snapshot, layer_limit(source, "image.layerlimit")?)
            }
            Some((LAYOUT, reference)) => {
                let platform = platforms::of(vertex.op.platform.as_ref());
                let (image, snapshot) = self.layout(source, reference, &platform, progress).await?;
                note(Material::Image(ImageMaterial {
                    reference: reference.to_owned(),
                    platform: Some(to_registry(&platform)),
                    digest: image.digest,
                    local: true,
                }));
                snapshot
            }
            Some((blob::REGISTRY | blob::LAYOUT, _)) => {
                let (done, material) = self.blob(BlobSource::parse(source)?, progress).await?;
                note(material);
                return Ok(done);
            }
            Some((GIT, _)) => return self.repository(source, vertex, progress).await,
            Some((HTTP | HTTPS, _)) => {
                let request = self.download(source, progress)?;
                let _flight = self.solver().flights().lock(request.flight()).await;
                let loaded = self.loaded(&request).await?;
                request.verify(&loaded).await?;
                note(Material::Http {
                    url: source.identifier.clone(),
                    digest: loaded.digest.clone(),
                });
                return Ok(Done {
                    outputs: vec![loaded.snapshot],
                    cached: loaded.cached,
                });
            }
            _ => {
                let what = &source.identifier;
                return Err(OpError::Unsupported(format!(
                    "source {what} is not supported: use an image, an OCI layout, a blob of either, a folder, a git \
                     repository or an http address"
                )));
            }
        };
        Ok(Done {
            outputs: vec![snapshot],
            cached: false,
        })
    }

    /// An image in an OCI layout of a client.
    async fn layout(
        &self,
        source: &pb::SourceOp,
        reference: &str,
        platform: &Platform,
        progress: &VertexProgress,
    ) -> Result<(Image, Snapshot), OpError> {
        let reference = parse(reference)?;
        let attribute = |key: &str| source.attrs.get(key).map_or("", String::as_str);
        // Without a name of its own, a store has that of the image.
        let store = match attribute("oci.store") {
            "" => reference.repository().familiar(),
            name => name.to_owned(),
        };
        let session = attribute("oci.session");
        let store = self
            .layout_store(Some(session), &store)
            .await
            .map_err(|source| ImageError::Layout {
                reference: reference.to_string(),
                source: Box::new(source),
            })?;
        let status = progress.status(&format!("resolve {reference}"), "resolve");
        let platform = to_registry(platform);
        let image = self
            .images()
            .resolve_layout(&reference, &platform, &store)
            .await?;
        status.complete();
        check_attributes(source, &image)?;
        let snapshot = image::lowest(&image.snapshot, layer_limit(source, "oci.layerlimit")?);
        self.images().bring_layers(&snapshot, &store, progress).await?;
        Ok((image, snapshot))
    }

    /// The OCI layout that a client serves under a name.
    pub(super) async fn layout_store(
        &self,
        session: Option<&str>,
        name: &str,
    ) -> Result<ContentStore, SessionError> {
        let id = format!("oci:{name}");
        self.sessions().store_named(session, &id).await
    }

    /// The files of a commit, which are known by its name once they were fetched.
    async fn repository(
        &self,
        source: &pb::SourceOp,
        vertex: &Vertex,
        progress: &VertexProgress,
    ) -> Result<Done, OpError> {
        let source = GitSource::parse(source)?;
        let store = self.store();
        let request = self.git_request(source, progress).await?;
        let resolved = self.resolved(&request).await?;
        self.notes().material(
            &vertex.digest,
            Material::Git {
                url: request.source().address(),
                commit: resolved.commit.clone().unwrap_or_else(|| resolved.object.clone()),
                bundle: request.source().bundle.clone(),
            },
        );
        // Also of what is here already: it may have come without being asked whose it is.
        request.verify(&resolved).await?;
        let key = request.source().cache_key(&resolved);
        let _flight = self.solver().flights().lock(key).await;
        if let Some(hit) = store.lookup(&key) {
            return Ok(Done {
                outputs: hit.outputs,
                cached: true,
            });
        }
        let outputs = vec![request.check_out(&resolved).await?];
        store.remember(&key, &CachedResult::now(outputs.clone()));
        Ok(Done {
            outputs,
            cached: false,
        })
    }

    /// Looks up what a repository's reference names, and the objects behind it if they are wanted, in a vertex of its own.
    pub(super) async fn resolve_repository(
        &self,
        source: &pb::SourceOp,
        name: &str,
        wanted: WantedObjects,
    ) -> Result<(Resolved, Objects), GitError> {
        let progress = self.progress().internal_vertex(name);
        let resolve = async {
            let source = GitSource::parse(source)?;
            let request = self.git_request(source, &progress).await?;
            let mut resolved = self.resolved(&request).await?;
            request.verify(&resolved).await?;
            let objects = match wanted {
                WantedObjects::None => Objects::default(),
                WantedObjects::All => request.objects(&mut resolved).await?,
            };
            Ok((resolved, objects))
        };
        progress.during(resolve).await
    }

    /// Stands for a folder of a client, whatever is asked for of it.
    fn transfer_key(&self, source: &LocalSource) -> CacheKey {
        let sessions = match &source.session {
            Some(id) => id.clone(),
            None => self.sessions().ids().join(" "),
        };
        let folder = [sessions.as_str(), &source.files.name, &source.shared_key_hint];
        CacheKey::new("local transfer", folder)
    }

    fn download<'a>(
        &'a self,
        source: &pb::SourceOp,
        progress: &'a VertexProgress,
    ) -> Result<http::Request<'a>, HttpError> {
        Ok(http::Request {
            downloader: self.solver().downloader(),
            source: HttpSource::parse(source)?,
            sessions: self.sessions(),
            store: self.store(),
            log: progress,
        })
    }

    /// The file as this build has seen it already, unless it now demands another one.
    async fn loaded(&self, request: &http::Request<'_>) -> Result<Loaded, HttpError> {
        let (key, wanted) = (request.source.identity(), request.source.checksum.as_ref());
        if let Some(seen) = self.seen().file(&key)
            && wanted.is_none_or(|wanted| *wanted == seen.digest)
        {
            return Ok(seen);
        }
        let loaded = request.load().await?;
        self.seen().keep_file(key, &loaded);
        Ok(loaded)
    }

    /// Prepares the use of a repository; with the bundle that stands for it, if there is one.
    async fn git_request(
        &self,
        source: GitSource,
        progress: &VertexProgress,
    ) -> Result<git::Request, GitError> {
        let bundle = match &source.bundle {
            Some(place) => {
                let brought = self.bring_blob(place, progress).await;
                brought.map_err(|error| GitError::Bundle(Box::new(error)))?;
                Some(self.store().blobs().path(&place.digest))
            }
            None => None,
        };
        let (sessions, store) = (self.sessions(), self.store().clone());
        let request = git::Request::open(Git::default(), source, sessions, store, progress.clone()).await?;
        Ok(request.with_bundle(bundle))
    }

    /// What a repository's reference named when this build first asked.
    async fn resolved(&self, request: &git::Request) -> Result<Resolved, GitError> {
        let key = request.source().identity();
        if let Some(seen) = self.seen().reference(&key) {
            return Ok(seen);
        }
        let resolved = request.resolve().await?;
        self.seen().keep_reference(key, &resolved);
        Ok(resolved)
    }

    /// Gets a file, in a vertex of its own; if it is wanted, with another digest of it and some more bytes.
    pub(super) async fn resolve_file(
        &self,
        source: &pb::SourceOp,
        name: &str,
        checksum: Option<(Algorithm, Vec<u8>)>,
    ) -> Result<(Loaded, Option<Digest>), HttpError> {
        let progress = self.progress().internal_vertex(name);
        let resolve = async {
            let request = self.download(source, &progress)?;
            let _flight = self.solver().flights().lock(request.flight()).await;
            let loaded = self.loaded(&request).await?;
            request.verify(&loaded).await?;
            let digest = match checksum {
                Some((algorithm, suffix)) => Some(request.checksum(&loaded, algorithm, suffix).await?),
                None => None,
            };
            Ok((loaded, digest))
        };
        progress.during(resolve).await
    }

    async fn image(
        &self,
        reference: &str,
        platform: &Platform,
        freshness: Freshness,
    ) -> Result<Arc<Image>, OpError> {
        let reference = parse(reference)?;
        Ok(self
            .images()
            .resolve(&reference, &to_registry(platform), freshness)
            .await?)
    }

    /// Brings the files of all inputs here.
    pub(super) async fn fetch(
        &self,
        inputs: &[Snapshot],
        progress: &VertexProgress,
    ) -> Result<(), FetchError> {
        for input in inputs {
            self.images().fetch(input, progress).await?;
        }
        Ok(())
    }

    /// Brings the files of a result here, for somebody outside of the graph who reads them.
    pub(crate) async fn fetch_files(&self, snapshot: &Snapshot) -> Result<(), FetchError> {
        if snapshot
            .layers()
            .iter()
            .all(|layer| self.store().has_folder(layer))
        {
            return Ok(());
        }
        let progress = self.progress().internal_vertex("[internal] fetch files");
        progress.during(self.images().fetch(snapshot, &progress)).await
    }
}

fn parse(reference: &str) -> Result<Reference, OpError> {
    reference.parse().map_err(|source| OpError::Reference {
        reference: reference.to_owned(),
        source,
    })
}

/// A platform as images name it.
pub(super) fn to_registry(platform: &Platform) -> registry::Platform {
    registry::Platform {
        os_version: platform.os_version().to_owned(),
        ..registry::Platform::new(platform.os(), platform.architecture(), platform.variant())
    }
}
