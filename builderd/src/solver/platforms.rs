//! Which platforms this machine runs: proved by execution, when the daemon starts and before a build's first step.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;

use binfmt::{Emulators, Platform, Support};
use proto::pb;

use crate::ops::OpError;
use crate::store::Pool;

/// The emulators of the machine and what the last look at them found.
#[derive(Debug)]
pub struct Platforms {
    emulators: Emulators,
    known: Mutex<Option<Vec<Support>>>,
}

impl Platforms {
    pub fn new(emulators: Emulators) -> Self {
        Self {
            emulators,
            known: Mutex::new(None),
        }
    }

    /// Everything that runs here and can be probed, the machine's own platform first; registers what is missing. The
    /// first call looks, later ones remember.
    pub async fn offered(&self, pool: &Pool) -> Vec<Support> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return known;
        }
        let emulators = self.emulators.clone();
        let found = pool
            .run(move || emulators.ensure(&Emulators::known_platforms()))
            .await
            .unwrap_or_default();
        let runs: Vec<Support> = found.into_iter().filter(Support::runs).collect();
        for warning in runs.iter().filter_map(Support::warning) {
            tracing::warn!("{warning}");
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(runs.clone());
        runs
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

/// The platform of an operation; unset is the machine's own.
pub fn of(platform: Option<&pb::Platform>) -> Platform {
    platform.map_or_else(Platform::host, |p| {
        Platform::new(&p.os, &p.architecture, &p.variant)
    })
}
