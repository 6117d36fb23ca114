//! Starting a program that exists only in memory.

#![expect(
    unsafe_code,
    reason = "a descriptor has to survive exec in the child alone, and exec must not fall back to a shell"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// A command that runs `program` with these arguments, the first being its name, and an empty environment.
///
/// The standard library would use `execvp`, which hands programs that the kernel refuses to `/bin/sh`: instead of
/// "no handler" one would see a shell's complaint. The descriptor stays close-on-exec in the parent, so that children
/// started by other threads do not get it.
pub(super) fn command(program: &File, arguments: &[&str]) -> io::Result<Command> {
    let descriptor = program.as_raw_fd();
    let path = format!("/proc/self/fd/{descriptor}");
    let mut command = Command::new(&path);
    let path = CString::new(path)?;
    let arguments = arguments
        .iter()
        .map(|argument| CString::new(*argument))
        .collect::<Result<Vec<_>, _>>()?;
    let exec = move || {
        let mut pointers = [std::ptr::null(); 8];
        if arguments.len() >= pointers.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (pointer, argument) in pointers.iter_mut().zip(&arguments) {
            *pointer = argument.as_ptr();
        }
        let no_environment = [std::ptr::null()];
        // SAFETY: `fcntl` with F_SETFD touches only the descriptor table of the calling process, the forked child.
        // `execve` gets null-terminated strings that `path` and `arguments` own, and arrays that end with a null.
        unsafe {
            if libc::fcntl(descriptor, libc::F_SETFD, 0) != -1 {
                libc::execve(path.as_ptr(), pointers.as_ptr(), no_environment.as_ptr());
            }
        }
        Err(io::Error::last_os_error())
    };
    // SAFETY: the closure makes two async-signal-safe system calls and allocates nothing.
    unsafe { command.pre_exec(exec) };
    Ok(command)
}
