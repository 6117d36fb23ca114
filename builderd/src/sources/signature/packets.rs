//! OpenPGP (RFC 4880 and what of RFC 9580 is in use): packets, and the two kinds of them that matter here.

use super::Malformed;
use super::bytes::Bytes;
use super::crypto::{Curve, Hash, Hashed, Hasher, PublicKey};

pub(super) const SIGNATURE: u8 = 2;
pub(super) const SECRET_KEY: u8 = 5;
pub(super) const PUBLIC_KEY: u8 = 6;
pub(super) const USER_ID: u8 = 13;
pub(super) const PUBLIC_SUBKEY: u8 = 14;
pub(super) const USER_ATTRIBUTE: u8 = 17;

// Kinds of signatures.
pub(super) const REVOKES_KEY: u8 = 0x20;
pub(super) const REVOKES_SUBKEY: u8 = 0x28;
pub(super) const REVOKES_USER: u8 = 0x30;

/// More than any key has.
const MOST: usize = 1 << 16;

pub(super) struct Packet<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

pub(super) fn packets(data: &[u8]) -> Result<Vec<Packet<'_>>, Malformed> {
    let mut bytes = Bytes(data);
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        if packets.len() == MOST {
            return Err(Malformed("it has too many packets"));
        }
        let header = bytes.byte()?;
        if header & 0x80 == 0 {
            return Err(Malformed("it is no OpenPGP data"));
        }
        let (tag, length) = if header & 0x40 != 0 {
            (header & 0x3f, length(&mut bytes, 224)?)
        } else {
            let length = match header & 3 {
                0 => bytes.number(1)?,
                1 => bytes.number(2)?,
                2 => bytes.number(4)?,
                _ => return Err(Malformed("a packet has no length")),
            };
            (header >> 2 & 0xf, length)
        };
        let body = bytes.take(length)?;
        packets.push(Packet { tag, body });
    }
    Ok(packets)
}

/// A length of one, two or five bytes; those of two begin with one below `limit`.
fn length(bytes: &mut Bytes<'_>, limit: usize) -> Result<usize, Malformed> {
    match bytes.number(1)? {
        short @ ..192 => Ok(short),
        255 => bytes.number(4),
        first if first < limit => Ok(((first - 192) << 8) + bytes.number(1)? + 192),
        _ => Err(Malformed("a packet comes in parts")),
    }
}

/// Of a key: its last 8 bytes are what it goes by.
pub(super) type Fingerprint = [u8; 20];

pub(super) struct Signature<'a> {
    pub(super) kind: u8,
    algorithm: u8,
    hash: u8,
    /// The beginning of the packet, which is signed too.
    signed: &'a [u8],
    numbers: &'a [u8],
    /// Seconds since 1970.
    pub(super) created: u64,
    /// Seconds; 0 for ever.
    pub(super) lifetime: u64,
    pub(super) issuer: Option<[u8; 8]>,
    pub(super) issuer_fingerprint: Option<Fingerprint>,
    pub(super) key_lifetime: u64,
    pub(super) key_flags: Option<u8>,
    pub(super) is_of_primary_user: bool,
    /// Why something was revoked.
    pub(super) reason: Option<u8>,
    pub(super) embedded: Option<&'a [u8]>,
    /// It demands what is not understood.
    demanding: bool,
}

impl<'a> Signature<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes(body);
        if bytes.byte()? != 4 {
            return Err(Malformed("it is of another version than 4"));
        }
        let (kind, algorithm, hash) = (bytes.byte()?, bytes.byte()?, bytes.byte()?);
        let hashed = bytes.counted(2)?;
        let signed = body.get(..6 + hashed.len()).unwrap_or_default();
        let unhashed = bytes.counted(2)?;
        bytes.take(2)?;
        let mut signature = Self {
            kind,
            algorithm,
            hash,
            signed,
            numbers: bytes.0,
            created: u64::MAX,
            lifetime: 0,
            issuer: None,
            issuer_fingerprint: None,
            key_lifetime: 0,
            key_flags: None,
            is_of_primary_user: false,
            reason: None,
            embedded: None,
            demanding: false,
        };
        signature.read(hashed, true)?;
        signature.read(unhashed, false)?;
        if signature.created == u64::MAX {
            return Err(Malformed("it does not say when it was made"));
        }
        Ok(signature)
    }

    fn read(&mut self, area: &'a [u8], is_signed: bool) -> Result<(), Malformed> {
        let mut area = Bytes(area);
        while !area.is_empty() {
            let length = length(&mut area, 255)?;
            let mut data = Bytes(area.take(length)?);
            let kind = data.byte()?;
            let seconds = |mut data: Bytes<'_>| data.number(4).map(|seconds| seconds as u64);
            match (kind & 0x7f, is_signed) {
                // These prove themselves, wherever they stand.
                (16, _) => self.issuer = data.take(8)?.try_into().ok(),
                (33, _) if data.byte()? == 4 => self.issuer_fingerprint = data.take(20)?.try_into().ok(),
                (32, _) => self.embedded = Some(data.0),
                (_, false) => {}
                (2, true) => self.created = seconds(data)?,
                (3, true) => self.lifetime = seconds(data)?,
                (9, true) => self.key_lifetime = seconds(data)?,
                (25, true) => self.is_of_primary_user = data.byte()? != 0,
                (27, true) => self.key_flags = Some(data.byte().unwrap_or_default()),
                (29, true) => self.reason = Some(data.byte()?),
                (4 | 7 | 11 | 21..=24 | 26 | 28 | 30 | 31 | 33..=35, true) => {}
                _ => self.demanding |= kind & 0x80 != 0,
            }
        }
        Ok(())
    }

    /// The hash that it is made of, if that is one of those that are known.
    pub(super) fn hash(&self) -> Option<Hash> {
        match self.hash {
            2 => Some(Hash::Sha1),
            8 => Some(Hash::Sha256),
            9 => Some(Hash::Sha384),
            10 => Some(Hash::Sha512),
            _ => None,
        }
    }

    /// Why it is not one of content, however it was made.
    pub(super) fn weakness(&self) -> Option<String> {
        if self.demanding {
            return Some("signature with conditions that are not known here".to_owned());
        }
        match (self.hash(), self.hash, self.algorithm) {
            (Some(Hash::Sha1), ..) => Some("hash SHA-1".to_owned()),
            (None, 1, _) => Some("hash MD5".to_owned()),
            (None, hash, _) => Some(format!("hash number {hash} of OpenPGP")),
            (_, _, 1 | 3 | 19 | 22) => None,
            (_, _, 17) => Some("algorithm DSA".to_owned()),
            (_, _, algorithm) => Some(format!("algorithm number {algorithm} of OpenPGP")),
        }
    }

    pub(super) fn is_by(&self, key: &Key<'_>) -> bool {
        match (self.issuer_fingerprint, self.issuer) {
            (Some(fingerprint), _) => fingerprint == key.fingerprint,
            (None, Some(issuer)) => key.fingerprint.ends_with(&issuer),
            (None, None) => false,
        }
    }

    /// What its maker goes by.
    pub(super) fn maker(&self) -> String {
        match (self.issuer_fingerprint, self.issuer) {
            (Some(fingerprint), _) => hex::encode_upper(fingerprint),
            (None, Some(issuer)) => hex::encode_upper(issuer),
            (None, None) => "without a name".to_owned(),
        }
    }

    /// Whether `key` made it of what was hashed.
    pub(super) fn is_of(&self, hasher: Hasher, key: &Key<'_>) -> bool {
        let Ok(public) = &key.public else { return false };
        let value = match (public, self.algorithm) {
            (PublicKey::Rsa { .. }, 1 | 3) => self.first_number().ok(),
            (PublicKey::Ecdsa { .. }, 19) | (PublicKey::Ed25519(_), 22) => self.pair(public),
            _ => None,
        };
        let hashed = self.finish(hasher);
        value.is_some_and(|value| public.verifies(&hashed, &value))
    }

    /// The same of what a key says of itself. Conditions that are not known here keep it from vouching for anything, and not
    /// from revoking it.
    pub(super) fn is_of_parts(&self, parts: &[&[u8]], key: &Key<'_>) -> bool {
        let counts = !self.demanding || matches!(self.kind, REVOKES_KEY | REVOKES_SUBKEY | REVOKES_USER);
        let Some(hash) = self.hash().filter(|_| counts) else {
            return false;
        };
        let mut hasher = hash.start();
        for part in parts {
            hasher.update(part);
        }
        self.is_of(hasher, key)
    }

    fn finish(&self, mut hasher: Hasher) -> Hashed {
        let length = u32::try_from(self.signed.len()).unwrap_or(u32::MAX);
        hasher.update(self.signed);
        hasher.update(&[4, 0xff]);
        hasher.update(&length.to_be_bytes());
        hasher.finish()
    }

    fn first_number(&self) -> Result<Vec<u8>, Malformed> {
        number(&mut Bytes(self.numbers)).map(<[u8]>::to_vec)
    }

    fn pair(&self, key: &PublicKey) -> Option<Vec<u8>> {
        let mut numbers = Bytes(self.numbers);
        key.pair(number(&mut numbers).ok()?, number(&mut numbers).ok()?)
    }

    /// Whether it is not yet, or no longer, valid at a time.
    pub(super) fn is_over_at(&self, time: u64) -> bool {
        self.lifetime != 0 && time >= self.created.saturating_add(self.lifetime)
    }
}

/// A number with the count of its bits in front.
fn number<'a>(bytes: &mut Bytes<'a>) -> Result<&'a [u8], Malformed> {
    let bits = bytes.number(2)?;
    bytes.take(bits.div_ceil(8))
}

pub(super) struct Key<'a> {
    pub(super) body: &'a [u8],
    pub(super) created: u64,
    pub(super) fingerprint: Fingerprint,
    /// Or why signatures are not verified with it.
    pub(super) public: Result<PublicKey, String>,
}

impl<'a> Key<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes(body);
        // Its length is signed in two bytes.
        if body.len() > usize::from(u16::MAX) {
            return Err(Malformed("a key is too long"));
        }
        if bytes.byte()? != 4 {
            return Err(Malformed("a key is of another version than 4"));
        }
        let created = bytes.number(4)? as u64;
        let public = public(&mut bytes)?;
        let mut hasher = Hash::Sha1.start();
        hasher.update(&prefix(body));
        hasher.update(body);
        Ok(Self {
            body,
            created,
            fingerprint: hasher.finish().bytes().try_into().unwrap_or_default(),
            public,
        })
    }

    pub(super) fn name(&self) -> String {
        hex::encode_upper(self.fingerprint)
    }

    /// What stands before it where it is signed.
    pub(super) fn prefix(&self) -> [u8; 3] {
        prefix(self.body)
    }
}

fn prefix(body: &[u8]) -> [u8; 3] {
    let [high, low] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [0x99, high, low]
}

fn public(bytes: &mut Bytes<'_>) -> Result<Result<PublicKey, String>, Malformed> {
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];
    const P521: &[u8] = &[0x2b, 0x81, 4, 0, 0x23];
    const ED25519: &[u8] = &[0x2b, 6, 1, 4, 1, 0xda, 0x47, 0xf, 1];
    let unknown_curve = || Ok(Err("its curve is not supported".to_owned()));
    match bytes.byte()? {
        1 | 3 => {
            let (modulus, exponent) = (number(bytes)?, number(bytes)?);
            Ok(PublicKey::rsa(modulus, exponent))
        }
        19 => {
            let curve = match bytes.counted(1)? {
                P256 => Curve::P256,
                P384 => Curve::P384,
                P521 => Curve::P521,
                _ => return unknown_curve(),
            };
            let point = number(bytes)?.to_vec();
            Ok(Ok(PublicKey::Ecdsa { curve, point }))
        }
        22 => match (bytes.counted(1)?, number(bytes)?) {
            (ED25519, [0x40, point @ ..]) => Ok(Ok(PublicKey::Ed25519(point.to_vec()))),
            _ => unknown_curve(),
        },
        algorithm => Ok(Err(format!(
            "keys of OpenPGP's algorithm number {algorithm} are not supported: use RSA, ECDSA or EdDSA"
        ))),
    }
}
