//! What the end-to-end tests and the benchmarks are made of: images, a registry and its faults, the daemon as a
//! process, and the client as a user starts it.
//!
//! Nothing here uses the product's own image and registry code: what is expected is worked out independently.

#![expect(
    clippy::panic,
    reason = "what goes wrong here fails the test that asked for it"
)]

pub mod api;
pub mod bench;
pub mod browser;
pub mod busybox;
pub mod daemon;
pub mod distribution;
pub mod engine;
pub mod exhibits;
pub mod fake_daemon;
pub mod faults;
pub mod git_server;
pub mod golden;
pub mod llb;
pub mod needs;
pub mod plain_http;
pub mod process;
pub mod programs;
pub mod registry;
pub mod sessions;
pub mod small_images;
pub mod unpacked;
pub mod waiting;
pub mod web;
pub mod world;
