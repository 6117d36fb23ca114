//! Files with a detached signature.

use super::*;
use crate::sources::signature::tests::{CONTENT, fixture};

#[tokio::test]
async fn a_file_must_be_signed_by_a_given_key_also_if_it_is_here() {
    let (world, _session) = with_client().await;
    let content = String::from_utf8(CONTENT.to_vec()).unwrap();
    let server = Server::start(move |_, _| ok("ETag: \"one\"\r\n", &content)).await;
    let url = server.url("/file");
    let digest = Digest::of(CONTENT).to_string();
    let load = async |keys: &str, signature: &str, more: &[(&str, &str)]| {
        let (keys, signature) = (fixture(keys), fixture(signature));
        let attributes = [
            &[
                ("http.sig.pubkey", keys.as_str()),
                ("http.sig.signature", &signature),
            ],
            more,
        ];
        world.load(&url, &attributes.concat()).await
    };
    for more in [&[][..], &[], &[("http.checksum", digest.as_str())]] {
        let error = load("rsa2048.key", "ed25519.sig", more).await.unwrap_err();
        let named =
            format!("the file at {url} (digest {digest}) is not signed as demanded: it is signed with key");
        assert!(error.starts_with(&named), "{error}");
        assert_eq!(
            load("ed25519.key", "ed25519.sig", more).await.unwrap().digest,
            Digest::of(CONTENT)
        );
        // A key that was valid then is good for what it signed then.
        load("expired.key", "expired.sig", more).await.unwrap();
        let error = load("ed25519.key", "ssh-ed25519.sig", more).await.unwrap_err();
        assert!(error.contains("not an armoured one of OpenPGP"), "{error}");
    }
    let other = Server::start(|_, _| ok("", "other content")).await;
    let (keys, signature) = (fixture("ed25519.key"), fixture("ed25519.sig"));
    let attributes = [
        ("http.sig.pubkey", keys.as_str()),
        ("http.sig.signature", &signature),
    ];
    let error = world.load(&other.url("/file"), &attributes).await.unwrap_err();
    assert!(error.ends_with("the signature is of other content"), "{error}");
}

#[test]
fn half_of_it_is_refused() {
    for (key, value, problem) in [
        ("http.sig.pubkey", "x", "http.sig.signature is missing"),
        ("http.sig.pubkey", "", "http.sig.pubkey is missing"),
        ("http.sig.signature", "x", "http.sig.pubkey is missing"),
        (
            "http.sig.other",
            "x",
            "http.sig.other is not known to http sources",
        ),
    ] {
        let error = HttpSource::parse(&pb::SourceOp {
            identifier: "http://e.com/a".to_owned(),
            attrs: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        })
        .unwrap_err();
        assert!(error.to_string().ends_with(problem), "{error}");
    }
}
