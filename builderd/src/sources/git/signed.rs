//! Signed commits and tags: what of an object is signed, and whose signature a source takes.

use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::{Attributes, GitError, Objects, Resolved};
use crate::sources::signature::{self, Policy, SignatureError};

/// Whether the signature of an annotated tag counts for the commit that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedTag {
    /// The commit's own is looked at if the tag has none that will do.
    Preferred,
    Required,
    Ignored,
}

/// Whose signature a source takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demanded {
    /// OpenPGP keys as armoured text, or SSH keys, one a line.
    pub keys: String,
    pub reject_expired: bool,
    pub tag: SignedTag,
}

impl Demanded {
    /// Whoever names any of these wants something verified.
    pub(super) fn parse(attributes: &Attributes<'_>) -> Result<Option<Self>, GitError> {
        const KNOWN: [&str; 4] = [
            "git.sig.pubkey",
            "git.sig.rejectexpired",
            "git.sig.requiresignedtag",
            "git.sig.ignoresignedtag",
        ];
        let mut named = attributes
            .0
            .keys()
            .filter(|key| key.starts_with("git.sig."))
            .peekable();
        if named.peek().is_none() {
            return Ok(None);
        }
        if let Some(unknown) = named.find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(GitError::SignatureAttribute(unknown.clone()));
        }
        let tag = match (
            attributes.is_set("git.sig.requiresignedtag"),
            attributes.is_set("git.sig.ignoresignedtag"),
        ) {
            (false, false) => SignedTag::Preferred,
            (true, false) => SignedTag::Required,
            (false, true) => SignedTag::Ignored,
            (true, true) => {
                return Err(GitError::Attribute {
                    name: "git.sig.ignoresignedtag",
                    value: "true".to_owned(),
                    expected: "with git.sig.requiresignedtag, that it is not set",
                });
            }
        };
        match attributes.text("git.sig.pubkey") {
            "" => Err(GitError::NoKeys),
            keys => Ok(Some(Self {
                keys: keys.to_owned(),
                reject_expired: attributes.is_set("git.sig.rejectexpired"),
                tag,
            })),
        }
    }

    /// Verifies a commit, or the tag that it was found by; or says what is wrong with each that would have done.
    pub(super) fn verify(&self, objects: &Objects, named: &Resolved, now: SystemTime) -> Result<(), String> {
        let mut problems = Vec::new();
        let mut check = |kind: &str, object: &[u8], name: &str| {
            let verified = self.check(kind, object, name, now);
            verified
                .map_err(|error| problems.push(format!("{kind} {name}: {}", proto::chain(&error))))
                .is_ok()
        };
        let is_tag = !objects.tag.is_empty();
        if is_tag && self.tag != SignedTag::Ignored && check("tag", &objects.tag, &named.object) {
            return Ok(());
        }
        let commit = named.commit.as_ref().unwrap_or(&named.object);
        if self.tag != SignedTag::Required && check("commit", &objects.commit, commit) {
            return Ok(());
        }
        if !is_tag && self.tag == SignedTag::Required {
            problems.push("it is no annotated tag, and a signed one is required".to_owned());
        }
        Err(problems.join("; "))
    }

    fn check(&self, kind: &str, object: &[u8], name: &str, now: SystemTime) -> Result<(), SignatureError> {
        if named(kind, object, name.len()) != name {
            return Err(SignatureError::Mismatch);
        }
        let signed = match kind {
            "tag" => SignedObject::tag(object),
            _ => SignedObject::commit(object, name.len() == 64),
        };
        let signed = signed.ok_or(SignatureError::Unsigned)?;
        let policy = Policy {
            reject_expired: self.reject_expired,
            now,
        };
        signature::verify_object(&signed.content, &signed.signature, &self.keys, policy)
    }
}

/// The name of an object, which git does not work out again whenever it reads one.
fn named(kind: &str, object: &[u8], length: usize) -> String {
    let mut context = Context::new(match length {
        64 => &SHA256,
        _ => &SHA1_FOR_LEGACY_USE_ONLY,
    });
    context.update(format!("{kind} {}\0", object.len()).as_bytes());
    context.update(object);
    hex::encode(context.finish())
}

/// An object taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedObject {
    pub content: Vec<u8>,
    pub signature: String,
}

impl SignedObject {
    /// A commit has its signature in a header, whose further lines begin with a space. Those of repositories with either
    /// hash function are no part of what is signed.
    pub fn commit(object: &[u8], is_sha256: bool) -> Option<Self> {
        let wanted: &[u8] = if is_sha256 { b"gpgsig-sha256" } else { b"gpgsig" };
        let mut content = Vec::with_capacity(object.len());
        let mut signature = Vec::new();
        // The header that the line is in, if it is one of them.
        let mut within: Option<&[u8]> = None;
        let mut lines = object.split_inclusive(|byte| *byte == b'\n');
        for line in lines.by_ref() {
            let text = match (within, line.strip_prefix(b" ")) {
                (Some(_), Some(text)) => text,
                _ => {
                    let space = line.iter().position(|byte| *byte == b' ');
                    let (name, rest) = line.split_at(space.unwrap_or_default());
                    within = Some(name).filter(|name| [&b"gpgsig"[..], b"gpgsig-sha256"].contains(name));
                    rest.strip_prefix(b" ").unwrap_or(rest)
                }
            };
            match within {
                Some(name) if name == wanted => signature.extend_from_slice(text),
                Some(_) => {}
                None => content.extend_from_slice(line),
            }
            if line == b"\n" {
                break;
            }
        }
        lines.for_each(|line| content.extend_from_slice(line));
        Self::with(content, &signature)
    }

    /// A tag has its signature behind its message.
    pub fn tag(object: &[u8]) -> Option<Self> {
        let mut at = None;
        let mut position = 0;
        let mut in_message = false;
        for line in object.split_inclusive(|byte| *byte == b'\n') {
            let begins = line.starts_with(b"-----BEGIN PGP SIGNATURE-----")
                || line.starts_with(b"-----BEGIN SSH SIGNATURE-----");
            if in_message && begins {
                at = Some(position);
            }
            in_message |= line == b"\n";
            position += line.len();
        }
        let (content, signature) = object.split_at_checked(at?)?;
        Self::with(content.to_vec(), signature)
    }

    fn with(content: Vec<u8>, signature: &[u8]) -> Option<Self> {
        let signature = String::from_utf8_lossy(signature).into_owned();
        (!signature.is_empty()).then_some(Self { content, signature })
    }
}
