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
use crate::progress::Progress;

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

/// Of an ended build only what its readers need is left: its sandboxes and results go with it.
#[derive(Debug)]
enum Entry {
    Running(Arc<Build>),
    Ended(Progress),
}

impl Entry {
    fn running(&self) -> Option<&Arc<Build>> {
        match self {
            Self::Running(build) => Some(build),
            Self::Ended(_) => None,
        }
    }

    fn progress(&self) -> &Progress {
        match self {
            Self::Running(build) => build.progress(),
            Self::Ended(progress) => progress,
        }
    }
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
                .is_some_and(|entry| entry.running().is_some())
            {
                return Err(StartError::Exists(reference));
            }
            state
                .by_reference
                .insert(reference, Entry::Running(Arc::clone(&build)));
        }
        self.changed.send_replace(());
        Ok(Running {
            builds: Arc::clone(self),
            build,
        })
    }

    /// The running build with this reference, as soon as it is there.
    pub(super) async fn wait(&self, reference: &str, patience: Duration) -> Option<Arc<Build>> {
        self.find(reference, patience, |entry| entry.running().cloned())
            .await
    }

    /// Whether a build with this reference runs or ended just now.
    pub(super) fn knows(&self, reference: &str) -> bool {
        self.lock().by_reference.contains_key(reference)
    }

    /// The progress of the build with this reference, as soon as it is there.
    pub(super) async fn wait_for_progress(&self, reference: &str, patience: Duration) -> Option<Progress> {
        self.find(reference, patience, |entry| Some(entry.progress().clone()))
            .await
    }

    async fn find<T>(
        &self,
        reference: &str,
        patience: Duration,
        pick: impl Fn(&Entry) -> Option<T>,
    ) -> Option<T> {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                if let Some(found) = self.lock().by_reference.get(reference).and_then(&pick) {
                    return Some(found);
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
            if let Some(build) = entry.running() {
                build.cancel();
            }
        }
    }

    /// Resolves once no build is running.
    pub async fn idle(&self) {
        let mut changed = self.changed.subscribe();
        while self
            .lock()
            .by_reference
            .values()
            .any(|entry| entry.running().is_some())
        {
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
            let (reference, progress) = (build.reference().to_owned(), build.progress().clone());
            state
                .by_reference
                .insert(reference.clone(), Entry::Ended(progress.clone()));
            // When the runtime itself goes down, nobody is left to read.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let builds = Arc::downgrade(self);
                let forget = async move {
                    tokio::time::sleep(LINGER).await;
                    if let Some(builds) = builds.upgrade() {
                        builds.forget(&reference, &progress);
                    }
                };
                state.lingering.spawn_on(forget, &runtime);
            }
        }
        self.changed.send_replace(());
    }

    fn forget(&self, reference: &str, progress: &Progress) {
        let mut state = self.lock();
        // A later build may have taken the reference over.
        let entry = state.by_reference.get(reference);
        if entry.is_some_and(|entry| entry.progress().is_same(progress)) {
            state.by_reference.remove(reference);
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
