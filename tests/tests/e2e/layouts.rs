//! OCI layouts on the client's machine: images to build from, and a cache to take along.

use std::fs;
use std::path::{Path, PathBuf};

use tests::needs::{Need, given};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

/// An image with one file, in a layout under the tag `one`.
fn layout(world: &World) -> PathBuf {
    let context = world.context(
        "image",
        &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "inside")],
    );
    let archive = world.folder().join("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    world
        .build(&context, &["-t", "example.com/image:one", "--output", &output])
        .succeeded();
    let folder = world.folder().join("layout");
    tar::Archive::new(fs::File::open(archive).unwrap())
        .unpack(&folder)
        .unwrap();
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn an_image_in_a_layout_is_a_context() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let folder = layout(&world);
    let dockerfile = "FROM base\nCOPY --from=other /file /other\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let result = world.folder().join("result");
    let output = format!("type=local,dest={}", result.display());
    let index = fs::read_to_string(folder.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let build = |base: &str, other: &str| {
        let contexts = [("base", base), ("other", other)];
        let contexts = contexts.map(|(name, rest)| format!("{name}=oci-layout://{}{rest}", folder.display()));
        let [base, other] = &contexts;
        world.build(
            &context,
            &[
                "--build-context",
                base,
                "--build-context",
                other,
                "--output",
                &output,
            ],
        )
    };
    build(":one", &format!("@{digest}")).succeeded();
    for name in ["file", "other"] {
        assert_eq!(fs::read_to_string(result.join(name)).unwrap(), "inside");
    }
    build(":two", "").failed().said(&[
        "failed to get build context base",
        "has nothing with the tag \"two\"",
    ]);
    build("/nowhere", "")
        .failed()
        .said(&["layout/nowhere is no OCI layout"]);
    // Somebody changed a blob: what it says is believed by nobody.
    world.trimaran(&["prune", "--all", "--force"]).succeeded();
    for blob in files(&folder.join("blobs")) {
        let mut bytes = fs::read(&blob).unwrap();
        if bytes.starts_with(b"\x1f\x8b") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&blob, bytes).unwrap();
        }
    }
    build(":one", ":one").failed();
}

#[test]
fn a_folder_takes_the_cache_from_one_daemon_to_another() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@ AS build\nRUN echo mark-\"ran\" && echo made > /made\nFROM scratch\nCOPY --from=build /made /\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let folder = world.folder().join("cache");
    let (from, to) = (
        format!("type=local,src={}", folder.display()),
        format!("type=local,dest={},mode=max", folder.display()),
    );
    let flags = ["--cache-from", &from, "--cache-to", &to];
    let first = world.build(&context, &flags).succeeded();
    first.said(&["there is no cache in", "mark-ran"]);
    let kept = files(&folder.join("blobs")).len();
    assert!(kept >= 2 && folder.join("index.json").is_file());
    assert!(files(&folder.join("ingest")).is_empty());
    world.trimaran(&["prune", "--all", "--force"]).succeeded();
    let second = world.build(&context, &flags).succeeded();
    let second = second.said(&["importing cache manifest from", "CACHED"]);
    assert!(!second.stderr.contains(" mark-ran\n"), "{second}");
    assert!(files(&folder.join("blobs")).len() >= kept);
    // A cache that lost something is no reason to fail.
    world.trimaran(&["prune", "--all", "--force"]).succeeded();
    for blob in files(&folder.join("blobs")) {
        if fs::metadata(&blob).unwrap().len() > 0 && fs::read(&blob).unwrap().starts_with(b"\x1f\x8b") {
            fs::remove_file(blob).unwrap();
        }
    }
    world.build(&context, &flags).succeeded();
}
