//! The file transfer protocol (`fsutil.types.Packet`), both ends.
//!
//! The sender lists its tree as STAT packets in [path order](order::compare); the id of an entry is its position.
//! The receiver asks for regular files by id (REQ), gets their bytes as DATA packets, an empty one ending each file,
//! sends FIN when it has all it wants, and the sender answers FIN. ERR from either side ends the transfer.
//!
//! [`receive::Receiving`] hands out only entries that were checked: strictly increasing, inside the root, below a
//! folder that was listed, hard links to files that were listed. [`walk::Walk`] lists a folder, [`send::send`]
//! drives the other end.

pub mod listing;
pub mod mode;
pub mod order;
pub mod receive;
pub mod send;
pub mod walk;

pub use listing::{Listing, ListingError};
pub use mode::Kind;
pub use receive::{Event, ReceiveError, Receiving};
pub use send::{SendError, send};
pub use walk::{Listed, Verdict, Walk, WalkError};

#[cfg(test)]
mod tests;
