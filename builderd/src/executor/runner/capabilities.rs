//! Capabilities of a step: Docker's default set, or all there are.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// 0xa80425fb, what `docker run` and `docker build` give.
const DOCKER_DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Takes everything beyond Docker's set out of the bounding set; needs CAP_SETPCAP, so before `keep_default`.
pub(super) fn bound_to_default() -> io::Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if DOCKER_DEFAULT.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel's last capability lies behind us.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Nothing inheritable or ambient: what a program of another user than root gets, it must get from its file.
pub(super) fn keep_default() -> io::Result<()> {
    let sets = CapabilitySets {
        effective: DOCKER_DEFAULT,
        permitted: DOCKER_DEFAULT,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_docker_shows() {
        assert_eq!(DOCKER_DEFAULT.bits(), 0xa804_25fb);
    }
}
