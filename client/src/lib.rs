//! `trimaran`: the command line for builders that speak BuildKit's API.
//!
//! [`cli`] parses arguments, [`commands`] does the work of each command. Builders are stored by [`builders`], found by
//! [`instance`], and run by [`drivers`]; [`progress`] shows what a daemon does. Errors come together in [`error`].

mod build;
pub mod builders;
pub mod cli;
pub mod commands;
pub mod completion;
mod daemon;
mod docker;
pub mod drivers;
pub mod error;
pub mod format;
mod gojson;
mod gotime;
mod history;
mod imagetools;
mod instance;
mod layout;
mod manifest;
mod manifest_tool;
pub mod output;
mod platforms;
pub mod plugin;
pub mod progress;
mod registries;
pub mod settings;
mod size;
mod ssh;
mod table;
mod usage;
