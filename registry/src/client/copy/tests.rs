use bytes::Bytes;
use http::{Method, StatusCode};

use super::*;
use crate::client::{Anonymous, Config, Retry};
use crate::manifest::{Index, Manifest};
use crate::platform::Platform;
use crate::testing::{FakeRegistry, Fault};

const PLATFORMS: [&str; 3] = ["amd64", "arm64", "riscv64"];

fn client() -> Client {
    let config = Config {
        retry: Retry {
            attempts: 1,
            ..Retry::default()
        },
        ..Config::default()
    };
    Client::new(config, Arc::new(Anonymous))
}

/// An index of images that share one layer and have one of their own each, inside of another index.
fn images(registry: &FakeRegistry, repository: &Repository) -> RawManifest {
    let entries = PLATFORMS.map(|architecture| {
        let blob =
            |media_type: &str, text: String| registry.add_blob(repository, media_type, text.into_bytes());
        let config = blob(media_type::OCI_CONFIG, format!("config of {architecture}"));
        let layers = vec![
            blob(media_type::OCI_LAYER, "shared".to_owned()),
            blob(media_type::OCI_LAYER, format!("layer of {architecture}")),
        ];
        let raw =
            RawManifest::from_manifest(&Manifest::new(media_type::OCI_MANIFEST, config, layers)).unwrap();
        registry.add_manifest(&repository.with_digest(raw.digest.clone()), &raw);
        raw.descriptor()
            .with_platform(Platform::new("linux", architecture, ""))
    });
    let inner = RawManifest::from_index(&Index::new(media_type::OCI_INDEX, entries.to_vec())).unwrap();
    registry.add_manifest(&repository.with_digest(inner.digest.clone()), &inner);
    let outer =
        RawManifest::from_index(&Index::new(media_type::OCI_INDEX, vec![inner.descriptor()])).unwrap();
    registry.add_manifest(&repository.with_digest(outer.digest.clone()), &outer);
    outer
}

fn count(log: &[String], method: &str, part: &str) -> usize {
    log.iter()
        .filter(|line| line.starts_with(method) && line.contains(part))
        .count()
}

#[tokio::test]
async fn within_a_registry_no_blob_moves() {
    let registry = FakeRegistry::start().await.unwrap();
    let (from, to) = (registry.repository("from"), registry.repository("to"));
    let raw = images(&registry, &from);
    let copier = Copier::new(client(), to.clone());
    copier.copy(&from, &raw.descriptor()).await.unwrap();
    let expected = Copied {
        manifests: 5,
        mounted: 7,
        uploaded: 0,
    };
    assert_eq!(copier.copied(), expected);
    assert_eq!(
        registry.manifest(&to.with_digest(raw.digest.clone())),
        Some(raw.clone())
    );
    let log = registry.take_log();
    assert_eq!(count(&log, "GET", "/blobs/"), 0, "{log:?}");
    assert_eq!(
        count(&log, "PUT", "/uploads/") + count(&log, "PATCH", ""),
        0,
        "{log:?}"
    );

    // What is there is found by one look.
    let again = Copier::new(client(), to);
    again.copy(&from, &raw.descriptor()).await.unwrap();
    assert_eq!(again.copied(), Copied::default());
    let log = registry.take_log();
    assert_eq!(count(&log, "HEAD", "/manifests/"), 1, "{log:?}");
}

#[tokio::test]
async fn between_registries_each_blob_moves_once() {
    let source = FakeRegistry::start().await.unwrap();
    let target = FakeRegistry::start().await.unwrap();
    let (from, to) = (source.repository("from"), target.repository("to"));
    let raw = images(&source, &from);
    let copier = Copier::new(client(), to.clone());
    copier.copy(&from, &raw.descriptor()).await.unwrap();
    let expected = Copied {
        manifests: 5,
        mounted: 0,
        uploaded: 7,
    };
    assert_eq!(copier.copied(), expected);
    assert_eq!(target.manifest(&to.with_digest(raw.digest.clone())), Some(raw));
    assert_eq!(count(&source.take_log(), "GET", "/blobs/"), 7);
    assert_eq!(
        target.blob(&to, &Digest::of(b"layer of arm64")),
        Some(Bytes::from_static(b"layer of arm64"))
    );
}

#[tokio::test]
async fn a_registry_that_mounts_nothing_is_served_by_hand() {
    let registry = FakeRegistry::start().await.unwrap();
    registry.set_mounts(false);
    let (from, to) = (registry.repository("from"), registry.repository("to"));
    let raw = images(&registry, &from);
    let copier = Copier::new(client(), to);
    copier.copy(&from, &raw.descriptor()).await.unwrap();
    assert_eq!((copier.copied().mounted, copier.copied().uploaded), (0, 7));
}

#[tokio::test]
async fn nothing_that_fails_leaves_a_manifest_behind() {
    for (method, path, fault) in [
        (Method::GET, "/from/blobs/", Fault::Corrupt),
        (Method::GET, "/from/manifests/", Fault::Corrupt),
        (
            Method::POST,
            "/to/blobs/",
            Fault::Status(StatusCode::FORBIDDEN, Vec::new()),
        ),
    ] {
        let registry = FakeRegistry::start().await.unwrap();
        registry.set_mounts(false);
        let (from, to) = (registry.repository("from"), registry.repository("to"));
        let raw = images(&registry, &from);
        registry.fail(method, path, 100, fault);
        let error = Copier::new(client(), to.clone())
            .copy(&from, &raw.descriptor())
            .await
            .unwrap_err();
        assert_eq!(registry.manifest(&to.with_digest(raw.digest)), None, "{error}");
        assert_eq!(count(&registry.take_log(), "PUT", "/to/manifests/"), 0, "{path}");
    }
}

#[tokio::test]
async fn who_may_not_look_may_still_write() {
    let registry = FakeRegistry::start().await.unwrap();
    let (from, to) = (registry.repository("from"), registry.repository("to"));
    let raw = images(&registry, &from);
    registry.fail(
        Method::HEAD,
        "/to/manifests/",
        100,
        Fault::Status(StatusCode::UNAUTHORIZED, Vec::new()),
    );
    let copier = Copier::new(client(), to);
    copier.copy(&from, &raw.descriptor()).await.unwrap();
    assert_eq!(copier.copied().manifests, 5);
}

#[tokio::test]
async fn indexes_without_end_are_refused() {
    let registry = FakeRegistry::start().await.unwrap();
    let from = registry.repository("from");
    let mut raw = images(&registry, &from);
    for _ in 0..DEEPEST {
        raw = RawManifest::from_index(&Index::new(media_type::OCI_INDEX, vec![raw.descriptor()])).unwrap();
        registry.add_manifest(&from.with_digest(raw.digest.clone()), &raw);
    }
    let error = Copier::new(client(), registry.repository("to"))
        .copy(&from, &raw.descriptor())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Nested { .. }), "{error}");
}
