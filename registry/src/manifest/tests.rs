use super::*;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn entry(os: &str, architecture: &str, variant: &str) -> Descriptor {
    Descriptor::of(
        media_type::OCI_MANIFEST,
        format!("{os}{architecture}{variant}").as_bytes(),
    )
    .with_platform(Platform::new(os, architecture, variant))
}

#[test]
fn manifests_are_written_as_buildkit_writes_them() {
    let config = Descriptor::of(media_type::OCI_CONFIG, b"");
    let mut layer = Descriptor::of(media_type::OCI_LAYER_GZIP, b"");
    layer.set_annotation("k", "a<b");
    let raw =
        RawManifest::from_manifest(&Manifest::new(media_type::OCI_MANIFEST, config, vec![layer])).unwrap();
    let expected = format!(
        r#"{{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {{
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "{EMPTY}",
    "size": 0
  }},
  "layers": [
    {{
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "{EMPTY}",
      "size": 0,
      "annotations": {{
        "k": "a\u003cb"
      }}
    }}
  ]
}}"#
    );
    assert_eq!(std::str::from_utf8(&raw.bytes).unwrap(), expected);
    assert!(raw.matches(&Digest::of(expected.as_bytes())));
    assert_eq!(raw.descriptor().size, expected.len() as u64);
}

#[test]
fn the_best_entry_of_an_index_is_found() {
    let mut attestation = entry("linux", "arm64", "");
    attestation.set_annotation("vnd.docker.reference.type", "attestation-manifest");
    let index = Index::new(
        media_type::OCI_INDEX,
        vec![
            attestation,
            entry("linux", "386", ""),
            entry("linux", "arm", "v6"),
            entry("linux", "amd64", ""),
            entry("linux", "arm", "v7"),
            entry("unknown", "unknown", ""),
        ],
    );
    let best = |os, architecture, variant| {
        index
            .best_match(&Platform::new(os, architecture, variant))
            .and_then(|entry| entry.platform.as_ref())
            .map(Platform::to_string)
    };
    assert_eq!(best("linux", "amd64", "").as_deref(), Some("linux/amd64"));
    assert_eq!(best("linux", "arm64", "").as_deref(), Some("linux/arm/v7"));
    assert_eq!(best("linux", "arm", "v6").as_deref(), Some("linux/arm/v6"));
    assert_eq!(best("linux", "s390x", ""), None);
    let platforms: Vec<_> = index.platforms().iter().map(Platform::to_string).collect();
    assert_eq!(
        platforms,
        ["linux/386", "linux/arm/v6", "linux/amd64", "linux/arm/v7"]
    );
}

#[test]
fn the_media_type_is_found_inside_where_the_server_names_none() {
    for (text, served, expected) in [
        (
            r#"{"schemaVersion":2,"manifests":[]}"#,
            None,
            media_type::OCI_INDEX,
        ),
        (
            r#"{"schemaVersion":2,"config":{},"layers":[]}"#,
            Some("text/plain"),
            media_type::OCI_MANIFEST,
        ),
        (
            r#"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#,
            Some("application/json"),
            media_type::DOCKER_MANIFEST,
        ),
        (
            r#"{"manifests":[]}"#,
            Some(media_type::DOCKER_INDEX),
            media_type::DOCKER_INDEX,
        ),
        ("no json", Some("text/html"), "text/html"),
    ] {
        let raw = RawManifest::new(Bytes::from(text), served);
        assert_eq!(raw.media_type, expected, "{text}");
    }
}

#[test]
fn contradicting_and_old_documents_are_refused() {
    let raw = RawManifest::new(
        Bytes::from(format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#,
            media_type::OCI_INDEX
        )),
        Some(media_type::DOCKER_INDEX),
    );
    assert!(matches!(raw.parse(), Err(ManifestError::Contradiction { .. })));
    let raw = RawManifest::new(Bytes::from(r#"{"schemaVersion":1,"fsLayers":[]}"#), None);
    assert!(matches!(raw.parse(), Err(ManifestError::Schema1 { .. })));
    let raw = RawManifest::new(Bytes::from("{}"), Some("text/html"));
    assert!(matches!(raw.parse(), Err(ManifestError::MediaType { .. })));
    let index = RawManifest::from_index(&Index::new(media_type::OCI_INDEX, vec![])).unwrap();
    assert!(matches!(index.manifest(), Err(ManifestError::Kind { .. })));
}
