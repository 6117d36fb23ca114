//! The client against a real server on loopback that misbehaves on request.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{Method, StatusCode};

use super::*;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest, RawManifest};
use crate::media_type;
use crate::reference::{Reference, Repository};
use crate::testing::{Access, FakeRegistry, Fault};

#[derive(Debug)]
struct Known(Credentials);

impl CredentialSource for Known {
    fn credentials<'a>(
        &'a self,
        _host: &'a str,
    ) -> futures::future::BoxFuture<'a, Result<Credentials, BoxError>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// Buys tokens with credentials that it hands to nobody.
#[derive(Debug)]
struct Buyer(Credentials);

impl CredentialSource for Buyer {
    fn credentials<'a>(
        &'a self,
        _host: &'a str,
    ) -> futures::future::BoxFuture<'a, Result<Credentials, BoxError>> {
        Box::pin(std::future::ready(Err("these are mine".into())))
    }

    fn token<'a>(
        &'a self,
        wanted: &'a TokenRequest,
    ) -> futures::future::BoxFuture<'a, Result<Option<IssuedToken>, BoxError>> {
        Box::pin(async { Ok(Some(issue_token(wanted, &self.0).await?)) })
    }
}

fn basic(password: &str) -> Arc<Known> {
    Arc::new(Known(Credentials::Basic {
        username: "me".to_owned(),
        password: Secret::new(password),
    }))
}

fn config() -> Config {
    Config {
        retry: Retry {
            attempts: 3,
            pause: Duration::from_millis(1),
            ..Retry::default()
        },
        ..Config::default()
    }
}

fn anonymous() -> Client {
    Client::new(config(), Arc::new(Anonymous))
}

fn status(status: u16) -> Fault {
    Fault::Status(StatusCode::from_u16(status).unwrap(), Vec::new())
}

fn uploads(log: &[String]) -> Vec<&str> {
    log.iter()
        .filter(|line| line.contains("/uploads/"))
        .map(|line| line.split(['/', '?']).next().unwrap_or(line).trim())
        .collect()
}

/// What was expected where the content has another digest.
fn corrupt_digest(error: &Error) -> Option<&Digest> {
    match error {
        Error::Corrupt(found) if matches!(found.finding, Finding::Digest(_)) => Some(&found.expected),
        _ => None,
    }
}

async fn read(client: &Client, repository: &Repository, descriptor: &Descriptor) -> Result<Bytes, Error> {
    client.blob_bytes(repository, descriptor, 1 << 20).await
}

async fn push(client: &Client, repository: &Repository, content: &str) -> Result<Pushed, Error> {
    let descriptor = Descriptor::of(media_type::OCI_LAYER, content.as_bytes());
    let source = BlobSource::Bytes(Bytes::copy_from_slice(content.as_bytes()));
    client
        .push_blob(repository, &descriptor, &source, &UploadOptions::default())
        .await
}

/// Pushes an image with one layer; its reference and manifest.
async fn push_image(client: &Client, repository: &Repository) -> (Reference, RawManifest) {
    push(client, repository, "config").await.unwrap();
    push(client, repository, "layer").await.unwrap();
    let config = Descriptor::of(media_type::OCI_CONFIG, b"config");
    let layer = Descriptor::of(media_type::OCI_LAYER, b"layer");
    let manifest =
        RawManifest::from_manifest(&Manifest::new(media_type::OCI_MANIFEST, config, vec![layer])).unwrap();
    let reference = repository.with_tag("1").unwrap();
    client.put_manifest(&reference, &manifest).await.unwrap();
    (reference, manifest)
}

#[tokio::test]
async fn an_image_is_pushed_and_pulled() {
    let registry = FakeRegistry::start().await.unwrap();
    let client = anonymous();
    let repository = registry.repository("demo/app");
    client.ping(&repository).await.unwrap();
    assert_eq!(
        client
            .head_manifest(&repository.with_tag("1").unwrap())
            .await
            .unwrap(),
        None
    );
    let (reference, manifest) = push_image(&client, &repository).await;

    assert_eq!(client.manifest(&reference).await.unwrap(), manifest);
    let pinned = repository.with_digest(manifest.digest.clone());
    assert_eq!(client.manifest(&pinned).await.unwrap(), manifest);
    assert_eq!(
        client.head_manifest(&reference).await.unwrap(),
        Some(manifest.descriptor())
    );
    assert_eq!(client.tags(&repository).await.unwrap(), ["1"]);
    assert_eq!(
        push(&client, &repository, "layer").await.unwrap(),
        Pushed::Existed
    );
    assert!(client.delete_manifest(&reference).await.unwrap());
    assert!(!client.delete_manifest(&reference).await.unwrap());
}

#[tokio::test]
async fn basic_credentials_are_shown_when_asked_for() {
    let registry = FakeRegistry::start().await.unwrap();
    registry.set_access(Access::Basic {
        username: "me".to_owned(),
        password: "right".to_owned(),
    });
    let repository = registry.repository("app");
    let client = Client::new(config(), basic("right"));
    push_image(&client, &repository).await;
    // One refusal teaches the client for good.
    let log = registry.take_log();
    assert_eq!(
        log.iter().filter(|line| line.starts_with("HEAD")).count(),
        3,
        "{log:?}"
    );

    for client in [client.with_credentials(basic("wrong")), anonymous()] {
        let error = push(&client, &repository, "x").await.unwrap_err();
        assert!(error.is_denied() && !error.is_transient(), "{error}");
        let error = client
            .manifest(&repository.with_tag("1").unwrap())
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "pull manifest {repository}:1: registry {} answered 401 Unauthorized: unauthorized: says the test: \
                 the repository does not exist or needs other credentials",
                registry.host()
            )
        );
    }
}

#[tokio::test]
async fn tokens_are_fetched_shared_and_renewed() {
    let registry = FakeRegistry::start().await.unwrap();
    let access = |uses| Access::Token {
        username: "me".to_owned(),
        password: "right".to_owned(),
        identity: Some("identity".to_owned()),
        uses,
    };
    registry.set_access(access(1000));
    let repository = registry.repository("app");
    let client = Client::new(config(), basic("right"));
    push_image(&client, &repository).await;
    let fetched = |log: Vec<String>| log.iter().filter(|line| line.contains("/token")).count();
    // One to look (pull), one to push.
    assert_eq!(fetched(registry.take_log()), 2);

    registry.forget_tokens();
    push(&client, &repository, "after the tokens became invalid")
        .await
        .unwrap();

    registry.set_access(access(1));
    registry.forget_tokens();
    registry.take_log();
    push(&client, &repository, "each token is good for one request")
        .await
        .unwrap();
    assert!(fetched(registry.take_log()) >= 2);

    registry.set_access(access(1000));
    let identity = Credentials::Identity {
        token: Secret::new("identity"),
    };
    let with_identity = client.with_credentials(Arc::new(Known(identity)));
    push(&with_identity, &repository, "identity").await.unwrap();
    assert!(registry.take_log().iter().any(|line| line == "POST /token"));

    let error = push(&client.with_credentials(basic("wrong")), &repository, "x")
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Token { .. }) && error.is_denied(),
        "{error}"
    );
}

#[tokio::test]
async fn tokens_may_be_bought_by_who_keeps_the_password() {
    let registry = FakeRegistry::start().await.unwrap();
    registry.set_access(Access::Token {
        username: "me".to_owned(),
        password: "right".to_owned(),
        identity: None,
        uses: 1000,
    });
    let repository = registry.repository("app");
    let buyer = |password: &str| {
        let credentials = Credentials::Basic {
            username: "me".to_owned(),
            password: Secret::new(password),
        };
        Client::new(config(), Arc::new(Buyer(credentials)))
    };
    push_image(&buyer("right"), &repository).await;
    let fetched = registry
        .take_log()
        .iter()
        .filter(|line| line.contains("/token"))
        .count();
    assert_eq!(fetched, 2);
    let refused = push(&buyer("wrong"), &repository, "content").await.unwrap_err();
    assert!(matches!(refused, Error::Credentials { .. }), "{refused:?}");
}

#[tokio::test]
async fn referrers_are_listed_where_the_registry_knows_them_or_under_a_tag() {
    let registry = FakeRegistry::start().await.unwrap();
    let repository = registry.repository("app");
    let subject = Digest::of(b"image");
    assert_eq!(anonymous().referrers(&repository, &subject).await.unwrap(), []);
    let empty = crate::manifest::Index::new(media_type::OCI_INDEX, Vec::new());
    let empty = RawManifest::from_index(&empty).unwrap();
    let place = repository.with_digest(empty.digest.clone());
    anonymous().put_manifest(&place, &empty).await.unwrap();
    let mut signature = empty.descriptor();
    signature.artifact_type = Some("application/x".to_owned());
    let index = crate::manifest::Index::new(media_type::OCI_INDEX, vec![signature.clone()]);
    let raw = RawManifest::from_index(&index).unwrap();
    let tag = repository.with_tag(&format!("sha256-{}", subject.hex())).unwrap();
    anonymous().put_manifest(&tag, &raw).await.unwrap();
    assert_eq!(
        anonymous().referrers(&repository, &subject).await.unwrap(),
        [signature]
    );
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories_and_falls_back_to_an_upload() {
    let registry = FakeRegistry::start().await.unwrap();
    registry.set_access(Access::Token {
        username: "me".to_owned(),
        password: "right".to_owned(),
        identity: None,
        uses: 1000,
    });
    let base = registry.repository("base");
    let client = Client::new(config(), basic("right"));
    let content = Bytes::from_static(b"layer of the base");
    let descriptor = registry.add_blob(&base, media_type::OCI_LAYER, content.clone());
    let options = UploadOptions {
        mount_from: vec![base.clone()],
        progress: None,
    };
    let source = BlobSource::remote(client.clone(), vec![base], descriptor.clone());

    let target = registry.repository("app");
    let pushed = client
        .push_blob(&target, &descriptor, &source, &options)
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Mounted);
    assert_eq!(registry.blob(&target, &descriptor.digest), Some(content.clone()));

    registry.set_mounts(false);
    registry.take_log();
    let target = registry.repository("other");
    let pushed = client
        .push_blob(&target, &descriptor, &source, &options)
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    assert_eq!(registry.blob(&target, &descriptor.digest), Some(content));
    let log = registry.take_log();
    let posts = log
        .iter()
        .filter(|line| line.starts_with("POST") && line.contains("/other/"))
        .count();
    assert_eq!(posts, 1, "the upload that the mount began is used: {log:?}");
}

#[tokio::test]
async fn transient_failures_are_tried_again_and_others_are_not() {
    let registry = FakeRegistry::start().await.unwrap();
    let client = anonymous();
    let repository = registry.repository("app");
    let wait = vec![("retry-after", "0".to_owned())];
    registry.fail(Method::HEAD, "/blobs/", 1, status(500));
    registry.fail(Method::POST, "/uploads/", 1, status(503));
    registry.fail(Method::PUT, "/uploads/", 1, Fault::Close);
    registry.fail(
        Method::PUT,
        "/manifests/",
        2,
        Fault::Status(StatusCode::TOO_MANY_REQUESTS, wait),
    );
    let (reference, manifest) = push_image(&client, &repository).await;
    registry.fail(Method::GET, "/manifests/", 1, Fault::Truncate(10));
    registry.fail(Method::GET, "/manifests/", 1, status(502));
    assert_eq!(client.manifest(&reference).await.unwrap(), manifest);

    registry.fail(Method::GET, "/manifests/", 100, status(500));
    registry.take_log();
    let error = client.manifest(&reference).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(registry.take_log().len(), 3);

    registry.fail(Method::PUT, "/manifests/", 100, status(413));
    let error = client.put_manifest(&reference, &manifest).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert_eq!(registry.take_log().len(), 1);
}

#[tokio::test]
async fn a_registry_that_is_down_is_named() {
    let registry = FakeRegistry::start().await.unwrap();
    let repository = registry.repository("app");
    drop(registry);
    let error = push(&anonymous(), &repository, "x").await.unwrap_err();
    assert!(
        matches!(&error, Error::Connect { .. }) && error.is_transient(),
        "{error}"
    );
    assert!(error.to_string().contains(repository.registry()), "{error}");
}

#[tokio::test]
async fn downloads_resume_and_every_byte_is_verified() {
    let registry = FakeRegistry::start().await.unwrap();
    let client = anonymous();
    let repository = registry.repository("app");
    let content = Bytes::from(vec![7; 100_000]);
    let descriptor = registry.add_blob(&repository, media_type::OCI_LAYER, content.clone());

    registry.fail(Method::GET, "/blobs/", 2, Fault::Truncate(40_000));
    assert_eq!(read(&client, &repository, &descriptor).await.unwrap(), content);
    let requests = registry.take_log();
    assert_eq!(
        requests.iter().filter(|line| line.contains("/blobs/")).count(),
        3,
        "{requests:?}"
    );

    registry.fail(Method::GET, "/blobs/", 1, Fault::Corrupt);
    let error = read(&client, &repository, &descriptor).await.unwrap_err();
    assert!(corrupt_digest(&error) == Some(&descriptor.digest), "{error}");

    for size in [99_999, 100_001] {
        let wrong = Descriptor {
            size,
            ..descriptor.clone()
        };
        let error = read(&client, &repository, &wrong).await.unwrap_err();
        assert!(
            matches!(&error, Error::Corrupt(found) if matches!(found.finding, Finding::Size { .. })),
            "{size}: {error}"
        );
    }

    registry.fail(Method::GET, "/blobs/", 1, Fault::Corrupt);
    let mut reader = client.blob(&repository, &descriptor).await.unwrap();
    let mut seen = 0;
    let end = loop {
        match reader.try_next().await {
            Ok(Some(chunk)) => seen += chunk.len(),
            Ok(None) => panic!("a corrupt blob must end in an error"),
            Err(error) => break error,
        }
    };
    assert_eq!((seen, corrupt_digest(&end).is_some()), (100_000, true));

    let missing = Descriptor::of(media_type::OCI_LAYER, b"missing");
    assert!(
        client
            .blob(&repository, &missing)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn a_manifest_with_another_digest_than_asked_for_is_refused() {
    let registry = FakeRegistry::start().await.unwrap();
    let client = anonymous();
    let (reference, manifest) = push_image(&client, &registry.repository("app")).await;
    for reference in [
        reference.clone(),
        reference.repository().with_digest(manifest.digest.clone()),
    ] {
        registry.fail(Method::GET, "/manifests/", 1, Fault::Corrupt);
        let error = client.manifest(&reference).await.unwrap_err();
        assert!(corrupt_digest(&error) == Some(&manifest.digest), "{error}");
    }
}

#[tokio::test]
async fn mirrors_are_asked_in_order_before_the_registry() {
    let origin = FakeRegistry::start().await.unwrap();
    let first = FakeRegistry::start().await.unwrap();
    let second = FakeRegistry::start().await.unwrap();
    let mut config = config();
    config.hosts.insert(
        origin.host(),
        HostConfig {
            mirrors: vec![first.host(), second.host()],
            ..HostConfig::default()
        },
    );
    let client = Client::new(config, Arc::new(Anonymous));
    let repository = origin.repository("app");
    let (reference, manifest) = push_image(&client, &repository).await;
    let layer = Descriptor::of(media_type::OCI_LAYER, b"layer");
    second.add_manifest(&reference, &manifest);
    second.add_blob(&repository, media_type::OCI_LAYER, "layer");
    origin.take_log();

    assert_eq!(client.manifest(&reference).await.unwrap(), manifest);
    assert_eq!(client.resolve(&reference).await.unwrap().digest, manifest.digest);
    assert_eq!(read(&client, &repository, &layer).await.unwrap(), "layer");
    assert_eq!(origin.take_log(), Vec::<String>::new());
    let asked = first.take_log();
    assert!(
        asked
            .iter()
            .any(|line| line.ends_with(&format!("/manifests/1?ns={}", origin.host().replace(':', "%3A")))),
        "{asked:?}"
    );

    // A mirror that breaks off in the middle is left for the next server.
    second.fail(Method::GET, "/blobs/", 100, Fault::Truncate(2));
    assert_eq!(read(&client, &repository, &layer).await.unwrap(), "layer");
    let error = client
        .manifest(&repository.with_tag("none").unwrap())
        .await
        .unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains(&origin.host()),
        "{error}"
    );
}

#[tokio::test]
async fn uploads_go_in_chunks_where_told_and_resume() {
    let registry = FakeRegistry::start().await.unwrap();
    let mut config = config();
    config.hosts.insert(
        registry.host(),
        HostConfig {
            upload_chunk: Some(4),
            ..HostConfig::default()
        },
    );
    let client = Client::new(config, Arc::new(Anonymous));
    let repository = registry.repository("app");
    push(&client, &repository, "ten bytes!").await.unwrap();
    assert_eq!(
        uploads(&registry.take_log()),
        ["POST", "PATCH", "PATCH", "PATCH", "PUT"]
    );
    assert_eq!(
        registry.blob(&repository, &Digest::of(b"ten bytes!")).unwrap(),
        "ten bytes!"
    );

    registry.fail(Method::PATCH, "/uploads/", 2, status(500));
    push(&client, &repository, "twelve bytes").await.unwrap();
    let log = registry.take_log();
    assert!(uploads(&log).contains(&"GET"), "{log:?}");
}

#[tokio::test]
async fn content_of_unknown_size_is_appended() {
    let registry = FakeRegistry::start().await.unwrap();
    let client = anonymous();
    let repository = registry.repository("app");
    let mut upload = client.begin_upload(&repository).await.unwrap();
    registry.fail(Method::PATCH, "/uploads/", 1, status(500));
    upload.append(Bytes::from_static(b"one ")).await.unwrap();
    upload.append(Bytes::from_static(b"two")).await.unwrap();
    upload.finish(&Digest::of(b"one two")).await.unwrap();
    assert_eq!(
        registry.blob(&repository, &Digest::of(b"one two")).unwrap(),
        "one two"
    );

    let upload = client.begin_upload(&repository).await.unwrap();
    upload.cancel().await.unwrap();
}

#[tokio::test]
async fn progress_and_files_are_sent_to_the_end() {
    let registry = FakeRegistry::start().await.unwrap();
    let client = anonymous();
    let repository = registry.repository("app");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blob");
    let content = vec![3; 700_000];
    std::fs::write(&path, &content).unwrap();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let options = UploadOptions {
        mount_from: Vec::new(),
        progress: Some({
            let seen = seen.clone();
            Arc::new(move |sent| seen.lock().unwrap().push(sent))
        }),
    };
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &content);
    registry.fail(Method::PUT, "/uploads/", 1, status(500));
    client
        .push_blob(&repository, &descriptor, &BlobSource::File(path), &options)
        .await
        .unwrap();
    assert_eq!(seen.lock().unwrap().last(), Some(&700_000));
    assert_eq!(registry.blob(&repository, &descriptor.digest).unwrap(), content);

    let missing = BlobSource::File(folder.path().join("none"));
    let descriptor = Descriptor::of(media_type::OCI_LAYER, b"never there");
    let error = client
        .push_blob(&repository, &descriptor, &missing, &options)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Content { .. }), "{error}");
}

/// Runs in a process of its own, because root certificates are looked for through the environment.
#[test]
fn a_client_works_where_there_are_no_system_certificates() {
    const INSIDE: &str = "TRIMARAN_TEST_WITHOUT_CERTIFICATES";
    if std::env::var_os(INSIDE).is_some() {
        let connections = Connections::new(Config::default());
        let repository: Repository = "registry.example.com/a".parse().unwrap();
        let endpoint = connections.origin(&repository).unwrap();
        let url = "https://registry.example.com/v2/".parse().unwrap();
        connections.client(&endpoint, &url).unwrap();
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "client::tests::a_client_works_where_there_are_no_system_certificates",
        ])
        .envs([
            (INSIDE, "1"),
            ("SSL_CERT_FILE", "/nonexistent"),
            ("SSL_CERT_DIR", "/nonexistent"),
        ])
        .status()
        .unwrap();
    assert!(status.success());
}
