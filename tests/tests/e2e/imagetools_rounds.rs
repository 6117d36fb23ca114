//! How often `imagetools inspect` goes to the registry and back: everything of one level is asked for at once.

use std::process::Stdio;
use std::time::Duration;

use registry::testing::FakeRegistry;
use registry::{Index, Manifest, Platform, RawManifest, media_type};
use tests::process::Ended;
use tests::programs;

const ARCHITECTURES: [&str; 12] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x", "sparc64",
    "wasm",
];

/// Pushes an image for each architecture under its name, and "latest" over all. Returns the names of the images.
pub(crate) fn many_platforms(registry: &FakeRegistry, repository: &str) -> Vec<String> {
    let repository = registry.repository(repository);
    let mut entries = Vec::new();
    let mut names = Vec::new();
    for architecture in ARCHITECTURES {
        let config = format!(r#"{{"os":"linux","architecture":"{architecture}"}}"#);
        let config = registry.add_blob(&repository, media_type::OCI_CONFIG, config.into_bytes());
        let layer = format!("layer of {architecture}");
        let layer = registry.add_blob(&repository, media_type::OCI_LAYER, layer.into_bytes());
        let manifest = Manifest::new(media_type::OCI_MANIFEST, config, vec![layer]);
        let raw = RawManifest::from_manifest(&manifest).unwrap();
        let reference = repository.with_tag(architecture).unwrap();
        registry.add_manifest(&reference, &raw);
        names.push(reference.to_string());
        entries.push(
            raw.descriptor()
                .with_platform(Platform::new("linux", architecture, "")),
        );
    }
    let index = RawManifest::from_index(&Index::new(media_type::OCI_INDEX, entries)).unwrap();
    registry.add_manifest(&repository.with_tag("latest").unwrap(), &index);
    names
}

/// Runs the client while the registry lives in this process; nothing takes longer than a minute.
pub(crate) async fn run(arguments: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(programs::ours("trimaran"));
    command
        .args(arguments)
        .env("HOME", folder.path())
        .stdin(Stdio::null());
    for variable in [
        "TRIMARAN_CONFIG",
        "TRIMARAN_BUILDER",
        "BUILDX_BUILDER",
        "DOCKER_CONFIG",
    ] {
        command.env_remove(variable);
    }
    command.kill_on_drop(true);
    // Longer than that, what could be asked at once is asked in turn, and never answered.
    let output = tokio::time::timeout(Duration::from_secs(60), command.output());
    let output = output.await.expect("it ends within a minute").unwrap();
    Ended::from_output(format!("trimaran {arguments:?}"), output)
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_platforms_cost_four_round_trips() {
    let registry = FakeRegistry::start().await.unwrap();
    many_platforms(&registry, "from");
    let name = format!("{}/from", registry.host());
    // How the registry is spoken to, the index, all manifests, all configurations.
    registry.answer_in_rounds(&[1, 1, 12, 12]);
    let ended = run(&["imagetools", "inspect", "--format", "{{json .}}", &name]).await;
    let shown: serde_json::Value = serde_json::from_str(&ended.succeeded().stdout).unwrap();
    assert_eq!(shown["image"].as_object().unwrap().len(), 12);
    assert_eq!(registry.rounds_left(), 0);
    assert_eq!(registry.take_log().len(), 26);

    // What is not looked at is not asked for.
    registry.answer_in_rounds(&[1, 1]);
    let format = "{{range .Manifest.Manifests}}{{.Platform.Architecture}} {{end}}";
    let ended = run(&["imagetools", "inspect", "--format", format, &name]).await;
    assert_eq!(ended.succeeded().stdout.split_whitespace().count(), 12);
    assert_eq!(registry.take_log().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn attestations_cost_no_further_round_trip() {
    let registry = FakeRegistry::start().await.unwrap();
    many_platforms(&registry, "from");
    let repository = registry.repository("from");
    let latest = repository.with_tag("latest").unwrap();
    let mut index = registry.manifest(&latest).unwrap().index().unwrap();
    for image in index.manifests.clone() {
        let digest = image.digest.to_string();
        let statement = format!(r#"{{"predicate":{{"about":"{digest}"}}}}"#);
        let mut layer = registry.add_blob(
            &repository,
            "application/vnd.in-toto+json",
            statement.into_bytes(),
        );
        layer.set_annotation("in-toto.io/predicate-type", "https://spdx.dev/Document");
        let config = registry.add_blob(&repository, media_type::OCI_CONFIG, "{}");
        let manifest = Manifest::new(media_type::OCI_MANIFEST, config, vec![layer]);
        let raw = RawManifest::from_manifest(&manifest).unwrap();
        registry.add_manifest(&repository.with_digest(raw.digest.clone()), &raw);
        let mut entry = raw
            .descriptor()
            .with_platform(Platform::new("unknown", "unknown", ""));
        entry.set_annotation("vnd.docker.reference.digest", digest);
        index.manifests.push(entry);
    }
    registry.add_manifest(&latest, &RawManifest::from_index(&index).unwrap());
    registry.answer_in_rounds(&[1, 1, 24, 24]);
    let format = "{{len .Image}} {{len .SBOM}}";
    let ended = run(&[
        "imagetools",
        "inspect",
        "--format",
        format,
        &format!("{}/from", registry.host()),
    ])
    .await;
    assert_eq!(ended.succeeded().stdout, "12 12");
    assert_eq!(registry.rounds_left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_template_costs_nothing() {
    let registry = FakeRegistry::start().await.unwrap();
    let name = format!("{}/from", registry.host());
    for (format, text) in [
        ("{{json .Image", "template: :1:14: "),
        (
            "a\n{{nothing .}}",
            "template: :2:3: function \"nothing\" not defined",
        ),
        ("{{if .Name}}x", "template: :1:14: unexpected EOF"),
    ] {
        run(&["imagetools", "inspect", "--format", format, &name])
            .await
            .failed()
            .said(&[text]);
    }
    assert_eq!(registry.take_log(), Vec::<String>::new());
}
