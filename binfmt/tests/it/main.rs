//! Emulators with the real kernel and the real QEMU.

mod kernel;
mod world;
