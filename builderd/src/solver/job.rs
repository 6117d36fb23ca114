//! One build: its graph, what of it is done, and everything that ends with it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use binfmt::Platform;
use futures::future::BoxFuture;
use proto::pb;
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

use super::failed::Told;
use super::nested::Nesting;
use super::outcome::Reference;
use super::policy::SourcePolicy;
use super::provenance::Notes;
use super::remote::Caches;
use super::rules::Rules;
use super::schedule::{self, Outputs};
use super::seen::Seen;
use super::{Failure, SolveError, Solver};
use crate::executor::Sandboxes;
use crate::executor::step::{NetworkMode, SecurityMode};
use crate::graph::{Edge, Graph, Vertex};
use crate::ops::remains::Remains;
use crate::ops::{self, OpError};
use crate::progress::{Progress, VertexProgress};
use crate::proxy::Authority;
use crate::session::Group;
use crate::sources::image::Images;
use crate::store::{CacheKey, Snapshot, Store};

/// What a client may ask for beyond the ordinary, as granted to one build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    pub network_host: bool,
    pub security_insecure: bool,
    /// Whatever devices there are.
    pub all_devices: bool,
    /// These devices; one that has another name in the build, by that name.
    pub devices: BTreeMap<String, Option<String>>,
}

#[derive(Debug)]
pub struct Job {
    solver: Solver,
    /// Keeps what this build uses from being removed.
    store: Store,
    /// The sessions that serve files and credentials.
    sessions: Group,
    policy: SourcePolicy,
    entitlements: Entitlements,
    /// Whom steps with the proxy for their network trust; made for the first of them.
    authority: OnceLock<Arc<Authority>>,
    graph: Mutex<Graph>,
    finished: Mutex<HashMap<String, Outputs>>,
    caches: Caches,
    /// What clients were told about, by id.
    references: Mutex<HashMap<Arc<str>, Reference>>,
    notes: Notes,
    seen: Seen,
    nesting: Nesting,
    /// What failed operations left that clients were told about, by id.
    remnants: Mutex<HashMap<String, Told>>,
    progress: Progress,
    cancel: CancellationToken,
    sandboxes: Sandboxes,
    images: Images,
    /// The caches of steps that this build began anew, because it shall use none.
    renewed_caches: Mutex<HashSet<CacheKey>>,
    /// The platforms that were proved to run for this build.
    proved: AsyncMutex<BTreeSet<Platform>>,
}

/// The result of one vertex, and whether it was there already.
pub(super) struct Done {
    pub(super) outputs: Vec<Snapshot>,
    pub(super) cached: bool,
}

impl Job {
    pub fn new(
        solver: Solver,
        sessions: Group,
        policy: SourcePolicy,
        entitlements: Entitlements,
        proxied: bool,
    ) -> Arc<Self> {
        let store = solver.store().leased();
        Arc::new(Self {
            progress: solver.new_progress(),
            sandboxes: solver.executor().sandboxes(),
            images: solver.images_for(&sessions, &store),
            store,
            solver,
            sessions,
            policy,
            entitlements,
            authority: OnceLock::new(),
            graph: Mutex::default(),
            finished: Mutex::default(),
            caches: Caches::default(),
            references: Mutex::default(),
            notes: Notes::of(proxied),
            seen: Seen::default(),
            nesting: Nesting::default(),
            remnants: Mutex::default(),
            cancel: CancellationToken::new(),
            renewed_caches: Mutex::default(),
            proved: AsyncMutex::default(),
        })
    }

    pub fn solver(&self) -> &Solver {
        &self.solver
    }

    /// The store; what goes through this handle stays until the build has ended.
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn sessions(&self) -> &Group {
        &self.sessions
    }

    pub(super) fn policy(&self) -> Option<&Group> {
        self.policy.session.as_ref()
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.policy.rules
    }

    pub fn images(&self) -> &Images {
        &self.images
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// What provenance will tell.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    pub(super) fn known_authority(&self) -> &OnceLock<Arc<Authority>> {
        &self.authority
    }

    pub(super) fn nesting(&self) -> &Nesting {
        &self.nesting
    }

    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    pub(super) fn proved(&self) -> &AsyncMutex<BTreeSet<Platform>> {
        &self.proved
    }

    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Adds a definition to the build's graph; nothing runs yet.
    pub fn load(&self, definition: &pb::Definition) -> Result<Option<Edge>, SolveError> {
        self.load_under(definition, &Rules::default())
    }

    /// The same under further rules about sources.
    pub(super) fn load_under(
        &self,
        definition: &pb::Definition,
        rules: &Rules,
    ) -> Result<Option<Edge>, SolveError> {
        let mut definition = Cow::Borrowed(definition);
        for rules in [self.rules(), rules] {
            if let Some(rewritten) = rules.rewrite(&definition)? {
                self.notes.renamed(rewritten.renamed);
                definition = Cow::Owned(rewritten.definition);
            }
        }
        let mut graph = self.graph();
        let known = graph.len();
        let edge = graph.load(&definition)?;
        // Before anything is run: a build that lacks a right fails at once.
        for vertex in (known..graph.len()).map(|index| graph.vertex(index)) {
            if let Some(pb::op::Op::Exec(op)) = &vertex.op.op
                && let Err(error) = self.check_entitlements(op)
            {
                return Err(failure(vertex, Remains::default(), error));
            }
        }
        Ok(edge)
    }

    /// Brings about the snapshots behind `targets`, which come from [`Self::load`].
    pub fn evaluate<'a>(
        self: &'a Arc<Self>,
        targets: &'a [Edge],
    ) -> BoxFuture<'a, Result<Vec<Snapshot>, SolveError>> {
        // Boxed, as an operation may itself be a build.
        Box::pin(schedule::evaluate(self, targets))
    }

    pub(super) fn graph(&self) -> MutexGuard<'_, Graph> {
        lock(&self.graph)
    }

    pub(super) fn references(&self) -> MutexGuard<'_, HashMap<Arc<str>, Reference>> {
        lock(&self.references)
    }

    /// Empties a cache for a build that uses none, once: of several steps the others wait until that is done.
    pub(super) fn renew_cache(&self, key: &CacheKey) -> std::io::Result<()> {
        let mut renewed = lock(&self.renewed_caches);
        if !renewed.contains(key) {
            self.store().forget_cache(key)?;
            renewed.insert(*key);
        }
        Ok(())
    }

    pub(super) fn remnants(&self) -> MutexGuard<'_, HashMap<String, Told>> {
        lock(&self.remnants)
    }

    pub(crate) fn sandboxes(&self) -> &Sandboxes {
        &self.sandboxes
    }

    pub(super) fn finished(&self, digest: &str) -> Option<Outputs> {
        lock(&self.finished).get(digest).cloned()
    }

    /// The outputs of a vertex, if the one that is asked for is there: a cache may have had only some of them.
    pub(super) fn finished_output(&self, digest: &str, output: usize) -> Option<Outputs> {
        self.finished(digest).filter(|_| self.caches.has(digest, output))
    }

    pub(super) fn remote_caches(&self) -> &Caches {
        &self.caches
    }

    /// Takes in one output of a vertex that is not run.
    pub(super) fn finish_part(&self, digest: &str, output: usize, snapshot: Snapshot) {
        let mut finished = lock(&self.finished);
        let known = finished.get(digest).map_or(&[][..], |outputs| outputs);
        let mut outputs = known.to_vec();
        if outputs.len() <= output {
            outputs.resize(output + 1, Snapshot::default());
        }
        if let Some(place) = outputs.get_mut(output) {
            *place = snapshot;
        }
        finished.insert(digest.to_owned(), outputs.into());
        self.caches.add_part(digest, output);
    }

    /// Shows a vertex that a cache answered.
    pub(super) fn announce_cached(&self, vertex: &Vertex) {
        self.announce(&self.graph(), vertex).cached();
    }

    pub(super) fn finish(&self, digest: &str, outputs: &Outputs) {
        self.caches.is_whole(digest);
        lock(&self.finished).insert(digest.to_owned(), Arc::clone(outputs));
    }

    pub(super) fn announce(&self, graph: &Graph, vertex: &Vertex) -> VertexProgress {
        let inputs = vertex
            .inputs
            .iter()
            .map(|edge| graph.vertex(edge.vertex).digest.clone())
            .collect();
        self.progress.vertex(
            &vertex.digest,
            &vertex.name,
            inputs,
            vertex.metadata.progress_group.clone(),
        )
    }

    pub(super) fn reporter(&self, vertex: &Vertex) -> VertexProgress {
        self.progress
            .vertex(&vertex.digest, &vertex.name, Vec::new(), None)
    }

    pub(super) fn entitlements(&self) -> &Entitlements {
        &self.entitlements
    }

    pub(super) fn check_entitlements(&self, op: &pb::ExecOp) -> Result<(), OpError> {
        if ops::exec::network(op)? == NetworkMode::Host && !self.entitlements.network_host {
            return Err(OpError::NotAllowed {
                entitlement: "network.host",
            });
        }
        if ops::exec::security(op)? == SecurityMode::Insecure && !self.entitlements.security_insecure {
            return Err(OpError::NotAllowed {
                entitlement: "security.insecure",
            });
        }
        Ok(())
    }
}

pub(super) fn failure(vertex: &Vertex, remains: Remains, error: OpError) -> SolveError {
    SolveError::Vertex(Arc::new(Failure {
        vertex: vertex.digest.clone(),
        name: vertex.name.clone(),
        ranges: vertex.source.clone(),
        op: vertex.op.clone(),
        description: vertex.metadata.description.clone(),
        remains,
        error,
    }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
