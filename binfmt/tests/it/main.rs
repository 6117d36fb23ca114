//! Emulators with the real kernel and the real QEMU.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod kernel;
mod world;
