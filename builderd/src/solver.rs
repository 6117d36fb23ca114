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
mod inputs;
mod job;
mod nested;
mod outcome;
pub mod platforms;
mod policy;
mod provenance;
mod remote;
mod rules;
mod sbom;
mod schedule;
mod seen;
mod source_meta;
mod source_time;

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

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
use crate::progress::{self, Progress};
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
    platforms: platforms::Platforms,
    flights: Flights,
    producers: provenance::Producers,
    environment: OnceLock<Environment>,
    /// Bytes kept of each step's output.
    step_log: OnceLock<usize>,
    /// Turns for steps that run at the same time, over all builds.
    turns: Semaphore,
}

impl Solver {
    pub fn new(store: Store, executor: Executor, emulators: Emulators, registries: registry::Config) -> Self {
        // Steps often wait for a disk or a network, so more of them run than there are cores.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = Semaphore::new((2 * cores).max(4));
        let platforms = platforms::Platforms::new(emulators);
        Self(Arc::new(Inner {
            store,
            executor,
            registries: registry::Client::new(registries, Arc::new(registry::client::Anonymous)),
            downloader: Downloader::default(),
            platforms,
            flights: Flights::default(),
            producers: provenance::Producers::default(),
            environment: OnceLock::new(),
            step_log: OnceLock::new(),
            turns,
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

    /// Sets what the provenance of every build tells besides. Once, before the first build.
    pub fn set_environment(&self, environment: Environment) {
        self.0.environment.set(environment).ok();
    }

    fn environment(&self) -> &Environment {
        self.0.environment.get_or_init(Environment::default)
    }

    fn producers(&self) -> &provenance::Producers {
        &self.0.producers
    }

    fn downloader(&self) -> &Downloader {
        &self.0.downloader
    }

    fn flights(&self) -> &Flights {
        &self.0.flights
    }

    /// How many bytes of each step's output are kept. Once, before the first build.
    pub fn limit_logs(&self, bytes: usize) {
        self.0.step_log.set(bytes).ok();
    }

    fn new_progress(&self) -> Progress {
        Progress::with_limit(self.0.step_log.get().copied().unwrap_or(progress::STEP_LOG))
    }

    /// How many steps may run at the same time, before the first one runs.
    pub fn limit_steps(&self, most: NonZeroUsize) {
        let turns = &self.0.turns;
        let now = turns.available_permits();
        match most.get().checked_sub(now) {
            Some(more) => turns.add_permits(more.min(Semaphore::MAX_PERMITS - now)),
            None => drop(turns.forget_permits(now - most.get())),
        }
    }

    async fn step_turn(&self) -> SemaphorePermit<'_> {
        self.0
            .turns
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }
}
