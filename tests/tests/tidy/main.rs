//! The rules of this repository that no compiler checks: who may use whom, how large files get, what may be depended on.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod dependencies;
mod edges;
mod repository;
mod sources;
