//! registry
pub mod digest;
