//! What this machine can run, and making it run more.
//!
//! A platform counts as runnable only if its probe was executed here and now, and a handler counts only as far as
//! its flags go. [`Emulators::ensure`] is for the daemon: it adds what is missing and leaves what others registered
//! alone. [`Emulators::install`] and [`Emulators::uninstall`] do what somebody asked for by name. Everything here
//! blocks for some milliseconds and talks to nothing but the kernel.

mod install;
mod support;

use std::path::PathBuf;

pub use install::{InstallError, Installed};
pub(crate) use support::one_line;
pub use support::{Fix, Support, Unsupported, Verdict};

use crate::interpreter::InterpreterFolders;
use crate::kernel::{BinfmtMisc, DEFAULT_ROOT, Flags, Handler, KernelError};
use crate::machine::Machine;
use crate::platform::Platform;
use crate::probe::{ProbeFailure, Ran, probe_all};

/// What a handler needs so that builds come out right: it works in every root file system.
const NEEDED: Flags = Flags::FIX_BINARY;

/// The kernel's handlers and the emulators on disk, together.
#[derive(Debug, Clone)]
pub struct Emulators {
    kernel: BinfmtMisc,
    folders: InterpreterFolders,
}

impl Default for Emulators {
    fn default() -> Self {
        Self::new(BinfmtMisc::at(DEFAULT_ROOT), InterpreterFolders::default())
    }
}

impl Emulators {
    pub fn new(kernel: BinfmtMisc, folders: InterpreterFolders) -> Self {
        Self { kernel, folders }
    }

    pub fn kernel(&self) -> &BinfmtMisc {
        &self.kernel
    }

    /// All platforms there is a probe for, this machine's own first.
    pub fn known_platforms() -> Vec<Platform> {
        let host = Platform::host();
        let mut platforms: Vec<Platform> = Machine::all().iter().flat_map(Machine::platforms).collect();
        platforms.sort_by_key(|platform| *platform != host);
        let levels_at = platforms.len().min(1);
        platforms.splice(levels_at..levels_at, support::host_levels());
        platforms
    }

    /// Probes the platforms and says what each can do, changing nothing.
    pub fn survey(&self, platforms: &[Platform]) -> Vec<Support> {
        let handlers = match self.kernel.handlers() {
            Ok(handlers) => handlers,
            Err(error) => {
                // Handlers work where their list cannot be seen: in most containers. The probe tells.
                tracing::debug!(%error, "handlers cannot be listed");
                Vec::new()
            }
        };
        let newest_first = self.in_order_of_precedence(handlers);
        let probed: Vec<Platform> = platforms.iter().map(Self::probed_platform).collect();
        let outcomes = probe_all(&probed);
        platforms
            .iter()
            .zip(outcomes)
            .map(|(platform, ran)| self.judge(platform, ran, &newest_first))
            .collect()
    }

    /// Sees to it that the platforms run: registers an emulator for each that has none that builds can rely on.
    ///
    /// Handlers of others stay as they are, also weak or disabled ones; ours go beside them under a name of their
    /// own, and being newer they win.
    pub fn ensure(&self, platforms: &[Platform]) -> Vec<Support> {
        let mut supports = self.survey(platforms);
        let mut failures = Vec::new();
        let mut tried: Vec<&str> = Vec::new();
        for support in &supports {
            let Some(machine) = Machine::of(support.platform()) else {
                continue;
            };
            if !support.wants_a_handler() || tried.contains(&machine.name()) {
                continue;
            }
            tried.push(machine.name());
            match self.add_beside(machine) {
                Ok(name) => {
                    tracing::info!(handler = name, platform = %support.platform(), "emulator registered")
                }
                Err(error) => failures.push((machine.name(), error)),
            }
        }
        if tried.len() > failures.len() {
            supports = self.survey(platforms);
        }
        for support in &mut supports {
            let machine = Machine::of(support.platform()).map(Machine::name);
            if let Some(at) = failures.iter().position(|(name, _)| Some(*name) == machine) {
                let (_, error) = &failures[at];
                tracing::debug!(platform = %support.platform(), error = support::one_line(error), "no emulator registered");
                support.could_not_install(error);
            }
        }
        supports
    }

    /// The kernel asks the newest handler first, but lists them by no order that tells. Of two for the same program
    /// ours counts, as it is only ever added beside another to win over it.
    fn in_order_of_precedence(&self, mut handlers: Vec<Handler>) -> Vec<Handler> {
        handlers.sort_by_key(|handler| !handler.name.starts_with(install::BESIDE_PREFIX));
        handlers
    }

    /// Levels of a processor that one program cannot tell apart are looked up; their base is what gets probed.
    fn probed_platform(platform: &Platform) -> Platform {
        if support::is_host_level(platform) {
            Platform::host()
        } else {
            platform.clone()
        }
    }

    fn judge(&self, platform: &Platform, ran: Result<Ran, ProbeFailure>, handlers: &[Handler]) -> Support {
        let Some(machine) = Machine::of(&Self::probed_platform(platform)) else {
            return Support::new(
                platform,
                Verdict::Unsupported {
                    reason: Unsupported::Unknown,
                    fix: None,
                },
            );
        };
        let matching = |enabled| {
            move |handler: &&Handler| handler.enabled == enabled && handler.recognises(&machine.magic())
        };
        let handler = handlers.iter().find(matching(true));
        let verdict = match (ran, handler) {
            (Ok(ran), Some(handler)) => Verdict::Emulated {
                handler: Some(handler.clone()),
                preserves_argv0: ran.preserves_argv0,
            },
            (Ok(_), None) if machine.runs_without_handler() => Verdict::Native,
            (Ok(ran), None) => Verdict::Emulated {
                handler: None,
                preserves_argv0: ran.preserves_argv0,
            },
            (Err(ProbeFailure::NotExecutable), None) => {
                let disabled = handlers
                    .iter()
                    .find(matching(false))
                    .map(|handler| handler.name.clone());
                let reason = match disabled {
                    Some(handler) => Unsupported::HandlerDisabled { handler },
                    None => Unsupported::NoHandler,
                };
                Verdict::Unsupported {
                    reason,
                    fix: Some(self.fix(machine)),
                }
            }
            (Err(failure), handler) => {
                let handler = handler.map(|handler| handler.name.clone());
                Verdict::Unsupported {
                    reason: Unsupported::Probe { handler, failure },
                    fix: Some(self.fix(machine)),
                }
            }
        };
        Support::new(platform, verdict)
    }

    /// What somebody has to do so that programs of `machine` run.
    fn fix(&self, machine: &Machine) -> Fix {
        let architecture = machine.architecture();
        match self.folders.find(machine) {
            Some(_) => Fix::RegisterHandler { architecture },
            None => Fix::GetEmulator {
                architecture,
                searched: self.folders.listed(),
            },
        }
    }

    fn interpreter(&self, machine: &'static Machine) -> Result<PathBuf, InstallError> {
        self.folders
            .find(machine)
            .ok_or_else(|| InstallError::NoEmulator {
                machine: machine.name(),
                searched: self.folders.listed(),
            })
    }

    /// The version of the emulators on disk, as the first of them tells it.
    pub fn version(&self) -> Option<String> {
        let interpreter = Machine::all()
            .iter()
            .find_map(|machine| self.folders.find(machine))?;
        let told = std::process::Command::new(interpreter)
            .arg("--version")
            .stdin(std::process::Stdio::null())
            .output()
            .ok()?;
        // "qemu-aarch64 version 7.2.9 (Debian …)"
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let mut words = told.split_whitespace().skip_while(|word| *word != "version");
        words.nth(1).map(str::to_owned)
    }

    fn mounted(&self) -> Result<&BinfmtMisc, KernelError> {
        self.kernel.ensure_mounted()?;
        Ok(&self.kernel)
    }
}
