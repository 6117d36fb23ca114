//! Image references, what images are made of, and a client for the registries that hold them.
//!
//! Knows the OCI specifications and Docker's habits, and nothing of builds. Everything that comes in is verified
//! against its digest; documents are kept as received and never written anew to be hashed.

pub mod client;
pub mod digest;
pub mod docker_config;
pub mod image;
pub mod json;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use client::{Client, Config, Error};
pub use digest::Digest;
pub use image::ImageConfig;
pub use manifest::{Descriptor, Index, Manifest, RawManifest};
pub use platform::Platform;
pub use reference::{Reference, Repository};
