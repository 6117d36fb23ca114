//! The smallest ELF file that runs: header, one program header, code.

use super::{Machine, WordSize};

/// A multiple of every page size in use, and above `mmap_min_addr` everywhere.
const LOAD_ADDRESS: u32 = 0x40_0000;
const LOADABLE: u32 = 1;
const READ_AND_EXECUTE: u32 = 5;
const PAGE_ALIGNMENT: u32 = 0x1_0000;

/// A static executable for `machine` which is nothing but `code`.
pub(super) fn executable(machine: &Machine, code: &[u8]) -> Vec<u8> {
    let (header_size, program_header_size): (u16, u16) = match machine.word_size {
        WordSize::Bits32 => (52, 32),
        WordSize::Bits64 => (64, 56),
    };
    let code_offset = u32::from(header_size + program_header_size);
    let file_size =
        code_offset + u32::try_from(code.len()).expect("probe programs are some dozen bytes long");

    let mut file = Fields {
        machine,
        bytes: machine.magic().to_vec(),
    };
    file.word(1);
    file.address(LOAD_ADDRESS + code_offset);
    file.address(u32::from(header_size));
    file.address(0); // no section headers
    file.word(machine.flags);
    for half in [header_size, program_header_size, 1, 0, 0, 0] {
        file.half(half);
    }

    file.word(LOADABLE);
    // 64-bit program headers have the flags second, 32-bit ones seventh.
    if machine.word_size == WordSize::Bits64 {
        file.word(READ_AND_EXECUTE);
    }
    file.address(0);
    file.address(LOAD_ADDRESS);
    file.address(LOAD_ADDRESS);
    file.address(file_size);
    file.address(file_size);
    if machine.word_size == WordSize::Bits32 {
        file.word(READ_AND_EXECUTE);
    }
    file.address(PAGE_ALIGNMENT);

    file.bytes.extend_from_slice(code);
    file.bytes
}

/// Writes the header's fields in the machine's byte order and address size.
struct Fields<'a> {
    machine: &'a Machine,
    bytes: Vec<u8>,
}

impl Fields<'_> {
    fn half(&mut self, value: u16) {
        self.bytes.extend(self.machine.byte_order.bytes_of_u16(value));
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend(self.machine.byte_order.bytes_of_u32(value));
    }

    fn address(&mut self, value: u32) {
        match self.machine.word_size {
            WordSize::Bits32 => self.word(value),
            WordSize::Bits64 => self
                .bytes
                .extend(self.machine.byte_order.bytes_of_u64(u64::from(value))),
        }
    }
}
