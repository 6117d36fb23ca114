//! Digests, password hashes, identifiers.

use md5::Digest as _;
use rand::RngCore as _;

use super::{Arguments, Fault, Function, Outcome};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("md5", &["str"], |a| Ok(hex(&md5::Md5::digest(a.text(0)?)))),
    Function::new("sha1", &["str"], |a| Ok(hex(&sha1::Sha1::digest(a.text(0)?)))),
    Function::new("sha256", &["str"], |a| Ok(hex(&sha2::Sha256::digest(a.text(0)?)))),
    Function::new("sha512", &["str"], |a| Ok(hex(&sha2::Sha512::digest(a.text(0)?)))),
    Function::new("bcrypt", &["str"], bcrypt).and_others("cost"),
    Function::new("uuidv4", &[], |_| {
        let mut bytes = [0; 16];
        rand::rng().fill_bytes(&mut bytes);
        Ok(uuid(bytes, 4))
    }),
    Function::new("uuidv5", &["namespace", "name"], |a| {
        let namespace = namespace(&a.text(0)?)?;
        let hash = sha1::Sha1::new()
            .chain_update(namespace)
            .chain_update(a.text(1)?)
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Ok(uuid(bytes, 5))
    }),
];

fn hex(bytes: &[u8]) -> Value {
    Value::String(hex::encode(bytes))
}

/// Each step doubles the work; beyond this, one call takes minutes.
const DEAREST: u32 = 17;

fn bcrypt(arguments: &Arguments<'_>) -> Outcome {
    let cost = match arguments.values.len() {
        1 => 10,
        2 => arguments.int(1)?,
        _ => return Err("bcrypt() takes no more than two arguments".into()),
    };
    if !(4..=DEAREST).contains(&cost) {
        return Err(Fault::of(
            1,
            format!("cost {cost} is outside allowed range (4,{DEAREST})"),
        ));
    }
    let text = arguments.text(0)?;
    if text.len() > 72 {
        return Err(Fault::of(0, "password length exceeds 72 bytes"));
    }
    let mut salt = [0; 16];
    rand::rng().fill_bytes(&mut salt);
    let parts = bcrypt::hash_with_salt(text, cost, salt)
        .map_err(|error| Fault::from(format!("error occurred generating password {error}")))?;
    Ok(Value::String(parts.format_for_version(bcrypt::Version::TwoA)))
}

fn uuid(mut bytes: [u8; 16], version: u8) -> Value {
    bytes[6] = bytes[6] & 0x0f | version << 4;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    Value::String(format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    ))
}

fn namespace(name: &str) -> Result<[u8; 16], Fault> {
    let known = match name {
        "dns" => "6ba7b8109dad11d180b400c04fd430c8",
        "url" => "6ba7b8119dad11d180b400c04fd430c8",
        "oid" => "6ba7b8129dad11d180b400c04fd430c8",
        "x500" => "6ba7b8149dad11d180b400c04fd430c8",
        other => &other.replace('-', ""),
    };
    let mut bytes = [0; 16];
    hex::decode_to_slice(known, &mut bytes).map_err(|_| {
        Fault::of(
            0,
            format!("uuidv5() doesn't support namespace {name}: use dns, url, oid, x500 or a UUID"),
        )
    })?;
    Ok(bytes)
}
