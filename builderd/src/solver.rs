//! The solver: which vertices must run, in which order, and which results exist already.
//!
//! Results are identified bottom-up: a vertex's cache key is a hash of its operation and of the *snapshots* of its
//! inputs, so a lookup needs no file data and an unchanged build is answered from the records alone. Equal work in
//! flight is shared between builds by a lock per key. One loop per evaluation (`schedule`) owns the vertex states.

mod attest;
mod blobs;
pub mod cache_key;
mod container;
mod content_key;
mod devices;
mod error;
mod export;
mod failed;
mod frontend;
mod image_meta;
mod inputs;
mod job;
mod lent;
mod nested;
mod outcome;
pub mod platforms;
mod policy;
mod provenance;
mod proxied;
mod remote;
mod rules;
mod run;
mod sbom;
mod schedule;
mod seen;
mod source_meta;
mod source_time;

use std::num::NonZeroUsize;
use std::sync::Arc;

use binfmt::Emulators;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use attest::{AttestError, AttestRequest};
pub(crate) use container::{Container, ContainerError, ContainerRequest, Process};
pub use error::{Failure, SolveError};
pub use export::{ExportRequest, Exports};
pub use frontend::BuildRequest;
pub use job::{Entitlements, Job};
pub use outcome::{Attested, Outcome, Reference, References};
pub use policy::{PolicyError, SourcePolicy};
pub use provenance::{Asked, Environment, ImageMaterial, Notes, Scope};
pub use remote::{CacheError, CacheOptions};
pub use rules::{RuleError, Rules};
pub(crate) use source_meta::{SourceMetaError, wanted_image};

use crate::executor::Executor;
use crate::progress::{LogLimit, Progress};
use crate::proxy::Roots;
use crate::session::Group;
use crate::sources::http::Downloader;
use crate::sources::image::Images;
use crate::store::{Flights, Store};

/// What all builds of a daemon share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Solver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    executor: Executor,
    /// Without credentials; each build looks images up in its own client's name.
    registries: registry::Client,
    downloader: Downloader,
    /// What the servers that steps ask are checked against.
    roots: Roots,
    platforms: platforms::Platforms,
    flights: Flights,
    producers: provenance::Producers,
    environment: Environment,
    log_limit: LogLimit,
    /// Turns for steps that run at the same time, over all builds.
    turns: Semaphore,
}

/// What an administrator may choose for all builds.
#[derive(Debug, Default)]
pub struct Options {
    /// What the provenance of every build tells besides.
    pub environment: Environment,
    pub log_limit: LogLimit,
    /// How many steps may run at the same time; the solver's own choice if unset.
    pub steps_at_once: Option<NonZeroUsize>,
}

impl Solver {
    pub fn new(
        store: Store,
        executor: Executor,
        emulators: Emulators,
        registries: registry::Config,
        options: Options,
    ) -> Self {
        let steps = options
            .steps_at_once
            .map_or_else(steps_at_once, NonZeroUsize::get);
        let platforms = platforms::Platforms::new(emulators);
        Self(Arc::new(Inner {
            store,
            executor,
            registries: registry::Client::new(registries, Arc::new(registry::client::Anonymous)),
            downloader: Downloader::default(),
            roots: Roots::default(),
            platforms,
            flights: Flights::default(),
            producers: provenance::Producers::default(),
            environment: options.environment,
            log_limit: options.log_limit,
            turns: Semaphore::new(steps.min(Semaphore::MAX_PERMITS)),
        }))
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub fn executor(&self) -> &Executor {
        &self.0.executor
    }

    fn images_for(&self, sessions: &Group, store: &Store) -> Images {
        Images::new(
            self.0.registries.with_credentials(Arc::new(sessions.clone())),
            store.clone(),
        )
    }

    pub fn platforms(&self) -> &platforms::Platforms {
        &self.0.platforms
    }

    fn environment(&self) -> &Environment {
        &self.0.environment
    }

    fn producers(&self) -> &provenance::Producers {
        &self.0.producers
    }

    fn downloader(&self) -> &Downloader {
        &self.0.downloader
    }

    fn roots(&self) -> &Roots {
        &self.0.roots
    }

    fn flights(&self) -> &Flights {
        &self.0.flights
    }

    fn new_progress(&self) -> Progress {
        Progress::with_limit(self.0.log_limit)
    }

    async fn step_turn(&self) -> SemaphorePermit<'_> {
        self.0
            .turns
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }
}

/// Steps often wait for a disk or a network, so more of them run than there are cores.
fn steps_at_once() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * cores).max(4)
}
