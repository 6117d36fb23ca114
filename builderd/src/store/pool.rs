//! Where blocking work runs: plain functions over file descriptors and slices, a bounded number at a time.
//!
//! Work in a pool must never wait for other work of the same pool.

use std::sync::Arc;

use tokio::sync::Semaphore;

#[derive(Clone, Debug)]
pub struct Pool {
    permits: Arc<Semaphore>,
}

/// The work panicked; that is a bug, and it ends the build, not the daemon.
#[derive(Debug, thiserror::Error)]
#[error("internal error: blocking work ended without a result")]
pub struct WorkLost(#[source] tokio::task::JoinError);

impl Pool {
    /// A pool in which `limit` pieces of work run at a time.
    pub fn new(limit: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limit)),
        }
    }

    /// Runs `work` as soon as there is room. Dropping the future while the work waits takes it back; work that has
    /// begun runs to its end, so it must own what it needs and clean up by itself.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkLost> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(work)
        })
        .await
        .map_err(WorkLost)
    }
}

/// Number of cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
