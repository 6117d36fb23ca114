//! A public key of OpenPGP with what it says of itself: whom it belongs to, what it is for and until when, which keys
//! sign in its name. It is believed as far as it is signed by the key itself; what others say of it is passed over.

use super::armor::Block;
use super::packets::{
    self, Key, PUBLIC_KEY, PUBLIC_SUBKEY, REVOKES_KEY, REVOKES_SUBKEY, REVOKES_USER, SECRET_KEY, SIGNATURE,
    Signature, USER_ATTRIBUTE, USER_ID,
};
use super::{Malformed, SignatureError};

const LABEL: &str = "PGP PUBLIC KEY BLOCK";
const MAY_SIGN: u8 = 2;

// Kinds of signatures.
const OF_USER: std::ops::RangeInclusive<u8> = 0x10..=0x13;
const OF_SUBKEY: u8 = 0x18;
const OF_KEY_BY_SUBKEY: u8 = 0x19;
const OF_KEY: u8 = 0x1f;

// Reasons to revoke that say nothing against what was signed before.
const SUPERSEDED: u8 = 1;
const RETIRED: u8 = 3;

pub(super) struct Certificate<'a> {
    primary: Key<'a>,
    /// On the key itself.
    signatures: Vec<Signature<'a>>,
    users: Vec<User<'a>>,
    subkeys: Vec<Subkey<'a>>,
}

struct User<'a> {
    /// What stands before the name where it is signed.
    prefix: u8,
    name: &'a [u8],
    signatures: Vec<Signature<'a>>,
}

pub(super) struct Subkey<'a> {
    key: Key<'a>,
    signatures: Vec<Signature<'a>>,
}

/// The key that made a signature.
pub(super) enum Signer<'c, 'a> {
    Primary(&'c Key<'a>),
    Subkey(&'c Subkey<'a>),
}

impl<'c, 'a> Signer<'c, 'a> {
    pub(super) fn key(&self) -> &'c Key<'a> {
        match self {
            Self::Primary(key) => key,
            Self::Subkey(subkey) => &subkey.key,
        }
    }
}

/// All that stand in blocks of armoured text.
pub(super) fn all(blocks: &[Block]) -> Result<Vec<Certificate<'_>>, SignatureError> {
    let mut certificates = Vec::new();
    let mut skipped = None;
    for block in blocks.iter().filter(|block| block.label == LABEL) {
        let read = read(&block.data, &mut certificates, &mut skipped);
        read.map_err(|problem| SignatureError::Keys { problem })?;
    }
    match (certificates.is_empty(), skipped) {
        (true, Some(problem)) => Err(SignatureError::Keys { problem }),
        (true, None) => Err(SignatureError::NoKey("an OpenPGP key")),
        (false, _) => Ok(certificates),
    }
}

/// Keys that are not understood are passed over, with all that belongs to them.
fn read<'a>(
    data: &'a [u8],
    certificates: &mut Vec<Certificate<'a>>,
    skipped: &mut Option<Malformed>,
) -> Result<(), Malformed> {
    /// What the next signature is on.
    enum On {
        Nothing,
        Key,
        User,
        Subkey,
    }
    let mut on = On::Nothing;
    for packet in packets::packets(data)? {
        let body = packet.body;
        match packet.tag {
            SECRET_KEY => return Err(Malformed("a private key is among them: give the public one")),
            PUBLIC_KEY => match Key::parse(body) {
                Ok(primary) => {
                    on = On::Key;
                    certificates.push(Certificate {
                        primary,
                        signatures: Vec::new(),
                        users: Vec::new(),
                        subkeys: Vec::new(),
                    });
                }
                Err(problem) => {
                    *skipped = Some(problem);
                    on = On::Nothing;
                }
            },
            _ => {
                let Some(certificate) = certificates.last_mut().filter(|_| !matches!(on, On::Nothing)) else {
                    continue;
                };
                match packet.tag {
                    USER_ID | USER_ATTRIBUTE => {
                        certificate.users.push(User {
                            prefix: if packet.tag == USER_ID { 0xb4 } else { 0xd1 },
                            name: body,
                            signatures: Vec::new(),
                        });
                        on = On::User;
                    }
                    PUBLIC_SUBKEY => {
                        // Signatures on one that is not understood verify with no other.
                        if let Ok(key) = Key::parse(body) {
                            certificate.subkeys.push(Subkey {
                                key,
                                signatures: Vec::new(),
                            });
                            on = On::Subkey;
                        }
                    }
                    SIGNATURE => {
                        let Ok(signature) = Signature::parse(body) else {
                            continue;
                        };
                        let list = match on {
                            On::User => certificate.users.last_mut().map(|user| &mut user.signatures),
                            On::Subkey => certificate.subkeys.last_mut().map(|key| &mut key.signatures),
                            On::Key | On::Nothing => Some(&mut certificate.signatures),
                        };
                        if let Some(list) = list {
                            list.push(signature);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

impl<'a> Certificate<'a> {
    /// The key in it that a signature says it was made by.
    pub(super) fn signer(&self, signature: &Signature<'_>) -> Option<Signer<'_, 'a>> {
        if signature.is_by(&self.primary) {
            return Some(Signer::Primary(&self.primary));
        }
        let subkey = self.subkeys.iter().find(|subkey| signature.is_by(&subkey.key));
        subkey.map(Signer::Subkey)
    }

    /// Whether one of its keys could sign at a time; if not, says why.
    pub(super) fn check(&self, signer: &Signer<'_, 'a>, time: u64) -> Result<(), String> {
        if let Err(problem) = &self.primary.public {
            return Err(problem.clone());
        }
        if let Err(problem) = &signer.key().public {
            return Err(problem.clone());
        }
        let primary = self.primary_parts();
        let revoked = self.signatures.iter().any(|signature| {
            signature.kind == REVOKES_KEY && signature.is_of_parts(&primary.each(), &self.primary)
        });
        if revoked {
            return Err("it was revoked".to_owned());
        }
        let own = self
            .own_signature()
            .ok_or("it says nothing of itself that it has signed")?;
        check_times(&self.primary, own, time)?;
        match signer {
            // Keys of old do not say what they are for.
            Signer::Primary(_) => match own.key_flags {
                Some(flags) if flags & MAY_SIGN == 0 => Err("it is not for signing".to_owned()),
                _ => Ok(()),
            },
            Signer::Subkey(subkey) => self.check_subkey(subkey, time),
        }
    }

    fn check_subkey(&self, subkey: &Subkey<'a>, time: u64) -> Result<(), String> {
        let (primary, parts) = (self.primary_parts(), Parts::of_key(&subkey.key));
        let both = [primary.each(), parts.each()].concat();
        let of = |kind: u8| {
            let made = move |signature: &&Signature<'a>| {
                signature.kind == kind && signature.is_of_parts(&both, &self.primary)
            };
            subkey.signatures.iter().filter(made)
        };
        for revocation in of.clone()(REVOKES_SUBKEY) {
            let from_then_on = matches!(revocation.reason, Some(SUPERSEDED | RETIRED));
            if !from_then_on || time >= revocation.created {
                return Err("it was revoked".to_owned());
            }
        }
        let binding = of(OF_SUBKEY).max_by_key(|signature| signature.created);
        let binding = binding.ok_or("it is not signed by the key that it stands with")?;
        check_times(&subkey.key, binding, time)?;
        if binding.key_flags.unwrap_or_default() & MAY_SIGN == 0 {
            return Err("it is not for signing".to_owned());
        }
        // Otherwise anybody's key could be taken for one's own.
        let back = binding.embedded.and_then(|body| Signature::parse(body).ok());
        let both = [primary.each(), parts.each()].concat();
        let agreed = back.is_some_and(|back| {
            back.kind == OF_KEY_BY_SUBKEY && !back.is_over_at(time) && back.is_of_parts(&both, &subkey.key)
        });
        match agreed {
            true => Ok(()),
            false => Err("it has not signed that it belongs to the key that it stands with".to_owned()),
        }
    }

    /// What it says of itself: with the user who is the primary one, or else lately.
    fn own_signature(&self) -> Option<&Signature<'a>> {
        let of_users = self.users.iter().filter_map(|user| self.of_user(user));
        let of_user = of_users.max_by_key(|signature| (signature.is_of_primary_user, signature.created));
        of_user.or_else(|| {
            let primary = self.primary_parts();
            let of_key = self.signatures.iter().filter(|signature| {
                signature.kind == OF_KEY && signature.is_of_parts(&primary.each(), &self.primary)
            });
            of_key.max_by_key(|signature| signature.created)
        })
    }

    fn of_user<'c>(&'c self, user: &'c User<'a>) -> Option<&'c Signature<'a>> {
        let primary = self.primary_parts();
        let length = u32::try_from(user.name.len()).unwrap_or(u32::MAX).to_be_bytes();
        let prefix = [user.prefix];
        let parts = [&primary.each()[..], &[&prefix, &length, user.name]].concat();
        let newest = |wanted: &dyn Fn(u8) -> bool| {
            // Keys collect signatures of others by the thousand.
            let made = user.signatures.iter().filter(|signature| {
                wanted(signature.kind)
                    && signature.is_by(&self.primary)
                    && signature.is_of_parts(&parts, &self.primary)
            });
            made.max_by_key(|signature| signature.created)
        };
        let own = newest(&|kind| OF_USER.contains(&kind))?;
        let revocation = newest(&|kind| kind == REVOKES_USER);
        revocation
            .is_none_or(|revocation| revocation.created < own.created)
            .then_some(own)
    }

    fn primary_parts(&self) -> Parts<'a> {
        Parts::of_key(&self.primary)
    }
}

/// A key where it is signed.
struct Parts<'a> {
    prefix: [u8; 3],
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of_key(key: &Key<'a>) -> Self {
        Self {
            prefix: key.prefix(),
            body: key.body,
        }
    }

    fn each(&self) -> [&[u8]; 2] {
        [&self.prefix, self.body]
    }
}

/// Whether a key had begun and not ended at a time, as it says itself.
fn check_times(key: &Key<'_>, own: &Signature<'_>, time: u64) -> Result<(), String> {
    if key.created > time {
        return Err("it was made after the signature".to_owned());
    }
    let expired = own.key_lifetime != 0 && time >= key.created.saturating_add(own.key_lifetime);
    if expired || own.is_over_at(time) {
        return Err("it has expired".to_owned());
    }
    Ok(())
}
