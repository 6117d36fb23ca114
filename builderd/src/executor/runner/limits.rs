//! What a step may use of the machine, as `ulimit` says it.

use std::io;

use super::mounting::{Doing, SetupError};
use super::sys;
use crate::executor::step::Ulimit;

/// Limits this process and all that come from it.
pub(super) fn set(limits: &[Ulimit]) -> Result<(), SetupError> {
    for ulimit in limits {
        let doing = || format!("setting ulimit {}", ulimit.name);
        let resource =
            resource(&ulimit.name).ok_or_else(|| SetupError::new(doing(), io::ErrorKind::InvalidInput))?;
        // -1 is "unlimited" in both notations.
        sys::set_limit(resource, ulimit.soft.cast_unsigned(), ulimit.hard.cast_unsigned()).doing(doing)?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<u32> {
    Some(match name {
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    })
}
