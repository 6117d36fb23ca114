use std::sync::Arc;

use registry::client::{Anonymous, Config};
use registry::testing::FakeRegistry;
use registry::{Digest, Index, Manifest, Platform, RawManifest, Reference};

use super::*;
use crate::imagetools::inspect;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Fixture {
    registry: FakeRegistry,
    client: Client,
    index: Reference,
    single: Reference,
    digests: Vec<Digest>,
}

/// An index of two images on a registry of its own.
async fn fixture() -> Fixture {
    use base64::Engine as _;
    let registry = FakeRegistry::start().await.unwrap();
    let repository = registry.repository("demo/hello");
    let info = base64::engine::general_purpose::STANDARD.encode(
        r#"{"frontend":"dockerfile.v0","attrs":{"filename":"Dockerfile"},"sources":[{"type":"docker-image","ref":"base","pin":"sha256:00"}]}"#,
    );
    let mut entries = Vec::new();
    for architecture in ["arm64", "amd64"] {
        let config = format!(
            r#"{{"moby.buildkit.buildinfo.v1":"{info}","os":"linux","architecture":"{architecture}","created":"2024-01-01T00:00:00Z","config":{{"Env":["A=<b> && c"],"Shell":["x"],"Volumes":{{"/v":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":[]}},"history":[{{"created_by":"RUN x","empty_layer":true}}]}}"#
        );
        let config = registry.add_blob(&repository, CONFIG, config.into_bytes());
        let manifest = Manifest::new(MANIFEST, config, Vec::new());
        let raw = RawManifest::from_manifest(&manifest).unwrap();
        let reference = repository.with_tag(architecture).unwrap();
        registry.add_manifest(&reference, &raw);
        entries.push(
            raw.descriptor()
                .with_platform(Platform::new("linux", architecture, "")),
        );
    }
    let digests = entries.iter().map(|entry| entry.digest.clone()).collect();
    let raw = RawManifest::from_index(&Index::new(INDEX, entries)).unwrap();
    let index = repository.with_tag("latest").unwrap();
    registry.add_manifest(&index, &raw);
    let client = Client::new(Config::default(), Arc::new(Anonymous));
    let single = repository.with_tag("amd64").unwrap();
    Fixture {
        registry,
        client,
        index,
        single,
        digests,
    }
}

impl Fixture {
    async fn render(&self, reference: &Reference, format: &str) -> String {
        let image = inspect(&self.client, reference.clone()).await.unwrap();
        render(
            &self.client,
            &image,
            &reference.to_string(),
            (format, &parse(format).unwrap()),
        )
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn the_default_output_lists_the_manifests() {
    let fixture = fixture().await;
    let image = inspect(&fixture.client, fixture.index.clone()).await.unwrap();
    let name = fixture.index.to_string();
    let [first, second] = [&fixture.digests[0], &fixture.digests[1]];
    let expected = format!(
        "Name:      {name}\nMediaType: {INDEX}\nDigest:    {}\n           \nManifests: \n  Name:      {name}@{first}\n  MediaType: {MANIFEST}\n  Platform:  linux/arm64\n             \n  Name:      {name}@{second}\n  MediaType: {MANIFEST}\n  Platform:  linux/amd64\n",
        image.raw.digest
    );
    assert_eq!(summary(&image), expected);
    assert_eq!(fixture.render(&fixture.index, "{{ .Manifest }}").await, expected);
    drop(fixture.registry);
}

#[tokio::test]
async fn json_has_the_fields_of_the_specification_in_their_order() {
    let fixture = fixture().await;
    let image = r#"{
  "created": "2024-01-01T00:00:00Z",
  "architecture": "arm64",
  "os": "linux",
  "config": {
    "Env": [
      "A=\u003cb\u003e \u0026\u0026 c"
    ],
    "Volumes": {
      "/v": {}
    }
  },
  "rootfs": {
    "type": "layers",
    "diff_ids": []
  },
  "history": [
    {
      "created_by": "RUN x",
      "empty_layer": true
    }
  ]
}"#;
    assert_eq!(
        fixture
            .render(&fixture.index, r#"{{json (index .Image "linux/arm64")}}"#)
            .await,
        image
    );
    assert_eq!(
        fixture.render(&fixture.single, "{{json .Image}}").await,
        image.replace("arm64", "amd64")
    );
    let info = r#"{
  "frontend": "dockerfile.v0",
  "attrs": {
    "filename": "Dockerfile"
  },
  "sources": [
    {
      "type": "docker-image",
      "ref": "base",
      "pin": "sha256:00"
    }
  ]
}"#;
    assert_eq!(fixture.render(&fixture.single, "{{json .BuildInfo}}").await, info);
    let both = fixture.render(&fixture.index, "{{json .BuildInfo}}").await;
    let both: Value = serde_json::from_str(&both).unwrap();
    let one: Value = serde_json::from_str(info).unwrap();
    assert_eq!(both, json!({ "linux/amd64": one, "linux/arm64": one }));
}

#[tokio::test]
async fn the_whole_is_one_document() {
    let fixture = fixture().await;
    let text = fixture.render(&fixture.index, "{{json .}}").await;
    let value: Value = serde_json::from_str(&text).unwrap();
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["name", "manifest", "image", "buildinfo"]);
    let keys: Vec<&String> = value["manifest"].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["schemaVersion", "mediaType", "digest", "size", "manifests"]
    );
    assert_eq!(
        value["manifest"]["manifests"][0]["platform"],
        json!({ "architecture": "arm64", "os": "linux" })
    );
}

#[tokio::test]
async fn templates_navigate_by_the_names_of_go() {
    let fixture = fixture().await;
    for (format, expected) in [
        (
            r#"{{(index .Image "linux/amd64").Architecture}}"#,
            "amd64".to_owned(),
        ),
        (
            r#"{{range $platform, $image := .Image}}{{$platform}} {{$image.OS}};{{end}}"#,
            "linux/amd64 linux;linux/arm64 linux;".to_owned(),
        ),
        (
            "{{range .Manifest.Manifests}}{{.Digest}} {{end}}",
            format!("{} {} ", fixture.digests[0], fixture.digests[1]),
        ),
        (
            r#"{{printf "%s|%d" .Manifest.MediaType (len .Manifest.Manifests)}}"#,
            format!("{INDEX}|2"),
        ),
        (r#"{{json (index .Image "linux/s390x")}}"#, "null".to_owned()),
        ("{{json .Manifest.SchemaVersion}}", "2".to_owned()),
    ] {
        assert_eq!(fixture.render(&fixture.index, format).await, expected, "{format}");
    }
    let image = inspect(&fixture.client, fixture.index.clone()).await.unwrap();
    for format in ["{{", "{{nothing .}}"] {
        assert!(parse(format).is_err(), "{format}");
    }
    let wrong = "{{.Nmae}}";
    let error = render(&fixture.client, &image, "x", (wrong, &parse(wrong).unwrap())).await;
    assert!(matches!(error, Err(TemplateError::Format(_))));
}
