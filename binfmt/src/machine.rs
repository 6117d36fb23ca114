//! The machines there are emulators for: how to recognise their programs, and a program to prove that they run.
//!
//! A machine is what an ELF header tells apart (word size, byte order, machine number); one machine can serve
//! several platforms, as 32-bit ARM serves arm/v7 and arm/v6. Magic, mask and probe program all derive from one row.

pub(crate) mod code;
mod executable;

use crate::platform::Platform;
use code::Code;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WordSize {
    Bits32,
    Bits64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    fn bytes_of_u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn bytes_of_u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn bytes_of_u64(self, value: u64) -> [u8; 8] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

/// One row of the table: a kind of ELF program and what is known about running it.
#[derive(Debug)]
pub struct Machine {
    name: &'static str,
    word_size: WordSize,
    byte_order: ByteOrder,
    number: u16,
    /// ABI flags that kernels look at before they run a program.
    flags: u32,
    levels: &'static [Level],
}

/// A platform the machine serves, with code that runs on it and on nothing less.
#[derive(Debug)]
struct Level {
    architecture: &'static str,
    variant: &'static str,
    code: Code,
}

const fn level(architecture: &'static str, variant: &'static str, code: Code) -> Level {
    Level {
        architecture,
        variant,
        code,
    }
}

/// In the order in which a status lists them.
static MACHINES: [Machine; 10] = [
    Machine {
        name: "x86_64",
        word_size: WordSize::Bits64,
        byte_order: ByteOrder::Little,
        number: 62,
        flags: 0,
        levels: &[level("amd64", "", code::X86_64)],
    },
    Machine {
        name: "aarch64",
        word_size: WordSize::Bits64,
        byte_order: ByteOrder::Little,
        number: 183,
        flags: 0,
        levels: &[level("arm64", "", code::AARCH64)],
    },
    Machine {
        name: "riscv64",
        word_size: WordSize::Bits64,
        byte_order: ByteOrder::Little,
        number: 243,
        flags: 0,
        levels: &[level("riscv64", "", code::RISCV64)],
    },
    Machine {
        name: "ppc64le",
        word_size: WordSize::Bits64,
        byte_order: ByteOrder::Little,
        number: 21,
        // ELFv2: the entry point is an address, not a function descriptor.
        flags: 2,
        levels: &[level("ppc64le", "", code::PPC64LE)],
    },
    Machine {
        name: "s390x",
        word_size: WordSize::Bits64,
        byte_order: ByteOrder::Big,
        number: 22,
        flags: 0,
        levels: &[level("s390x", "", code::S390X)],
    },
    Machine {
        name: "i386",
        word_size: WordSize::Bits32,
        byte_order: ByteOrder::Little,
        number: 3,
        flags: 0,
        levels: &[level("386", "", code::I386)],
    },
    Machine {
        name: "mips64el",
        word_size: WordSize::Bits64,
        byte_order: ByteOrder::Little,
        number: 8,
        // MIPS64 release 2, position independent calls.
        flags: 0x8000_0004,
        levels: &[level("mips64le", "", code::MIPS64)],
    },
    Machine {
        name: "mips64",
        word_size: WordSize::Bits64,
        byte_order: ByteOrder::Big,
        number: 8,
        flags: 0x8000_0004,
        levels: &[level("mips64", "", code::MIPS64)],
    },
    Machine {
        name: "loongarch64",
        word_size: WordSize::Bits64,
        byte_order: ByteOrder::Little,
        number: 258,
        // Double-precision floating point ABI, object ABI 1.
        flags: 0x43,
        levels: &[level("loong64", "", code::LOONGARCH64)],
    },
    Machine {
        name: "arm",
        word_size: WordSize::Bits32,
        byte_order: ByteOrder::Little,
        number: 40,
        // EABI version 5, without which kernels look for the old ABI.
        flags: 0x0500_0000,
        levels: &[
            level("arm", "v7", code::ARM7),
            level("arm", "v6", code::ARM6),
            level("arm", "v5", code::ARM5),
        ],
    },
];

impl Machine {
    pub fn all() -> &'static [Self] {
        &MACHINES
    }

    /// The machine whose programs images for `platform` hold; none for platforms nothing is known about.
    pub fn of(platform: &Platform) -> Option<&'static Self> {
        MACHINES
            .iter()
            .find(|machine| machine.level_of(platform).is_some())
    }

    /// The machine that `name` means: QEMU's name, with or without "qemu-", or an architecture as platforms have it.
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = name.strip_prefix("qemu-").unwrap_or(name);
        MACHINES
            .iter()
            .find(|machine| machine.name == name)
            .or_else(|| Self::of(&name.parse().ok()?))
    }

    /// The machine that this process itself is for.
    pub fn host() -> Option<&'static Self> {
        Self::of(&Platform::host())
    }

    /// QEMU's name for the machine.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The word that `--install` takes for this machine.
    pub fn architecture(&self) -> &'static str {
        self.levels.first().map_or(self.name, |level| level.architecture)
    }

    /// The platforms the machine serves, most capable first.
    pub fn platforms(&self) -> impl Iterator<Item = Platform> {
        self.levels
            .iter()
            .map(|level| Platform::new("linux", level.architecture, level.variant))
    }

    /// The first twenty bytes of this machine's executables, as far as they are always the same.
    pub fn magic(&self) -> [u8; 20] {
        const EXECUTABLE: u16 = 2;
        let mut magic = [0; 20];
        magic[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', self.class_byte(), self.order_byte(), 1, 0]);
        magic[16..18].copy_from_slice(&self.byte_order.bytes_of_u16(EXECUTABLE));
        magic[18..20].copy_from_slice(&self.byte_order.bytes_of_u16(self.number));
        magic
    }

    /// Which bits of [`Machine::magic`] count.
    pub fn mask(&self) -> [u8; 20] {
        // System ABI (7) and its version (8) say which extensions of the C library a program uses. The lowest bit of
        // the type is free, so that position independent executables (3) match beside the others (2).
        let mut mask = [0xff; 20];
        mask[7..9].fill(0);
        mask[16..18].copy_from_slice(&self.byte_order.bytes_of_u16(0xfffe));
        mask
    }

    /// The program that proves `platform`; none if the machine does not serve it.
    pub(crate) fn probe_program(&self, platform: &Platform) -> Option<Vec<u8>> {
        let level = self.level_of(platform)?;
        Some(executable::executable(self, &level.code.bytes(self.byte_order)))
    }

    /// Whether this process is of the machine.
    pub(crate) fn is_host(&self) -> bool {
        Self::host().is_some_and(|host| host.name == self.name)
    }

    /// Whether kernels of this machine may run such programs without a handler: their own, and the 32-bit ones that
    /// x86-64 and 64-bit ARM run in compatibility mode.
    pub(crate) fn runs_without_handler(&self) -> bool {
        let host = Self::host().map(|host| host.name);
        self.is_host()
            || matches!(
                (host, self.name),
                (Some("x86_64"), "i386") | (Some("aarch64"), "arm")
            )
    }

    /// Whether a file that starts like this is an executable of this machine.
    pub(crate) fn matches(&self, start: &[u8]) -> bool {
        let (magic, mask) = (self.magic(), self.mask());
        start.len() >= magic.len()
            && start
                .iter()
                .zip(magic)
                .zip(mask)
                .all(|((byte, magic), mask)| (byte ^ magic) & mask == 0)
    }

    pub(crate) fn is_64_bit(&self) -> bool {
        self.word_size == WordSize::Bits64
    }

    fn level_of(&self, platform: &Platform) -> Option<&Level> {
        self.levels.iter().find(|level| {
            platform.os() == "linux"
                && level.architecture == platform.architecture()
                && level.variant == platform.variant()
        })
    }

    fn class_byte(&self) -> u8 {
        match self.word_size {
            WordSize::Bits32 => 1,
            WordSize::Bits64 => 2,
        }
    }

    fn order_byte(&self) -> u8 {
        match self.byte_order {
            ByteOrder::Little => 1,
            ByteOrder::Big => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_is_what_the_kernel_compares_for_each_machine() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for (name, magic) in [
            ("x86_64", "7f454c4602010100000000000000000002003e00"),
            ("aarch64", "7f454c460201010000000000000000000200b700"),
            ("arm", "7f454c4601010100000000000000000002002800"),
            ("riscv64", "7f454c460201010000000000000000000200f300"),
            ("ppc64le", "7f454c4602010100000000000000000002001500"),
            ("s390x", "7f454c4602020100000000000000000000020016"),
            ("i386", "7f454c4601010100000000000000000002000300"),
            ("mips64", "7f454c4602020100000000000000000000020008"),
            ("mips64el", "7f454c4602010100000000000000000002000800"),
            ("loongarch64", "7f454c4602010100000000000000000002000201"),
        ] {
            assert_eq!(hex(&Machine::named(name).unwrap().magic()), magic, "{name}");
        }
        assert_eq!(
            hex(&Machine::named("aarch64").unwrap().mask()),
            "ffffffffffffff0000fffffffffffffffeffffff"
        );
        assert_eq!(
            hex(&Machine::named("s390x").unwrap().mask()),
            "ffffffffffffff0000fffffffffffffffffeffff"
        );
    }

    #[test]
    fn a_machine_answers_to_every_name_people_use() {
        for (name, machine) in [
            ("arm64", Some("aarch64")),
            ("aarch64", Some("aarch64")),
            ("qemu-aarch64", Some("aarch64")),
            ("linux/arm64", Some("aarch64")),
            ("arm", Some("arm")),
            ("armhf", Some("arm")),
            ("386", Some("i386")),
            ("mips64le", Some("mips64el")),
            ("loong64", Some("loongarch64")),
            ("amd64", Some("x86_64")),
            ("vax", None),
            ("qemu-", None),
        ] {
            assert_eq!(Machine::named(name).map(Machine::name), machine, "{name}");
        }
    }

    #[test]
    fn platforms_and_machines_agree() {
        for machine in Machine::all() {
            for platform in machine.platforms() {
                assert_eq!(
                    Machine::of(&platform).map(Machine::name),
                    Some(machine.name()),
                    "{platform}"
                );
                assert!(
                    machine
                        .probe_program(&platform)
                        .is_some_and(|program| program.starts_with(&machine.magic()))
                );
            }
        }
        assert!(Machine::of(&Platform::new("linux", "arm64", "v9")).is_none());
        assert!(Machine::of(&Platform::new("windows", "amd64", "")).is_none());
    }
}
