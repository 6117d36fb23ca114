//! Registering and removing handlers.

use thiserror::Error;

use super::{Emulators, Verdict};
use crate::kernel::{Flags, KernelError};
use crate::machine::Machine;
use crate::platform::Platform;

/// Handlers that the daemon adds beside those of others.
pub(super) const BESIDE_PREFIX: &str = "trimaran-";

/// What [`Emulators::install`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    /// There was no handler of the name.
    Registered { handler: String },
    /// There was one, with other flags, another interpreter, or disabled.
    Replaced { handler: String },
    /// The handler was as it should be.
    Unchanged { handler: String },
    /// This machine runs such programs itself.
    Native,
}

#[derive(Debug, Error)]
pub enum InstallError {
    #[error(
        "no static emulator for {machine} is in {searched}: install QEMU's static user emulators (`apt-get install qemu-user-static` on Debian and Ubuntu), or name their folder with --qemu-path"
    )]
    NoEmulator { machine: &'static str, searched: String },
    #[error("both {preferred} and {beside} are registered for something else")]
    NamesTaken { preferred: String, beside: String },
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("no handler is called {name:?}; registered are: {registered}")]
    NoSuchHandler { name: String, registered: String },
}

fn preferred_name(machine: &Machine) -> String {
    format!("qemu-{}", machine.name())
}

fn name_beside(machine: &Machine) -> String {
    format!("{BESIDE_PREFIX}{}", machine.name())
}

impl Emulators {
    /// Registers the emulator of `machine` as `qemu-…` with all flags, in place of a handler of that name that is not
    /// as good.
    pub fn install(&self, machine: &'static Machine) -> Result<Installed, InstallError> {
        // A handler for the machine's own programs would send every program through the emulator.
        if self.is_native(machine) {
            return Ok(Installed::Native);
        }
        let interpreter = self.interpreter(machine)?;
        let kernel = self.mounted()?;
        let handler = preferred_name(machine);
        let existing = kernel.handler(&handler)?;
        if let Some(existing) = &existing {
            let as_wanted = existing.enabled
                && existing.interpreter == interpreter
                && existing.flags.contains(Flags::ALL)
                && existing.recognises(&machine.magic());
            if as_wanted {
                return Ok(Installed::Unchanged { handler });
            }
            kernel.unregister(&handler)?;
        }
        kernel.register(&handler, machine, &interpreter, Flags::ALL)?;
        // The one we once added beside it has no purpose any more.
        let beside = name_beside(machine);
        if kernel.handler(&beside)?.is_some() {
            kernel.unregister(&beside)?;
        }
        Ok(if existing.is_some() {
            Installed::Replaced { handler }
        } else {
            Installed::Registered { handler }
        })
    }

    /// Removes the handlers that `pattern` means: a handler's name, an architecture, or a start of names with "*".
    pub fn uninstall(&self, pattern: &str) -> Result<Vec<String>, InstallError> {
        let handlers: Vec<String> = self
            .kernel
            .handlers()?
            .into_iter()
            .map(|handler| handler.name)
            .collect();
        let wanted: Vec<String> = match (pattern.strip_suffix('*'), Machine::named(pattern)) {
            (Some(start), _) => handlers
                .iter()
                .filter(|name| name.starts_with(start))
                .cloned()
                .collect(),
            (None, _) if handlers.iter().any(|name| name == pattern) => vec![pattern.to_owned()],
            (None, Some(machine)) => {
                let ours = [preferred_name(machine), name_beside(machine)];
                ours.into_iter().filter(|name| handlers.contains(name)).collect()
            }
            (None, None) => Vec::new(),
        };
        if wanted.is_empty() {
            let registered = if handlers.is_empty() {
                "none".to_owned()
            } else {
                handlers.join(", ")
            };
            return Err(InstallError::NoSuchHandler {
                name: pattern.to_owned(),
                registered,
            });
        }
        for name in &wanted {
            self.kernel.unregister(name)?;
        }
        Ok(wanted)
    }

    /// Registers an emulator without touching handlers of others; returns the handler's name.
    pub(super) fn add_beside(&self, machine: &'static Machine) -> Result<String, InstallError> {
        let interpreter = self.interpreter(machine)?;
        let kernel = self.mounted()?;
        let preferred = preferred_name(machine);
        let beside = name_beside(machine);
        let name = if kernel.handler(&preferred)?.is_none() {
            preferred
        } else if kernel.handler(&beside)?.is_none() {
            beside
        } else {
            return Err(InstallError::NamesTaken { preferred, beside });
        };
        kernel.register(&name, machine, &interpreter, Flags::ALL)?;
        Ok(name)
    }

    /// Whether this machine runs the machine's programs without an emulator.
    fn is_native(&self, machine: &'static Machine) -> bool {
        let platforms: Vec<Platform> = machine.platforms().collect();
        machine.is_host()
            || self
                .survey(&platforms)
                .iter()
                .any(|support| matches!(support.verdict(), Verdict::Native))
    }
}
