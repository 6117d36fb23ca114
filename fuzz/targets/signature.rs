//! Any bytes as a signature with keys to verify it, and as a git object with a signature in it. They vouch for nothing.
#![no_main]

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use builderd::sources::git::SignedObject;
use builderd::sources::signature::{self, Policy};
use libfuzzer_sys::fuzz_target;

/// Nobody has signed this.
const CONTENT: &[u8] = b"content";

fuzz_target!(|data: &[u8]| {
    for is_sha256 in [false, true] {
        if let Some(signed) = SignedObject::commit(data, is_sha256) {
            assert!(signed.content.len() + signed.signature.len() < data.len() * 3);
            verify(&signed.signature, "");
        }
    }
    if let Some(signed) = SignedObject::tag(data) {
        assert!(data.starts_with(&signed.content));
        verify(&signed.signature, "");
    }
    // The length of a signature, that signature, a key.
    let Some((length, rest)) = data.split_at_checked(2) else {
        return;
    };
    let length = usize::from(length[0]) << 8 | usize::from(length[1]);
    let (signature, key) = rest.split_at_checked(length).unwrap_or((rest, b""));
    let encoded = STANDARD.encode(key);
    let keys = format!(
        "{}ssh-ed25519 {encoded}\nssh-rsa {encoded}\n",
        block("PGP PUBLIC KEY BLOCK", key)
    );
    verify(&block("PGP SIGNATURE", signature), &keys);
    verify(&block("SSH SIGNATURE", signature), &keys);
});

fn block(label: &str, data: &[u8]) -> String {
    let data = STANDARD.encode(data);
    format!("-----BEGIN {label}-----\n\n{data}\n-----END {label}-----\n")
}

fn verify(signature: &str, keys: &str) {
    for reject_expired in [false, true] {
        let policy = Policy {
            reject_expired,
            now: SystemTime::now(),
        };
        let verified = signature::verify_object(CONTENT, signature, keys, policy);
        assert!(verified.is_err(), "nobody has signed this");
        assert!(signature::verify_detached(&mut &*CONTENT, signature, keys, policy).is_err());
    }
}
