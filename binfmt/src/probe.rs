//! Proves that this machine runs a platform's programs, by running one.
//!
//! The program is a few dozen bytes and lives in memory: no folder has to be writable or executable. It is started
//! under a name that differs from its path and checks what it was given, since an emulator that loses argv[0] runs
//! an emulated BusyBox's `cat file` as `sh file`. All platforms are probed at once; a probe takes milliseconds.

mod sys;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use thiserror::Error;

use crate::machine::{Machine, code};
use crate::platform::Platform;

/// Far more than an emulator needs to start on a loaded machine.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// A program of the platform ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// Whether it saw the argv[0] that its caller chose.
    pub preserves_argv0: bool,
}

/// Why a platform's program did not run as it should.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProbeFailure {
    #[error("no probe is known for {platform}")]
    NoProgram { platform: Platform },
    #[error("cannot prepare the probe")]
    Prepare { source: Errno },
    #[error("the kernel has no way to run its programs")]
    NotExecutable,
    #[error("the kernel knows an emulator for it, but the emulator's file is gone")]
    InterpreterGone,
    #[error("cannot start the probe")]
    Start { source: Errno },
    #[error("cannot wait for the probe")]
    Wait { source: Errno },
    #[error("the emulator passes wrong arguments on: it does not know of the flag P")]
    WrongArguments,
    #[error("the probe was killed by signal {signal}")]
    Killed { signal: i32 },
    #[error("the probe ended with the unexpected status {status}")]
    UnexpectedStatus { status: i32 },
    #[error("the probe did not end within {limit:?}")]
    TimedOut { limit: Duration },
}

/// Runs the probe of each platform, all at the same time.
pub fn probe_all(platforms: &[Platform]) -> Vec<Result<Ran, ProbeFailure>> {
    std::thread::scope(|scope| {
        let probes: Vec<_> = platforms
            .iter()
            .map(|platform| scope.spawn(move || probe(platform)))
            .collect();
        probes
            .into_iter()
            .map(|probe| probe.join().expect("a probe has no code that panics"))
            .collect()
    })
}

/// Runs the probe of one platform.
pub fn probe(platform: &Platform) -> Result<Ran, ProbeFailure> {
    let program = Machine::of(platform).and_then(|machine| machine.probe_program(platform));
    let program = program.ok_or_else(|| ProbeFailure::NoProgram {
        platform: platform.clone(),
    })?;
    let file = file_in_memory(&program).map_err(|error| ProbeFailure::Prepare {
        source: errno(&error),
    })?;
    let child = start(&file)?;
    judge(wait(child, TIME_LIMIT)?)
}

fn file_in_memory(content: &[u8]) -> io::Result<File> {
    // Kernels since 6.3 want to be told that the file is to be executed, older ones refuse the flag.
    let executable = MemfdFlags::from_bits_retain(libc::MFD_EXEC) | MemfdFlags::CLOEXEC;
    let descriptor = rustix::fs::memfd_create("probe", executable)
        .or_else(|_| rustix::fs::memfd_create("probe", MemfdFlags::CLOEXEC))?;
    let mut file = File::from(descriptor);
    file.write_all(content)?;
    Ok(file)
}

fn start(program: &File) -> Result<Child, ProbeFailure> {
    let [first, second] = code::FURTHER_ARGUMENTS;
    let command = sys::command(program, &[code::ARGUMENT_ZERO, first, second]);
    let mut command = command.map_err(|error| ProbeFailure::Prepare {
        source: errno(&error),
    })?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().map_err(|error| match errno(&error) {
        Errno::NOEXEC => ProbeFailure::NotExecutable,
        Errno::NOENT => ProbeFailure::InterpreterGone,
        source => ProbeFailure::Start { source },
    })
}

fn wait(mut child: Child, limit: Duration) -> Result<ExitStatus, ProbeFailure> {
    let ended = ends_within(&child, limit).map_err(|source| ProbeFailure::Wait { source });
    if !matches!(ended, Ok(true)) {
        // Without this a probe that hangs would stay, or one that ended would be a zombie.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| ProbeFailure::Wait {
        source: errno(&error),
    })?;
    if ended? {
        Ok(status)
    } else {
        Err(ProbeFailure::TimedOut { limit })
    }
}

fn ends_within(child: &Child, limit: Duration) -> Result<bool, Errno> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(Errno::from_raw_os_error(error as i32)),
        }
    }
}

fn judge(status: ExitStatus) -> Result<Ran, ProbeFailure> {
    match (status.code(), status.signal()) {
        (Some(code::PASSED), _) => Ok(Ran {
            preserves_argv0: true,
        }),
        (Some(code::WRONG_ARGUMENT_ZERO), _) => Ok(Ran {
            preserves_argv0: false,
        }),
        (Some(code::WRONG_ARGUMENT_COUNT), _) => Err(ProbeFailure::WrongArguments),
        (_, Some(signal)) => Err(ProbeFailure::Killed { signal }),
        (status, None) => Err(ProbeFailure::UnexpectedStatus {
            status: status.unwrap_or_default(),
        }),
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_runs_its_own_programs() {
        assert_eq!(
            probe(&Platform::host()),
            Ok(Ran {
                preserves_argv0: true
            })
        );
    }

    #[test]
    fn the_probe_notices_a_lost_name_and_a_changed_argument_count() {
        let machine = Machine::host().unwrap();
        let file = file_in_memory(&machine.probe_program(&Platform::host()).unwrap()).unwrap();
        for (arguments, judged) in [
            (
                &["T", "a", "b"][..],
                Ok(Ran {
                    preserves_argv0: true,
                }),
            ),
            (
                &["/proc/self/fd/3", "a", "b"],
                Ok(Ran {
                    preserves_argv0: false,
                }),
            ),
            (
                &["TT", "a", "b"],
                Ok(Ran {
                    preserves_argv0: false,
                }),
            ),
            (
                &["", "a", "b"],
                Ok(Ran {
                    preserves_argv0: false,
                }),
            ),
            (&["T", "a"], Err(ProbeFailure::WrongArguments)),
            (&["T", "a", "b", "c"], Err(ProbeFailure::WrongArguments)),
        ] {
            assert_eq!(
                judge(sys::command(&file, arguments).unwrap().status().unwrap()),
                judged,
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn a_program_for_no_machine_is_not_given_to_a_shell() {
        let file = file_in_memory(b"exit 40\n").unwrap();
        assert_eq!(start(&file).map(drop), Err(ProbeFailure::NotExecutable));
    }

    #[test]
    fn a_program_that_takes_no_notice_of_its_arguments_proves_nothing() {
        assert_eq!(
            judge(ExitStatus::from_raw(0)),
            Err(ProbeFailure::UnexpectedStatus { status: 0 })
        );
        assert_eq!(
            judge(ExitStatus::from_raw(11)),
            Err(ProbeFailure::Killed { signal: 11 })
        );
    }

    #[test]
    fn a_probe_that_hangs_is_ended() {
        let child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let limit = Duration::from_millis(20);
        assert_eq!(wait(child, limit).unwrap_err(), ProbeFailure::TimedOut { limit });
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let platform = Platform::linux("sparc64");
        assert_eq!(
            probe(&platform).unwrap_err().to_string(),
            "no probe is known for linux/sparc64"
        );
    }
}
