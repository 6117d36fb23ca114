//! The algorithms that signatures are made with: those that are known, and not too weak.

use std::io::Read;

use aws_lc_rs::digest::{self, Context, Digest};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
};

/// Of RSA keys, in bytes.
const SHORTEST_MODULUS: usize = 256;
const LONGEST_MODULUS: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    /// For what keys say of themselves, in years past; no content is taken at its word.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    pub(super) fn start(self) -> Hasher {
        Hasher {
            hash: self,
            context: Context::new(self.algorithm()),
        }
    }

    pub(super) fn of(self, bytes: &[u8]) -> Hashed {
        let mut hasher = self.start();
        hasher.update(bytes);
        hasher.finish()
    }
}

pub(super) struct Hasher {
    hash: Hash,
    context: Context,
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// Everything that `content` has, after `change` made it what is hashed.
    pub(super) fn read(
        &mut self,
        content: &mut dyn Read,
        mut change: impl FnMut(&[u8], &mut Self),
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => change(buffer.get(..length).unwrap_or_default(), self),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn finish(self) -> Hashed {
        Hashed {
            hash: self.hash,
            digest: self.context.finish(),
        }
    }
}

/// What was signed, hashed.
pub(super) struct Hashed {
    hash: Hash,
    digest: Digest,
}

impl Hashed {
    pub(super) fn bytes(&self) -> &[u8] {
        self.digest.as_ref()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// Of a number of the field, in bytes.
    fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// With a hash that is as long as the curve takes.
    fn algorithm(self) -> (&'static EcdsaVerificationAlgorithm, &'static digest::Algorithm) {
        match self {
            Self::P256 => (&ECDSA_P256_SHA256_FIXED, &digest::SHA256),
            Self::P384 => (&ECDSA_P384_SHA384_FIXED, &digest::SHA384),
            Self::P521 => (&ECDSA_P521_SHA512_FIXED, &digest::SHA512),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ecdsa { curve: Curve, point: Vec<u8> },
    Ed25519(Vec<u8>),
}

impl PublicKey {
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (modulus, exponent) = (stripped(modulus), stripped(exponent));
        let bits = 8 * modulus.len() - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        if modulus.len() > LONGEST_MODULUS {
            return Err(format!(
                "an RSA key of {bits} bits is longer than any that is in use"
            ));
        }
        if bits < 8 * SHORTEST_MODULUS {
            return Err(format!("an RSA key of {bits} bits is too short to be trusted"));
        }
        Ok(Self::Rsa {
            modulus: modulus.to_vec(),
            exponent: exponent.to_vec(),
        })
    }

    /// Whether `signature` is one of what was hashed.
    pub(super) fn verifies(&self, hashed: &Hashed, signature: &[u8]) -> bool {
        match self {
            Self::Rsa { modulus, exponent } => {
                let parameters = match hashed.hash {
                    Hash::Sha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
                    Hash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                    Hash::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
                    Hash::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                };
                let key = PublicKeyComponents {
                    n: modulus.as_slice(),
                    e: exponent.as_slice(),
                };
                let (Ok(key), Some(signature)) = (key.as_der(), padded(signature, modulus.len())) else {
                    return false;
                };
                UnparsedPublicKey::new(parameters, key.as_ref())
                    .verify_digest(&hashed.digest, &signature)
                    .is_ok()
            }
            Self::Ecdsa { curve, point } => {
                let (algorithm, hash) = curve.algorithm();
                // The number that is signed is the beginning of a digest that is too long, and a shorter one as it is.
                let digest = hashed.bytes();
                let digest = digest.get(..hash.output_len).unwrap_or(digest);
                let number = padded(digest, hash.output_len);
                let Some(Ok(number)) = number.map(|number| Digest::import_less_safe(&number, hash)) else {
                    return false;
                };
                UnparsedPublicKey::new(algorithm, point)
                    .verify_digest(&number, signature)
                    .is_ok()
            }
            Self::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point)
                .verify(hashed.bytes(), signature)
                .is_ok(),
        }
    }

    /// Whether `signature` is one of `message`, which Ed25519 takes as it is.
    pub(super) fn verifies_message(&self, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point)
                .verify(message, signature)
                .is_ok(),
            _ => self.verifies(&hash.of(message), signature),
        }
    }

    /// The two numbers of a signature side by side, as long as the key's curve takes them.
    pub(super) fn pair(&self, r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
        let size = match self {
            Self::Rsa { .. } => return None,
            Self::Ecdsa { curve, .. } => curve.size(),
            Self::Ed25519(_) => 32,
        };
        Some([padded(r, size)?, padded(s, size)?].concat())
    }
}

fn stripped(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// A number with zeros in front.
fn padded(number: &[u8], size: usize) -> Option<Vec<u8>> {
    let number = stripped(number);
    let mut padded = vec![0; size.checked_sub(number.len())?];
    padded.extend_from_slice(number);
    Some(padded)
}
