//! `imagetools` with registries that refuse, lie, or are not there.

use axum::http::{Method, StatusCode};
use registry::testing::{Access, FakeRegistry, Fault};
use registry::{RawManifest, media_type};

use crate::imagetools_rounds::{many_platforms, run};

#[tokio::test(flavor = "multi_thread")]
async fn registries_that_refuse_are_named_with_the_reason() {
    let forbidden = || Fault::Status(StatusCode::FORBIDDEN, Vec::new());
    let unsupported = || Fault::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE, Vec::new());
    for (method, path, fault, texts) in [
        (
            Method::PUT,
            "/to/manifests/all",
            unsupported(),
            vec!["publish sha256:", "may not support indexes", "415"],
        ),
        (
            Method::POST,
            "/to/blobs/uploads/",
            forbidden(),
            vec!["copy sha256:", "403", "needs other credentials"],
        ),
        (
            Method::GET,
            "/from/manifests/sha256:",
            Fault::Corrupt,
            vec!["is corrupt", "its content has digest"],
        ),
    ] {
        let registry = FakeRegistry::start().await.unwrap();
        many_platforms(&registry, "from");
        let source = format!("{}/from", registry.host());
        registry.fail(method, path, 100, fault);
        let target = format!("{}/to:all", registry.host());
        let ended = run(&["imagetools", "create", "--progress=none", "-t", &target, &source])
            .await
            .failed();
        assert!(registry.tags(&registry.repository("to")).is_empty(), "{ended}");
        ended.said(&texts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_or_cannot_reach_is_told_so() {
    let registry = FakeRegistry::start().await.unwrap();
    many_platforms(&registry, "from");
    let name = format!("{}/from:amd64", registry.host());
    registry.set_access(Access::Basic {
        username: "me".to_owned(),
        password: "secret".to_owned(),
    });
    for command in [
        vec!["imagetools", "inspect", &name],
        vec!["imagetools", "create", "--dry-run", &name],
    ] {
        run(&command)
            .await
            .failed()
            .said(&[&registry.host(), "401 Unauthorized", "needs other credentials"]);
    }
    let host = registry.host();
    drop(registry);
    let ended = run(&["imagetools", "inspect", &format!("{host}/from:amd64")]).await;
    ended.failed().said(&[&host, "no answer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_not_shown() {
    for (path, format) in [
        ("/from/blobs/", "{{json .Image}}"),
        ("/from/manifests/sha256:", "{{json .Image}}"),
        ("/from/manifests/latest", ""),
    ] {
        let registry = FakeRegistry::start().await.unwrap();
        many_platforms(&registry, "from");
        registry.fail(Method::GET, path, 100, Fault::Corrupt);
        let name = format!("{}/from", registry.host());
        let ended = run(&["imagetools", "inspect", "--format", format, &name])
            .await
            .failed();
        assert_eq!(ended.stdout, "");
        ended.said(&["is corrupt"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_media_types_are_named() {
    let registry = FakeRegistry::start().await.unwrap();
    let repository = registry.repository("other");
    let add = |tag: &str, served: &str, text: &'static str| {
        let mut raw = RawManifest::new(text.as_bytes().into(), None);
        raw.media_type = served.to_owned();
        registry.add_manifest(&repository.with_tag(tag).unwrap(), &raw);
        format!("{repository}:{tag}")
    };
    let unknown = add(
        "unknown",
        "application/vnd.example.thing+json",
        r#"{"mediaType":"application/vnd.example.thing+json"}"#,
    );
    let old = add("old", media_type::DOCKER_SCHEMA1[0], r#"{"schemaVersion":1}"#);
    let liar = add(
        "liar",
        media_type::OCI_INDEX,
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
    );
    let broken = add("broken", media_type::OCI_INDEX, "{\"manifests\": [");
    run(&["imagetools", "inspect", &unknown])
        .await
        .succeeded()
        .said(&["MediaType: application/vnd.example.thing+json"]);
    for (name, text) in [
        (&unknown, "unknown media type"),
        (&old, "obsolete Docker schema 1"),
        (&liar, "says it is"),
        (&broken, "parse manifest"),
    ] {
        run(&["imagetools", "create", "--dry-run", name])
            .await
            .failed()
            .said(&[text]);
    }
}
