//! Operations: how one vertex turns its input snapshots into its output snapshots.

pub mod file;
