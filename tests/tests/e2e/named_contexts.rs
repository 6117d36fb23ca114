//! Builds that take files from elsewhere than their context, each from a place with a name.

use serde_json::Value;
use tests::needs::{Need, given};
use tests::unpacked::tree;
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

fn paths(world: &World, name: &str) -> Vec<String> {
    let repository = world.repository(name);
    let (manifest, _) = repository.image("latest", "linux/amd64").unwrap();
    tree(&repository, &manifest).unwrap().into_keys().collect()
}

#[test]
fn folders_have_names_and_ignore_files_of_their_own() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "\
FROM @base@ AS check
RUN --mount=from=lib,target=/lib cat /lib/sub/b.txt && test ! -e /lib/c.log
FROM scratch
COPY --from=lib . /all/
COPY --from=lib sub /
COPY --from=check /etc/os-release /
";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let lib = world.context(
        "library",
        &[
            (".dockerignore", "*.log\n"),
            ("a.txt", "a"),
            ("sub/b.txt", "b"),
            ("c.log", "c"),
        ],
    );
    let lib = format!("lib={}", lib.display());
    let image = world.image("named");
    world
        .build(&context, &["--build-context", &lib, "-t", &image, "--push"])
        .succeeded()
        .said(&[
            "[context lib] load from client",
            "[context lib] load .dockerignore",
        ]);
    assert_eq!(
        paths(&world, "named"),
        [
            "all",
            "all/.dockerignore",
            "all/a.txt",
            "all/sub",
            "all/sub/b.txt",
            "b.txt",
            "os-release"
        ]
    );
    world
        .build(&context, &["--build-context", "lib=/not/here"])
        .failed()
        .said(&["lib", "/not/here"]);
}

#[test]
fn contexts_replace_images_and_stages() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "\
FROM nowhere.example/alpine:3 AS tools
RUN false
FROM registry.example/base
COPY --from=tools /etc/os-release /copied
";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let base = world.image("base");
    let contexts = [
        format!("tools=docker-image://{base}"),
        format!("registry.example/base=docker-image://{base}"),
    ];
    let image = world.image("replaced");
    world
        .build(
            &context,
            &[
                "--build-context",
                &contexts[0],
                "--build-context",
                &contexts[1],
                "-t",
                &image,
                "--push",
            ],
        )
        .succeeded();
    assert!(paths(&world, "replaced").contains(&"copied".to_owned()));
}

#[test]
fn what_was_built_is_written_down() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context("context", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let (metadata, id) = (world.folder().join("metadata.json"), world.folder().join("id"));
    let image = world.image("written");
    let tags = [format!("{image}:1"), format!("{image}:2")];
    world
        .build(
            &context,
            &[
                "-t",
                &tags[0],
                "-t",
                &tags[1],
                "--push",
                "--annotation",
                "one=1",
                "--annotation",
                "manifest-descriptor:two=2",
                "--metadata-file",
                metadata.to_str().unwrap(),
                "--iidfile",
                id.to_str().unwrap(),
            ],
        )
        .succeeded();
    let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    let repository = world.repository("written");
    let manifest = repository.manifest("2").unwrap();
    assert_eq!(manifest["annotations"]["one"], "1");
    let config = metadata["containerimage.config.digest"].as_str().unwrap();
    assert_eq!(config, manifest["config"]["digest"]);
    assert_eq!(std::fs::read_to_string(id).unwrap(), config);
    assert_eq!(metadata["image.name"], tags.join(","));
    assert_eq!(
        metadata["containerimage.descriptor"]["digest"],
        metadata["containerimage.digest"]
    );
    // Under the build's name, buildx and we remember where its sources are.
    let reference = metadata["buildx.build.ref"].as_str().unwrap();
    let state = world.folder().join("home/.docker/buildx/refs").join(reference);
    let state: Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    assert_eq!(state["Target"], "default");
    assert_eq!(state["LocalPath"], context.to_str().unwrap());
}
