//! Signatures on what sources bring: OpenPGP's and, on git objects, OpenSSH's. Pure: content, signature and the keys that
//! are trusted are handed in. The cryptography is that of the daemon's TLS.
//!
//! A signature is believed if a key that was given made it, over content that is the same, with algorithms that are not
//! broken, while the key was valid and said itself that it is for signing.

mod armor;
mod bytes;
mod certificate;
mod crypto;
mod openpgp;
mod packets;
mod ssh;
#[cfg(test)]
pub(super) mod tests;

use std::io::Read;
use std::time::SystemTime;

/// Of texts; keys that many people have signed are long.
const LONGEST_SIGNATURE: usize = 256 << 10;
const LONGEST_KEYS: usize = 4 << 20;

/// What is wrong with what could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("{what} of {size} bytes: no more than {limit} are taken")]
    TooLong {
        what: &'static str,
        size: usize,
        limit: usize,
    },
    #[error("it is not signed")]
    Unsigned,
    #[error("the signature is not an armoured one of {expected}")]
    Kind { expected: &'static str },
    #[error("the signature cannot be read: {problem}")]
    Signature { problem: Malformed },
    #[error("the public keys cannot be read: {problem}")]
    Keys { problem: Malformed },
    #[error("it is signed with {0}, and no such key was given to verify it with")]
    NoKey(&'static str),
    #[error("it is signed with key {key}, which is none of the given ones")]
    UnknownKey { key: String },
    #[error("it is signed with key {key}, which cannot vouch for it: {problem}")]
    Key { key: String, problem: String },
    #[error("it is signed for {0:?}, not for git")]
    Namespace(String),
    #[error("{0} is too weak, or not supported")]
    Algorithm(String),
    #[error("the signature is dated in the future")]
    Future,
    #[error("the signature has expired")]
    Expired,
    #[error("the signature is of other content")]
    Mismatch,
    #[error("cannot read what is signed")]
    Read(#[source] std::io::Error),
}

/// What counts beyond the mathematics.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// A key must be valid now; otherwise when the signature says it was made.
    pub reject_expired: bool,
    pub now: SystemTime,
}

/// Verifies the signature of a git object, by an OpenPGP or SSH key.
pub fn verify_object(
    mut content: &[u8],
    signature: &str,
    keys: &str,
    policy: Policy,
) -> Result<(), SignatureError> {
    check_sizes(signature, keys)?;
    let blocks = signature_blocks(signature)?;
    match blocks.iter().find(|block| block.label == ssh::LABEL) {
        Some(block) => ssh::verify(&mut content, &block.data, keys),
        None => verify_openpgp(&mut content, &blocks, "OpenPGP or SSH", keys, policy),
    }
}

/// Verifies a detached signature of OpenPGP on content of any length.
pub fn verify_detached(
    content: &mut dyn Read,
    signature: &str,
    keys: &str,
    policy: Policy,
) -> Result<(), SignatureError> {
    check_sizes(signature, keys)?;
    let blocks = signature_blocks(signature)?;
    verify_openpgp(content, &blocks, "OpenPGP", keys, policy)
}

fn verify_openpgp(
    content: &mut dyn Read,
    signature: &[armor::Block],
    expected: &'static str,
    keys: &str,
    policy: Policy,
) -> Result<(), SignatureError> {
    let block = signature.iter().find(|block| block.label == openpgp::LABEL);
    let block = block.ok_or(SignatureError::Kind { expected })?;
    let keys = armor::blocks(keys).map_err(|problem| SignatureError::Keys { problem })?;
    openpgp::verify(content, &block.data, &keys, policy)
}

fn signature_blocks(signature: &str) -> Result<Vec<armor::Block>, SignatureError> {
    armor::blocks(signature).map_err(|problem| SignatureError::Signature { problem })
}

fn check_sizes(signature: &str, keys: &str) -> Result<(), SignatureError> {
    for (what, text, limit) in [
        ("a signature", signature, LONGEST_SIGNATURE),
        ("public keys", keys, LONGEST_KEYS),
    ] {
        if text.len() > limit {
            let size = text.len();
            return Err(SignatureError::TooLong { what, size, limit });
        }
    }
    Ok(())
}
