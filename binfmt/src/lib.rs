//! Which platforms this machine can run, and the emulators that make it so.
//!
//! [`Platform`] is the name every crate uses for "operating system, architecture, variant".

pub mod platform;

pub use platform::{ParsePlatformError, Platform};
