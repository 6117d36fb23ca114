//! What is pushed: configs, layers, indexes, and that others accept them.

use std::process::Command;

use serde_json::json;
use tests::needs::{Need, given};
use tests::process::Ended;
use tests::unpacked::{Kind, tree};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

#[test]
fn the_config_has_what_the_dockerfile_says() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = r#"FROM @base@
LABEL one="1" two="second label"
ENV A=b C="d e"
WORKDIR /work
USER 1000:1000
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s --retries=2 CMD ["true"]
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["/bin/echo", "x"]
CMD ["y"]
"#;
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    world
        .build(
            &context,
            &["-t", &world.image("config"), "--push", "--label", "three=3"],
        )
        .succeeded();
    let (manifest, config) = world.repository("config").image("latest", "linux/amd64").unwrap();
    let inner = &config["config"];
    assert_eq!(
        inner["Labels"],
        json!({"one": "1", "two": "second label", "three": "3"})
    );
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(inner["Env"], json!([path, "A=b", "C=d e"]));
    assert_eq!(inner["WorkingDir"], "/work");
    assert_eq!(inner["User"], "1000:1000");
    assert_eq!(inner["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
    assert_eq!(inner["Volumes"], json!({"/data": {}}));
    assert_eq!(inner["StopSignal"], "SIGQUIT");
    assert_eq!(
        inner["Healthcheck"],
        json!({"Test": ["CMD", "true"], "Interval": 5_000_000_000_u64, "Retries": 2})
    );
    assert_eq!(inner["Shell"], json!(["/bin/sh", "-ec"]));
    assert_eq!(inner["Entrypoint"], json!(["/bin/echo", "x"]));
    assert_eq!(inner["Cmd"], json!(["y"]));
    let layers = manifest["layers"].as_array().unwrap().len();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), layers);
    let with_layer = config["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["empty_layer"] != json!(true))
        .count();
    assert_eq!(with_layer, layers, "{config}");
}

#[test]
fn copied_files_have_the_owners_and_modes_asked_for() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@ AS made\nRUN mkdir -p /tree/sub && echo x > /tree/sub/file && ln -s sub/file /tree/link \
        && ln /tree/sub/file /tree/hard && chmod 4755 /tree/sub/file\nFROM scratch\nCOPY --from=made /tree /tree\n\
        COPY --chown=12:34 --chmod=640 a.txt /a\nCOPY *.txt /all/\nADD archive.tar /unpacked/\n";
    let context = world.context(
        "context",
        &[("Dockerfile", dockerfile), ("a.txt", "a"), ("b.txt", "b")],
    );
    let mut archive = tar::Builder::new(std::fs::File::create(context.join("archive.tar")).unwrap());
    archive
        .append_path_with_name(context.join("b.txt"), "inside/b")
        .unwrap();
    archive.finish().unwrap();
    drop(archive);
    world
        .build(&context, &["-t", &world.image("copied"), "--push"])
        .succeeded();
    let repository = world.repository("copied");
    let (manifest, _) = repository.image("latest", "linux/amd64").unwrap();
    let tree = tree(&repository, &manifest).unwrap();
    let paths: Vec<&str> = tree.keys().map(String::as_str).collect();
    let expected = [
        "a",
        "all",
        "all/a.txt",
        "all/b.txt",
        "tree",
        "tree/hard",
        "tree/link",
        "tree/sub",
        "tree/sub/file",
        "unpacked",
        "unpacked/inside",
        "unpacked/inside/b",
    ];
    assert_eq!(paths, expected);
    assert_eq!((tree["a"].mode, tree["a"].owner), (0o640, (12, 34)));
    assert_eq!((tree["all/a.txt"].mode, tree["all/a.txt"].owner), (0o644, (0, 0)));
    assert_eq!(tree["tree/sub/file"].mode, 0o4755);
    assert_eq!(
        tree["tree/link"].kind,
        Kind::Symlink {
            target: "sub/file".to_owned()
        }
    );
    let is_link = |path: &str| matches!(tree[path].kind, Kind::HardLink { .. });
    assert!(
        is_link("tree/hard") || is_link("tree/sub/file"),
        "the hard link became two files"
    );
}

#[test]
fn removed_files_and_replaced_folders_are_gone() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@\nRUN mkdir -p /d/e && touch /d/one /d/e/two /gone\n\
        RUN rm -r /d /gone && mkdir /d && touch /d/three\nRUN rm -r /d && touch /d\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    world
        .build(&context, &["-t", &world.image("removed"), "--push"])
        .succeeded();
    let repository = world.repository("removed");
    let (manifest, _) = repository.image("latest", "linux/amd64").unwrap();
    let tree = tree(&repository, &manifest).unwrap();
    assert!(matches!(tree["d"].kind, Kind::File { size: 0, .. }));
    let left: Vec<&String> = tree
        .keys()
        .filter(|path| path.starts_with("d/") || *path == "gone")
        .collect();
    assert_eq!(left, Vec::<&String>::new());
}

#[test]
fn skopeo_accepts_every_platform() {
    if !given(&NEEDS) || !given(&[Need::Qemu, Need::Skopeo]) {
        return;
    }
    let world = World::new();
    let context = world.context(
        "context",
        &[("Dockerfile", "FROM @base@\nRUN uname -m > /machine\n")],
    );
    world
        .build(
            &context,
            &[
                "--platform=linux/amd64,linux/arm64",
                "-t",
                &world.image("both:v1"),
                "--push",
            ],
        )
        .succeeded();
    for architecture in ["amd64", "arm64"] {
        let inspected = Ended::of(
            Command::new("skopeo")
                .args(["--override-arch", architecture, "inspect", "--tls-verify=false"])
                .arg(format!("docker://{}", world.image("both:v1"))),
        );
        let inspected: serde_json::Value = serde_json::from_str(&inspected.succeeded().stdout).unwrap();
        assert_eq!(inspected["Architecture"], architecture);
        assert_eq!(inspected["Layers"].as_array().unwrap().len(), 2);
        // Copying reads every blob and checks its digest.
        let layout = format!("oci:{}:v1", world.folder().join(architecture).display());
        Ended::of(
            Command::new("skopeo")
                .args(["--override-arch", architecture, "copy", "--src-tls-verify=false"])
                .arg(format!("docker://{}", world.image("both:v1")))
                .arg(layout),
        )
        .succeeded();
    }
}

#[test]
fn digests_are_told_in_the_files_asked_for() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context("context", &[("Dockerfile", "FROM @base@\nRUN true\n")]);
    let (metadata, id) = (world.folder().join("metadata.json"), world.folder().join("id"));
    let name = world.image("told:v1");
    let arguments = [
        "-t",
        &name,
        "--push",
        "--metadata-file",
        metadata.to_str().unwrap(),
        "--iidfile",
        id.to_str().unwrap(),
    ];
    world.build(&context, &arguments).succeeded();
    let metadata: serde_json::Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    world.repository("told").manifest(digest).unwrap();
    assert_eq!(metadata["image.name"], name);
    assert!(std::fs::read_to_string(id).unwrap().starts_with("sha256:"));
}

#[test]
fn local_and_oci_outputs_hold_the_result() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context(
        "context",
        &[
            ("Dockerfile", "FROM scratch\nCOPY a.txt /folder/\n"),
            ("a.txt", "words"),
        ],
    );
    let local = world.folder().join("local");
    world
        .build(&context, &["-o", &format!("type=local,dest={}", local.display())])
        .succeeded();
    assert_eq!(
        std::fs::read_to_string(local.join("folder/a.txt")).unwrap(),
        "words"
    );
    let oci = world.folder().join("image.tar");
    world
        .build(&context, &["-o", &format!("type=oci,dest={}", oci.display())])
        .succeeded();
    let mut archive = tar::Archive::new(std::fs::File::open(oci).unwrap());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|name| name.ends_with("index.json")), "{names:?}");
    assert!(names.iter().any(|name| name.ends_with("oci-layout")), "{names:?}");
}
