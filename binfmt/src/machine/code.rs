//! The probe programs, one for each instruction set.
//!
//! All do the same: exit with [`PASSED`] if they were started with three arguments and the first is "T", with
//! [`WRONG_ARGUMENT_COUNT`] if there are not three, else with [`WRONG_ARGUMENT_ZERO`]. At the entry point of a Linux
//! process the stack pointer points at `argc`, the pointers `argv[0]`, `argv[1]` … follow. The bytes were assembled
//! once with GNU binutils (LoongArch by hand from its manual); the assembly stands beside them.

use super::ByteOrder;

/// Not 0, which any program returns that takes no notice of what it was asked to run.
pub(crate) const PASSED: i32 = 40;
pub(crate) const WRONG_ARGUMENT_COUNT: i32 = 41;
pub(crate) const WRONG_ARGUMENT_ZERO: i32 = 42;

/// What the programs expect: the name, and how many arguments there are with it.
pub(crate) const ARGUMENT_ZERO: &str = "T";
pub(crate) const FURTHER_ARGUMENTS: [&str; 2] = ["first", "second"];

/// Machine code; words are stored in the byte order of the machine they are for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Code {
    Bytes(&'static [u8]),
    Words(&'static [u32]),
}

impl Code {
    pub(super) fn bytes(self, order: ByteOrder) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::Words(words) => words.iter().flat_map(|word| order.bytes_of_u32(*word)).collect(),
        }
    }
}

/// x86-64; `exit` is system call 60.
#[rustfmt::skip]
pub(super) const X86_64: Code = Code::Bytes(&[
    0xbf, 0x29, 0x00, 0x00, 0x00, // mov edi, 41
    0x48, 0x83, 0x3c, 0x24, 0x03, // cmp qword ptr [rsp], 3
    0x75, 0x15,                   // jne exit
    0xbf, 0x2a, 0x00, 0x00, 0x00, // mov edi, 42
    0x48, 0x8b, 0x74, 0x24, 0x08, // mov rsi, [rsp+8]
    0x66, 0x83, 0x3e, 0x54,       // cmp word ptr [rsi], 0x54
    0x75, 0x05,                   // jne exit
    0xbf, 0x28, 0x00, 0x00, 0x00, // mov edi, 40
    0xb8, 0x3c, 0x00, 0x00, 0x00, // exit: mov eax, 60
    0x0f, 0x05,                   // syscall
]);

/// 80386; `exit` is system call 1.
#[rustfmt::skip]
pub(super) const I386: Code = Code::Bytes(&[
    0xbb, 0x29, 0x00, 0x00, 0x00, // mov ebx, 41
    0x83, 0x3c, 0x24, 0x03,       // cmp dword ptr [esp], 3
    0x75, 0x14,                   // jne exit
    0xbb, 0x2a, 0x00, 0x00, 0x00, // mov ebx, 42
    0x8b, 0x74, 0x24, 0x04,       // mov esi, [esp+4]
    0x66, 0x83, 0x3e, 0x54,       // cmp word ptr [esi], 0x54
    0x75, 0x05,                   // jne exit
    0xbb, 0x28, 0x00, 0x00, 0x00, // mov ebx, 40
    0xb8, 0x01, 0x00, 0x00, 0x00, // exit: mov eax, 1
    0xcd, 0x80,                   // int 0x80
]);

/// A64; `exit` is system call 93.
#[rustfmt::skip]
pub(super) const AARCH64: Code = Code::Words(&[
    0xd280_0520, // mov x0, #41
    0xf940_03e1, // ldr x1, [sp]
    0xf100_0c3f, // cmp x1, #3
    0x5400_0121, // b.ne exit
    0xd280_0540, // mov x0, #42
    0xf940_07e1, // ldr x1, [sp, #8]
    0x3940_0022, // ldrb w2, [x1]
    0x7101_505f, // cmp w2, #'T'
    0x5400_0081, // b.ne exit
    0x3940_0422, // ldrb w2, [x1, #1]
    0x3500_0042, // cbnz w2, exit
    0xd280_0500, // mov x0, #40
    0xd280_0ba8, // exit: mov x8, #93
    0xd400_0001, // svc #0
]);

/// A32 of ARMv7: `dmb` and `movw` exist on nothing older. `exit` is system call 1.
#[rustfmt::skip]
pub(super) const ARM7: Code = Code::Words(&[
    0xf57f_f05f, // dmb sy
    0xe300_0029, // movw r0, #41
    0xe59d_1000, // ldr r1, [sp]
    0xe351_0003, // cmp r1, #3
    0x1a00_0008, // bne exit
    0xe300_002a, // movw r0, #42
    0xe59d_1004, // ldr r1, [sp, #4]
    0xe5d1_2000, // ldrb r2, [r1]
    0xe352_0054, // cmp r2, #'T'
    0x1a00_0003, // bne exit
    0xe5d1_2001, // ldrb r2, [r1, #1]
    0xe352_0000, // cmp r2, #0
    0x1a00_0000, // bne exit
    0xe300_0028, // movw r0, #40
    0xe3a0_7001, // exit: mov r7, #1
    0xef00_0000, // svc #0
]);

/// A32 of ARMv6: `uxtb` exists on nothing older. `exit` is system call 1.
#[rustfmt::skip]
pub(super) const ARM6: Code = Code::Words(&[
    0xe3a0_0029, // mov r0, #41
    0xe59d_1000, // ldr r1, [sp]
    0xe351_0003, // cmp r1, #3
    0x1a00_0009, // bne exit
    0xe3a0_002a, // mov r0, #42
    0xe59d_1004, // ldr r1, [sp, #4]
    0xe5d1_2000, // ldrb r2, [r1]
    0xe6ef_2072, // uxtb r2, r2
    0xe352_0054, // cmp r2, #'T'
    0x1a00_0003, // bne exit
    0xe5d1_2001, // ldrb r2, [r1, #1]
    0xe352_0000, // cmp r2, #0
    0x1a00_0000, // bne exit
    0xe3a0_0028, // mov r0, #40
    0xe3a0_7001, // exit: mov r7, #1
    0xef00_0000, // svc #0
]);

/// A32 that any ARM with the current ABI runs; `exit` is system call 1.
#[rustfmt::skip]
pub(super) const ARM5: Code = Code::Words(&[
    0xe3a0_0029, // mov r0, #41
    0xe59d_1000, // ldr r1, [sp]
    0xe351_0003, // cmp r1, #3
    0x1a00_0008, // bne exit
    0xe3a0_002a, // mov r0, #42
    0xe59d_1004, // ldr r1, [sp, #4]
    0xe5d1_2000, // ldrb r2, [r1]
    0xe352_0054, // cmp r2, #'T'
    0x1a00_0003, // bne exit
    0xe5d1_2001, // ldrb r2, [r1, #1]
    0xe352_0000, // cmp r2, #0
    0x1a00_0000, // bne exit
    0xe3a0_0028, // mov r0, #40
    0xe3a0_7001, // exit: mov r7, #1
    0xef00_0000, // svc #0
]);

/// RV64I without compressed instructions; `exit` is system call 93.
#[rustfmt::skip]
pub(super) const RISCV64: Code = Code::Words(&[
    0x0290_0513, // li a0, 41
    0x0001_3583, // ld a1, 0(sp)
    0x0030_0613, // li a2, 3
    0x02c5_9263, // bne a1, a2, exit
    0x02a0_0513, // li a0, 42
    0x0081_3583, // ld a1, 8(sp)
    0x0005_c603, // lbu a2, 0(a1)
    0x0540_0693, // li a3, 'T'
    0x00d6_1863, // bne a2, a3, exit
    0x0015_c603, // lbu a2, 1(a1)
    0x0006_1463, // bnez a2, exit
    0x0280_0513, // li a0, 40
    0x05d0_0893, // exit: li a7, 93
    0x0000_0073, // ecall
]);

/// z/Architecture; `exit` is system call 1, its number inside the instruction.
#[rustfmt::skip]
pub(super) const S390X: Code = Code::Bytes(&[
    0xa7, 0x29, 0x00, 0x29,             // lghi %r2, 41
    0xe3, 0x10, 0xf0, 0x00, 0x00, 0x04, // lg %r1, 0(%r15)
    0xa7, 0x1f, 0x00, 0x03,             // cghi %r1, 3
    0xa7, 0x74, 0x00, 0x11,             // jne exit
    0xa7, 0x29, 0x00, 0x2a,             // lghi %r2, 42
    0xe3, 0x10, 0xf0, 0x08, 0x00, 0x04, // lg %r1, 8(%r15)
    0x95, 0x54, 0x10, 0x00,             // cli 0(%r1), 0x54
    0xa7, 0x74, 0x00, 0x08,             // jne exit
    0x95, 0x00, 0x10, 0x01,             // cli 1(%r1), 0
    0xa7, 0x74, 0x00, 0x04,             // jne exit
    0xa7, 0x29, 0x00, 0x28,             // lghi %r2, 40
    0x0a, 0x01,                         // exit: svc 1
]);

/// PowerPC 64, ELFv2; `exit` is system call 1.
#[rustfmt::skip]
pub(super) const PPC64LE: Code = Code::Words(&[
    0x3860_0029, // li 3, 41
    0xe881_0000, // ld 4, 0(1)
    0x2c24_0003, // cmpdi 4, 3
    0x4082_0028, // bne exit
    0x3860_002a, // li 3, 42
    0xe881_0008, // ld 4, 8(1)
    0x88a4_0000, // lbz 5, 0(4)
    0x2c05_0054, // cmpwi 5, 84
    0x4082_0014, // bne exit
    0x88a4_0001, // lbz 5, 1(4)
    0x2c05_0000, // cmpwi 5, 0
    0x4082_0008, // bne exit
    0x3860_0028, // li 3, 40
    0x3800_0001, // exit: li 0, 1
    0x4400_0002, // sc
]);

/// MIPS64, n64, either byte order; the instruction after a branch runs before it. `exit` is system call 5058.
#[rustfmt::skip]
pub(super) const MIPS64: Code = Code::Words(&[
    0x2404_0029, // li $4, 41
    0xdfa8_0000, // ld $8, 0($29)
    0x2409_0003, // li $9, 3
    0x1509_000b, // bne $8, $9, exit
    0x0000_0000, // nop
    0x2404_002a, // li $4, 42
    0xdfa8_0008, // ld $8, 8($29)
    0x9109_0000, // lbu $9, 0($8)
    0x240a_0054, // li $10, 84
    0x152a_0005, // bne $9, $10, exit
    0x0000_0000, // nop
    0x9109_0001, // lbu $9, 1($8)
    0x1520_0002, // bne $9, $0, exit
    0x0000_0000, // nop
    0x2404_0028, // li $4, 40
    0x2402_13c2, // exit: li $2, 5058
    0x0000_000c, // syscall
]);

/// LoongArch64; `exit` is system call 93.
#[rustfmt::skip]
pub(super) const LOONGARCH64: Code = Code::Words(&[
    0x0280_a404, // addi.w $a0, $zero, 41
    0x28c0_0065, // ld.d $a1, $sp, 0
    0x0280_0c06, // addi.w $a2, $zero, 3
    0x5c00_24a6, // bne $a1, $a2, exit
    0x0280_a804, // addi.w $a0, $zero, 42
    0x28c0_2065, // ld.d $a1, $sp, 8
    0x2a00_00a6, // ld.bu $a2, $a1, 0
    0x0281_5007, // addi.w $a3, $zero, 'T'
    0x5c00_10c7, // bne $a2, $a3, exit
    0x2a00_04a6, // ld.bu $a2, $a1, 1
    0x5c00_08c0, // bne $a2, $zero, exit
    0x0280_a004, // addi.w $a0, $zero, 40
    0x0281_740b, // exit: addi.w $a7, $zero, 93
    0x002b_0000, // syscall 0
]);
