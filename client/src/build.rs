//! Builds, seen from the client: flags become requests, a session serves what a daemon asks for, the answers become files
//! and exit codes.
//!
//! [`invocation`] is the way in for commands: it shows how [`run`] builds many targets on many [`nodes`]. [`request`] knows
//! flags and attributes, [`parts`] what one node does of it, [`outputs`] where results go, [`session`] what a daemon may
//! ask of us, [`solve`] runs one build, [`metadata`] writes down what came out.

mod bridge;
pub mod caches;
pub mod call;
pub mod context;
mod engine;
pub mod invocation;
mod links;
mod merge;
pub mod metadata;
pub mod nodes;
pub mod outputs;
mod parts;
pub mod provenance;
mod refs;
pub mod request;
pub mod run;
mod session;
mod shared;
pub mod solve;
mod values;
