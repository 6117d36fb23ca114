//! Second keys of operations: by the files that they take from their inputs, however those came about.

use proto::pb;

use super::job::Done;
use super::{Job, cache_key};
use crate::graph::Vertex;
use crate::ops::{self, OpError};
use crate::store::{CacheKey, CachedResult, Snapshot};

impl Job {
    /// What is recorded under the second key of an operation, from now on also under its first.
    pub(super) fn recall_content(&self, key: &CacheKey, content_key: Option<CacheKey>) -> Option<Done> {
        let hit = self.store().lookup(&content_key?)?;
        self.store().remember(key, &hit);
        Some(Done {
            outputs: hit.outputs,
            cached: true,
        })
    }

    /// The same for a step, with what it fetched.
    pub(super) fn recall_step(&self, vertex: &Vertex, key: &CacheKey, content_key: CacheKey) -> Option<Done> {
        let fetched = self.fetched_under(vertex, &content_key)?;
        let hit = self.recall_content(key, Some(content_key))?;
        if let Some(fetched) = fetched {
            self.remember_fetched(vertex, &[*key], fetched);
        }
        Some(hit)
    }

    pub(super) fn remember_content(&self, content_key: Option<CacheKey>, done: &Done) {
        if let Some(key) = content_key {
            self.store()
                .remember(&key, &CachedResult::now(done.outputs.clone()));
        }
    }

    /// The second key of a step: by what its mounts show.
    pub(super) async fn step_content_key(
        &self,
        exec: &pb::ExecOp,
        op: &pb::Op,
        inputs: &[Snapshot],
    ) -> Result<Option<CacheKey>, OpError> {
        if ops::exec::bases(exec, inputs.len())?.len() == inputs.len() {
            return Ok(None);
        }
        let operation = cache_key::operation(op, self.proxies(op));
        let (exec, inputs, store) = (exec.clone(), inputs.to_vec(), self.store().clone());
        let pool = store.pool().clone();
        pool.run(move || ops::exec::content_key(&exec, &operation, &inputs, &store))
            .await?
    }

    /// The second key of a file operation: by what it takes from its sources, so that other changes there do not matter.
    pub(super) async fn content_key(
        &self,
        op: &pb::FileOp,
        inputs: &[Snapshot],
    ) -> Result<Option<CacheKey>, OpError> {
        let from = inputs.last().and_then(|snapshot| snapshot.layers().last());
        let snapshot = from.map_or_else(|| "scratch".to_owned(), |layer| layer.as_str().to_owned());
        let (op, inputs, store) = (op.clone(), inputs.to_vec(), self.store().clone());
        let pool = store.pool().clone();
        let content = pool
            .run(move || ops::file::content_key(&op, &inputs, &store))
            .await?;
        content.map_err(|source| OpError::CacheKey { snapshot, source })
    }
}
