//! A build, seen from the client: flags become a request, a session serves what the daemon asks for, the answer becomes
//! files and exit codes.
//!
//! [`request`] knows flags and attributes, [`outputs`] where results go, [`session`] what the daemon may ask of us,
//! [`solve`] runs it all, [`metadata`] writes down what came out.

pub mod context;
pub mod metadata;
pub mod outputs;
pub mod request;
mod session;
pub mod solve;
mod values;
