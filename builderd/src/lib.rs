//! The daemon. A build walks through the rooms in the order in which they are listed here; a room calls only
//! rooms to its right, and only `store` touches the state folder.

pub mod api;
pub mod config;
pub mod daemon;
pub mod dial;
pub mod executor;
pub mod exporters;
/// A language of clients, not a room.
pub mod filter;
pub mod frontend;
pub mod graph;
pub mod listen;
pub mod ops;
/// Progress is no room: every room reports into it.
pub mod progress;
pub mod proxy;
pub mod session;
pub mod solver;
pub mod sources;
pub mod store;
mod sys;
pub mod version;
