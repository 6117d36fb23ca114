use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use futures::TryStreamExt as _;
use registry::client::{Anonymous, Config};
use registry::image::{History, ImageConfig};
use registry::testing::FakeRegistry;
use registry::{Client, Digest, Reference, media_type};

use super::*;
use crate::session::Sessions;
use crate::store::{self, NewLayer, RemoteLayer, Store};

const EMPTY_TAR: [u8; 1024] = [0; 1024];

struct World {
    registry: FakeRegistry,
    images: Images,
    sessions: Group,
    folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state")).unwrap();
    World {
        registry: FakeRegistry::start().await.unwrap(),
        images: Images::new(Client::new(Config::default(), Arc::new(Anonymous)), store),
        sessions: Sessions::new().group(Vec::<String>::new()),
        folder,
    }
}

fn linux(architecture: &str) -> Platform {
    Platform::new("linux", architecture, "")
}

impl World {
    fn layer(&self, content: &str) -> LayerId {
        let store = self.images.store();
        let draft = store.draft().unwrap();
        let path = draft.upper().join("file");
        std::fs::write(&path, content).unwrap();
        let time = std::fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        std::fs::File::open(&path).unwrap().set_times(time).unwrap();
        std::fs::File::open(draft.upper())
            .unwrap()
            .set_times(time)
            .unwrap();
        let new = NewLayer {
            description: "COPY file".to_owned(),
            created_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
            ..NewLayer::default()
        };
        store.commit(draft, new).unwrap()
    }

    /// A layer that is in the repository `base` of the registry only.
    fn base_layer(&self) -> (LayerId, Descriptor) {
        let repository = self.registry.repository("base");
        let blob = self
            .registry
            .add_blob(&repository, media_type::DOCKER_LAYER, EMPTY_TAR.to_vec());
        let remote = RemoteLayer {
            diff_id: blob.digest.clone(),
            descriptor: store::Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size),
            repository: Some(repository.to_string()),
            made: None,
        };
        self.images.store().record_remote_layers([remote]).unwrap();
        (LayerId::of_image(&blob.digest), blob)
    }

    fn target(&self, architecture: &str, layers: Vec<LayerId>) -> Target {
        let mut config = ImageConfig::for_platform(&linux(architecture));
        config.config.cmd = vec!["/file".to_owned()];
        config.history = vec![
            History {
                created_by: "FROM".to_owned(),
                created: Some("2020-01-01T00:00:00Z".to_owned()),
                ..History::default()
            },
            History {
                created_by: "COPY file /".to_owned(),
                ..History::default()
            },
            History {
                created_by: "CMD".to_owned(),
                empty_layer: true,
                ..History::default()
            },
        ];
        Target {
            id: format!("linux/{architecture}"),
            platform: linux(architecture),
            snapshot: layers.into_iter().collect(),
            config: Some(config.to_bytes().unwrap()),
            base_config: None,
            epoch: None,
            attestations: Vec::new(),
        }
    }

    async fn export(&self, attributes: &[(&str, &str)], results: &Results) -> Result<Response, ExportError> {
        let attributes = attributes
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let context = Context {
            images: &self.images,
            sessions: &self.sessions,
            progress: &Progress::default(),
            number: 0,
        };
        let exported = export("image", &attributes, results, &context).await?;
        Ok(exported.response)
    }
}

fn results(targets: Vec<Target>, multi_platform: bool) -> Results {
    Results {
        targets,
        multi_platform,
        build_info: Some(BuildInfo {
            frontend: "dockerfile.v0".to_owned(),
            ..BuildInfo::default()
        }),
        metadata: BTreeMap::new(),
    }
}

#[tokio::test]
async fn two_platforms_are_pushed_once_and_the_second_time_asks_one_question() {
    let world = world().await;
    let (base, base_blob) = world.base_layer();
    let name = world.registry.repository("app").with_tag("1").unwrap();
    let results = results(
        vec![
            world.target("arm64", vec![base.clone(), world.layer("arm")]),
            world.target("amd64", vec![base, world.layer("amd")]),
        ],
        true,
    );
    let attributes = [("name", &*name.to_string()), ("push", "true")];
    let first = world.export(&attributes, &results).await.unwrap();

    let index = world.registry.manifest(&name).unwrap();
    assert_eq!(first["containerimage.digest"], index.digest.to_string());
    assert_eq!(first["image.name"], name.to_string());
    assert!(!first.contains_key("containerimage.config.digest"));
    let index = index.index().unwrap();
    let platforms: Vec<String> = index.platforms().iter().map(Platform::to_string).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/amd64"]);
    let arm = name.repository().with_digest(index.manifests[0].digest.clone());
    let manifest = world.registry.manifest(&arm).unwrap().manifest().unwrap();
    // The layer of the base keeps its bytes; it was mounted, never pulled.
    let types: Vec<&str> = manifest
        .layers
        .iter()
        .map(|layer| layer.media_type.as_str())
        .collect();
    assert_eq!(types, [media_type::OCI_LAYER, media_type::OCI_LAYER_GZIP]);
    let log = world.registry.take_log();
    assert!(
        log.iter().any(|line| line.contains(&format!(
            "mount={}",
            base_blob.digest.as_str().replace(':', "%3A")
        ))),
        "{log:?}"
    );
    assert!(
        !log.iter().any(|line| line.starts_with("GET /v2/base/blobs")),
        "{log:?}"
    );
    // Tags come last.
    assert_eq!(log.last().map(String::as_str), Some("PUT /v2/app/manifests/1"));

    let config = world
        .registry
        .blob(name.repository(), &manifest.config.digest)
        .unwrap();
    let config = ImageConfig::parse(&config).unwrap();
    let times: Vec<_> = config
        .history
        .iter()
        .map(|entry| entry.created.clone().unwrap())
        .collect();
    assert_eq!(
        times,
        [
            "2020-01-01T00:00:00Z",
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20Z"
        ]
    );
    assert_eq!(config.created.as_deref(), Some("2023-11-14T22:13:20Z"));
    let info = config.other["moby.buildkit.buildinfo.v1"]
        .as_str()
        .unwrap()
        .to_owned();
    let info = base64::engine::general_purpose::STANDARD.decode(info).unwrap();
    assert_eq!(info, br#"{"frontend":"dockerfile.v0"}"#);
    assert_eq!(config.rootfs.diff_ids[0], Digest::of(&EMPTY_TAR));

    let again = world.export(&attributes, &results).await.unwrap();
    assert_eq!(again["containerimage.digest"], first["containerimage.digest"]);
    assert_eq!(world.registry.take_log(), ["HEAD /v2/app/manifests/1"]);
}

#[tokio::test]
async fn a_single_image_is_a_manifest_and_tells_its_config() {
    let world = world().await;
    let results = results(
        vec![world.target("amd64", vec![world.layer("a"), world.layer("b")])],
        false,
    );
    let repository = world.registry.repository("app");
    let name = repository.to_string();
    let attributes = [
        ("name", name.as_str()),
        ("push", "true"),
        ("push-by-digest", "true"),
        ("oci-mediatypes", "false"),
        ("compression", "uncompressed"),
        ("source-date-epoch", "5"),
        ("annotation.k", "v"),
    ];
    let response = world.export(&attributes, &results).await.unwrap();
    assert_eq!(world.registry.tags(&repository), Vec::<String>::new());
    let digest: Digest = response["containerimage.digest"].parse().unwrap();
    let raw = world.registry.manifest(&repository.with_digest(digest)).unwrap();
    assert_eq!(raw.media_type, media_type::DOCKER_MANIFEST);
    let manifest = raw.manifest().unwrap();
    assert_eq!(manifest.layers[0].media_type, media_type::DOCKER_LAYER);
    assert_eq!(manifest.annotations.unwrap()["k"], "v");
    assert_eq!(
        response["containerimage.config.digest"],
        manifest.config.digest.to_string()
    );
    let config = world.registry.blob(&repository, &manifest.config.digest).unwrap();
    assert_eq!(
        ImageConfig::parse(&config).unwrap().created.as_deref(),
        Some("1970-01-01T00:00:05Z")
    );
    let descriptor = base64::engine::general_purpose::STANDARD
        .decode(&response["containerimage.descriptor"])
        .unwrap();
    let descriptor: Descriptor = serde_json::from_slice(&descriptor).unwrap();
    assert_eq!(descriptor.platform, Some(linux("amd64")));
    assert_eq!(
        descriptor.annotation("org.opencontainers.image.created"),
        Some("1970-01-01T00:00:05Z")
    );
}

#[tokio::test]
async fn base_layers_are_compressed_anew_only_when_forced() {
    let world = world().await;
    let (base, blob) = world.base_layer();
    let results = results(vec![world.target("amd64", vec![base])], false);
    let name = world.registry.repository("app").with_tag("z").unwrap();
    let layer_of =
        |name: &Reference| world.registry.manifest(name).unwrap().manifest().unwrap().layers[0].clone();
    let text = name.to_string();
    let attributes = [("name", text.as_str()), ("push", "true"), ("compression", "zstd")];
    world.export(&attributes, &results).await.unwrap();
    assert_eq!(layer_of(&name).digest, blob.digest);
    let forced = [attributes.as_slice(), &[("force-compression", "true")]].concat();
    world.export(&forced, &results).await.unwrap();
    assert_eq!(layer_of(&name).media_type, media_type::OCI_LAYER_ZSTD);
    assert!(world.folder.path().exists());
}

#[tokio::test]
async fn a_base_layer_comes_from_the_first_repository_that_still_has_it() {
    let world = world().await;
    let (base, blob) = world.base_layer();
    let other = world.registry.repository("other");
    world
        .registry
        .add_blob(&other, media_type::DOCKER_LAYER, EMPTY_TAR.to_vec());
    let remote = RemoteLayer {
        diff_id: blob.digest.clone(),
        descriptor: store::Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size),
        repository: Some(other.to_string()),
        made: None,
    };
    world.images.store().record_remote_layers([remote]).unwrap();
    world
        .registry
        .remove_blob(&world.registry.repository("base"), &blob.digest);
    world.registry.set_mounts(false);
    let results = results(vec![world.target("amd64", vec![base])], false);
    let name = world.registry.repository("app").with_tag("1").unwrap();
    let text = name.to_string();
    world
        .export(&[("name", text.as_str()), ("push", "true")], &results)
        .await
        .unwrap();
    assert!(world.registry.blob(name.repository(), &blob.digest).is_some());

    let progress = Progress::default();
    let context = Context {
        images: &world.images,
        sessions: &world.sessions,
        progress: &progress,
        number: 0,
    };
    let vertex = progress.internal_vertex("export");
    let attributes = BTreeMap::from([("name".to_owned(), "demo/app:1".to_owned())]);
    let options = ImageOptions::parse(&attributes, &results).unwrap();
    let assembled = assemble::assemble(&options, &results, &context, &vertex)
        .await
        .unwrap();
    let files = archive::files("oci", &options, &assembled).unwrap();
    let _: Vec<bytes::Bytes> = archive::stream(files, &world.images).try_collect().await.unwrap();
}

#[tokio::test]
async fn a_registry_that_refuses_is_named() {
    let world = world().await;
    let results = results(vec![world.target("amd64", vec![world.layer("a")])], false);
    let name = world.registry.repository("app").with_tag("1").unwrap();
    let forbidden = registry::testing::Fault::Status(http::StatusCode::FORBIDDEN, Vec::new());
    world.registry.fail(http::Method::POST, "/uploads/", 9, forbidden);
    let error = world
        .export(&[("name", &name.to_string()), ("push", "true")], &results)
        .await
        .unwrap_err();
    assert_eq!(
        chain(&error),
        format!(
            "failed to push {0}: begin an upload to {0}: registry {1} answered 403 Forbidden: \
             the repository does not exist or needs other credentials",
            name.repository(),
            world.registry.host()
        )
    );
    assert_eq!(world.registry.tags(name.repository()), Vec::<String>::new());
}

#[tokio::test]
async fn an_archive_is_an_oci_layout_that_docker_can_load() {
    let world = world().await;
    let (base, base_blob) = world.base_layer();
    let results = results(vec![world.target("amd64", vec![base, world.layer("a")])], false);
    let progress = Progress::default();
    let context = Context {
        images: &world.images,
        sessions: &world.sessions,
        progress: &progress,
        number: 0,
    };
    let vertex = progress.internal_vertex("export");
    let attributes = BTreeMap::from([("name".to_owned(), "demo/app:1".to_owned())]);
    let options = ImageOptions::parse(&attributes, &results).unwrap();
    let assembled = assemble::assemble(&options, &results, &context, &vertex)
        .await
        .unwrap();
    let pack = async || {
        let files = archive::files("docker", &options, &assembled).unwrap();
        let chunks: Vec<bytes::Bytes> = archive::stream(files, &world.images).try_collect().await.unwrap();
        chunks.concat()
    };
    let packed = pack().await;
    assert_eq!(packed, pack().await);

    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(packed.as_slice());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), content);
    }
    for (path, content) in files
        .iter()
        .filter(|(path, _)| path.starts_with("blobs/sha256/") && path.len() > 20)
    {
        assert_eq!(*path, format!("blobs/sha256/{}", Digest::of(content).hex()));
    }
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: registry::Index = serde_json::from_slice(&files["index.json"]).unwrap();
    let [entry] = index.manifests.as_slice() else {
        panic!("one entry expected")
    };
    assert_eq!(
        entry.annotation("io.containerd.image.name"),
        Some("docker.io/demo/app:1")
    );
    assert_eq!(entry.annotation("org.opencontainers.image.ref.name"), Some("1"));
    assert!(files.contains_key(&format!("blobs/sha256/{}", entry.digest.hex())));
    let list: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(list[0]["RepoTags"], serde_json::json!(["demo/app:1"]));
    // The layer that was never pulled passed through.
    let layer = list[0]["Layers"][0].as_str().unwrap();
    assert_eq!(layer, format!("blobs/sha256/{}", base_blob.digest.hex()));
    assert_eq!(files[layer], EMPTY_TAR);
    let several = Results {
        multi_platform: true,
        ..results
    };
    let error = export("docker", &attributes, &several, &context)
        .await
        .unwrap_err();
    assert!(matches!(error, ExportError::DockerIndex), "{error}");
}
