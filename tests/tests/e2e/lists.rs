//! `trimaran manifest` and `trimaran manifest-tool`: what the recorded sessions do not show. Registries that refuse, lists
//! that several work on, and the flow by which registries are tested for indexes.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use tests::busybox;
use tests::distribution::Repository;
use tests::faults::{Fault, FaultyRegistry, Wrong};
use tests::needs::{Need, given};
use tests::process::Ended;
use tests::programs::{ours, setup_folder};
use tests::registry::Registry;
use tests::small_images::{self, Format, PLATFORMS};

/// A registry, one in front of it that misbehaves, and a user's home.
struct Place {
    folder: tempfile::TempDir,
    registry: Registry,
    faulty: FaultyRegistry,
}

impl Place {
    /// With `app/<architecture>:v1` in the registry.
    fn new() -> Option<Self> {
        if !given(&[Need::Registry]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::start(folder.path());
        for platform in PLATFORMS {
            let repository = registry.repository(&format!("app/{}", platform.1));
            small_images::push(&repository, "v1", Format::Oci, platform).unwrap();
        }
        let faulty = FaultyRegistry::before(registry.address());
        Some(Self {
            folder,
            registry,
            faulty,
        })
    }

    /// A command; in its arguments, @ stands for the address of the registry that misbehaves.
    fn command(&self, arguments: &str) -> Command {
        command(
            self.folder.path(),
            &arguments.replace('@', &self.faulty.address()),
        )
    }

    fn run(&self, arguments: &str) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    fn repository(&self, name: &str) -> Repository {
        self.registry.repository(name)
    }

    fn spoil(&self, method: &'static str, path: &'static str, what: Wrong) {
        let times = None;
        self.faulty.set(Fault {
            method,
            path,
            what,
            times,
        });
    }

    fn file(&self, name: &str, content: &str) {
        let content = content.replace('@', &self.faulty.address());
        std::fs::write(self.folder.path().join(name), content).unwrap();
    }
}

fn command(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(ours("trimaran"));
    command
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .env("HOME", folder.join("home"))
        .env_remove("DOCKER_CONFIG");
    command
}

const CREATE: &str = "manifest create @/list @/app/amd64:v1 @/app/arm64:v1";
const SPEC: &str = "image: @/list:v1\nmanifests:\n- image: @/app/amd64:v1\n- image: @/app/arm64:v1\n";

#[test]
fn a_registry_that_does_not_answer_is_named() {
    let Some(place) = Place::new() else {
        return;
    };
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("localhost:{}", unused.local_addr().unwrap().port());
    drop(unused);
    for arguments in [
        format!("manifest inspect {address}/app:v1"),
        format!("manifest create {address}/list {address}/app:v1"),
        format!("manifest-tool inspect {address}/app:v1"),
        format!(
            "manifest-tool push from-args --platforms linux/amd64 --template {address}/a:1 --target {address}/b:1 --ignore-missing"
        ),
    ] {
        place
            .run(&arguments)
            .failed()
            .said(&[&format!("no answer from registry {address}")]);
    }
    assert!(!place.folder.path().join("home/.docker").exists());
}

#[test]
fn a_registry_that_wants_to_know_who_asks_gets_the_credentials_given() {
    let Some(place) = Place::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let closed = Registry::start_closed(folder.path());
    let run = |arguments: &str| {
        let mut command = command(place.folder.path(), &arguments.replace('@', closed.address()));
        Ended::of(&mut command)
    };
    let denied = "does not exist or needs other credentials";
    run("manifest inspect @/app:v1").failed().said(&[
        &format!("no such manifest: {}/app:v1: ", closed.address()),
        "401",
        denied,
    ]);
    run("manifest-tool inspect @/app:v1")
        .failed()
        .said(&["401", denied]);
    run("manifest-tool --username user --password wrong inspect @/app:v1")
        .failed()
        .said(&["401"]);
    let missing = "error fetching image descriptor: ";
    run("manifest-tool --username user --password secret inspect @/app:v1")
        .failed()
        .said(&[missing, "not found"]);
    // "user:secret"
    let config = format!(
        r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#,
        closed.address()
    );
    place.file("other.json", &config);
    run("manifest-tool --docker-cfg other.json inspect @/app:v1")
        .failed()
        .said(&[missing, "not found"]);
    run("manifest-tool inspect --docker-cfg none.json @/app:v1")
        .failed()
        .said(&["--docker-cfg: there is no none.json"]);
    std::fs::create_dir_all(place.folder.path().join("home/.docker")).unwrap();
    place.file("home/.docker/config.json", &config);
    run("manifest inspect @/app:v1")
        .failed()
        .said(&[&format!("no such manifest: {}/app:v1\n", closed.address())]);
    run("manifest-tool --docker-cfg home/.docker inspect @/app:v1")
        .failed()
        .said(&[missing, "not found"]);
}

#[test]
fn a_registry_that_refuses_indexes_is_told_from_others() {
    let Some(place) = Place::new() else {
        return;
    };
    place.spoil("PUT", "/v2/list/manifests/latest", Wrong::Status(415));
    place.spoil("PUT", "/v2/list/manifests/v1", Wrong::Status(400));
    place.run(CREATE).succeeded();
    place.run("manifest push --purge @/list").failed().said(&[
        "failed to put manifest",
        "refuses the list",
        "415",
    ]);
    // It was not pushed, so it is not purged.
    place.run("manifest inspect @/list").succeeded();
    place.file("spec.yaml", SPEC);
    place
        .run("manifest-tool push from-spec spec.yaml")
        .failed()
        .said(&["failed to push image: ", "try --type oci", "400"]);
    place
        .run("manifest-tool push --type oci from-spec spec.yaml")
        .failed()
        .said(&["try --type docker"]);
}

#[test]
fn blobs_are_mounted_or_copied_where_the_registry_does_not_mount() {
    let Some(place) = Place::new() else {
        return;
    };
    let uploads = |repository: &str| -> Vec<String> {
        let prefix = format!("/v2/{repository}/blobs/uploads/");
        let seen = place.faulty.seen().into_iter();
        seen.filter(|request| request.starts_with("PUT") && request.contains(&prefix))
            .collect()
    };
    place.run(CREATE).succeeded();
    place.run("manifest push @/list").succeeded();
    place.file("mounted.yaml", &SPEC.replace("/list:", "/mounted:"));
    place.run("manifest-tool push from-spec mounted.yaml").succeeded();
    assert_eq!(uploads("list"), Vec::<String>::new());
    assert_eq!(uploads("mounted"), Vec::<String>::new());

    place.spoil("POST", "mount=", Wrong::WithoutQuery);
    place
        .run("manifest create @/copied @/app/amd64:v1 @/app/arm64:v1")
        .succeeded();
    place.run("manifest push @/copied").succeeded();
    // Two layers and a config of two images.
    assert_eq!(uploads("copied").len(), 6);
    place.faulty.heal();
    place.spoil("POST", "mount=", Wrong::Status(405));
    place.file("refused.yaml", &SPEC.replace("/list:", "/refused:"));
    place.run("manifest-tool push from-spec refused.yaml").succeeded();
    assert_eq!(uploads("refused").len(), 6);
    for (name, tag) in [
        ("list", "latest"),
        ("mounted", "v1"),
        ("copied", "latest"),
        ("refused", "v1"),
    ] {
        is_complete(&place.repository(name), tag, 2);
    }
}

/// Everything that the index names is in its own repository.
fn is_complete(repository: &Repository, tag: &str, images: usize) {
    let index = repository.manifest(tag).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), images, "{index}");
    for descriptor in manifests {
        let manifest = repository
            .manifest(descriptor["digest"].as_str().unwrap())
            .unwrap();
        let blobs = manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .chain([&manifest["config"]]);
        for blob in blobs {
            repository.blob(blob["digest"].as_str().unwrap()).unwrap();
        }
    }
}

#[test]
fn content_that_is_not_what_was_asked_for_is_refused() {
    let Some(place) = Place::new() else {
        return;
    };
    place.spoil("GET", "/v2/app/amd64/manifests/", Wrong::Corrupted);
    place
        .run("manifest inspect @/app/amd64:v1")
        .failed()
        .said(&["is corrupt"]);
    place.run(CREATE).failed().said(&["is corrupt"]);
    place
        .run("manifest-tool inspect @/app/amd64:v1")
        .failed()
        .said(&["is corrupt"]);
    place.faulty.heal();
    place.spoil("GET", "/v2/app/amd64/blobs/", Wrong::Corrupted);
    place.run(CREATE).failed().said(&["is corrupt"]);
    place.file("spec.yaml", SPEC);
    place
        .run("manifest-tool push from-spec --ignore-missing spec.yaml")
        .failed()
        .said(&["is corrupt"]);
    place.faulty.heal();
    place.spoil("GET", "/manifests/v1", Wrong::Type(small_images::OCI_INDEX));
    place.run("manifest inspect @/app/amd64:v1").failed().said(&[
        "is not a manifest",
        "says it is \"application/vnd.oci.image.manifest.v1+json\" but was served as",
    ]);
    place
        .run("manifest-tool push from-spec spec.yaml")
        .failed()
        .said(&["but was served as"]);
    place.faulty.heal();
    let obsolete = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    place.spoil("GET", "/manifests/v1", Wrong::Type(obsolete));
    place
        .run(CREATE)
        .failed()
        .said(&["is not a manifest", "obsolete"]);
    // A list of which one image failed is not begun.
    place
        .run("manifest annotate @/list @/app/arm64:v1 --arch arm64")
        .failed()
        .said(&["does not exist in"]);
}

#[test]
fn an_image_that_does_not_say_its_platform_can_be_annotated() {
    let Some(place) = Place::new() else {
        return;
    };
    let nothing = json!({"os": "", "architecture": ""});
    small_images::push_with(
        &place.repository("bare"),
        "v1",
        Format::Oci,
        ("", "", ""),
        &nothing,
    )
    .unwrap();
    place.run("manifest create @/list @/bare:v1").succeeded();
    place.run("manifest push @/list").failed().said(&[&format!(
        "manifest {}/bare:v1 must have an OS and Architecture to be pushed to a registry",
        place.faulty.address()
    )]);
    place
        .run("manifest annotate @/list @/bare:v1 --os linux --arch s390x")
        .succeeded();
    place.run("manifest push --purge @/list").succeeded();
    is_complete(&place.repository("list"), "latest", 1);
    let by_args = "--platforms linux/s390x --template @/bare:v1 --target @/by-args:v1";
    place
        .run(&format!("manifest-tool push from-args {by_args}"))
        .succeeded();
    place.file(
        "spec.yaml",
        "image: @/spec:v1\nmanifests: [{image: '@/bare:v1'}]\n",
    );
    place
        .run("manifest-tool push from-spec spec.yaml")
        .failed()
        .said(&["unsupported os/arch or os/arch/variant combination: //"]);
}

#[test]
fn only_images_that_do_not_exist_are_left_out() {
    let Some(place) = Place::new() else {
        return;
    };
    place.file("spec.yaml", &format!("{SPEC}- image: @/app/none:v1\n"));
    place
        .run("manifest-tool push from-spec spec.yaml")
        .failed()
        .said(&["app/none:v1", "not found"]);
    assert!(!place.repository("list").has("v1").unwrap());
    // An image behind a registry that fails is there, for all we know.
    place.spoil("GET", "/v2/app/arm64/manifests/", Wrong::Status(500));
    place
        .run("manifest-tool push from-spec --ignore-missing spec.yaml")
        .failed()
        .said(&["app/arm64:v1", "500"]);
    assert!(!place.repository("list").has("v1").unwrap());
    place.faulty.heal();
    // Registries that tell strangers nothing say "denied" instead of "not found".
    place.spoil("GET", "/v2/app/none/", Wrong::Status(403));
    place
        .run("manifest-tool push from-spec --ignore-missing spec.yaml")
        .succeeded()
        .said(&["WARNING: Couldn't access image", "app/none:v1"]);
    is_complete(&place.repository("list"), "v1", 2);
}

#[test]
fn a_spec_that_is_wrong_is_told_with_the_place() {
    let Some(place) = Place::new() else {
        return;
    };
    place.file("broken.yaml", "image: a\ntags: [x\nmanifests: y\n");
    place
        .run("manifest-tool push from-spec broken.yaml")
        .failed()
        .said(&["cannot unmarshal YAML file \"broken.yaml\": line "]);
    place.file("typed.yaml", "image: a\nmanifests: none\n");
    place
        .run("manifest-tool push from-spec typed.yaml")
        .failed()
        .said(&["\"typed.yaml\": line 2, column 12: "]);
    place
        .run("manifest-tool push from-spec nowhere.yaml")
        .failed()
        .said(&["cannot read YAML file \"nowhere.yaml\": No such file"]);
    place.file("empty.yaml", "image: @/list:v1\nmanifest: []\n");
    place
        .run("manifest-tool push from-spec empty.yaml")
        .failed()
        .said(&[
            "WARNING: empty.yaml: the spec has an unknown key \"manifest\"",
            "the spec names no images",
        ]);
    place.file("tag.yaml", &format!("{SPEC}tags: ['a b']\n"));
    place
        .run("manifest-tool push from-spec tag.yaml")
        .failed()
        .said(&["error creating additional tag reference: a b"]);
    assert!(!place.repository("list").has("v1").unwrap());
}

#[test]
fn processes_that_edit_one_list_at_the_same_time_lose_nothing() {
    let Some(place) = Place::new() else {
        return;
    };
    place.run(CREATE).succeeded();
    let mut children = Vec::new();
    for number in 0..8 {
        let annotate = format!("manifest annotate @/list @/app/arm64:v1 --os-features f{number}");
        children.push(place.command(&annotate).spawn().unwrap());
        let amend = format!(
            "manifest create --amend @/list @/app/arm64:v1 @/app/{}:v1",
            PLATFORMS[number % 4].1
        );
        children.push(place.command(&amend).spawn().unwrap());
        place.run("manifest inspect -v @/list").succeeded();
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let list = place.run("manifest inspect @/list").succeeded().stdout;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let manifests = list["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 4, "{list}");
    let arm = &manifests[1]["platform"];
    assert_eq!(arm["architecture"], "arm64");
    let mut features: Vec<&str> = arm["os.features"]
        .as_array()
        .unwrap()
        .iter()
        .map(|feature| feature.as_str().unwrap())
        .collect();
    features.sort_unstable();
    assert_eq!(features, ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7"]);
}

#[test]
fn of_two_that_begin_the_same_list_one_is_refused() {
    let Some(place) = Place::new() else {
        return;
    };
    let children: Vec<_> = ["amd64", "arm64", "s390x"]
        .map(|architecture| {
            let create = format!("manifest create @/list @/app/{architecture}:v1");
            place.command(&create).spawn().unwrap()
        })
        .into();
    let mut successes = 0;
    for mut child in children {
        successes += usize::from(child.wait().unwrap().success());
    }
    assert_eq!(successes, 1);
    let listed = place.run("manifest inspect @/list").succeeded().stdout;
    assert_eq!(listed.matches("\"platform\"").count(), 1, "{listed}");
}

#[test]
fn another_configuration_folder_has_other_lists() {
    let Some(place) = Place::new() else {
        return;
    };
    place.run(CREATE).succeeded();
    let elsewhere = place.folder.path().join("elsewhere");
    let mut list = place.command("manifest rm @/list");
    Ended::of(list.env("DOCKER_CONFIG", &elsewhere))
        .failed()
        .said(&["No such manifest: "]);
    assert!(!elsewhere.exists());
    place.run("manifest rm @/list").succeeded();
}

/// The test by which registries show that they know indexes: four images under names of their own, an index that
/// refers to them across repositories, and annotations.
#[test]
fn images_of_other_repositories_are_assembled_by_a_spec() {
    if !given(&[Need::Registry, Need::BusyBox]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path());
    push_separately(&registry);
    let address = registry.address();
    let spec = format!(
        "image: {address}/busybox:latest
manifests:
  - image: {address}/ppc64le_busybox:latest
    platform:
      architecture: ppc64le
      os: linux
  - image: {address}/amd64_busybox:latest
    platform:
      architecture: amd64
      os: linux
  - image: {address}/s390x_busybox:latest
    platform:
      architecture: s390x
      os: linux
  - image: {address}/aarch64_busybox:latest
    platform:
      architecture: arm64
      os: linux
      variant: v8
"
    );
    let file = folder.path().join("test-registry.yaml");
    std::fs::write(&file, &spec).unwrap();
    let pushed = Ended::of(&mut command(
        folder.path(),
        "manifest-tool --debug push from-spec test-registry.yaml",
    ))
    .succeeded();
    let repository = registry.repository("busybox");
    let index = repository.manifest("latest").unwrap();
    assert_eq!(index["mediaType"], small_images::DOCKER_LIST);
    is_complete(&repository, "latest", 4);
    let line: Vec<&str> = pushed.stdout.split_whitespace().collect();
    let [word, digest, size] = line[..] else {
        panic!("{pushed}");
    };
    assert_eq!(word, "Digest:");
    assert_eq!(repository.manifest(digest).unwrap(), index);
    size.parse::<u64>().unwrap();

    // Annotations are OCI's.
    let annotated = spec.replace(
        "busybox:latest\nmanifests:",
        "busybox:latest\nannotations:\n  org.opencontainers.image.title: My Image Title\nmanifests:",
    );
    std::fs::write(&file, annotated).unwrap();
    Ended::of(&mut command(
        folder.path(),
        "manifest-tool push from-spec test-registry.yaml",
    ))
    .failed()
    .said(&["does not support annotations; use --type oci instead"]);
    Ended::of(&mut command(
        folder.path(),
        "manifest-tool push --type oci from-spec test-registry.yaml",
    ))
    .succeeded();
    let index = repository.manifest("latest").unwrap();
    assert_eq!(index["mediaType"], small_images::OCI_INDEX);
    assert_eq!(
        index["annotations"]["org.opencontainers.image.title"],
        "My Image Title"
    );
    is_complete(&repository, "latest", 4);
}

/// BusyBox for four architectures, each in a repository of its own.
fn push_separately(registry: &Registry) {
    let images = busybox::images(&setup_folder().join("busybox")).unwrap();
    let mut pushed = 0;
    for image in images {
        let name = match image.config["architecture"].as_str().unwrap() {
            "arm64" => "aarch64",
            name @ ("amd64" | "ppc64le" | "s390x") => name,
            _ => continue,
        };
        let repository = registry.repository(&format!("{name}_busybox"));
        repository.push_single("latest", &image).unwrap();
        pushed += 1;
    }
    assert_eq!(pushed, 4);
}

/// Tests that use the machine's engine run one at a time.
mod docker {
    use super::*;

    #[test]
    fn every_platform_of_an_assembled_index_runs() {
        if !given(&[Need::Registry, Need::BusyBox, Need::Qemu, Need::Docker]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::start(folder.path());
        push_separately(&registry);
        let address = registry.address();
        let template = format!(
            "--template {address}/ARCH_busybox:latest --platforms linux/amd64,linux/ppc64le,linux/s390x"
        );
        let target = format!("--target {address}/busybox:three");
        Ended::of(&mut command(
            folder.path(),
            &format!("manifest-tool push from-args {template} {target}"),
        ))
        .succeeded();
        let create = format!(
            "manifest create {address}/busybox:four {address}/aarch64_busybox {address}/amd64_busybox"
        );
        Ended::of(&mut command(folder.path(), &create)).succeeded();
        Ended::of(&mut command(
            folder.path(),
            &format!("manifest push {address}/busybox:four"),
        ))
        .succeeded();
        for (tag, platform, machine) in [
            ("three", "linux/amd64", "x86_64"),
            ("three", "linux/ppc64le", "ppc64le"),
            ("three", "linux/s390x", "s390x"),
            ("four", "linux/arm64", "aarch64"),
        ] {
            let image = format!("{address}/busybox:{tag}");
            let ran = Ended::of(
                Command::new("docker")
                    .args([
                        "run",
                        "--rm",
                        "--pull=always",
                        "--network=none",
                        "--platform",
                        platform,
                        &image,
                    ])
                    .args(["uname", "-m"]),
            )
            .succeeded();
            assert_eq!(ran.stdout.trim(), machine, "{platform}");
            Ended::of(Command::new("docker").args(["image", "rm", &image])).succeeded();
        }
    }
}
