//! The solver: which vertices must run, in which order, and which results exist already.
//!
//! Results are identified bottom-up: a vertex's cache key is a hash of its operation and of the *snapshots* of its
//! inputs, so a lookup needs no file data and an unchanged build is answered from the records alone. Equal work in
//! flight is shared between builds by a lock per key. One loop per evaluation (`schedule`) owns the vertex states.

pub mod cache_key;
pub mod flight;
