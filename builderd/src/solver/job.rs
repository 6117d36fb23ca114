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
use super::proxied::Proxied;
use super::remote::Caches;
use super::rules::Rules;
use super::schedule::{self, Outputs};
use super::seen::Seen;
use super::{Failure, SolveError, Solver, cache_key, platforms};
use crate::executor::Sandboxes;
use crate::executor::step::{NetworkMode, SecurityMode};
use crate::graph::{Edge, Graph, Vertex};
use crate::ops::remains::Remains;
use crate::ops::{self, OpError};
use crate::progress::{Progress, VertexProgress};
use crate::proxy::Authority;
use crate::session::Group;
use crate::sources::image::Images;
use crate::store::view::{Found, LastLink};
use crate::store::{CacheKey, CachedResult, Snapshot, Store};

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
    /// The network of steps is the proxy.
    proxied: bool,
    /// Whom those steps trust; made for the first of them.
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
            proxied,
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

    pub(super) fn is_proxied(&self) -> bool {
        self.proxied
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

    /// The recorded result of an operation, if it may be used.
    pub(super) fn recall(&self, vertex: &Vertex, inputs: &[Snapshot]) -> Option<Outputs> {
        let outputs = self.look_up(vertex, inputs)?;
        self.reporter(vertex).cached();
        Some(outputs)
    }

    /// As [`Self::recall`], without showing it.
    pub(super) fn look_up(&self, vertex: &Vertex, inputs: &[Snapshot]) -> Option<Outputs> {
        if vertex.metadata.ignore_cache || !self.may_have_result(&vertex.op) {
            return None;
        }
        let key = cache_key::of_operation(&vertex.op, self.proxies(&vertex.op), inputs);
        let hit = self.store.lookup(&key)?;
        self.recall_fetched(vertex, &key).then(|| hit.outputs.into())
    }

    /// Whether results of an operation are recorded, and this build may use them: not even what an earlier build made is
    /// for one that may not make it.
    fn may_have_result(&self, op: &pb::Op) -> bool {
        match &op.op {
            Some(pb::op::Op::Exec(exec)) => self.check_entitlements(exec).is_ok(),
            Some(pb::op::Op::Source(_)) | None => false,
            Some(_) => true,
        }
    }

    /// Runs a vertex whose result is not recorded.
    pub(super) async fn run(
        self: &Arc<Self>,
        vertex: &Vertex,
        inputs: Vec<Snapshot>,
    ) -> Result<Outputs, SolveError> {
        let progress = self.reporter(vertex);
        let mut remains = Remains::default();
        let outcome = match &vertex.op.op {
            Some(pb::op::Op::Source(source)) => {
                progress.start();
                self.source(source, vertex, &progress).await
            }
            _ => self.operation(vertex, &inputs, &progress, &mut remains).await,
        };
        match outcome {
            Ok(done) => {
                if !done.cached {
                    self.store.note_step(&done.outputs, &vertex.name);
                }
                if done.cached {
                    progress.cached();
                } else {
                    progress.complete();
                }
                Ok(done.outputs.into())
            }
            Err(OpError::Canceled) => {
                progress.fail(crate::progress::CANCELED);
                Err(SolveError::Canceled)
            }
            Err(error) => {
                progress.fail(&proto::chain(&error));
                Err(failure(vertex, remains, error))
            }
        }
    }

    async fn operation(
        self: &Arc<Self>,
        vertex: &Vertex,
        inputs: &[Snapshot],
        progress: &VertexProgress,
        remains: &mut Remains,
    ) -> Result<Done, OpError> {
        match &vertex.op.op {
            Some(pb::op::Op::Exec(op)) => self.check_entitlements(op)?,
            // Its steps have flights of their own; with one for it, two that wait for each other would never end.
            Some(pb::op::Op::Build(op)) => return self.nested(op, vertex, inputs, progress).await,
            _ => {}
        }
        let store = &self.store;
        let key = cache_key::of_operation(&vertex.op, self.proxies(&vertex.op), inputs);
        let fresh = vertex.metadata.ignore_cache;
        let _flight = if fresh {
            None
        } else {
            Some(self.solver.flights().lock(key).await)
        };
        if !fresh
            && let Some(hit) = store.lookup(&key)
            && self.recall_fetched(vertex, &key)
        {
            return Ok(Done {
                outputs: hit.outputs,
                cached: true,
            });
        }
        match &vertex.op.op {
            Some(pb::op::Op::Exec(op)) => {
                self.check_platforms().await?;
                self.fetch(inputs, progress).await?;
                self.check_sources(op, inputs, remains).await?;
                let content_key = self.step_content_key(op, &vertex.op, inputs).await?;
                if !fresh
                    && let Some(content_key) = content_key
                    && let Some(hit) = self.recall_step(vertex, &key, content_key)
                {
                    return Ok(hit);
                }
                // Before the turn: who waits for a cache must not keep the one who has it from running.
                let lent = Arc::new(self.lent(op, inputs, fresh).await?);
                let _turn = self.solver.step_turn().await;
                progress.start();
                // Dropping this future — a sibling failed, the client went away — must end the process too.
                let cancel = self.cancel.child_token();
                let _guard = cancel.clone().drop_guard();
                let proxy = self.proxy_for(op)?;
                let surroundings = ops::exec::Surroundings {
                    store,
                    sandboxes: &self.sandboxes,
                    progress,
                    cancel: &cancel,
                    outlet: proxy.as_ref().map(Proxied::link),
                };
                let outputs = ops::exec::run(op, inputs, lent, &surroundings, remains).await;
                let fetched = match &proxy {
                    Some(proxy) => Some(proxy.finish(progress).await),
                    None => None,
                };
                let outputs = outputs?;
                if let Some(fetched) = fetched {
                    let keys: Vec<CacheKey> = [key].into_iter().chain(content_key).collect();
                    self.remember_fetched(vertex, &keys, fetched);
                }
                let done = self.made(&key, outputs);
                self.remember_content(content_key, &done);
                Ok(done)
            }
            Some(pb::op::Op::File(op)) => {
                self.fetch(inputs, progress).await?;
                let content_key = self.content_key(op, inputs).await?;
                if !fresh && let Some(hit) = self.recall_content(&key, content_key) {
                    return Ok(hit);
                }
                progress.start();
                let outputs = match ops::file::run(op.clone(), inputs.to_vec(), store.clone()).await {
                    Ok(outputs) => outputs,
                    Err(failed) => {
                        let (error, left) = *failed;
                        *remains = left;
                        return Err(error.into());
                    }
                };
                let done = self.made(&key, outputs);
                self.remember_content(content_key, &done);
                Ok(done)
            }
            Some(pb::op::Op::Merge(op)) => {
                progress.start();
                let merged = ops::merge::run(op, inputs, store).await?;
                Ok(self.made(&key, vec![merged]))
            }
            Some(pb::op::Op::Diff(op)) => {
                let pair = ops::diff::Pair::of(op, inputs)?;
                if pair.needs_files() {
                    self.fetch(inputs, progress).await?;
                }
                progress.start();
                let difference = ops::diff::run(pair, store).await?;
                Ok(self.made(&key, vec![difference]))
            }
            Some(pb::op::Op::Passthrough(op)) => Ok(Done {
                outputs: ops::passthrough(op, inputs)?,
                cached: false,
            }),
            Some(pb::op::Op::Build(_) | pb::op::Op::Source(_)) | None => {
                Err(OpError::Unsupported("an operation without a kind".into()))
            }
        }
    }

    fn made(&self, key: &CacheKey, outputs: Vec<Snapshot>) -> Done {
        self.store.remember(key, &CachedResult::now(outputs.clone()));
        Done {
            outputs,
            cached: false,
        }
    }

    /// Before the first step: a build for a platform that cannot run fails before it has run anything.
    async fn check_platforms(&self) -> Result<(), OpError> {
        let mut proved = self.proved.lock().await;
        let needed: BTreeSet<Platform> = self.graph().step_platforms().map(platforms::of).collect();
        let open: BTreeSet<Platform> = needed.difference(&proved).cloned().collect();
        if !open.is_empty() {
            let pool = self.store.pool();
            self.solver.platforms().require(open.clone(), pool).await?;
            proved.extend(open);
        }
        Ok(())
    }

    pub(super) fn entitlements(&self) -> &Entitlements {
        &self.entitlements
    }

    /// What read-only mounts take from their inputs must be there before anything is run.
    async fn check_sources(
        &self,
        op: &pb::ExecOp,
        inputs: &[Snapshot],
        remains: &mut Remains,
    ) -> Result<(), OpError> {
        for mount in &op.mounts {
            let Some(input) = usize::try_from(mount.input).ok().and_then(|at| inputs.get(at)) else {
                continue;
            };
            if !mount.readonly || mount.selector.trim_matches('/').is_empty() {
                continue;
            }
            let (snapshot, selector) = (input.clone(), mount.selector.clone());
            let store = self.store.clone();
            let is_missing = move || {
                let view = ops::file::view_of(&snapshot, &store);
                match view.and_then(|view| view.lookup(&selector, LastLink::Follow)) {
                    Ok(resolved) => matches!(resolved.found, Found::Nothing),
                    Err(error) => error.is_not_found(),
                }
            };
            if self.store.pool().run(is_missing).await? {
                *remains = Remains {
                    inputs: vec![Some(input.clone())],
                    unreadable: usize::try_from(mount.input).ok(),
                    ..Remains::default()
                };
                return Err(OpError::NoSuchSource {
                    selector: mount.selector.clone(),
                    target: mount.dest.clone(),
                });
            }
        }
        Ok(())
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

fn failure(vertex: &Vertex, remains: Remains, error: OpError) -> SolveError {
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
