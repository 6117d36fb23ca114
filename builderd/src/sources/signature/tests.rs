//! Keys and signatures as GnuPG and OpenSSH made them, kept in `fixtures`: keys of 2021 (one of 2020 that lasted a year),
//! signatures of June of their years.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

pub(in crate::sources) const CONTENT: &[u8] = include_bytes!("fixtures/signed.txt");

pub(in crate::sources) fn fixture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sources/signature/fixtures");
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

fn policy(reject_expired: bool) -> Policy {
    Policy {
        reject_expired,
        // 2023.
        now: UNIX_EPOCH + Duration::from_secs(1_672_531_200),
    }
}

fn verified(content: &[u8], signature: &str, keys: &str, policy: Policy) -> Result<(), String> {
    verify_object(content, signature, keys, policy).map_err(|error| error.to_string())
}

/// With the fixtures of these names.
fn verify(signature: &str, key: &str) -> Result<(), String> {
    let (signature, key) = (
        fixture(&format!("{signature}.sig")),
        fixture(&format!("{key}.key")),
    );
    verified(CONTENT, &signature, &key, policy(false))
}

const GOOD: [(&str, &str); 14] = [
    ("ed25519", "ed25519"),
    ("rsa2048", "rsa2048"),
    ("nistp256", "nistp256"),
    ("nistp256-sha512", "nistp256"),
    ("nistp384", "nistp384"),
    ("nistp521", "nistp521"),
    ("subkey", "subkey"),
    ("text", "rsa2048"),
    ("ssh-ed25519", "ssh-ed25519"),
    ("ssh-sha256", "ssh-ed25519"),
    ("ssh-rsa2048", "ssh-rsa2048"),
    ("ssh-ecdsa256", "ssh-ecdsa256"),
    ("ssh-ecdsa384", "ssh-ecdsa384"),
    ("ssh-ecdsa521", "ssh-ecdsa521"),
];

#[test]
fn signatures_of_all_kinds_are_verified() {
    for (signature, key) in GOOD {
        assert_eq!(verify(signature, key), Ok(()), "{signature}");
        let (text, keys) = (
            fixture(&format!("{signature}.sig")),
            fixture(&format!("{key}.key")),
        );
        let changed = [CONTENT, b"!"].concat();
        let error = verified(&changed, &text, &keys, policy(false)).unwrap_err();
        assert_eq!(error, "the signature is of other content", "{signature}");
        let others = if key.starts_with("ssh") {
            fixture("ssh-ed25519.key").replace("AAAAI", "AAAAJ")
        } else {
            fixture("expired.key")
        };
        let error = verified(CONTENT, &text, &others, policy(false)).unwrap_err();
        assert!(
            error.contains("none of the given ones") || error.contains("no such key"),
            "{error}"
        );
    }
}

#[test]
fn one_of_several_keys_is_enough() {
    let keys = [
        "expired",
        "dsa2048",
        "ssh-rsa2048",
        "subkey",
        "ed25519",
        "ssh-ed25519",
    ];
    let keys: String = keys.map(|name| fixture(&format!("{name}.key"))).concat();
    for name in ["subkey", "ed25519", "ssh-ed25519"] {
        let signature = fixture(&format!("{name}.sig"));
        assert_eq!(
            verified(CONTENT, &signature, &keys, policy(true)),
            Ok(()),
            "{name}"
        );
    }
    let of_ssh_alone = fixture("ssh-ed25519.sig");
    let error = verify_detached(&mut &*CONTENT, &of_ssh_alone, &keys, policy(false)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the signature is not an armoured one of OpenPGP"
    );
}

#[test]
fn what_is_weak_or_revoked_is_refused() {
    for (signature, key, problem) in [
        ("sha1", "rsa2048", "hash SHA-1 is too weak, or not supported"),
        (
            "dsa2048",
            "dsa2048",
            "algorithm DSA is too weak, or not supported",
        ),
        ("rsa1024", "rsa1024", "an RSA key of 1024 bits is too short"),
        ("revoked", "revoked", "which cannot vouch for it: it was revoked"),
        (
            "after-superseded",
            "superseded",
            "which cannot vouch for it: it was revoked",
        ),
        ("future", "ed25519", "the signature is dated in the future"),
        (
            "ssh-file",
            "ssh-ed25519",
            "it is signed for \"file\", not for git",
        ),
        (
            "ed25519",
            "ssh-ed25519",
            "it is signed with an OpenPGP key, and no such key was given",
        ),
        (
            "ssh-ed25519",
            "ed25519",
            "it is signed with an SSH key, and no such key was given",
        ),
    ] {
        let error = verify(signature, key).unwrap_err();
        assert!(error.contains(problem), "{signature}: {error}");
    }
    // It was replaced by another one later, and was good until then.
    assert_eq!(verify("superseded", "superseded"), Ok(()));
}

#[test]
fn what_has_expired_counts_for_its_time_unless_that_is_refused() {
    for (signature, key, problem) in [
        ("expired", "expired", "cannot vouch for it: it has expired"),
        ("short-lived", "ed25519", "the signature has expired"),
    ] {
        assert_eq!(verify(signature, key), Ok(()), "{signature}");
        let (signature, key) = (
            fixture(&format!("{signature}.sig")),
            fixture(&format!("{key}.key")),
        );
        let error = verified(CONTENT, &signature, &key, policy(true)).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn a_subkey_must_have_agreed_to_belong_to_its_key() {
    let (signature, key) = (fixture("subkey.sig"), fixture("subkey.key"));
    let mut blocks = armor::blocks(&key).unwrap();
    let bytes = blocks[0].data.clone();
    // It stands in the other's signature, in the part that is not signed.
    let embedded = bytes
        .windows(3)
        .rposition(|bytes| bytes == [32, 4, 0x19])
        .unwrap();
    let policy = policy(false);
    for (position, problem) in [
        (embedded, "it has not signed that it belongs to the key"),
        (embedded + 60, "it has not signed that it belongs to the key"),
        (bytes.len() - 1, "it is not signed by the key that it stands with"),
    ] {
        blocks[0].data.clone_from(&bytes);
        blocks[0].data[position] ^= 1;
        let signature = armor::blocks(&signature).unwrap();
        let error = openpgp::verify(&mut &*CONTENT, &signature[0].data, &blocks, policy).unwrap_err();
        assert!(error.to_string().contains(problem), "{position}: {error}");
    }
}

#[test]
fn text_is_signed_with_both_characters_at_the_ends_of_its_lines() {
    let (signature, key) = (fixture("text.sig"), fixture("rsa2048.key"));
    let text = String::from_utf8(CONTENT.to_vec()).unwrap();
    for content in [text.replace('\n', "\r\n"), text.replacen('\n', "\r\n", 1)] {
        assert_eq!(
            verified(content.as_bytes(), &signature, &key, policy(false)),
            Ok(())
        );
        // However it comes.
        let mut bytes: std::collections::VecDeque<u8> = content.into_bytes().into();
        let mut one_by_one = Slowly(&mut bytes);
        assert!(verify_detached(&mut one_by_one, &signature, &key, policy(false)).is_ok());
    }
    assert!(verified(text.trim_end().as_bytes(), &signature, &key, policy(false)).is_err());
}

struct Slowly<'a>(&'a mut std::collections::VecDeque<u8>);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1);
        Read::read(self.0, &mut buffer[..length])
    }
}

/// A key of a device proves that somebody touched it, beside what was signed.
#[test]
fn security_keys_sign_what_they_add() {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let string = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let kind = "sk-ssh-ed25519@openssh.com";
    let key = [
        string(kind.as_bytes()),
        string(pair.public_key().as_ref()),
        string(b"ssh:"),
    ]
    .concat();
    let hashed = crypto::Hash::Sha512.of(CONTENT);
    let fields = [
        string(b"git"),
        string(b""),
        string(b"sha512"),
        string(hashed.bytes()),
    ];
    let message = [&b"SSHSIG"[..], &fields.concat()].concat();
    let state = [1, 0, 0, 0, 9];
    let (application, message) = (
        crypto::Hash::Sha256.of(b"ssh:"),
        crypto::Hash::Sha256.of(&message),
    );
    let signed = pair.sign(&[application.bytes(), &state, message.bytes()].concat());
    let armoured = |state: &[u8]| {
        let inner = [&string(kind.as_bytes()), &string(signed.as_ref()), state].concat();
        let fields = [
            string(&key),
            string(b"git"),
            string(b""),
            string(b"sha512"),
            string(&inner),
        ];
        let data = [&b"SSHSIG\0\0\0\x01"[..], &fields.concat()].concat();
        let data = STANDARD.encode(data);
        format!("-----BEGIN SSH SIGNATURE-----\n{data}\n-----END SSH SIGNATURE-----\n")
    };
    let keys = format!("# ours\n{kind} {} me\n", STANDARD.encode(&key));
    assert_eq!(verified(CONTENT, &armoured(&state), &keys, policy(false)), Ok(()));
    let other = verified(CONTENT, &armoured(&[0, 0, 0, 0, 9]), &keys, policy(false));
    assert_eq!(other, Err("the signature is of other content".to_owned()));
    assert!(verified(CONTENT, &armoured(&[]), &keys, policy(false)).is_err());
}

#[test]
fn garbage_is_named() {
    let (signature, key) = (fixture("ed25519.sig"), fixture("ed25519.key"));
    let long = "x".repeat(LONGEST_KEYS + 1);
    let private = key.replace("PUBLIC", "PRIVATE");
    let empty = "-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n";
    for (signature, keys, problem) in [
        (
            "",
            key.as_str(),
            "the signature is not an armoured one of OpenPGP or SSH",
        ),
        (
            "-----BEGIN PGP SIGNATURE-----\n",
            &key,
            "the signature cannot be read: a block has no end",
        ),
        (empty, &key, "the signature cannot be read: it is none of content"),
        (
            &signature,
            &long,
            "public keys of 4194305 bytes: no more than 4194304 are taken",
        ),
        (
            &signature,
            "",
            "it is signed with an OpenPGP key, and no such key was given to verify it with",
        ),
        (
            &signature,
            &private,
            "it is signed with an OpenPGP key, and no such key was given to verify it with",
        ),
        (
            &signature,
            &signature.replace("SIGNATURE", "PUBLIC KEY BLOCK"),
            "it is signed with an OpenPGP key, and no such key was given to verify it with",
        ),
        (
            &signature,
            &key.replace('=', "!"),
            "the public keys cannot be read: a block is not encoded with base64",
        ),
    ] {
        let error = verified(CONTENT, signature, keys, policy(false)).unwrap_err();
        assert_eq!(error, problem);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes stand in a block, they are refused and no more.
    #[test]
    fn any_bytes_are_read(data in prop::collection::vec(any::<u8>(), 0..300), kind in 0..4_usize) {
        let keys = [armor::Block { label: "PGP PUBLIC KEY BLOCK".to_owned(), data: data.clone() }];
        // Any bytes, and any behind the beginning of what is looked for.
        let begun: &[u8] = [&b""[..], b"\xc2\xff\0\0\x01\0\x04\0\x16\x08", b"\x88\x75\x04\0\x16\x08", b"SSHSIG\0\0\0\x01"][kind];
        let signature = [begun, &data].concat();
        prop_assert!(openpgp::verify(&mut &*CONTENT, &signature, &keys, policy(false)).is_err());
        prop_assert!(ssh::verify(&mut &*CONTENT, &signature, &fixture("ssh-ed25519.key")).is_err());
    }

    /// A signature that verifies is that of the content, however the rest of it was changed.
    #[test]
    fn changed_bits_never_vouch_for_other_content(
        which in 0..GOOD.len(),
        in_key: bool,
        position: prop::sample::Index,
        bit in 0..8_u8,
    ) {
        let (signature, key) = GOOD[which];
        let (signature, key) = (fixture(&format!("{signature}.sig")), fixture(&format!("{key}.key")));
        let other = b"something else";
        let mut data = armor::blocks(&signature).unwrap().remove(0).data;
        let mut keys = armor::blocks(&key).unwrap();
        let changed = match keys.first_mut() {
            Some(key) if in_key => &mut key.data,
            _ => &mut data,
        };
        let length = changed.len();
        changed[position.index(length)] ^= 1 << bit;
        let verified = match data.starts_with(b"SSHSIG") {
            true => ssh::verify(&mut &other[..], &data, &key),
            false => openpgp::verify(&mut &other[..], &data, &keys, policy(false)),
        };
        prop_assert!(verified.is_err());
    }
}
