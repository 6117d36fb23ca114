//! What results were made from, for provenance: every request of a build, what it resolved, and what each operation of
//! a result's graph took from outside.
//!
//! The job notes what its sources came to while it runs; when a result is exported, its graph is walked and the notes
//! are put together.

mod capture;
mod predicate;
mod producers;
mod request;
mod scope;
mod steps;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use proto::pb;
use registry::Digest;

use crate::proxy::Fetched;
use crate::sources::blob::BlobPlace;

pub use capture::{Gaps, Subject};
pub use predicate::Options;
pub(super) use producers::{Producers, Registration};
pub use request::Asked;
pub use scope::Scope;

/// An image that was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMaterial {
    pub reference: String,
    pub platform: Option<registry::Platform>,
    pub digest: Digest,
    /// From an OCI layout of the client.
    pub local: bool,
}

/// What a source operation brought into a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    Image(ImageMaterial),
    /// `reference` is the name of a repository with the digest of a blob in it.
    Blob {
        reference: String,
        digest: Digest,
        local: bool,
    },
    /// `url` with the reference as its fragment.
    Git {
        url: String,
        commit: String,
        /// What the commits came in, if not from the repository.
        bundle: Option<BlobPlace>,
    },
    Http {
        url: String,
        digest: Digest,
    },
    Local {
        name: String,
    },
}

/// What a job notes for its provenance.
#[derive(Debug)]
pub struct Notes {
    pub(super) started: jiff::Timestamp,
    pub(super) invocation: String,
    scope: OnceLock<Arc<Scope>>,
    compatibility: OnceLock<i64>,
    /// By the digest of their operation.
    materials: Mutex<HashMap<String, Material>>,
    /// What steps with the proxy for their network fetched, by the digest of their operation.
    fetched: Mutex<HashMap<String, Fetched>>,
    /// The digests of operations in graphs by those in the definitions that they came in.
    renamed: Mutex<HashMap<String, String>>,
    /// The network of steps is the proxy.
    proxied: bool,
    registrations: Mutex<Vec<Registration>>,
}

impl Notes {
    /// Of a build; `proxied` if the network of its steps is the proxy.
    pub fn of(proxied: bool) -> Self {
        Self {
            started: jiff::Timestamp::now(),
            invocation: format!("{:032x}", rand::random::<u128>()),
            scope: OnceLock::new(),
            compatibility: OnceLock::new(),
            materials: Mutex::default(),
            fetched: Mutex::default(),
            renamed: Mutex::default(),
            proxied,
            registrations: Mutex::default(),
        }
    }

    /// Whether a step has the proxy for its network.
    pub fn proxies(&self, step: &pb::ExecOp) -> bool {
        self.proxied && step.network != i32::from(pb::NetMode::None)
    }

    /// Says what the client asked of the daemon. Once, before anything is solved.
    pub fn begin(&self, asked: Asked, compatibility: i64) {
        self.scope.set(Arc::new(Scope::of_build(asked))).ok();
        self.compatibility.set(compatibility).ok();
    }

    /// The client's own scope: what it solves and looks up itself.
    pub fn scope(&self) -> &Arc<Scope> {
        self.scope.get_or_init(Arc::default)
    }

    pub(super) fn compatibility(&self) -> i64 {
        self.compatibility.get().copied().unwrap_or_default()
    }

    /// What the source operation with this digest came to.
    pub fn material(&self, operation: &str, material: Material) {
        lock(&self.materials).insert(operation.to_owned(), material);
    }

    fn material_of(&self, operation: &str) -> Option<Material> {
        self.find(&self.materials, operation)
    }

    /// What the step with this digest fetched through the proxy.
    pub fn fetched(&self, operation: &str, fetched: Fetched) {
        lock(&self.fetched).insert(operation.to_owned(), fetched);
    }

    fn fetched_by(&self, operation: &str) -> Option<Fetched> {
        self.find(&self.fetched, operation)
    }

    /// Says that operations have other digests now, as a policy put other sources in the place of theirs.
    pub fn renamed(&self, names: HashMap<String, String>) {
        lock(&self.renamed).extend(names);
    }

    fn find<T: Clone>(&self, noted: &Mutex<HashMap<String, T>>, operation: &str) -> Option<T> {
        /// The rules of a build, and those of a request in it.
        const MOST_NAMES: usize = 2;
        let noted = lock(noted);
        let renamed = lock(&self.renamed);
        let mut name = operation;
        for _ in 0..MOST_NAMES {
            match (noted.get(name), renamed.get(name)) {
                (None, Some(other)) => name = other,
                (found, _) => return found.cloned(),
            }
        }
        noted.get(name).cloned()
    }

    pub(super) fn keep(&self, registration: Registration) {
        lock(&self.registrations).push(registration);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Additions of an administrator to the provenance of all builds.
pub type Environment = BTreeMap<String, serde_json::Value>;
