//! What exporters can make of a result beside the plain image: times, tables of contents, attestations, metadata.

use std::io::Read as _;

use serde_json::{Value, json};
use tests::needs::{Need, given};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];
const EPOCH: &str = "1400000000";

fn layers(manifest: &Value) -> &Vec<Value> {
    manifest["layers"].as_array().unwrap()
}

/// The times of all files of a layer.
fn times(world: &World, repository: &str, layer: &Value) -> Vec<u64> {
    let blob = world
        .repository(repository)
        .blob(layer["digest"].as_str().unwrap())
        .unwrap();
    let mut tar = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(blob.as_slice());
    decoder.read_to_end(&mut tar).unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| entry.unwrap().header().mtime().unwrap())
        .collect()
}

#[test]
fn rewritten_layers_have_no_time_after_the_epoch_and_base_layers_stay() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@\nRUN touch -t 200001010000 /old && echo new > /new\nCOPY file /file\n";
    let context = world.context("context", &[("Dockerfile", dockerfile), ("file", "text")]);
    let epoch = format!("--build-arg=SOURCE_DATE_EPOCH={EPOCH}");
    let build = |name: &str, more: &str| {
        let output = format!("--output=type=image,name={},push=true{more}", world.image(name));
        world
            .build(&context, &[&epoch, "--platform=linux/amd64", &output])
            .succeeded();
        world.repository(name).image("latest", "linux/amd64").unwrap()
    };
    let (plain, _) = build("plain", "");
    let (rewritten, config) = build("rewritten", ",rewrite-timestamp=true");
    let (plain, ours) = (layers(&plain), layers(&rewritten));
    let mark = "buildkit/rewritten-timestamp";
    assert_eq!(plain[0], ours[0]);
    assert_eq!(ours.len(), 3);
    let epoch: u64 = EPOCH.parse().unwrap();
    for (before, after) in plain.iter().zip(ours).skip(1) {
        assert_eq!(before["annotations"][mark], json!(null));
        assert_eq!(after["annotations"][mark], json!(EPOCH));
        assert!(times(&world, "plain", before).iter().any(|time| *time > epoch));
        assert!(
            times(&world, "rewritten", after)
                .iter()
                .all(|time| *time <= epoch)
        );
    }
    assert!(
        times(&world, "rewritten", &ours[1])
            .iter()
            .any(|time| *time < epoch)
    );
    let created = |entry: &Value| entry["created"].clone();
    let history = config["history"].as_array().unwrap();
    assert_eq!(created(&config), json!("2014-05-13T16:53:20Z"));
    assert_eq!(created(history.last().unwrap()), json!("2014-05-13T16:53:20Z"));

    // All that was computed is there still: without rewriting, and with, the digests are the same again.
    let (again, _) = build("rewritten", ",rewrite-timestamp=true");
    assert_eq!(again, rewritten);
    let (without, _) = build("rewritten", "");
    assert_eq!(layers(&without), plain);
}

#[test]
fn the_layers_of_a_build_get_a_table_of_contents_those_of_its_base_stay() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context(
        "context",
        &[("Dockerfile", "FROM @base@\nCOPY file /file\n"), ("file", "text")],
    );
    let output = format!(
        "--output=type=image,name={},push=true,compression=estargz",
        world.image("lazy")
    );
    world
        .build(&context, &["--platform=linux/amd64", &output])
        .succeeded();
    let (manifest, config) = world.repository("lazy").image("latest", "linux/amd64").unwrap();
    let layers = layers(&manifest);
    let toc = "containerd.io/snapshot/stargz/toc.digest";
    assert_eq!(layers[0]["annotations"][toc], json!(null));
    assert!(
        layers[1]["annotations"][toc]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    let blob = world
        .repository("lazy")
        .blob(layers[1]["digest"].as_str().unwrap())
        .unwrap();
    assert_eq!(&blob[blob.len() - 19..blob.len() - 13], b"STARGZ");
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(blob.as_slice())
        .read_to_end(&mut tar)
        .unwrap();
    assert_eq!(
        config["rootfs"]["diff_ids"][1],
        tests::distribution::digest_of(&tar)
    );
}

#[test]
fn a_dockerfile_says_what_is_scanned_beside_the_result() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let scan = r#"#!/bin/sh
for folder in $BUILDKIT_SCAN_SOURCE $BUILDKIT_SCAN_SOURCE_EXTRAS/*; do
    name=$(basename $folder)
    files=$(cd $folder && find . -type f | sed 's/^\./{"fileName":"/;s/$/"},/')
    echo "{\"_type\":\"t\",\"predicateType\":\"https://spdx.dev/Document\",\"predicate\":{\"spdxVersion\":\"2\",\"name\":\"$name\",\"files\":[${files%,}]}}" \
        > $BUILDKIT_SCAN_DESTINATION/$name.json
done
"#;
    let scanner = world.context(
        "scanner",
        &[
            (
                "Dockerfile",
                "FROM @base@\nCOPY --chmod=755 scan /scan\nCMD [\"/scan\"]\n",
            ),
            ("scan", scan),
        ],
    );
    let name = world.image("scanner");
    world.build(&scanner, &["-t", &name, "--push"]).succeeded();
    let dockerfile = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM scratch AS made\nARG BUILDKIT_SBOM_SCAN_STAGE=true\n\
        COPY file /made\nFROM scratch AS silent\nCOPY file /silent\nFROM scratch\nCOPY --from=made /made /file\n\
        COPY --from=silent /silent /silent\n";
    let context = world.context("context", &[("Dockerfile", dockerfile), ("file", "text")]);
    let arguments = [
        "--platform=linux/amd64",
        "--push",
        "-t",
        &world.image("scanned"),
        &format!("--sbom=generator={name}"),
    ];
    world.build(&context, &arguments).succeeded();
    let repository = world.repository("scanned");
    let (image, _) = repository.image("latest", "linux/amd64").unwrap();
    let index = repository.manifest("latest").unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let attested = entries.last().unwrap()["digest"].as_str().unwrap();
    let attested = repository.manifest(attested).unwrap();
    let lists: Vec<Value> = layers(&attested)
        .iter()
        .map(|layer| {
            let blob = repository.blob(layer["digest"].as_str().unwrap()).unwrap();
            serde_json::from_slice::<Value>(&blob).unwrap()["predicate"].clone()
        })
        .collect();
    let names: Vec<&str> = lists.iter().map(|list| list["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["sbom", "sbom-context", "sbom-made"]);
    let layer = format!("layerID: {}", layers(&image)[0]["digest"].as_str().unwrap());
    let files = lists[0]["files"].as_array().unwrap();
    let file = files.iter().find(|file| file["fileName"] == "/file").unwrap();
    assert_eq!(file["comment"], json!(layer));
    assert_eq!(lists[2]["files"], json!([{ "fileName": "/made" }]));
}

#[test]
fn the_metadata_file_tells_where_results_come_from() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context("context", &[("Dockerfile", "FROM @base@\nCOPY Dockerfile /\n")]);
    let built = |detail: &str| {
        let arguments = [
            "build",
            "--platform=linux/amd64",
            "--metadata-file=m.json",
            "--provenance=false",
        ];
        let mut command = world.command(&arguments);
        command.arg(&context).env("BUILDX_METADATA_PROVENANCE", detail);
        tests::process::Ended::of(&mut command).succeeded();
        let text = std::fs::read(world.folder().join("m.json")).unwrap();
        let metadata: Value = serde_json::from_slice(&text).unwrap();
        metadata["buildx.build.provenance"].clone()
    };
    let min = built("min");
    let materials = min["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    assert!(materials[0]["uri"].as_str().unwrap().contains("base"), "{min}");
    assert_eq!(min["runDetails"]["metadata"], json!(null));
    assert!(built("max")["runDetails"]["metadata"].is_object());
    assert_eq!(built("disabled"), json!(null));
}
