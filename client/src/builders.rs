//! Builder instances: named groups of nodes, where they are stored, and which one is current.

mod group;
mod names;
mod store;

pub use group::{Builder, GroupError, Node, NodeChange, valid_name};
pub use store::{Reach, Store, StoreError, Transaction, write_atomically};
