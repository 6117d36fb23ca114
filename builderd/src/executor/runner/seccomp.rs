//! Docker's default seccomp profile as a classic BPF program.
//!
//! The program first tells the ABI of the call, then searches the call's number in that ABI's sorted ranges of equal
//! verdicts by bisection: some eight comparisons instead of four hundred. As in Docker, a call that the profile knows
//! and does not allow fails with EPERM, one newer than all it knows with ENOSYS (so that the C library falls back),
//! `clone3` with ENOSYS as its flags cannot be inspected, and a foreign ABI that the CPU should not have kills.

mod table;

use libc::sock_filter;
use table::{ALLOWED, N};

/// Newest call the profile speaks of; newer ones did not exist when it was written.
const NEWEST: u32 = 466;
/// The same for x32, whose own calls are numbered above all others.
const NEWEST_X32: u32 = 547;
const X32_BIT: u32 = 0x4000_0000;

const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xC000_00B7;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

/// Flags of `clone` that make namespaces: CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}.
const CLONE_NAMESPACES: u32 = 0x7E02_0000;
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;
/// PER_LINUX, PER_LINUX32, both with UNAME26, and "only ask".
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse,
    Unknown,
    Clone,
    Personality,
    Socket,
}

/// One way to call the kernel: its audit name, its column of the table, its four special calls.
struct Abi {
    audit: u32,
    column: usize,
    offset: u32,
    newest: u32,
    clone: u32,
    personality: u32,
    socket: u32,
}

const X86_64: Abi = Abi {
    audit: AUDIT_ARCH_X86_64,
    column: 0,
    offset: 0,
    newest: NEWEST,
    clone: 56,
    personality: 135,
    socket: 41,
};
const X86: Abi = Abi {
    audit: AUDIT_ARCH_I386,
    column: 1,
    offset: 0,
    newest: NEWEST,
    clone: 120,
    personality: 136,
    socket: 359,
};
const X32: Abi = Abi {
    audit: AUDIT_ARCH_X86_64,
    column: 2,
    offset: X32_BIT,
    newest: NEWEST_X32,
    clone: 56,
    personality: 135,
    socket: 41,
};
const AARCH64: Abi = Abi {
    audit: AUDIT_ARCH_AARCH64,
    column: 3,
    offset: 0,
    newest: NEWEST,
    clone: 220,
    personality: 92,
    socket: 198,
};
const ARM: Abi = Abi {
    audit: AUDIT_ARCH_ARM,
    column: 4,
    offset: 0,
    newest: NEWEST,
    clone: 120,
    personality: 136,
    socket: 281,
};
const CLONE3: u32 = 435;

/// The filter for this CPU, or `None` where we have no table for it.
pub(super) fn default_filter() -> Option<Vec<sock_filter>> {
    match std::env::consts::ARCH {
        "x86_64" => Some(assemble(&[&[X86_64, X32], &[X86]])),
        "aarch64" => Some(assemble(&[&[AARCH64], &[ARM]])),
        _ => None,
    }
}

/// First number of each range and what holds from there on, sorted, beginning at 0.
fn ranges(abis: &[Abi]) -> Vec<(u32, Verdict)> {
    let mut verdicts = Vec::new();
    for abi in abis {
        let mut calls: Vec<(u32, Verdict)> = ALLOWED
            .iter()
            .map(|(_, numbers)| (numbers[abi.column], Verdict::Allow))
            .filter(|(number, _)| *number != N)
            .chain([
                (abi.clone, Verdict::Clone),
                (abi.personality, Verdict::Personality),
                (abi.socket, Verdict::Socket),
                (CLONE3, Verdict::Unknown),
            ])
            .collect();
        calls.sort_by_key(|(number, _)| *number);
        let mut next = 0;
        for (number, verdict) in calls {
            if number > next {
                verdicts.push((
                    abi.offset + next,
                    if next > abi.newest {
                        Verdict::Unknown
                    } else {
                        Verdict::Refuse
                    },
                ));
            }
            // Between the newest ordinary call and the private ones of arm lie numbers that no profile knows.
            if number > abi.newest && next <= abi.newest {
                verdicts.push((abi.offset + abi.newest + 1, Verdict::Unknown));
            }
            verdicts.push((abi.offset + number, verdict));
            next = number + 1;
        }
        if next <= abi.newest {
            verdicts.push((abi.offset + next, Verdict::Refuse));
            next = abi.newest + 1;
        }
        verdicts.push((abi.offset + next, Verdict::Unknown));
    }
    verdicts.dedup_by(|later, earlier| later.1 == earlier.1);
    verdicts
}

// struct seccomp_data: nr, arch, instruction_pointer (64 bit), six arguments (64 bit each, little-endian here).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn give(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

fn jump(kind: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | kind | libc::BPF_K, yes, no, value)
}

fn skip(count: u32) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, count)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    // Every BPF operation code is below 256.
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

fn errno(number: libc::c_int) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.unsigned_abs()
}

/// Each slice is the ABIs that share one audit name.
fn assemble(groups: &[&[Abi]]) -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    for group in groups {
        let Some(first) = group.first() else { continue };
        let mut body = vec![load(NUMBER)];
        bisect(&ranges(group), &mut body);
        // Jumps on a condition reach 255 instructions only, so the long way goes through an unconditional one.
        program.push(jump(libc::BPF_JEQ, first.audit, 1, 0));
        program.push(skip(u32::try_from(body.len()).unwrap_or(u32::MAX)));
        program.extend(body);
    }
    program.push(give(libc::SECCOMP_RET_KILL_PROCESS));
    program
}

fn bisect(ranges: &[(u32, Verdict)], program: &mut Vec<sock_filter>) {
    match ranges {
        [] => {}
        [(_, verdict)] => decide(*verdict, program),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let mut below = Vec::new();
            bisect(low, &mut below);
            // The kernel translates the program for every step, so it is kept short where a short jump will do.
            match u8::try_from(below.len()) {
                Ok(near) => program.push(jump(libc::BPF_JGE, high[0].0, near, 0)),
                Err(_) => {
                    program.push(jump(libc::BPF_JGE, high[0].0, 0, 1));
                    program.push(skip(u32::try_from(below.len()).unwrap_or(u32::MAX)));
                }
            }
            program.extend(below);
            bisect(high, program);
        }
    }
}

fn decide(verdict: Verdict, program: &mut Vec<sock_filter>) {
    let allow = give(libc::SECCOMP_RET_ALLOW);
    let refuse = give(errno(libc::EPERM));
    match verdict {
        Verdict::Allow => program.push(allow),
        Verdict::Refuse => program.push(refuse),
        Verdict::Unknown => program.push(give(errno(libc::ENOSYS))),
        Verdict::Clone => program.extend([
            load(FIRST_ARGUMENT),
            jump(libc::BPF_JSET, CLONE_NAMESPACES, 1, 0),
            allow,
            refuse,
        ]),
        Verdict::Personality => {
            program.push(load(FIRST_ARGUMENT));
            for (value, left) in PERSONALITIES.into_iter().zip((0..5_u8).rev()) {
                program.push(jump(libc::BPF_JEQ, value, left + 1, 0));
            }
            program.extend([refuse, allow]);
        }
        Verdict::Socket => program.extend([
            load(FIRST_ARGUMENT),
            jump(libc::BPF_JEQ, AF_ALG, 2, 0),
            jump(libc::BPF_JEQ, AF_VSOCK, 1, 0),
            allow,
            refuse,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer: an interpreter of the five operations the compiler uses.
    fn ask(program: &[sock_filter], arch: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let now = program[at];
            at += 1;
            let code = u32::from(now.code);
            let (yes, no) = (usize::from(now.jt), usize::from(now.jf));
            if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                accumulator = match now.k {
                    NUMBER => number,
                    ARCHITECTURE => arch,
                    FIRST_ARGUMENT => argument,
                    other => panic!("loads {other}"),
                };
            } else if code == libc::BPF_RET | libc::BPF_K {
                return now.k;
            } else if code == libc::BPF_JMP | libc::BPF_JA {
                at += now.k as usize;
            } else if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K {
                at += if accumulator == now.k { yes } else { no };
            } else if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K {
                at += if accumulator >= now.k { yes } else { no };
            } else if code == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K {
                at += if accumulator & now.k != 0 { yes } else { no };
            } else {
                panic!("operation {code:#x}");
            }
        }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    #[test]
    fn every_allowed_call_is_allowed_in_every_abi() {
        let x86 = assemble(&[&[X86_64, X32], &[X86]]);
        let arm = assemble(&[&[AARCH64], &[ARM]]);
        for (name, numbers) in ALLOWED {
            for (abi, program) in [
                (X86_64, &x86),
                (X86, &x86),
                (X32, &x86),
                (AARCH64, &arm),
                (ARM, &arm),
            ] {
                if numbers[abi.column] != N {
                    let answer = ask(program, abi.audit, abi.offset + numbers[abi.column], 0);
                    assert_eq!(answer, ALLOW, "{name} in column {}", abi.column);
                }
            }
        }
    }

    #[test]
    fn what_is_not_allowed_fails_as_in_docker() {
        let (eperm, enosys) = (errno(libc::EPERM), errno(libc::ENOSYS));
        let x86 = assemble(&[&[X86_64, X32], &[X86]]);
        let arm = assemble(&[&[AARCH64], &[ARM]]);
        for (program, arch, number, argument, answer, what) in [
            (&x86, AUDIT_ARCH_X86_64, 165, 0, eperm, "mount"),
            (&x86, AUDIT_ARCH_X86_64, 272, 0, eperm, "unshare"),
            (&x86, AUDIT_ARCH_X86_64, 250, 0, eperm, "keyctl"),
            (&x86, AUDIT_ARCH_X86_64, X32_BIT + 165, 0, eperm, "mount of x32"),
            (
                &x86,
                AUDIT_ARCH_X86_64,
                X32_BIT + 600,
                0,
                enosys,
                "future call of x32",
            ),
            (&x86, AUDIT_ARCH_X86_64, 435, 0, enosys, "clone3"),
            (
                &x86,
                AUDIT_ARCH_X86_64,
                467,
                0,
                enosys,
                "open_tree_attr, newer than the profile",
            ),
            (&x86, AUDIT_ARCH_X86_64, 5000, 0, enosys, "future call"),
            (&x86, AUDIT_ARCH_X86_64, 56, 0x11, ALLOW, "clone like fork"),
            (
                &x86,
                AUDIT_ARCH_X86_64,
                56,
                0x1000_0011,
                eperm,
                "clone with a user namespace",
            ),
            (&x86, AUDIT_ARCH_X86_64, 41, 2, ALLOW, "inet socket"),
            (&x86, AUDIT_ARCH_X86_64, 41, AF_ALG, eperm, "crypto socket"),
            (&x86, AUDIT_ARCH_X86_64, 41, 39, ALLOW, "nfc socket"),
            (&x86, AUDIT_ARCH_X86_64, 41, AF_VSOCK, eperm, "vsock"),
            (&x86, AUDIT_ARCH_X86_64, 135, 8, ALLOW, "linux32"),
            (
                &x86,
                AUDIT_ARCH_X86_64,
                135,
                0xFFFF_FFFF,
                ALLOW,
                "personality asked",
            ),
            (
                &x86,
                AUDIT_ARCH_X86_64,
                135,
                0x004_0000,
                eperm,
                "no address randomisation",
            ),
            (&x86, AUDIT_ARCH_I386, 21, 0, eperm, "mount of i386"),
            (&x86, AUDIT_ARCH_I386, 3, 0, ALLOW, "read of i386"),
            (
                &x86,
                AUDIT_ARCH_ARM,
                3,
                0,
                libc::SECCOMP_RET_KILL_PROCESS,
                "arm on x86",
            ),
            (&arm, AUDIT_ARCH_AARCH64, 40, 0, eperm, "mount of aarch64"),
            (&arm, AUDIT_ARCH_ARM, 0xf_0005, 0, ALLOW, "set_tls of arm"),
            (&arm, AUDIT_ARCH_ARM, 0xf_0004, 0, enosys, "no call of arm"),
            (&arm, AUDIT_ARCH_ARM, 5000, 0, enosys, "future call of arm"),
            (&arm, AUDIT_ARCH_ARM, 21, 0, eperm, "mount of arm"),
        ] {
            assert_eq!(ask(program, arch, number, argument), answer, "{what}");
        }
    }

    #[test]
    fn the_program_fits_the_kernel() {
        for program in [
            assemble(&[&[X86_64, X32], &[X86]]),
            assemble(&[&[AARCH64], &[ARM]]),
        ] {
            assert!(program.len() < 4096, "{} instructions", program.len());
        }
    }
}
