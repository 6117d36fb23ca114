//! How a vertex gets its result: the one that is recorded, or a new one.

use std::collections::BTreeSet;
use std::sync::Arc;

use binfmt::Platform;
use proto::pb;

use super::job::{Done, failure};
use super::proxied::Proxied;
use super::schedule::Outputs;
use super::{Job, SolveError, cache_key, platforms};
use crate::graph::Vertex;
use crate::ops::remains::Remains;
use crate::ops::{self, OpError};
use crate::progress::VertexProgress;
use crate::store::view::{Found, LastLink};
use crate::store::{CacheKey, CachedResult, Snapshot};

impl Job {
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
        let hit = self.store().lookup(&key)?;
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
                if done.cached {
                    progress.cached();
                } else {
                    self.store().note_step(&done.outputs, &vertex.name);
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
        let store = self.store();
        let key = cache_key::of_operation(&vertex.op, self.proxies(&vertex.op), inputs);
        let fresh = vertex.metadata.ignore_cache;
        let _flight = if fresh {
            None
        } else {
            Some(self.solver().flights().lock(key).await)
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
            Some(pb::op::Op::Exec(op)) => self.step(op, vertex, &key, inputs, progress, remains).await,
            Some(pb::op::Op::File(op)) => self.files(op, vertex, &key, inputs, progress, remains).await,
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

    async fn step(
        self: &Arc<Self>,
        op: &pb::ExecOp,
        vertex: &Vertex,
        key: &CacheKey,
        inputs: &[Snapshot],
        progress: &VertexProgress,
        remains: &mut Remains,
    ) -> Result<Done, OpError> {
        self.check_platforms().await?;
        self.fetch(inputs, progress).await?;
        self.check_sources(op, inputs, remains).await?;
        let content_key = self.step_content_key(op, &vertex.op, inputs).await?;
        if !vertex.metadata.ignore_cache
            && let Some(content_key) = content_key
            && let Some(hit) = self.recall_step(vertex, key, content_key)
        {
            return Ok(hit);
        }
        // Before the turn: who waits for a cache must not keep the one who has it from running.
        let lent = Arc::new(self.lent(op, inputs, vertex.metadata.ignore_cache).await?);
        let _turn = self.solver().step_turn().await;
        progress.start();
        // Dropping this future — a sibling failed, the client went away — must end the process too.
        let cancel = self.cancellation().child_token();
        let _guard = cancel.clone().drop_guard();
        let proxy = self.proxy_for(op)?;
        let surroundings = ops::exec::Surroundings {
            store: self.store(),
            sandboxes: self.sandboxes(),
            progress,
            cancel: &cancel,
            outlet: proxy.as_ref().map(Proxied::link),
            limits: ops::exec::limits(&vertex.metadata),
        };
        let outputs = ops::exec::run(op, inputs, lent, &surroundings, remains).await;
        let fetched = match &proxy {
            Some(proxy) => Some(proxy.finish(progress).await),
            None => None,
        };
        let outputs = outputs?;
        let done = self.made(key, outputs);
        self.remember_content(content_key, &done);
        if let Some(fetched) = fetched {
            let keys: Vec<CacheKey> = [*key].into_iter().chain(content_key).collect();
            self.remember_fetched(vertex, &keys, fetched);
        }
        Ok(done)
    }

    async fn files(
        &self,
        op: &pb::FileOp,
        vertex: &Vertex,
        key: &CacheKey,
        inputs: &[Snapshot],
        progress: &VertexProgress,
        remains: &mut Remains,
    ) -> Result<Done, OpError> {
        self.fetch(inputs, progress).await?;
        let content_key = self.content_key(op, inputs).await?;
        if !vertex.metadata.ignore_cache
            && let Some(hit) = self.recall_content(key, content_key)
        {
            return Ok(hit);
        }
        progress.start();
        let outputs = match ops::file::run(op.clone(), inputs.to_vec(), self.store().clone()).await {
            Ok(outputs) => outputs,
            Err(failed) => {
                let (error, left) = *failed;
                *remains = left;
                return Err(error.into());
            }
        };
        let done = self.made(key, outputs);
        self.remember_content(content_key, &done);
        Ok(done)
    }

    fn made(&self, key: &CacheKey, outputs: Vec<Snapshot>) -> Done {
        self.store().remember(key, &CachedResult::now(outputs.clone()));
        Done {
            outputs,
            cached: false,
        }
    }

    /// Before the first step: a build for a platform that cannot run fails before it has run anything.
    async fn check_platforms(&self) -> Result<(), OpError> {
        let mut proved = self.proved().lock().await;
        let needed: BTreeSet<Platform> = self.graph().step_platforms().map(platforms::of).collect();
        let open: BTreeSet<Platform> = needed.difference(&proved).cloned().collect();
        if !open.is_empty() {
            let pool = self.store().pool();
            self.solver().platforms().require(open.clone(), pool).await?;
            proved.extend(open);
        }
        Ok(())
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
            let store = self.store().clone();
            let is_missing = move || {
                let view = ops::file::view_of(&snapshot, &store);
                match view.and_then(|view| view.lookup(&selector, LastLink::Follow)) {
                    Ok(resolved) => matches!(resolved.found, Found::Nothing),
                    Err(error) => error.is_not_found(),
                }
            };
            if self.store().pool().run(is_missing).await? {
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
}
