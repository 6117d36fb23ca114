//! `imagetools create`: what it pushes, what it copies, what it refuses.

use std::process::Stdio;

use registry::testing::FakeRegistry;
use serde_json::{Value, json};
use tests::distribution::digest_of;
use tests::exhibits::Gallery;
use tests::needs::{Need, given};
use tests::programs;

use crate::imagetools_rounds::{many_platforms, run};

fn manifests(index: &Value) -> Vec<&str> {
    let entries = index["manifests"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap())
        .collect()
}

#[test]
fn images_of_several_repositories_become_one_index() {
    if !given(&[Need::Registry]) {
        return;
    }
    let gallery = Gallery::open();
    let metadata = gallery.folder().join("metadata.json");
    let ended = gallery
        .trimaran(&[
            "imagetools",
            "create",
            "--progress=plain",
            "-t",
            "@/made:1",
            "-t",
            "@/made:2",
            "-t",
            "@/other/made",
            "--metadata-file",
            metadata.to_str().unwrap(),
            "@/exhibits:single",
            "@/exhibits:arm64",
        ])
        .succeeded();
    assert_eq!(ended.stdout, "");
    let made = gallery.registry.repository("made");
    let bytes = made.manifest_bytes("1").unwrap();
    let digest = digest_of(&bytes);
    assert_eq!(made.manifest_bytes("2").unwrap(), bytes);
    let index = made.manifest("1").unwrap();
    let other = gallery.registry.repository("other/made");
    for repository in [&made, &other] {
        for (digest, platform) in manifests(&index).into_iter().zip(["linux/amd64", "linux/arm64"]) {
            repository.manifest(digest).unwrap();
            let (manifest, _) = match repository.has("1").unwrap() {
                true => repository.image("1", platform).unwrap(),
                false => repository.image("latest", platform).unwrap(),
            };
            let layer = manifest["layers"][0]["digest"].as_str().unwrap();
            repository.blob(layer).unwrap();
        }
    }
    let single = manifests(&index)[0];
    ended.said(&[
        &format!("[internal] pushing {}", gallery.name("made")),
        &format!("[internal] pushing {}", gallery.name("other/made")),
        &format!(
            "copying {single} from {} to {}",
            gallery.name("exhibits:single"),
            gallery.name("made")
        ),
        &format!("pushing {digest} to {}", gallery.name("made:2")),
    ]);
    let written: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    assert_eq!(
        written,
        json!({
            "containerimage.descriptor": {
                "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": bytes.len()
            },
            "image.name": format!("{},{}", gallery.name("made"), gallery.name("other/made")),
        })
    );
}

#[test]
fn a_copy_to_another_registry_has_the_same_digest_and_its_attestations() {
    if !given(&[Need::Registry]) {
        return;
    }
    let (gallery, second) = (Gallery::open(), Gallery::open());
    let target = second.name("copied:v1");
    for exhibit in ["attested", "nested", "docker-list"] {
        let source = format!("@/exhibits:{exhibit}");
        gallery
            .trimaran(&["imagetools", "create", "--progress=none", "-t", &target, &source])
            .succeeded();
        let copied = second.registry.repository("copied");
        let exhibits = gallery.registry.repository("exhibits");
        assert_eq!(
            copied.manifest_bytes("v1").unwrap(),
            exhibits.manifest_bytes(exhibit).unwrap()
        );
        for digest in manifests(&copied.manifest("v1").unwrap()) {
            let manifest = copied.manifest(digest).unwrap();
            for layer in manifest["layers"].as_array().into_iter().flatten() {
                copied.blob(layer["digest"].as_str().unwrap()).unwrap();
            }
        }
    }
    let shown = |gallery: &Gallery, name: &str| {
        let ended = gallery.trimaran(&["imagetools", "inspect", "--format", "{{json .Provenance}}", name]);
        ended.succeeded().stdout
    };
    gallery
        .trimaran(&[
            "imagetools",
            "create",
            "--progress=none",
            "-t",
            &target,
            "@/exhibits:attested",
        ])
        .succeeded();
    assert_eq!(
        shown(&second, "@/copied:v1"),
        shown(&gallery, "@/exhibits:attested")
    );
}

#[test]
fn sources_come_from_files_standard_input_digests_and_descriptors() {
    if !given(&[Need::Registry]) {
        return;
    }
    let gallery = Gallery::open();
    let exhibits = gallery.registry.repository("exhibits");
    let digest = digest_of(&exhibits.manifest_bytes("single").unwrap());
    let descriptor = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest,
        "annotations": {"org.example.from": "file"},
        "platform": {"os": "linux", "architecture": "amd64", "variant": "v3"},
    });
    let file = gallery.folder().join("source.json");
    std::fs::write(&file, format!("{descriptor}\n")).unwrap();
    let create = |sources: &[&str], input: &str| {
        let arguments = [
            &["imagetools", "create", "--dry-run", "-t", "@/exhibits:new"],
            sources,
        ]
        .concat();
        let mut command = gallery.command(&programs::ours("trimaran"), &arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let from_file = create(&["-f", file.to_str().unwrap(), "@/exhibits:arm64"], "");
    assert_eq!(from_file["manifests"][0]["platform"]["variant"], "v3");
    assert_eq!(
        from_file["manifests"][0]["annotations"]["org.example.from"],
        "file"
    );
    assert_eq!(
        from_file["manifests"][0]["size"],
        exhibits.manifest_bytes("single").unwrap().len()
    );
    let from_input = create(&["-f", "-", "@/exhibits:arm64"], &descriptor.to_string());
    assert_eq!(from_input, from_file);
    let by_digest = create(&[&digest, "@/exhibits:arm64"], "");
    assert_eq!(manifests(&by_digest)[0], digest);
}

#[test]
fn annotations_change_images_where_they_are_meant_for_images() {
    if !given(&[Need::Registry]) {
        return;
    }
    let gallery = Gallery::open();
    gallery
        .trimaran(&[
            "imagetools",
            "create",
            "--progress=none",
            "-t",
            "@/noted",
            "--annotation",
            "manifest[linux/arm64]:org.example.m=1",
            "@/exhibits:attested",
        ])
        .succeeded();
    let noted = gallery.registry.repository("noted");
    let (manifest, _) = noted.image("latest", "linux/arm64").unwrap();
    assert_eq!(manifest["annotations"], json!({"org.example.m": "1"}));
    let index = noted.manifest("latest").unwrap();
    let new = manifests(&index)[1];
    assert_eq!(
        index["manifests"][3]["annotations"]["vnd.docker.reference.digest"],
        new
    );
    let shown = gallery.trimaran(&[
        "imagetools",
        "inspect",
        "--format",
        r#"{{len (index .SBOM "linux/arm64").SPDX.packages}}"#,
        "@/noted",
    ]);
    assert_eq!(shown.succeeded().stdout, "1");
}

#[test]
fn what_cannot_be_done_is_refused_with_the_way_out() {
    if !given(&[Need::Registry]) {
        return;
    }
    let gallery = Gallery::open();
    let blob = digest_of(b"layer of amd64");
    for (arguments, texts) in [
        (vec![], vec!["no sources specified"]),
        (vec!["@/exhibits:single"], vec!["please set --tag or --dry-run"]),
        (
            vec!["--dry-run", "@/exhibits:single", "@/exhibits:none"],
            vec!["exhibits:none: not found"],
        ),
        (
            vec!["--dry-run", "--platform=linux/s390x", "@/exhibits:attested"],
            vec!["none of the manifests match", "linux/amd64, linux/arm64"],
        ),
        (
            vec!["--dry-run", "--platform=linux/", "@/exhibits:attested"],
            vec!["is an invalid component of"],
        ),
        (
            vec![
                "--dry-run",
                "--annotation=manifest[linux/s390x]:a=b",
                "@/exhibits:attested",
            ],
            vec!["no image for linux/s390x"],
        ),
        (
            vec!["--dry-run", "--annotation=a=b", "@/exhibits:docker-single"],
            vec!["is a Docker manifest"],
        ),
        (
            vec![
                "--dry-run",
                "--annotation=index-descriptor:a=b",
                "@/exhibits:single",
            ],
            vec!["index-descriptor"],
        ),
        (vec!["--dry-run", "{\"digest\": 1}"], vec!["line 1 column 12"]),
        (
            vec!["--dry-run", "-t", "@/a", &blob, "@/exhibits:single"],
            vec!["cannot infer repository"],
        ),
        (vec!["--dry-run", "-f", "no-such-file"], vec!["no-such-file"]),
        (
            vec!["-t", "@/a", "--progress=loud", "@/exhibits:single"],
            vec!["invalid progress mode"],
        ),
    ] {
        let ended = gallery.trimaran(&[&["imagetools", "create"], arguments.as_slice()].concat());
        assert_ne!(ended.code, Some(0), "{ended}");
        assert_eq!(ended.stdout, "", "{ended}");
        ended.said(&texts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_platforms_move_no_blob_within_a_registry() {
    let registry = FakeRegistry::start().await.unwrap();
    let sources: Vec<String> = many_platforms(&registry, "from");
    registry.take_log();
    let target = format!("{}/to:all", registry.host());
    let mut arguments = vec!["imagetools", "create", "--progress=none", "-t", &target];
    arguments.extend(sources.iter().map(String::as_str));
    run(&arguments).await.succeeded();
    let log = registry.take_log();
    let count = |method: &str, part: &str| {
        log.iter()
            .filter(|line| line.starts_with(method) && line.contains(part))
            .count()
    };
    assert_eq!(count("POST", "mount=sha256"), 24, "{log:#?}");
    assert_eq!(count("PUT", "/blobs/") + count("PATCH", "/blobs/"), 0, "{log:#?}");
    // The configurations are read for their platforms, and nothing else is.
    assert_eq!(count("GET", "/blobs/"), 12, "{log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_mounts_is_served_by_hand() {
    let registry = FakeRegistry::start().await.unwrap();
    registry.set_mounts(false);
    let sources = many_platforms(&registry, "from");
    let target = format!("{}/to:all", registry.host());
    run(&[
        "imagetools",
        "create",
        "--progress=none",
        "-t",
        &target,
        &sources[0],
    ])
    .await
    .succeeded();
    let repository = registry.repository("to");
    assert!(registry.manifest(&repository.with_tag("all").unwrap()).is_some());
}
