//! Builder instances: named groups of nodes, where they are stored, and which one is current.

pub mod daemon_files;
mod folder;
mod group;
mod names;
mod store;

pub use daemon_files::{DaemonFiles, Place};
pub use folder::{StoreError, write_atomically};
pub use group::{Builder, Content, GroupError, Node, NodeChange, Origin, valid_name};
pub use store::{Reach, Store, Transaction};
