//! `rsadecrypt`: a PKCS #1 v1.5 ciphertext and an unencrypted PEM key.

use aws_lc_rs::rsa::{Pkcs1PrivateDecryptingKey, PrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Arguments, Fault, Function, Outcome};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[Function::new(
    "rsadecrypt",
    &["ciphertext", "privatekey"],
    decrypt,
)];

fn decrypt(arguments: &Arguments<'_>) -> Outcome {
    let ciphertext = STANDARD
        .decode(arguments.text(0)?)
        .map_err(|_| Fault::of(0, "failed to decode input: cipher text must be base64-encoded"))?;
    let key = key(&arguments.text(1)?).map_err(|why| Fault::of(1, format!("failed to parse key: {why}")))?;
    let failed = || Fault::from("failed to decrypt: the ciphertext does not belong to the key");
    let mut plain = vec![0; key.min_output_size()];
    let plain = key.decrypt(&ciphertext, &mut plain).map_err(|_| failed())?;
    String::from_utf8(plain.to_vec())
        .map(Value::String)
        .map_err(|_| "the decrypted value is not valid UTF-8".into())
}

fn key(pem: &str) -> Result<Pkcs1PrivateDecryptingKey, String> {
    let (kind, der) = read_pem(pem).ok_or("no key found")?;
    let pkcs8 = match kind {
        "PRIVATE KEY" => der,
        "RSA PRIVATE KEY" => wrap(&der),
        other => {
            return Err(format!(
                "\"{other}\" is not supported, use an unencrypted RSA private key"
            ));
        }
    };
    let invalid = || "the key is not valid or too small".to_owned();
    let key = PrivateDecryptingKey::from_pkcs8(&pkcs8).map_err(|_| invalid())?;
    Pkcs1PrivateDecryptingKey::new(key).map_err(|_| invalid())
}

fn read_pem(pem: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (kind, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let text: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    Some((kind, STANDARD.decode(text).ok()?))
}

/// PKCS #1 inside PKCS #8: version 0, the algorithm rsaEncryption, the key.
fn wrap(pkcs1: &[u8]) -> Vec<u8> {
    const ALGORITHM: [u8; 18] = [
        0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
        0x00,
    ];
    let mut inner = ALGORITHM.to_vec();
    inner.extend(element(0x04, pkcs1));
    element(0x30, &inner)
}

/// One element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut out = vec![tag];
    match significant.as_slice() {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}
