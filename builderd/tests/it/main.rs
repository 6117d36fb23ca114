//! The daemon's rooms from outside, against the real kernel and, where it is there, a real container engine.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]
mod executor;
mod solver;
