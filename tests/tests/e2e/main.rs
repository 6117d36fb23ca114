//! Builds as users run them: the client, the daemon, a registry, QEMU and a Docker engine, all real.
//!
//! Tests that use the machine's Docker engine live in modules whose name has "docker" in it: they run one at a time.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod bake;
mod base_images;
mod bridge;
mod builders;
mod cache;
mod cgroups;
mod checks;
mod contexts;
mod crashes;
mod definitions;
mod disk;
mod docker_engine;
mod docker_plugin;
mod docker_session;
mod dockerfiles;
mod downloads;
mod exports;
mod frontends;
mod golden_lists;
mod history;
mod images;
mod imagetools;
mod imagetools_bad_days;
mod imagetools_create;
mod imagetools_rounds;
mod interrupts;
mod layouts;
mod lists;
mod named_contexts;
mod nodes;
mod peers;
mod platforms;
mod policies;
mod proxied;
mod records;
mod registries;
mod signatures;
mod sources;
mod state_folder;
mod steps;
mod tokens;
