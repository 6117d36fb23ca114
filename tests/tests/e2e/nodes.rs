//! One builder with several nodes: each platform is built where it runs best, and one image comes out.

use tests::daemon::Daemon;
use tests::needs::{Need, given};
use tests::process::Ended;
use tests::world::World;

const NEEDS: [Need; 4] = [Need::Root, Need::Registry, Need::BusyBox, Need::Qemu];

const DOCKERFILE: &str = "FROM @base@\nARG TARGETARCH\nRUN echo $TARGETARCH > /architecture\n";

/// A world whose builder "two" has a second daemon that was given linux/arm64.
fn two_nodes() -> (World, Daemon) {
    let world = World::new();
    let folder = world.folder().join("second");
    std::fs::create_dir(&folder).unwrap();
    let second = Daemon::start(&folder, &["--executor", "native"]);
    let create = |arguments: &[&str]| {
        let common = ["create", "--name", "two", "--driver", "remote"];
        world.trimaran(&[&common, arguments].concat()).succeeded();
    };
    create(&["--use", "--platform=linux/amd64", &world.daemon.address()]);
    create(&["--append", "--platform=linux/arm64", &second.address()]);
    (world, second)
}

#[test]
fn each_node_builds_its_platform_and_one_index_is_pushed() {
    if !given(&NEEDS) {
        return;
    }
    let (world, _second) = two_nodes();
    let context = world.context("context", &[("Dockerfile", DOCKERFILE)]);
    let image = world.image("several/nodes");
    let tags = [format!("{image}:1"), format!("{image}:2")];
    let metadata = world.folder().join("metadata.json");
    let built = world.build(
        &context,
        &[
            "--platform=linux/amd64,linux/arm64",
            "-t",
            &tags[0],
            "-t",
            &tags[1],
            "--annotation=index:who=me",
            "--metadata-file",
            metadata.to_str().unwrap(),
            "--push",
        ],
    );
    built
        .succeeded()
        .said(&["linux/amd64", "linux/arm64", "merging manifest list"]);
    let repository = world.repository("several/nodes");
    let index = repository.manifest("1").unwrap();
    assert_eq!(index, repository.manifest("2").unwrap());
    assert_eq!(index["annotations"]["who"], "me");
    let platforms: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| manifest["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    for architecture in ["amd64", "arm64"] {
        let (_, config) = repository.image("1", &format!("linux/{architecture}")).unwrap();
        assert_eq!(config["architecture"], architecture);
    }
    let metadata: serde_json::Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    assert!(
        metadata["containerimage.digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
}

#[test]
fn a_platform_alone_starts_nothing_on_the_other_node() {
    if !given(&NEEDS) {
        return;
    }
    let (world, mut second) = two_nodes();
    second.process.kill();
    let context = world.context("context", &[("Dockerfile", DOCKERFILE)]);
    let out = world.folder().join("out");
    let output = format!("type=local,dest={}", out.display());
    world
        .build(&context, &["--platform=linux/amd64", "-o", &output])
        .succeeded();
    assert_eq!(
        std::fs::read_to_string(out.join("architecture")).unwrap(),
        "amd64\n"
    );
}

#[test]
fn without_a_registry_only_folders_can_be_put_together() {
    if !given(&NEEDS) {
        return;
    }
    let (world, _second) = two_nodes();
    let context = world.context("context", &[("Dockerfile", DOCKERFILE)]);
    let out = world.folder().join("out");
    let output = format!("type=local,dest={}", out.display());
    let platforms = "--platform=linux/amd64,linux/arm64";
    world.build(&context, &[platforms, "-o", &output]).succeeded();
    for (folder, architecture) in [("linux_amd64", "amd64\n"), ("linux_arm64", "arm64\n")] {
        let written = std::fs::read_to_string(out.join(folder).join("architecture")).unwrap();
        assert_eq!(written, architecture);
    }
    for kind in ["oci", "tar"] {
        let output = format!("type={kind},dest={}", world.folder().join("x.tar").display());
        let refused: Ended = world.build(&context, &[platforms, "-o", &output]);
        refused.failed().said(&[&format!("{kind} for multi-node builds")]);
    }
}
