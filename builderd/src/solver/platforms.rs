//! Which platforms this machine runs: proved by execution, when the daemon starts and before a build's first step.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;

use binfmt::kernel::Handler;
use binfmt::{Emulators, Platform, Support};
use proto::pb;

use crate::ops::OpError;
use crate::store::Pool;

/// The emulators of the machine and what the last look at them found.
#[derive(Debug)]
pub struct Platforms {
    emulators: Emulators,
    known: Mutex<Option<Known>>,
}

/// The last look: the kernel's handlers as they were, and what was found to run.
#[derive(Clone, Debug)]
struct Known {
    handlers: Vec<Handler>,
    runs: Vec<Support>,
}

impl Platforms {
    pub fn new(emulators: Emulators) -> Self {
        Self {
            emulators,
            known: Mutex::new(None),
        }
    }

    /// Everything that runs here and can be probed, the machine's own platform first; registers what is missing.
    /// Probing all takes some 100 ms, so it is done again only when the kernel's handlers have changed.
    pub async fn offered(&self, pool: &Pool) -> Vec<Support> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let emulators = self.emulators.clone();
        let look = pool.run(move || look(&emulators, known)).await;
        let Ok((known, fresh)) = look else {
            return Vec::new();
        };
        if fresh {
            for warning in known.runs.iter().filter_map(Support::warning) {
                tracing::warn!("{warning}");
            }
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        }
        known.runs
    }

    /// Proves the platforms anew, as handlers can go away; the error names the first that does not run, and the fix.
    pub async fn require(&self, platforms: BTreeSet<Platform>, pool: &Pool) -> Result<(), OpError> {
        let foreign: Vec<Platform> = platforms
            .into_iter()
            .filter(|platform| *platform != Platform::host())
            .collect();
        if foreign.is_empty() {
            return Ok(());
        }
        let emulators = self.emulators.clone();
        let supports = pool.run(move || emulators.ensure(&foreign)).await?;
        match supports.iter().find_map(Support::explanation) {
            Some(explanation) => Err(OpError::Platform(explanation)),
            None => Ok(()),
        }
    }
}

/// What is known if it is still true, else what is found now, and whether it is new.
fn look(emulators: &Emulators, known: Option<Known>) -> (Known, bool) {
    // Where the list cannot be read, as in most containers, it never changes.
    let handlers = || emulators.kernel().handlers().unwrap_or_default();
    if let Some(known) = known.filter(|known| known.handlers == handlers()) {
        return (known, false);
    }
    let found = emulators.ensure(&Emulators::known_platforms());
    let runs = found.into_iter().filter(Support::runs).collect();
    (
        Known {
            handlers: handlers(),
            runs,
        },
        true,
    )
}

/// The platform of an operation; unset is the machine's own.
pub fn of(platform: Option<&pb::Platform>) -> Platform {
    platform.map_or_else(Platform::host, |p| {
        Platform::new(&p.os, &p.architecture, &p.variant).with_os_version(&p.os_version)
    })
}

/// A platform as operations name it.
pub(super) fn message(platform: &Platform) -> pb::Platform {
    pb::Platform {
        os: platform.os().to_owned(),
        architecture: platform.architecture().to_owned(),
        variant: platform.variant().to_owned(),
        os_version: platform.os_version().to_owned(),
        ..pb::Platform::default()
    }
}
