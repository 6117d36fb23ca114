//! Signatures of OpenSSH (`PROTOCOL.sshsig`), and public keys as they stand in `authorized_keys`.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::bytes::Bytes;
use super::crypto::{Curve, Hash, PublicKey};
use super::{Malformed, SignatureError};

pub(super) const LABEL: &str = "SSH SIGNATURE";
const MAGIC: &[u8] = b"SSHSIG";
/// What signatures of git objects are made for.
const NAMESPACE: &[u8] = b"git";

/// What a signature is made of.
struct Signature<'a> {
    key: &'a [u8],
    namespace: &'a [u8],
    reserved: &'a [u8],
    hash: &'a [u8],
    algorithm: &'a [u8],
    value: &'a [u8],
    /// What a security key adds: its state, and how often it has signed.
    state: &'a [u8],
}

impl<'a> Signature<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, SignatureError> {
        let unreadable = |problem| SignatureError::Signature { problem };
        let mut bytes = Bytes(data);
        if bytes.take(MAGIC.len()).map_err(unreadable)? != MAGIC {
            return Err(unreadable(Malformed("it does not begin as one of OpenSSH")));
        }
        let version = bytes.number(4).map_err(unreadable)?;
        if version != 1 {
            return Err(SignatureError::Algorithm(format!(
                "version {version} of SSH signatures"
            )));
        }
        let mut field = || bytes.counted(4).map_err(unreadable);
        let (key, namespace, reserved, hash, signature) = (field()?, field()?, field()?, field()?, field()?);
        let mut inner = Bytes(signature);
        let mut field = || inner.counted(4).map_err(unreadable);
        let (algorithm, value) = (field()?, field()?);
        Ok(Self {
            key,
            namespace,
            reserved,
            hash,
            algorithm,
            value,
            state: inner.0,
        })
    }
}

/// A key of a kind that signatures are verified with.
struct Key<'a> {
    kind: &'a [u8],
    public: PublicKey,
    /// Of a security key, what it signs for.
    application: Option<&'a [u8]>,
}

impl<'a> Key<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, SignatureError> {
        let unreadable = |problem| SignatureError::Keys { problem };
        let mut bytes = Bytes(data);
        let mut field = || bytes.counted(4).map_err(unreadable);
        let kind = field()?;
        let weak = |problem| SignatureError::Algorithm(problem);
        let ecdsa = |point: &[u8]| {
            let curve = match kind {
                b"ecdsa-sha2-nistp384" => Curve::P384,
                b"ecdsa-sha2-nistp521" => Curve::P521,
                _ => Curve::P256,
            };
            PublicKey::Ecdsa {
                curve,
                point: point.to_vec(),
            }
        };
        let public = match kind {
            b"ssh-ed25519" | b"sk-ssh-ed25519@openssh.com" => PublicKey::Ed25519(field()?.to_vec()),
            b"ssh-rsa" => {
                let (exponent, modulus) = (field()?, field()?);
                PublicKey::rsa(modulus, exponent).map_err(weak)?
            }
            b"ecdsa-sha2-nistp256"
            | b"ecdsa-sha2-nistp384"
            | b"ecdsa-sha2-nistp521"
            | b"sk-ecdsa-sha2-nistp256@openssh.com" => {
                // The name of the curve, once more.
                field()?;
                ecdsa(field()?)
            }
            other => return Err(weak(format!("SSH keys of kind {:?}", shown(other)))),
        };
        let application = kind.starts_with(b"sk-").then(field).transpose()?;
        Ok(Self {
            kind,
            public,
            application,
        })
    }

    fn verifies(&self, message: &[u8], signature: &Signature<'_>) -> Result<bool, SignatureError> {
        let unreadable = |problem| SignatureError::Signature { problem };
        let algorithm = signature.algorithm;
        let hash = match (&self.public, algorithm == self.kind) {
            (PublicKey::Rsa { .. }, _) if algorithm == b"rsa-sha2-256" => Hash::Sha256,
            (PublicKey::Rsa { .. }, _) if algorithm == b"rsa-sha2-512" => Hash::Sha512,
            (PublicKey::Ecdsa { curve, .. }, true) => match curve {
                Curve::P256 => Hash::Sha256,
                Curve::P384 => Hash::Sha384,
                Curve::P521 => Hash::Sha512,
            },
            (PublicKey::Ed25519(_), true) => Hash::Sha512,
            _ => {
                let kinds = format!("{:?} by a key {:?}", shown(algorithm), shown(self.kind));
                return Err(SignatureError::Algorithm(format!("SSH signature {kinds}")));
            }
        };
        let value = match &self.public {
            PublicKey::Ecdsa { .. } => {
                let mut numbers = Bytes(signature.value);
                let r = numbers.counted(4).map_err(unreadable)?;
                let s = numbers.counted(4).map_err(unreadable)?;
                let pair = self.public.pair(r, s);
                pair.ok_or(unreadable(Malformed("a number in it is too large")))?
            }
            _ => signature.value.to_vec(),
        };
        let Some(application) = self.application else {
            return Ok(self.public.verifies_message(hash, message, &value));
        };
        if signature.state.len() != 5 {
            return Err(unreadable(Malformed("the state of the security key is missing")));
        }
        let (application, hashed) = (Hash::Sha256.of(application), Hash::Sha256.of(message));
        let message = [application.bytes(), signature.state, hashed.bytes()].concat();
        Ok(self.public.verifies_message(hash, &message, &value))
    }
}

/// Verifies the signature in `data` with those of `keys`, one a line, that it says it was made by.
pub(super) fn verify(content: &mut dyn Read, data: &[u8], keys: &str) -> Result<(), SignatureError> {
    let signature = Signature::parse(data)?;
    if signature.namespace != NAMESPACE {
        return Err(SignatureError::Namespace(shown(signature.namespace)));
    }
    let hash = match signature.hash {
        b"sha256" => Hash::Sha256,
        b"sha512" => Hash::Sha512,
        other => return Err(SignatureError::Algorithm(format!("hash {:?}", shown(other)))),
    };
    let known: Vec<Vec<u8>> = keys.lines().filter_map(listed).collect();
    if known.is_empty() {
        return Err(SignatureError::NoKey("an SSH key"));
    }
    if !known.iter().any(|key| key == signature.key) {
        let fingerprint = Hash::Sha256.of(signature.key);
        let fingerprint = STANDARD.encode(fingerprint.bytes());
        let key = format!("SHA256:{}", fingerprint.trim_end_matches('='));
        return Err(SignatureError::UnknownKey { key });
    }
    let key = Key::parse(signature.key)?;
    let mut hasher = hash.start();
    hasher
        .read(content, |bytes, hasher| hasher.update(bytes))
        .map_err(SignatureError::Read)?;
    let hashed = hasher.finish();
    let mut message = MAGIC.to_vec();
    for field in [
        signature.namespace,
        signature.reserved,
        signature.hash,
        hashed.bytes(),
    ] {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        message.extend(length.to_be_bytes());
        message.extend(field);
    }
    match key.verifies(&message, &signature)? {
        true => Ok(()),
        false => Err(SignatureError::Mismatch),
    }
}

/// The key of a line `KIND BASE64 COMMENT`.
fn listed(line: &str) -> Option<Vec<u8>> {
    let mut words = line.split_whitespace();
    let (kind, encoded) = (words.next()?, words.next()?);
    let data = STANDARD.decode(encoded).ok()?;
    (Bytes(&data).counted(4).ok()? == kind.as_bytes()).then_some(data)
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(60).collect()
}
