//! The session that every user starts with, in the machine's Docker engine.

use std::process::Command;

use serde_json::Value;
use tests::needs::{Need, given};
use tests::process::Ended;
use tests::world::World;

const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Registry,
    Need::BusyBox,
    Need::Qemu,
    Need::Docker,
];

/// A builder that is removed also if the test fails.
struct Builder<'a> {
    world: &'a World,
    name: String,
}

impl Drop for Builder<'_> {
    fn drop(&mut self) {
        self.world.trimaran(&["rm", "--force", &self.name]);
    }
}

#[test]
fn create_bootstrap_build_push_inspect_run() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let builder = Builder {
        world: &world,
        name: format!("session{}", std::process::id()),
    };
    let name = builder.name.as_str();
    world
        .trimaran(&["create", "--use", "--name", name])
        .succeeded()
        .said(&[name]);
    let inspected = world.trimaran(&["inspect", name, "--bootstrap"]).succeeded();
    inspected.said(&[
        "Driver:",
        "docker-container",
        "Status:",
        "running",
        "linux/amd64",
        "linux/arm64",
    ]);
    world.trimaran(&["ls"]).succeeded().said(&[
        &format!("{name}*"),
        "docker-container",
        "running",
        "linux/arm64",
    ]);

    // `localhost` is the user's machine, though the daemon runs in a container; flags may follow the context.
    let dockerfile = include_str!("../../demo/Dockerfile");
    let files = [
        ("Dockerfile", dockerfile),
        ("hello.sh", include_str!("../../demo/hello.sh")),
    ];
    let context = world.context("demo", &files);
    let image = world.image("demo/hello-arch");
    let base = format!("BASE={}", world.image("base"));
    let arguments = [
        "build",
        "-t",
        &image,
        "--platform=linux/arm64,linux/amd64",
        ".",
        "--push",
        "--build-arg",
        &base,
    ];
    let built = Ended::of(world.command(&arguments).current_dir(&context)).succeeded();
    built.said(&["linux/arm64", "linux/amd64"]);

    let pretty = world.trimaran(&["imagetools", "inspect", &image]).succeeded();
    pretty.said(&[
        "Name:",
        "MediaType:",
        "Digest:",
        "Manifests:",
        "Platform:",
        "linux/arm64",
        "linux/amd64",
    ]);
    let raw = world
        .trimaran(&["imagetools", "inspect", "--raw", &image])
        .succeeded();
    let index: Value = serde_json::from_str(&raw.stdout).unwrap();
    assert_eq!(
        index,
        world.repository("demo/hello-arch").manifest("latest").unwrap()
    );
    let all = world
        .trimaran(&["imagetools", "inspect", "--format", "{{json .}}", &image])
        .succeeded();
    let all: Value = serde_json::from_str(&all.stdout).unwrap();
    assert_eq!(all["name"], image);
    assert!(
        all["image"]["linux/arm64"].is_object() && all["image"]["linux/amd64"].is_object(),
        "{all}"
    );
    let one = [
        "imagetools",
        "inspect",
        "--format",
        "{{json (index .Image \"linux/arm64\")}}",
        &image,
    ];
    let one: Value = serde_json::from_str(&world.trimaran(&one).succeeded().stdout).unwrap();
    assert_eq!(
        (one["architecture"].as_str(), one["os"].as_str()),
        (Some("arm64"), Some("linux"))
    );
    let info = world
        .trimaran(&["imagetools", "inspect", "--format", "{{json .BuildInfo}}", &image])
        .succeeded();
    let info: Value = serde_json::from_str(&info.stdout).unwrap();
    assert!(info.to_string().contains("dockerfile.v0"), "{info}");

    for (architecture, machine) in [("arm64", "aarch64"), ("amd64", "x86_64")] {
        let manifests = index["manifests"].as_array().unwrap();
        let manifest = manifests
            .iter()
            .find(|manifest| manifest["platform"]["architecture"] == architecture)
            .unwrap();
        let reference = format!("{image}@{}", manifest["digest"].as_str().unwrap());
        let ran = Ended::of(Command::new("docker").args(["run", "--rm", &reference])).succeeded();
        assert_eq!(
            ran.stdout,
            format!("Hello from {machine}, built for linux/{architecture}\n")
        );
        Ended::of(Command::new("docker").args(["rmi", &reference]));
    }
    world.trimaran(&["stop", name]).succeeded();
    world.trimaran(&["ls"]).succeeded().said(&["stopped"]);
    world.trimaran(&["rm", name]).succeeded();
    let left = Ended::of(Command::new("docker").args(["ps", "--all", "--format", "{{.Names}}"])).succeeded();
    left.did_not_say(name);
}

#[test]
fn steps_run_in_sandboxes_of_the_engine_and_none_is_left() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::with_daemon(&["--executor", "docker"]);
    let before = containers();
    let dockerfile = "FROM @base@\nRUN uname -m && test $$ = 1\nRUN echo net && cat /etc/hosts\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    world
        .build(&context, &["--platform=linux/amd64,linux/arm64"])
        .succeeded()
        .said(&["x86_64", "aarch64"]);
    drop(world);
    let left: Vec<String> = containers()
        .into_iter()
        .filter(|id| !before.contains(id))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "sandboxes outlive their daemon");
}

fn containers() -> Vec<String> {
    let listed = Ended::of(Command::new("docker").args([
        "ps",
        "--all",
        "--quiet",
        "--filter",
        "label=trimaran.daemon",
    ]));
    listed.succeeded().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn docker_pulls_what_was_pushed() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context(
        "context",
        &[(
            "Dockerfile",
            "FROM @base@\nRUN echo pulled > /file\nCMD [\"cat\", \"/file\"]\n",
        )],
    );
    let image = world.image("pulled:v1");
    world.build(&context, &["-t", &image, "--push"]).succeeded();
    let ran = Ended::of(Command::new("docker").args(["run", "--rm", "--pull", "always", &image])).succeeded();
    assert_eq!(ran.stdout, "pulled\n");
    Ended::of(Command::new("docker").args(["rmi", &image]));
}
