//! Commits and tags that git had GnuPG and OpenSSH sign.

use proptest::prelude::*;

use super::*;
use crate::sources::signature::tests::fixture;

/// With the branches `signed`, `ssh`, `unsigned` and `forged`, and a signed tag of what is not signed itself.
fn signed_origin(world: &World, name: &str) -> Origin {
    let origin = Origin(world.folder.path().join(name));
    fs::create_dir(&origin.0).unwrap();
    origin.git(&["init", "--quiet", "--initial-branch=main"]);
    origin.write("a.txt", "signed\n");
    origin.git(&["add", "--all"]);
    origin.git(&["write-tree"]);
    let written = |kind: &str, object: &str, reference: &str| {
        let path = origin.0.join(".git").join("object");
        fs::write(&path, object).unwrap();
        let name = origin.git(&["hash-object", "-w", "-t", kind, &path.display().to_string()]);
        origin.git(&["update-ref", reference, &name]);
    };
    written("commit", &fixture("commit"), "refs/heads/signed");
    written("commit", &fixture("ssh-commit"), "refs/heads/ssh");
    written("commit", &fixture("unsigned-commit"), "refs/heads/unsigned");
    let forged = fixture("commit").replace("a signed commit", "another commit");
    written("commit", &forged, "refs/heads/forged");
    written("tag", &fixture("tag"), "refs/tags/v1");
    let forged = fixture("tag").replace("tag v1", "tag v2");
    written("tag", &forged, "refs/tags/v2");
    origin
}

fn demanded(keys: &str, tag: SignedTag) -> Option<Demanded> {
    Some(Demanded {
        keys: fixture(keys),
        reject_expired: true,
        tag,
    })
}

#[tokio::test]
async fn a_commit_or_its_tag_must_be_signed_by_a_given_key() {
    use SignedTag::{Ignored, Preferred, Required};
    let world = World::new();
    let origin = signed_origin(&world, "origin");
    let no = |problem: &'static str| Some(problem);
    for (reference, keys, tag, problem) in [
        ("signed", "ed25519.key", Preferred, None),
        ("signed", "ed25519.key", Ignored, None),
        (
            "signed",
            "ed25519.key",
            Required,
            no("it is no annotated tag, and a signed one is required"),
        ),
        ("ssh", "ssh-ed25519.key", Preferred, None),
        (
            "ssh",
            "ed25519.key",
            Preferred,
            no("it is signed with an SSH key, and no such key was given"),
        ),
        ("v1", "ed25519.key", Preferred, None),
        ("v1", "ed25519.key", Required, None),
        ("v1", "ed25519.key", Ignored, no("it is not signed")),
        (
            "v1",
            "rsa2048.key",
            Preferred,
            no("which is none of the given ones; commit"),
        ),
        (
            "v1",
            "rsa2048.key",
            Required,
            no("which is none of the given ones"),
        ),
        (
            "v2",
            "ed25519.key",
            Required,
            no("the signature is of other content"),
        ),
        ("unsigned", "ed25519.key", Preferred, no("it is not signed")),
        (
            "forged",
            "ed25519.key",
            Preferred,
            no("the signature is of other content"),
        ),
    ] {
        // What is here already is looked at all the same.
        let plain = world.source(&origin, reference, "");
        assert_eq!(world.files(plain.clone()).await["a.txt"], "signed\n");
        let source = GitSource {
            signature: demanded(keys, tag),
            ..plain
        };
        let request = world.request(source).await;
        let resolved = request.resolve().await.unwrap();
        let verified = request.verify(&resolved).await.map_err(|error| error.to_string());
        match (verified, problem) {
            (Ok(()), None) => {}
            (Err(error), Some(problem)) => {
                let named = format!(
                    "{} of {} is not signed as demanded: ",
                    resolved.reference,
                    origin.0.display()
                );
                assert!(error.starts_with(&named) && error.contains(problem), "{error}");
            }
            (verified, _) => panic!("{reference} {keys} {tag:?}: {verified:?}"),
        }
    }
    // By name, a tag is found as well.
    let tag = origin.git(&["rev-parse", "refs/tags/v1"]);
    let source = GitSource {
        signature: demanded("ed25519.key", Required),
        ..world.source(&origin, &tag, "")
    };
    let request = world.request(source).await;
    request.verify(&request.resolve().await.unwrap()).await.unwrap();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let parse = |attributes: &[(&str, &str)]| {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let source = GitSource::parse(&pb::SourceOp {
            identifier: "git://e.com/a".to_owned(),
            attrs: attributes.iter().map(owned).collect(),
        });
        source
            .map(|source| source.signature)
            .map_err(|error| error.to_string())
    };
    assert_eq!(parse(&[]), Ok(None));
    assert_eq!(
        parse(&[("git.sig.pubkey", "key"), ("git.sig.rejectexpired", "true")]),
        Ok(Some(Demanded {
            keys: "key".to_owned(),
            reject_expired: true,
            tag: SignedTag::Preferred,
        }))
    );
    for (attributes, problem) in [
        (
            &[("git.sig.rejectexpired", "false")][..],
            "signatures of git sources need git.sig.pubkey",
        ),
        (
            &[("git.sig.pubkey", "")],
            "signatures of git sources need git.sig.pubkey",
        ),
        (
            &[("git.sig.other", "x")],
            "git.sig.other is not known to git sources",
        ),
        (
            &[
                ("git.sig.requiresignedtag", "true"),
                ("git.sig.ignoresignedtag", "true"),
            ],
            "invalid value \"true\" of git.sig.ignoresignedtag",
        ),
    ] {
        let error = parse(attributes).unwrap_err();
        assert!(error.starts_with(problem), "{error}");
    }
}

#[test]
fn commits_say_by_which_hash_they_are_signed() {
    let object = b"tree 1\ngpgsig a\n b\ngpgsig-sha256 c\n d\nauthor me\n\ngpgsig in the message\n";
    let content = b"tree 1\nauthor me\n\ngpgsig in the message\n";
    for (is_sha256, signature) in [(false, "a\nb\n"), (true, "c\nd\n")] {
        let signed = SignedObject::commit(object, is_sha256).unwrap();
        assert_eq!(
            (signed.content.as_slice(), signed.signature.as_str()),
            (&content[..], signature)
        );
    }
    assert_eq!(SignedObject::commit(content, false), None);
    let tag = SignedObject::tag(fixture("tag").as_bytes()).unwrap();
    assert!(tag.content.ends_with(b"\na signed tag\n"));
    assert!(tag.signature.starts_with("-----BEGIN PGP SIGNATURE-----\n"));
    // One in the headers is none.
    assert_eq!(SignedObject::tag(tag.signature.as_bytes()), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Content and signature of an object are its lines in their order, whatever they are.
    #[test]
    fn objects_are_taken_apart_without_loss(lines in prop::collection::vec(lines(), 0..12), is_sha256: bool) {
        let object = lines.concat();
        if let Some(signed) = SignedObject::tag(&object) {
            let both = [signed.content.as_slice(), signed.signature.as_bytes()].concat();
            prop_assert_eq!(String::from_utf8_lossy(&both), String::from_utf8_lossy(&object));
        }
        if let Some(signed) = SignedObject::commit(&object, is_sha256) {
            prop_assert!(signed.content.len() < object.len());
            let headers = signed.content.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
            for header in headers {
                prop_assert!(!header.starts_with(b"gpgsig ") && !header.starts_with(b"gpgsig-sha256 "));
            }
        }
    }
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"gpgsig a\n".to_vec()),
        Just(b"gpgsig-sha256 b\n".to_vec()),
        Just(b"gpgsig\n".to_vec()),
        Just(b" c\n".to_vec()),
        Just(b"tree d\n".to_vec()),
        Just(b"-----BEGIN SSH SIGNATURE-----\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..5),
    ]
}
