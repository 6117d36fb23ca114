//! Both halves against their originals, where those are installed: the real buildx with our daemon, our client with the
//! real daemon, and what the two daemons make of the same Dockerfile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::needs::{Need, given};
use tests::process::{Ended, Running};
use tests::programs::installed;
use tests::unpacked::tree;
use tests::waiting::wait_until;
use tests::world::World;

const NEEDS: [Need; 4] = [Need::Root, Need::Registry, Need::BusyBox, Need::Qemu];

const DOCKERFILE: &str = r#"# every kind of change a layer can have
FROM @base@ AS builder
ARG TARGETPLATFORM
WORKDIR /src
COPY . .
RUN echo "built for ${TARGETPLATFORM} under $(uname -m)" > /built && mkdir -p /out/sub && cp main.txt /out/sub/ \
 && ln -s sub/main.txt /out/link && ln /out/sub/main.txt /out/hard && chmod 2750 /out/sub && chown 12:34 /out/sub/main.txt

FROM @base@
LABEL one=1
ENV NAME=value
COPY --from=builder /built /built
COPY --from=builder --chown=5:6 /out /out
COPY --chmod=600 main.txt /main
ADD archive.tar /added/
RUN rm -r /home && mkdir /home && touch /home/new && rm /etc/os-release
WORKDIR /work
USER 1000
EXPOSE 8080
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --timeout=3s CMD true
ENTRYPOINT ["/bin/echo"]
CMD ["done"]
"#;

fn buildx() -> PathBuf {
    installed("docker-buildx")
        .or_else(|| installed("buildx"))
        .unwrap()
}

fn buildx_command(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(buildx());
    command
        .args(arguments)
        .env("HOME", world.folder().join("home"))
        .env("BUILDX_CONFIG", world.folder().join("buildx"));
    command
        .env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
        .current_dir(world.folder());
    command
}

fn context(world: &World) -> PathBuf {
    let context = world.context(
        "context",
        &[
            ("Dockerfile", DOCKERFILE),
            ("main.txt", "main\n"),
            ("archived.txt", "x\n"),
        ],
    );
    let mut archive = tar::Builder::new(std::fs::File::create(context.join("archive.tar")).unwrap());
    archive
        .append_path_with_name(context.join("archived.txt"), "deep/archived.txt")
        .unwrap();
    archive.finish().unwrap();
    context
}

struct Buildkitd {
    _process: Running,
    address: String,
    _folder: tempfile::TempDir,
}

impl Buildkitd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("buildkitd.sock");
        let address = format!("unix://{}", socket.display());
        let mut command = Command::new("buildkitd");
        command.args([
            "--oci-worker=true",
            "--containerd-worker=false",
            "--addr",
            &address,
            "--root",
        ]);
        command
            .arg(folder.path().join("state"))
            .arg("--config")
            .arg("/dev/null");
        let mut process = Running::start(&mut command, &folder.path().join("buildkitd.log"));
        wait_until("buildkitd to listen", Duration::from_secs(30), || {
            assert!(process.ended().is_none(), "{}", process.log());
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        Self {
            _process: process,
            address,
            _folder: folder,
        }
    }
}

fn build_with_buildx(world: &World, builder: &str, address: &str, context: &Path, image: &str) {
    Ended::of(&mut buildx_command(
        world,
        &["create", "--name", builder, "--driver", "remote", address],
    ))
    .succeeded();
    let arguments = [
        "build",
        "--builder",
        builder,
        "--platform",
        "linux/arm64,linux/amd64",
        "-t",
        image,
        "--push",
        "--progress=plain",
    ];
    Ended::of(buildx_command(world, &arguments).arg(context)).succeeded();
}

#[test]
fn the_real_buildx_builds_with_our_daemon() {
    if !given(&NEEDS) || !given(&[Need::Buildx]) {
        return;
    }
    let world = World::new();
    let context = context(&world);
    build_with_buildx(
        &world,
        "ours",
        &world.daemon.address(),
        &context,
        &world.image("by-buildx"),
    );
    assert_eq!(
        world.repository("by-buildx").manifest("latest").unwrap()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    Ended::of(&mut buildx_command(&world, &["inspect", "ours"]))
        .succeeded()
        .said(&["running", "linux/arm64"]);
}

#[test]
fn both_daemons_make_the_same_image_of_a_dockerfile() {
    if !given(&NEEDS) || !given(&[Need::Buildx, Need::Buildkitd]) {
        return;
    }
    let world = World::new();
    let context = context(&world);
    let buildkitd = Buildkitd::start();
    build_with_buildx(
        &world,
        "ours",
        &world.daemon.address(),
        &context,
        &world.image("ours"),
    );
    build_with_buildx(
        &world,
        "theirs",
        &buildkitd.address,
        &context,
        &world.image("theirs"),
    );
    for platform in ["linux/amd64", "linux/arm64"] {
        let (our_manifest, ours) = world.repository("ours").image("latest", platform).unwrap();
        let (their_manifest, theirs) = world.repository("theirs").image("latest", platform).unwrap();
        for part in ["architecture", "os", "variant", "config"] {
            assert_eq!(ours[part], theirs[part], "{part} of {platform}");
        }
        assert_eq!(history(&ours), history(&theirs), "history of {platform}");
        let our_tree = tree(&world.repository("ours"), &our_manifest).unwrap();
        let their_tree = tree(&world.repository("theirs"), &their_manifest).unwrap();
        let mut differences = Vec::new();
        for path in our_tree
            .keys()
            .chain(their_tree.keys().filter(|path| !our_tree.contains_key(*path)))
        {
            if our_tree.get(path) != their_tree.get(path) {
                differences.push(format!(
                    "{path}: {:?}\n  theirs: {:?}",
                    our_tree.get(path),
                    their_tree.get(path)
                ));
            }
        }
        assert!(differences.is_empty(), "{platform}:\n{}", differences.join("\n"));
    }
}

/// What the history says was done, and whether it made a layer.
fn history(config: &Value) -> Vec<(String, bool)> {
    let entries = config["history"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let made = entry["created_by"].as_str().unwrap_or_default().to_owned();
            (made, entry["empty_layer"].as_bool().unwrap_or_default())
        })
        .collect()
}

#[test]
fn our_client_builds_with_the_real_daemon() {
    if !given(&NEEDS) || !given(&[Need::Buildkitd]) {
        return;
    }
    let world = World::new();
    let context = context(&world);
    let buildkitd = Buildkitd::start();
    world
        .trimaran(&[
            "create",
            "--use",
            "--name",
            "theirs",
            "--driver",
            "remote",
            &buildkitd.address,
        ])
        .succeeded();
    world
        .trimaran(&["inspect", "theirs"])
        .succeeded()
        .said(&["running", "linux/arm64"]);
    world
        .build(
            &context,
            &[
                "--platform=linux/arm64,linux/amd64",
                "-t",
                &world.image("theirs"),
                "--push",
            ],
        )
        .succeeded();
    let (_, config) = world.repository("theirs").image("latest", "linux/arm64").unwrap();
    assert_eq!(config["architecture"], "arm64");
}
