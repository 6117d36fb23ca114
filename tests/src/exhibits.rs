//! Images made of fixed bytes, which are the same on every machine: what golden outputs were recorded for.
//!
//! There is one for each shape that tools have to show: Docker's list, OCI's index with attestations, nested and
//! annotated indexes, single images.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::distribution::{INDEX, MANIFEST, Repository, digest_of};
use crate::process::Ended;
use crate::programs;
use crate::registry::Registry;

const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const STATEMENT: &str = "application/vnd.in-toto+json";

/// Which family of media types an image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Oci,
    Docker,
}

/// A registry with the exhibits in its repository "exhibits", and a client to look at them.
#[derive(Debug)]
pub struct Gallery {
    pub registry: Registry,
    folder: tempfile::TempDir,
}

impl Gallery {
    pub fn open() -> Self {
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let registry = Registry::start(folder.path());
        push(&registry.repository("exhibits")).expect("the registry takes images");
        Self { registry, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The full name of an exhibit or of something new.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.address())
    }

    /// A command as a user starts it, with "@" for the address of the registry.
    pub fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let address = format!("{}/", self.registry.address());
        command.args(arguments.iter().map(|argument| argument.replace("@/", &address)));
        command.current_dir(self.folder());
        command.env("HOME", self.folder().join("home"));
        // Provenance has times in it: what is compared has none unless a test asks for it.
        command.env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
        for variable in [
            "TRIMARAN_CONFIG",
            "TRIMARAN_BUILDER",
            "BUILDX_BUILDER",
            "DOCKER_CONFIG",
        ] {
            command.env_remove(variable);
        }
        command
    }

    pub fn trimaran(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(&programs::ours("trimaran"), arguments))
    }
}

/// One image with its config, as bytes that never change.
fn image(repository: &Repository, family: Family, platform: &Value) -> anyhow::Result<Value> {
    let architecture = platform["architecture"].as_str().unwrap_or_default();
    let mut config = json!({
        "created": "2024-02-03T04:05:06.7Z",
        "author": "somebody <a&b@example.org>",
        "architecture": architecture,
        "os": platform["os"],
        "config": {
            "User": "1000:1000",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Env": ["PATH=/bin", "A=<b> & \"c\""],
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["true"],
            "Volumes": {"/data": {}},
            "WorkingDir": "/work",
            "Labels": {"org.example.b": "2", "org.example.a": "1"},
            "StopSignal": "SIGQUIT",
            "Shell": ["/bin/sh", "-ec"],
            "Healthcheck": {"Test": ["CMD", "true"]}
        },
        "rootfs": {"type": "layers", "diff_ids": [digest_of(architecture.as_bytes())]},
        "history": [
            {"created": "2024-02-03T04:05:06Z", "created_by": "COPY x / # buildkit", "comment": "buildkit.dockerfile.v0"},
            {"created": "2024-02-03T04:05:06+02:00", "created_by": "CMD [\"true\"]", "empty_layer": true}
        ]
    });
    for key in ["variant", "os.version", "os.features"] {
        if let Some(value) = platform.get(key) {
            config[key] = value.clone();
        }
    }
    let (manifest, config_type, layer_type) = match family {
        Family::Oci => (
            MANIFEST,
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        ),
        Family::Docker => (
            DOCKER_MANIFEST,
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
    };
    let config = serde_json::to_vec(&config)?;
    let layer = format!("layer of {architecture}");
    let layers = [(layer_type, layer.as_bytes(), json!({}))];
    artifact(repository, manifest, (config_type, &config), &layers)
        .map(|descriptor| with(descriptor, "platform", platform.clone()))
}

fn with(mut descriptor: Value, key: &str, value: Value) -> Value {
    descriptor[key] = value;
    descriptor
}

/// A manifest over a config and layers with annotations; returns its descriptor.
fn artifact(
    repository: &Repository,
    kind: &str,
    (config_type, config): (&str, &[u8]),
    layers: &[(&str, &[u8], Value)],
) -> anyhow::Result<Value> {
    let mut descriptors = Vec::new();
    for (media_type, layer, annotations) in layers {
        let descriptor =
            json!({"mediaType": media_type, "digest": repository.push_blob(layer)?, "size": layer.len()});
        descriptors.push(match annotations.as_object() {
            Some(some) if !some.is_empty() => with(descriptor, "annotations", annotations.clone()),
            _ => descriptor,
        });
    }
    let config =
        json!({"mediaType": config_type, "digest": repository.push_blob(config)?, "size": config.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": descriptors});
    let manifest = serde_json::to_vec(&manifest)?;
    let digest = repository.push_manifest(&digest_of(&manifest), kind, &manifest)?;
    Ok(json!({"mediaType": kind, "digest": digest, "size": manifest.len()}))
}

/// The manifest of what is said about an image: its provenance, and what is in it.
fn attestation(repository: &Repository, subject: &Value, provenance: (&str, Value)) -> anyhow::Result<Value> {
    let digest = subject["digest"].as_str().unwrap_or_default();
    let (provenance_type, provenance) = provenance;
    let about = json!([{"name": "exhibit", "digest": {"sha256": digest.trim_start_matches("sha256:")}}]);
    let statement = |kind: &str, predicate: &Value| {
        json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": kind,
            "subject": about,
            "predicate": predicate,
        })
    };
    let spdx = json!({
        "spdxVersion": "SPDX-2.3",
        "name": "sbom",
        "documentNamespace": "https://example.org/<sbom>",
        "packages": [{"name": "busybox", "versionInfo": "1.36.1", "filesAnalyzed": false, "weight": 0.5}],
    });
    let documents = [
        (
            "https://spdx.dev/Document",
            statement("https://spdx.dev/Document", &spdx),
        ),
        (provenance_type, statement(provenance_type, &provenance)),
    ];
    let mut layers = Vec::new();
    for (kind, document) in &documents {
        layers.push((kind, serde_json::to_vec(document)?));
    }
    let layers: Vec<(&str, &[u8], Value)> = layers
        .iter()
        .map(|(kind, bytes)| {
            (
                STATEMENT,
                bytes.as_slice(),
                json!({"in-toto.io/predicate-type": kind}),
            )
        })
        .collect();
    let config = serde_json::to_vec(&json!({
        "architecture": "unknown", "os": "unknown", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}
    }))?;
    let descriptor = artifact(
        repository,
        MANIFEST,
        ("application/vnd.oci.image.config.v1+json", &config),
        &layers,
    )?;
    let annotations = json!({
        "vnd.docker.reference.digest": digest,
        "vnd.docker.reference.type": "attestation-manifest",
    });
    let descriptor = with(descriptor, "annotations", annotations);
    Ok(with(
        descriptor,
        "platform",
        json!({"architecture": "unknown", "os": "unknown"}),
    ))
}

fn slsa_02() -> (&'static str, Value) {
    let predicate = json!({
        "builder": {"id": ""},
        "buildType": "https://mobyproject.org/buildkit@v1",
        "materials": [{"uri": "pkg:docker/alpine@3.20?platform=linux%2Famd64", "digest": {"sha256": "00"}}],
        "invocation": {"configSource": {"entryPoint": "Dockerfile"}, "parameters": {"frontend": "dockerfile.v0"}},
        "metadata": {"buildStartedOn": "2024-02-03T04:05:06Z", "reproducible": false, "steps": 1_700_000_000},
    });
    ("https://slsa.dev/provenance/v0.2", predicate)
}

fn slsa_1() -> (&'static str, Value) {
    let predicate = json!({
        "buildDefinition": {"buildType": "https://example.org/build", "externalParameters": {"request": {"args": null}}},
        "runDetails": {"builder": {"id": "https://example.org/builder"}},
    });
    ("https://slsa.dev/provenance/v1", predicate)
}

fn linux(architecture: &str) -> Value {
    json!({"architecture": architecture, "os": "linux"})
}

fn index(
    repository: &Repository,
    tag: &str,
    kind: &str,
    manifests: &[&Value],
    annotations: Option<Value>,
) -> anyhow::Result<Value> {
    let mut index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
    if let Some(annotations) = annotations {
        index["annotations"] = annotations;
    }
    let bytes = serde_json::to_vec_pretty(&index)?;
    let digest = repository.push_manifest(tag, kind, &bytes)?;
    Ok(json!({"mediaType": kind, "digest": digest, "size": bytes.len()}))
}

/// Gives a manifest that is there a tag.
fn tag(repository: &Repository, tag: &str, descriptor: &Value) -> anyhow::Result<()> {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    let bytes = repository.manifest_bytes(digest)?;
    let kind = descriptor["mediaType"].as_str().unwrap_or_default();
    repository.push_manifest(tag, kind, &bytes)?;
    Ok(())
}

/// Pushes all exhibits.
pub fn push(repository: &Repository) -> anyhow::Result<()> {
    let oci = |platform: Value| image(repository, Family::Oci, &platform);
    let docker = |platform: Value| image(repository, Family::Docker, &platform);

    let (amd64, arm64) = (oci(linux("amd64"))?, oci(linux("arm64"))?);
    let about_amd64 = attestation(repository, &amd64, slsa_02())?;
    let about_arm64 = attestation(repository, &arm64, slsa_1())?;
    let both = [&amd64, &arm64, &about_amd64, &about_arm64];
    let attested = index(repository, "attested", INDEX, &both, None)?;
    index(
        repository,
        "attested-single",
        INDEX,
        &[&amd64, &about_amd64],
        None,
    )?;
    tag(repository, "single", &amd64)?;
    tag(repository, "arm64", &arm64)?;

    let variant = |architecture: &str, variant: &str| json!({"architecture": architecture, "os": "linux", "variant": variant});
    let windows = json!({
        "architecture": "amd64", "os": "windows", "os.version": "10.0.17763.5329", "os.features": ["win32k", "other"]
    });
    let list = [
        docker(linux("amd64"))?,
        docker(variant("arm64", "v8"))?,
        docker(variant("arm", "v7"))?,
        docker(windows)?,
    ];
    let entries: Vec<&Value> = list.iter().collect();
    index(repository, "docker-list", DOCKER_LIST, &entries, None)?;
    tag(repository, "docker-single", &list[0])?;

    let noted = with(
        arm64.clone(),
        "annotations",
        json!({"org.example.note": "<one> & two"}),
    );
    let riscv64 = oci(linux("riscv64"))?;
    let annotations = json!({"org.example.index": "yes", "org.example.also": "<html>"});
    index(
        repository,
        "annotated",
        INDEX,
        &[&amd64, &noted, &riscv64],
        Some(annotations),
    )?;
    index(repository, "nested", INDEX, &[&attested, &riscv64], None)?;
    let urls = json!(["https://example.org/a", "https://example.org/b"]);
    index(
        repository,
        "linked",
        INDEX,
        &[&with(riscv64, "urls", urls), &amd64],
        None,
    )?;
    Ok(())
}
