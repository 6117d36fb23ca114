//! What is said about one platform, in types and in words.

use std::error::Error;
use std::fmt;

use thiserror::Error;

use super::NEEDED;
use super::install::InstallError;
use crate::kernel::{Flags, Handler};
use crate::platform::Platform;
use crate::probe::ProbeFailure;

/// A platform and whether it runs here.
#[derive(Debug, Clone)]
pub struct Support {
    platform: Platform,
    verdict: Verdict,
}

/// What the probe and the kernel's list of handlers say together.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The processor runs it.
    Native,
    /// An emulator runs it. The handler is unknown where the list of handlers cannot be read.
    Emulated {
        handler: Option<Handler>,
        preserves_argv0: bool,
    },
    /// Nothing runs it.
    Unsupported { reason: Unsupported, fix: Option<Fix> },
}

/// Why a platform does not run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unsupported {
    #[error("no emulator is known for it")]
    Unknown,
    #[error("no emulator is registered for it")]
    NoHandler,
    #[error("the handler {handler} is registered but disabled")]
    HandlerDisabled { handler: String },
    #[error("{failure}{}", handler.as_ref().map(|name| format!(" (handler {name})")).unwrap_or_default())]
    Probe {
        handler: Option<String>,
        failure: ProbeFailure,
    },
    #[error("no emulator could be registered for it: {failure}")]
    Install { failure: String },
}

/// What somebody can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    RegisterHandler {
        architecture: &'static str,
    },
    GetEmulator {
        architecture: &'static str,
        searched: String,
    },
    ReplaceHandler {
        architecture: &'static str,
    },
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RegisterHandler { architecture } => {
                write!(f, "run `binfmt --install {architecture}` as root")
            }
            Self::GetEmulator {
                architecture,
                searched,
            } => write!(
                f,
                "install QEMU's static user emulators (`apt-get install qemu-user-static` on Debian and Ubuntu; none is \
                 in {searched}), then run `binfmt --install {architecture}` as root"
            ),
            Self::ReplaceHandler { architecture } => {
                write!(f, "run `binfmt --install {architecture}` as root to replace it")
            }
        }
    }
}

impl Support {
    pub(super) fn new(platform: &Platform, verdict: Verdict) -> Self {
        Self {
            platform: platform.clone(),
            verdict,
        }
    }

    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Whether programs of the platform run, natively or emulated.
    pub fn runs(&self) -> bool {
        !matches!(self.verdict, Verdict::Unsupported { .. })
    }

    /// What is lacking in the handler of a platform that runs, and what to do; nothing if all is well.
    pub fn warning(&self) -> Option<String> {
        let Verdict::Emulated {
            handler,
            preserves_argv0,
        } = &self.verdict
        else {
            return None;
        };
        let fix = Fix::ReplaceHandler {
            architecture: crate::Machine::of(&self.platform)?.architecture(),
        };
        match handler {
            Some(handler) => {
                let lacking = handler.flags.lacking(Flags::ALL);
                if lacking.is_empty() && *preserves_argv0 {
                    return None;
                }
                let mut effects: Vec<&str> = EFFECTS
                    .iter()
                    .filter(|(flag, _)| lacking.contains(*flag))
                    .map(|(_, effect)| *effect)
                    .collect();
                if !preserves_argv0 && handler.flags.contains(Flags::PRESERVE_ARGV0) {
                    effects.push("programs lose their argv[0] although P is set");
                }
                let flags = if handler.flags.is_empty() {
                    "none".to_owned()
                } else {
                    handler.flags.to_string()
                };
                Some(format!(
                    "{}: handler {} (interpreter {}) was registered by somebody else, flags {flags} only: {}; {fix}",
                    self.platform,
                    handler.name,
                    handler.interpreter.display(),
                    effects.join("; "),
                ))
            }
            None if !preserves_argv0 => Some(format!(
                "{}: the emulator loses argv[0] of the programs it runs; {fix}",
                self.platform
            )),
            None => None,
        }
    }

    /// Why the platform does not run and what helps, as one text; nothing if it runs.
    pub fn explanation(&self) -> Option<String> {
        let Verdict::Unsupported { reason, fix } = &self.verdict else {
            return None;
        };
        let fix = fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
        Some(format!("{} cannot run here: {reason}{fix}", self.platform))
    }

    /// Whether builds need a handler beside what there is.
    pub(super) fn wants_a_handler(&self) -> bool {
        match &self.verdict {
            Verdict::Native => false,
            Verdict::Emulated {
                handler,
                preserves_argv0,
            } => {
                let weak = handler
                    .as_ref()
                    .is_some_and(|handler| !handler.flags.contains(NEEDED));
                weak || !preserves_argv0
            }
            // Who disabled a handler wants it so.
            Verdict::Unsupported {
                reason: Unsupported::HandlerDisabled { .. } | Unsupported::Unknown,
                ..
            } => false,
            Verdict::Unsupported { .. } => true,
        }
    }

    /// Adds to the verdict why the handler that was wanted is not there.
    pub(super) fn could_not_install(&mut self, error: &InstallError) {
        if let Verdict::Unsupported { reason, .. } = &mut self.verdict
            && !matches!(error, InstallError::NoEmulator { .. })
        {
            let failure = one_line(error);
            *reason = Unsupported::Install { failure };
        }
    }
}

/// An error with its causes, on one line.
pub(crate) fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

/// What each missing flag means for builds.
const EFFECTS: [(Flags, &str); 4] = [
    (
        Flags::FIX_BINARY,
        "without F it does not start inside a build's root file system",
    ),
    (
        Flags::PRESERVE_ARGV0,
        "without P programs lose their argv[0], so that BusyBox runs the wrong applet",
    ),
    (
        Flags::CREDENTIALS,
        "without C set-uid programs do not change user",
    ),
    (
        Flags::OPEN_BINARY,
        "without O programs that cannot be read do not run",
    ),
];

/// The levels of this machine's processor above its base: amd64/v2 and up.
pub(crate) fn host_levels() -> Vec<Platform> {
    let levels = processor_level();
    (2..=levels)
        .map(|level| Platform::new("linux", "amd64", &format!("v{level}")))
        .collect()
}

pub(super) fn is_host_level(platform: &Platform) -> bool {
    host_levels().contains(platform)
}

/// The x86-64 micro-architecture level, by what the psABI demands of each; 1 on other machines.
#[cfg(target_arch = "x86_64")]
fn processor_level() -> u8 {
    use std::arch::is_x86_feature_detected as has;
    let second = has!("cmpxchg16b")
        && has!("popcnt")
        && has!("sse3")
        && has!("ssse3")
        && has!("sse4.1")
        && has!("sse4.2");
    let third = second
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let fourth = third
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    match (second, third, fourth) {
        (_, _, true) => 4,
        (_, true, _) => 3,
        (true, _, _) => 2,
        _ => 1,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn processor_level() -> u8 {
    1
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::kernel::Recognition;

    fn emulated(flags: &str, preserves_argv0: bool) -> Support {
        let text = format!("enabled\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\nmagic 7f\n");
        let handler = Handler::parse("qemu-aarch64", &text).unwrap();
        Support::new(
            &Platform::linux("arm64"),
            Verdict::Emulated {
                handler: Some(handler),
                preserves_argv0,
            },
        )
    }

    #[test]
    fn a_weak_handler_is_named_with_what_its_flags_lack() {
        assert_eq!(emulated("POCF", true).warning(), None);
        assert_eq!(
            emulated("F", false).warning().unwrap(),
            "linux/arm64: handler qemu-aarch64 (interpreter /usr/bin/qemu) was registered by somebody else, flags F only: \
             without P programs lose their argv[0], so that BusyBox runs the wrong applet; \
             without C set-uid programs do not change user; without O programs that cannot be read do not run; \
             run `binfmt --install arm64` as root to replace it"
        );
        assert!(
            emulated("", true)
                .warning()
                .unwrap()
                .contains("flags none only: without F it does not start")
        );
        assert!(
            emulated("POCF", false)
                .warning()
                .unwrap()
                .contains("although P is set")
        );
    }

    #[test]
    fn only_what_builds_rely_on_is_added() {
        for (support, wanted) in [
            (emulated("POCF", true), false),
            (emulated("PF", true), false),
            (emulated("F", false), true),
            (emulated("POC", true), true),
        ] {
            assert_eq!(support.wants_a_handler(), wanted, "{support:?}");
        }
        let unsupported = |reason| {
            Support::new(
                &Platform::linux("arm64"),
                Verdict::Unsupported { reason, fix: None },
            )
        };
        assert!(unsupported(Unsupported::NoHandler).wants_a_handler());
        assert!(
            !unsupported(Unsupported::HandlerDisabled {
                handler: "x".to_owned()
            })
            .wants_a_handler()
        );
        assert!(!unsupported(Unsupported::Unknown).wants_a_handler());
        assert!(!Support::new(&Platform::host(), Verdict::Native).wants_a_handler());
    }

    #[test]
    fn what_does_not_run_is_explained_with_what_helps() {
        let fix = Some(Fix::RegisterHandler {
            architecture: "arm64",
        });
        let verdict = Verdict::Unsupported {
            reason: Unsupported::NoHandler,
            fix,
        };
        assert_eq!(
            Support::new(&Platform::linux("arm64"), verdict)
                .explanation()
                .unwrap(),
            "linux/arm64 cannot run here: no emulator is registered for it; run `binfmt --install arm64` as root"
        );
    }

    #[test]
    fn handlers_are_plain_values() {
        let handler = Handler {
            name: "x".to_owned(),
            enabled: true,
            interpreter: PathBuf::from("/x"),
            flags: Flags::ALL,
            recognition: Recognition::Extension("y".to_owned()),
        };
        let verdict = Verdict::Emulated {
            handler: Some(handler),
            preserves_argv0: true,
        };
        assert!(Support::new(&Platform::linux("arm64"), verdict).runs());
    }
}
