//! The builds that are going on, by the reference that their client chose.
//!
//! The calls of one build arrive in any order: whoever is early waits. An ended build stays for a while, so that
//! readers of its progress get all of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::build::Build;

/// How long an ended build can still be read.
const LINGER: Duration = Duration::from_secs(10);

/// Why a build was not taken up.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("job ID {0} exists")]
    Exists(String),
    #[error("the daemon is stopping")]
    Stopping,
}

#[derive(Debug)]
pub struct Builds {
    state: Mutex<State>,
    /// Changes with every build that is added or ends.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    by_reference: HashMap<String, Entry>,
    lingering: JoinSet<()>,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    build: Arc<Build>,
    running: bool,
}

impl Default for Builds {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Builds {
    /// Takes up a build; it ends when the returned value is dropped.
    pub(super) fn start(self: &Arc<Self>, build: Arc<Build>) -> Result<Running, StartError> {
        let reference = build.reference().to_owned();
        {
            let mut state = self.lock();
            if state.stopping {
                return Err(StartError::Stopping);
            }
            if state
                .by_reference
                .get(&reference)
                .is_some_and(|entry| entry.running)
            {
                return Err(StartError::Exists(reference));
            }
            state.by_reference.insert(
                reference,
                Entry {
                    build: Arc::clone(&build),
                    running: true,
                },
            );
        }
        self.changed.send_replace(());
        Ok(Running {
            builds: Arc::clone(self),
            build,
        })
    }

    /// The build with this reference, as soon as it is there.
    pub(super) async fn wait(&self, reference: &str, patience: Duration) -> Option<Arc<Build>> {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                if let Some(entry) = self.lock().by_reference.get(reference) {
                    return Some(Arc::clone(&entry.build));
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(patience, found).await.ok().flatten()
    }

    /// Takes up no more builds.
    pub fn refuse_more(&self) {
        self.lock().stopping = true;
    }

    /// Stops all builds.
    pub fn cancel_all(&self) {
        for entry in self.lock().by_reference.values() {
            entry.build.cancel();
        }
    }

    /// Resolves once no build is running.
    pub async fn idle(&self) {
        let mut changed = self.changed.subscribe();
        while self.lock().by_reference.values().any(|entry| entry.running) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn end(self: &Arc<Self>, build: &Arc<Build>) {
        build.end();
        {
            let mut state = self.lock();
            // What lingered long enough is reaped here, so that the set does not grow.
            while state.lingering.try_join_next().is_some() {}
            if let Some(entry) = state.by_reference.get_mut(build.reference()) {
                entry.running = false;
            }
            // When the runtime itself goes down, nobody is left to read.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let (builds, build) = (Arc::downgrade(self), Arc::downgrade(build));
                let forget = async move {
                    tokio::time::sleep(LINGER).await;
                    if let (Some(builds), Some(build)) = (builds.upgrade(), build.upgrade()) {
                        builds.forget(&build);
                    }
                };
                state.lingering.spawn_on(forget, &runtime);
            }
        }
        self.changed.send_replace(());
    }

    fn forget(&self, build: &Arc<Build>) {
        let mut state = self.lock();
        // A later build may have taken the reference over.
        let entry = state.by_reference.get(build.reference());
        if entry.is_some_and(|entry| Arc::ptr_eq(&entry.build, build)) {
            state.by_reference.remove(build.reference());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A build that goes on. Dropping it — its call ended or was given up — stops the build and ends its progress.
#[derive(Debug)]
pub(super) struct Running {
    builds: Arc<Builds>,
    build: Arc<Build>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.builds.end(&self.build);
    }
}
