//! What the end-to-end tests and the benchmarks are made of: images, a registry and its faults, the daemon as a
//! process, and the client as a user starts it.
//!
//! Nothing here uses the product's own image and registry code: what is expected is worked out independently.

pub mod busybox;
pub mod distribution;
pub mod plain_http;
