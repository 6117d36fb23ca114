//! Detached signatures of OpenPGP, as GnuPG makes them, and what the keys say of themselves.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use super::armor::Block;
use super::certificate;
use super::crypto::{Hash, Hasher};
use super::packets::{self, SIGNATURE, Signature};
use super::{Malformed, Policy, SignatureError};

pub(super) const LABEL: &str = "PGP SIGNATURE";
const OF_BYTES: u8 = 0;
const OF_TEXT: u8 = 1;
/// Clocks differ.
const TOLERANCE: u64 = 5 * 60;

/// Verifies a signature by one of the keys in `keys`, blocks of armoured text: the first that is by one of them, if there
/// are several.
pub(super) fn verify(
    content: &mut dyn Read,
    data: &[u8],
    keys: &[Block],
    policy: Policy,
) -> Result<(), SignatureError> {
    let signatures = signatures(data).map_err(|problem| SignatureError::Signature { problem })?;
    let certificates = certificate::all(keys)?;
    let signer = signatures.iter().find_map(|signature| {
        certificates
            .iter()
            .find_map(|certificate| Some((signature, certificate, certificate.signer(signature)?)))
    });
    let Some((signature, certificate, signer)) = signer else {
        let maker = signatures.first().map(Signature::maker);
        return Err(SignatureError::UnknownKey {
            key: maker.unwrap_or_default(),
        });
    };
    let hash = match (signature.weakness(), signature.hash()) {
        (None, Some(hash)) => hash,
        (weakness, _) => return Err(SignatureError::Algorithm(weakness.unwrap_or_default())),
    };
    let now = seconds(policy.now);
    if signature.created > now.saturating_add(TOLERANCE) {
        return Err(SignatureError::Future);
    }
    // Who verifies old commits should not need keys that were prolonged since.
    let time = if policy.reject_expired {
        now
    } else {
        signature.created
    };
    if signature.is_over_at(time) {
        return Err(SignatureError::Expired);
    }
    let unusable = |problem| SignatureError::Key {
        key: signer.key().name(),
        problem,
    };
    certificate.check(&signer, time).map_err(unusable)?;
    let hasher = hashed(content, hash, signature.kind).map_err(SignatureError::Read)?;
    match signature.is_of(hasher, signer.key()) {
        true => Ok(()),
        false => Err(SignatureError::Mismatch),
    }
}

fn signatures(data: &[u8]) -> Result<Vec<Signature<'_>>, Malformed> {
    let mut signatures = Vec::new();
    for packet in packets::packets(data)? {
        if packet.tag == SIGNATURE {
            signatures.push(Signature::parse(packet.body)?);
        }
    }
    signatures.retain(|signature| matches!(signature.kind, OF_BYTES | OF_TEXT));
    match signatures.is_empty() {
        true => Err(Malformed("it is none of content")),
        false => Ok(signatures),
    }
}

fn hashed(content: &mut dyn Read, hash: Hash, kind: u8) -> std::io::Result<Hasher> {
    let mut hasher = hash.start();
    if kind == OF_BYTES {
        hasher.read(content, |bytes, hasher| hasher.update(bytes))?;
        return Ok(hasher);
    }
    // In text, lines end in both characters, however they end here.
    let mut after_return = false;
    hasher.read(content, |bytes, hasher| {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n");
            let text_ends_in_return = match text.unwrap_or(line) {
                [] => after_return,
                text => text.ends_with(b"\r"),
            };
            hasher.update(text.unwrap_or(line));
            if text.is_some() {
                hasher.update(if text_ends_in_return { b"\n" } else { b"\r\n" });
            }
            after_return = text.is_none() && text_ends_in_return;
        }
    })?;
    Ok(hasher)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
