use registry::client::{Anonymous, Config};
use registry::testing::FakeRegistry;

use super::*;
use crate::progress::Progress;

/// A tar with nothing in it.
const EMPTY_TAR: [u8; 1024] = [0; 1024];

struct World {
    registry: FakeRegistry,
    images: Images,
    _folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state")).unwrap();
    World {
        registry: FakeRegistry::start().await.unwrap(),
        images: Images::new(Client::new(Config::default(), Arc::new(Anonymous)), store),
        _folder: folder,
    }
}

impl World {
    /// Puts an image with one empty layer into the registry.
    fn add_image(&self, reference: &Reference, platform: &Platform) -> Descriptor {
        self.add_image_of(reference, platform, media_type::OCI_LAYER, &EMPTY_TAR)
    }

    /// Puts an image into the registry that says that `blob` is an empty layer.
    fn add_image_of(
        &self,
        reference: &Reference,
        platform: &Platform,
        layer_type: &str,
        blob: &[u8],
    ) -> Descriptor {
        let repository = reference.repository();
        let layer = self.registry.add_blob(repository, layer_type, blob.to_vec());
        let mut config = ImageConfig::for_platform(platform);
        config.rootfs.diff_ids = vec![Digest::of(&EMPTY_TAR)];
        let config = self.registry.add_blob(
            repository,
            media_type::OCI_CONFIG,
            config.to_stored_bytes().unwrap(),
        );
        let manifest = Manifest::new(media_type::OCI_MANIFEST, config, vec![layer]);
        let raw = RawManifest::from_manifest(&manifest).unwrap();
        self.registry.add_manifest(reference, &raw);
        raw.descriptor().with_platform(platform.clone())
    }

    fn add_index(&self, reference: &Reference, platforms: &[Platform]) {
        let entries = platforms
            .iter()
            .map(|platform| self.add_image(&reference.repository().with_digest(Digest::of(b"")), platform))
            .collect();
        let raw = RawManifest::from_index(&Index::new(media_type::OCI_INDEX, entries)).unwrap();
        self.registry.add_manifest(reference, &raw);
    }
}

fn linux(architecture: &str) -> Platform {
    Platform::new("linux", architecture, "")
}

#[tokio::test]
async fn an_image_is_resolved_once_and_its_layers_stay_where_they_are_until_fetched() {
    let world = world().await;
    let reference = world.registry.repository("base").with_tag("1").unwrap();
    world.add_index(&reference, &[linux("amd64"), linux("arm64")]);
    let image = world
        .images
        .resolve(&reference, &linux("arm64"), Freshness::Ask)
        .await
        .unwrap();
    assert_eq!(ImageConfig::parse(&image.config).unwrap().architecture, "arm64");
    assert_eq!(image.reference.digest(), Some(&image.digest));
    let log = world.registry.take_log();
    assert!(
        log.iter()
            .all(|line| !line.contains(Digest::of(&EMPTY_TAR).as_str())),
        "{log:?}"
    );

    let again = world
        .images
        .resolve(&reference, &linux("arm64"), Freshness::Ask)
        .await
        .unwrap();
    assert!(Arc::ptr_eq(&image, &again));
    // Another build knows what digests name, and asks for the tag only.
    let next = Images::new(world.images.client().clone(), world.images.store().clone());
    next.resolve(&reference, &linux("arm64"), Freshness::Ask)
        .await
        .unwrap();
    assert_eq!(world.registry.take_log(), ["HEAD /v2/base/manifests/1"]);
    let offline = Images::new(world.images.client().clone(), world.images.store().clone());
    offline
        .resolve(&reference, &linux("arm64"), Freshness::PreferKnown)
        .await
        .unwrap();
    assert_eq!(world.registry.take_log(), Vec::<String>::new());

    let progress = Progress::default().internal_vertex("fetch");
    let [layer] = image.snapshot.layers() else {
        panic!("one layer expected")
    };
    assert!(!world.images.store().has_folder(layer));
    world.images.fetch(&image.snapshot, &progress).await.unwrap();
    assert!(world.images.store().has_folder(layer));
    world.registry.take_log();
    world.images.fetch(&image.snapshot, &progress).await.unwrap();
    assert_eq!(world.registry.take_log(), Vec::<String>::new());
}

#[tokio::test]
async fn a_missing_platform_is_named_beside_those_that_are_there() {
    let world = world().await;
    let reference = world.registry.repository("base").with_tag("1").unwrap();
    world.add_index(&reference, &[linux("amd64"), linux("s390x")]);
    let error = world
        .images
        .resolve(&reference, &linux("arm64"), Freshness::Ask)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("no match for platform linux/arm64 in manifest "),
        "{error}"
    );
    assert!(error.ends_with("it has linux/amd64, linux/s390x"), "{error}");

    let single = world.registry.repository("single").with_tag("1").unwrap();
    world.add_image(&single, &linux("amd64"));
    // Of an image without an index there is only the one.
    let image = world
        .images
        .resolve(&single, &linux("arm64"), Freshness::Ask)
        .await
        .unwrap();
    assert!(image.reference.digest().is_some());
}

#[tokio::test]
async fn a_missing_image_and_a_corrupt_layer_are_told_apart_from_other_failures() {
    let world = world().await;
    let reference = world.registry.repository("base").with_tag("1").unwrap();
    let error = world
        .images
        .resolve(&reference, &linux("amd64"), Freshness::Ask)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), format!("{reference}: not found"));

    world.add_image(&reference, &linux("amd64"));
    let image = world
        .images
        .resolve(&reference, &linux("amd64"), Freshness::Ask)
        .await
        .unwrap();
    let blob = format!("/blobs/{}", Digest::of(&EMPTY_TAR));
    let corrupt = registry::testing::Fault::Corrupt;
    world.registry.fail(http::Method::GET, &blob, 1, corrupt);
    let progress = Progress::default().internal_vertex("fetch");
    world.images.fetch(&image.snapshot, &progress).await.unwrap_err();
    assert!(!world.images.store().has_folder(&image.snapshot.layers()[0]));
    world.images.fetch(&image.snapshot, &progress).await.unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_layer_is_the_blob_that_the_builds_own_image_names_whatever_others_resolved() {
    let world = world().await;
    let plain = world.registry.repository("plain").with_tag("1").unwrap();
    let gzipped = world.registry.repository("gzipped").with_tag("1").unwrap();
    let gzip = gzip(&EMPTY_TAR);
    world.add_image(&plain, &linux("amd64"));
    world.add_image_of(&gzipped, &linux("amd64"), media_type::OCI_LAYER_GZIP, &gzip);
    let layer = LayerId::of_image(&Digest::of(&EMPTY_TAR));
    let builds = [plain.clone(), gzipped, plain].map(|reference| {
        let build = Images::new(world.images.client().clone(), world.images.store().clone());
        (build, reference)
    });
    for (build, reference) in &builds {
        build
            .resolve(reference, &linux("amd64"), Freshness::Ask)
            .await
            .unwrap();
    }
    let digests = [Digest::of(&EMPTY_TAR), Digest::of(&gzip), Digest::of(&EMPTY_TAR)];
    for ((build, reference), digest) in builds.iter().zip(digests) {
        let blobs = build.blobs_of(&layer);
        assert_eq!(blobs[0].descriptor.digest, digest);
        assert_eq!(blobs[0].repositories, [reference.repository().to_string()]);
    }
    // A build that names none of them takes what is noted.
    assert_eq!(
        world.images.blobs_of(&layer)[0].descriptor.digest,
        Digest::of(&EMPTY_TAR)
    );
}

#[tokio::test]
async fn an_image_that_claims_anothers_layer_harms_only_itself() {
    let world = world().await;
    let honest = world.registry.repository("honest").with_tag("1").unwrap();
    let liar = world.registry.repository("liar").with_tag("1").unwrap();
    let (gzip, forged) = (gzip(&EMPTY_TAR), gzip(&[0; 2048]));
    world.add_image_of(&honest, &linux("amd64"), media_type::OCI_LAYER_GZIP, &gzip);
    world.add_image_of(&liar, &linux("amd64"), media_type::OCI_LAYER_GZIP, &forged);
    let layer = LayerId::of_image(&Digest::of(&EMPTY_TAR));
    let progress = Progress::default().internal_vertex("fetch");
    let build = || Images::new(world.images.client().clone(), world.images.store().clone());

    let deceived = build();
    let image = deceived
        .resolve(&liar, &linux("amd64"), Freshness::Ask)
        .await
        .unwrap();
    deceived.fetch(&image.snapshot, &progress).await.unwrap_err();
    let next = build();
    let image = next
        .resolve(&honest, &linux("amd64"), Freshness::Ask)
        .await
        .unwrap();
    assert_eq!(next.blobs_of(&layer)[0].descriptor.digest, Digest::of(&gzip));
    next.fetch(&image.snapshot, &progress).await.unwrap();
    // What was verified is what everybody is told from now on.
    let record = world.images.store().layer(&layer).unwrap();
    assert_eq!(record.remote.unwrap().descriptor.digest, Digest::of(&gzip));
    // Also where one build uses both.
    let both = build();
    for reference in [&liar, &honest] {
        both.resolve(reference, &linux("amd64"), Freshness::Ask)
            .await
            .unwrap();
    }
    assert_eq!(both.blobs_of(&layer)[0].descriptor.digest, Digest::of(&gzip));
}
