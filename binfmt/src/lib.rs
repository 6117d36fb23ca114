//! Which platforms this machine can run, and the emulators that make it so.
//!
//! [`Emulators`] tells which platforms run and registers handlers; [`command`] is the same for people.
//! [`Platform`] is the name every crate uses for "operating system, architecture, variant".

pub mod command;
mod emulators;
mod interpreter;
pub mod kernel;
mod machine;
pub mod platform;
pub mod probe;

pub use emulators::{Emulators, Fix, InstallError, Installed, Support, Unsupported, Verdict};
pub use interpreter::InterpreterFolders;
pub use machine::Machine;
pub use platform::{ParsePlatformError, Platform};
