//! The system calls that neither rustix nor nix wraps, each behind a safe function.
#![expect(
    unsafe_code,
    reason = "clone3, mount_setattr, seccomp and _exit have no safe wrapper"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

use rustix::process::{Signal, WaitId, WaitIdOptions};

pub(super) enum Side {
    /// We are PID 1 of the new namespace.
    Inside,
    /// We waited for the one inside.
    Outside(ExitCode),
}

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Forks the single-threaded runner into new namespaces. `None` is the child.
pub(super) fn clone_into(namespaces: libc::c_int) -> io::Result<Option<OwnedFd>> {
    let mut pidfd: libc::c_int = -1;
    let arguments = CloneArguments {
        flags: (namespaces | libc::CLONE_PIDFD) as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    // SAFETY: the arguments live through the call; without CLONE_VM the child gets its own copy of all memory, and as
    // the caller has one thread only, no lock is held by anybody who does not exist in the child.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<CloneArguments>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: the kernel has just opened this descriptor for us (CLONE_PIDFD), nobody else owns it.
        _ => Ok(Some(unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Forks the single-threaded runner into the PID namespace of a step. `None` is the child.
pub(super) fn clone_beside(first: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    use nix::sched::{CloneFlags, setns};
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    setns(first, CloneFlags::CLONE_NEWPID)?;
    let cloned = clone_into(0);
    if !matches!(cloned, Ok(None)) {
        // This process has never moved itself, only where its children go.
        setns(own, CloneFlags::CLONE_NEWPID)?;
    }
    cloned
}

/// Moves a child into the other namespaces of a step; its root is the step's from then on.
pub(super) fn enter_world_of(first: BorrowedFd<'_>) -> io::Result<()> {
    use nix::sched::{CloneFlags, setns};
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    Ok(setns(first, namespaces)?)
}

/// The mount namespace of a child, if this kernel hands it out.
pub(super) fn mount_namespace_of(process: BorrowedFd<'_>) -> Option<OwnedFd> {
    /// `_IO(PIDFS_IOCTL_MAGIC, 3)`
    const PIDFD_GET_MNT_NAMESPACE: u32 = 0xFF03;
    // SAFETY: this request has no argument; others than pidfs refuse it.
    let namespace = unsafe { libc::ioctl(process.as_raw_fd(), PIDFD_GET_MNT_NAMESPACE as _, 0) };
    // SAFETY: a descriptor that is not negative was just opened for us.
    (namespace >= 0).then(|| unsafe { OwnedFd::from_raw_fd(namespace) })
}

/// Continues in a child that is PID 1 of a new PID namespace; the caller itself only waits for it.
pub(super) fn enter_pid_namespace() -> io::Result<Side> {
    match clone_into(libc::CLONE_NEWPID)? {
        None => {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(Side::Inside)
        }
        Some(inside) => {
            let status = rustix::process::waitid(WaitId::PidFd(inside.as_fd()), WaitIdOptions::EXITED)?;
            let code = status
                .and_then(|status| status.exit_status())
                .and_then(|code| u8::try_from(code).ok());
            Ok(Side::Outside(ExitCode::from(code.unwrap_or(1))))
        }
    }
}

/// Ends a child of `clone_into` at once: no destructor of the runner's state may run twice.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets attributes such as `MOUNT_ATTR_RDONLY` on a mount, or on the whole tree of mounts.
pub(super) fn set_mount_attributes(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    let attributes = MountAttributes {
        set,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant C string and the attributes live through the call, with their true size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Puts a filter on this process and all that come from it. Needs CAP_SYS_ADMIN, so that no_new_privs can stay off.
pub(super) fn install_filter(filter: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program points to `length` instructions that live through the call; the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Undoes what the Rust runtime did to this process: a broken pipe kills a step, as anywhere else.
pub(super) fn restore_signals() -> io::Result<()> {
    let default = nix::sys::signal::SigAction::new(
        nix::sys::signal::SigHandler::SigDfl,
        nix::sys::signal::SaFlags::empty(),
        nix::sys::signal::SigSet::empty(),
    );
    // SAFETY: the default action is no handler, so there is none that could be unsafe to run.
    unsafe { nix::sys::signal::sigaction(nix::sys::signal::Signal::SIGPIPE, &default) }?;
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// The program's end of a new pseudo terminal, opened without a path.
pub(super) fn terminal_behind(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the number lives through the call, which only reads it.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const unlocked) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: this request takes flags by value.
    let terminal = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) };
    if terminal == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(terminal) })
}

/// Makes a terminal the one that controls this session.
pub(super) fn control_by(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: this request takes a flag by value.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

pub(super) fn set_terminal_size(master: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the size lives through the call, which only reads it.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Nothing but the standard streams reaches the program, whatever was inherited.
pub(super) fn close_the_rest_on_start() -> io::Result<()> {
    // SAFETY: descriptors are only marked, none is closed under its owner.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sets one resource limit of this process.
pub(super) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the limit lives through the call, the kernel checks the resource number; no old value is asked for.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, 0_usize) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Brings up the loopback interface of a new network namespace.
pub(super) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request lives through the call and is of the kind that SIOCSIFFLAGS reads.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
