//! `imagetools` against the outputs of buildx for the same images, and what it costs.

use serde_json::Value;
use tests::exhibits::Gallery;
use tests::golden::{Case, recorded_tool};
use tests::needs::{Need, given};
use tests::programs;

const TOOL: &str = "buildx";

/// What is shown of each exhibit: a name for the file, and the arguments behind `imagetools`.
const CASES: [(&str, &[&str]); 54] = [
    ("inspect-docker-list", &["inspect", "@/exhibits:docker-list"]),
    ("inspect-docker-single", &["inspect", "@/exhibits:docker-single"]),
    ("inspect-attested", &["inspect", "@/exhibits:attested"]),
    ("inspect-annotated", &["inspect", "@/exhibits:annotated"]),
    ("inspect-linked", &["inspect", "@/exhibits:linked"]),
    ("inspect-nested", &["inspect", "@/exhibits:nested"]),
    ("inspect-single", &["inspect", "@/exhibits:single"]),
    ("inspect-missing", &["inspect", "@/exhibits:none"]),
    ("inspect-uppercase", &["inspect", "@/Exhibits"]),
    (
        "inspect-raw-and-format",
        &["inspect", "--raw", "--format", "x", "@/exhibits:single"],
    ),
    ("raw-annotated", &["inspect", "--raw", "@/exhibits:annotated"]),
    ("raw-single", &["inspect", "--raw", "@/exhibits:single"]),
    ("format-empty", &["inspect", "--format", "", "@/exhibits:single"]),
    (
        "format-manifest",
        &["inspect", "--format", "{{ .Manifest }}", "@/exhibits:attested"],
    ),
    (
        "format-text",
        &["inspect", "--format", "only text", "@/exhibits:single"],
    ),
    (
        "format-name",
        &["inspect", "--format", "{{.Name}}", "@/exhibits:attested"],
    ),
    (
        "format-json-whole-list",
        &["inspect", "--format", "{{json .}}", "@/exhibits:docker-list"],
    ),
    (
        "format-json-whole-attested",
        &["inspect", "--format", "{{json .}}", "@/exhibits:attested"],
    ),
    (
        "format-json-whole-single",
        &["inspect", "--format", "{{json .}}", "@/exhibits:single"],
    ),
    (
        "format-json-whole-nested",
        &["inspect", "--format", "{{json .}}", "@/exhibits:nested"],
    ),
    (
        "format-json-manifest-annotated",
        &[
            "inspect",
            "--format",
            "{{json .Manifest}}",
            "@/exhibits:annotated",
        ],
    ),
    (
        "format-json-manifest-single",
        &["inspect", "--format", "{{json .Manifest}}", "@/exhibits:single"],
    ),
    (
        "format-json-image-docker",
        &[
            "inspect",
            "--format",
            "{{json .Image}}",
            "@/exhibits:docker-single",
        ],
    ),
    (
        "format-json-image-index",
        &[
            "inspect",
            "--format",
            r#"{{json (index .Image "linux/arm64")}}"#,
            "@/exhibits:attested",
        ],
    ),
    (
        "format-json-image-variant",
        &[
            "inspect",
            "--format",
            r#"{{json (index .Image "linux/arm/v7")}}"#,
            "@/exhibits:docker-list",
        ],
    ),
    (
        "format-json-image-none",
        &[
            "inspect",
            "--format",
            r#"{{json (index .Image "linux/s390x")}}"#,
            "@/exhibits:attested",
        ],
    ),
    (
        "format-json-provenance",
        &[
            "inspect",
            "--format",
            "{{json .Provenance}}",
            "@/exhibits:attested",
        ],
    ),
    (
        "format-json-provenance-single",
        &[
            "inspect",
            "--format",
            "{{json .Provenance}}",
            "@/exhibits:attested-single",
        ],
    ),
    (
        "format-json-provenance-none",
        &["inspect", "--format", "{{json .Provenance}}", "@/exhibits:single"],
    ),
    (
        "format-json-provenance-list",
        &[
            "inspect",
            "--format",
            "{{json .Provenance}}",
            "@/exhibits:docker-list",
        ],
    ),
    (
        "format-json-provenance-nested",
        &["inspect", "--format", "{{json .Provenance}}", "@/exhibits:nested"],
    ),
    (
        "format-json-slsa",
        &[
            "inspect",
            "--format",
            r#"{{json (index .Provenance "linux/amd64").SLSA}}"#,
            "@/exhibits:attested",
        ],
    ),
    (
        "format-slsa-number",
        &[
            "inspect",
            "--format",
            "{{.Provenance.SLSA.metadata.steps}} {{.Provenance.SLSA.invocation.parameters.frontend}}",
            "@/exhibits:attested-single",
        ],
    ),
    (
        "format-json-sbom",
        &["inspect", "--format", "{{json .SBOM}}", "@/exhibits:attested"],
    ),
    (
        "format-json-sbom-single",
        &[
            "inspect",
            "--format",
            "{{json .SBOM.SPDX}}",
            "@/exhibits:attested-single",
        ],
    ),
    (
        "format-json-sbom-none",
        &["inspect", "--format", "{{json .SBOM}}", "@/exhibits:single"],
    ),
    (
        "format-sbom-range",
        &[
            "inspect",
            "--format",
            "{{range .SBOM.SPDX.packages}}{{.name}} {{.versionInfo}} {{.weight}}{{println}}{{end}}",
            "@/exhibits:attested-single",
        ],
    ),
    (
        "format-range-manifests",
        &[
            "inspect",
            "--format",
            "{{range .Manifest.Manifests}}{{.Digest}} {{.Platform.OS}}/{{.Platform.Architecture}}{{println}}{{end}}",
            "@/exhibits:docker-list",
        ],
    ),
    (
        "format-range-images",
        &[
            "inspect",
            "--format",
            "{{range $platform, $image := .Image}}{{$platform}}: {{$image.Author}} {{$image.Created}}{{println}}{{end}}",
            "@/exhibits:attested",
        ],
    ),
    (
        "format-with-if",
        &[
            "inspect",
            "--format",
            r#"{{with .Image.Config}}{{if eq .User "1000:1000"}}{{.WorkingDir}}{{else}}no{{end}}{{end}}"#,
            "@/exhibits:single",
        ],
    ),
    (
        "format-printf",
        &[
            "inspect",
            "--format",
            r#"{{printf "%-12s|%5d|%q" .Manifest.Digest .Manifest.Size .Image.OS}}"#,
            "@/exhibits:single",
        ],
    ),
    (
        "format-variables",
        &[
            "inspect",
            "--format",
            "{{$config := .Image.Config}}{{len $config.Env}} {{index $config.Env 1}} {{index $config.Labels \"org.example.a\"}}",
            "@/exhibits:single",
        ],
    ),
    (
        "format-values",
        &[
            "inspect",
            "--format",
            "{{.Image.Config.Env}} {{.Image.Config.Labels}} {{.Image.RootFS}} {{.Image.Created}}",
            "@/exhibits:single",
        ],
    ),
    (
        "format-pipeline",
        &[
            "inspect",
            "--format",
            "{{.Image.Config.Cmd | json | printf \"%s\"}} {{ not .Image.Variant }}",
            "@/exhibits:single",
        ],
    ),
    (
        "format-compare",
        &[
            "inspect",
            "--format",
            "{{and .Name (gt .Manifest.Size 10)}} {{or .Image.Variant \"none\"}} {{ne 1 2}}",
            "@/exhibits:single",
        ],
    ),
    (
        "create-index",
        &["create", "--dry-run", "@/exhibits:single", "@/exhibits:arm64"],
    ),
    (
        "create-docker",
        &[
            "create",
            "--dry-run",
            "@/exhibits:docker-single",
            "@/exhibits:docker-list",
        ],
    ),
    (
        "create-mixed",
        &[
            "create",
            "--dry-run",
            "@/exhibits:docker-single",
            "@/exhibits:attested",
        ],
    ),
    (
        "create-carbon-copy",
        &["create", "--dry-run", "@/exhibits:annotated"],
    ),
    (
        "create-single-index",
        &["create", "--dry-run", "@/exhibits:single"],
    ),
    (
        "create-single-as-it-is",
        &["create", "--dry-run", "--prefer-index=false", "@/exhibits:single"],
    ),
    (
        "create-platform",
        &[
            "create",
            "--dry-run",
            "--platform",
            "linux/arm64",
            "@/exhibits:attested",
        ],
    ),
    (
        "create-annotations",
        &[
            "create",
            "--dry-run",
            "--annotation",
            "index:org.example.a=<b>",
            "--annotation",
            "manifest-descriptor[linux/arm64]:org.example.c=d",
            "@/exhibits:single",
            "@/exhibits:arm64",
        ],
    ),
    (
        "create-append",
        &[
            "create",
            "--dry-run",
            "--append",
            "-t",
            "@/exhibits:annotated",
            "@/exhibits:docker-single",
        ],
    ),
];

/// Addresses differ from run to run, and buildx prints annotations in any order.
fn normal(text: &str, address: &str) -> String {
    let text = text.replace(address, "localhost:5000");
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    for run in lines.chunk_by_mut(|a, b| is_annotation(a) && is_annotation(b)) {
        run.sort_unstable();
    }
    lines.concat()
}

/// Their values stand in a column; JSON is not meant.
fn is_annotation(line: &str) -> bool {
    line.starts_with("    ") && line.trim_start().starts_with(|c: char| c.is_ascii_lowercase())
}

#[test]
fn everything_is_shown_as_buildx_shows_it() {
    if !given(&[Need::Registry]) {
        return;
    }
    let gallery = Gallery::open();
    let program = recorded_tool(TOOL).unwrap_or_else(|| programs::ours("trimaran"));
    let differences: Vec<String> = CASES
        .iter()
        .filter_map(|(name, arguments)| {
            let case = Case {
                tool: TOOL,
                subject: "imagetools",
                name,
            };
            let arguments = [&["imagetools"], *arguments].concat();
            let mut command = gallery.command(&program, &arguments);
            case.compare(&mut command, |text| normal(text, gallery.registry.address()))
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn build_information_is_shown_as_in_2022() {
    use base64::Engine as _;
    if !given(&[Need::Registry]) {
        return;
    }
    let gallery = Gallery::open();
    let info = serde_json::json!({
        "frontend": "dockerfile.v0",
        "attrs": {"filename": "Dockerfile"},
        "sources": [{"type": "docker-image", "ref": "docker.io/library/alpine:3.16", "pin": "sha256:00"}],
    });
    let encoded = base64::engine::general_purpose::STANDARD.encode(info.to_string());
    let images = ["amd64", "arm64"].map(|architecture| tests::distribution::Image {
        config: serde_json::json!({
            "architecture": architecture, "os": "linux", "moby.buildkit.buildinfo.v1": encoded,
            "rootfs": {"type": "layers", "diff_ids": []}
        }),
        layers: Vec::new(),
    });
    gallery
        .registry
        .repository("old")
        .push_index("latest", &images)
        .unwrap();
    let inspect = |format: &str| {
        let ended = gallery.trimaran(&["imagetools", "inspect", "--format", format, "@/old"]);
        ended.succeeded().stdout
    };
    let block = "Frontend: dockerfile.v0\nAttrs:    \n  filename: Dockerfile\nSources:    \n  Type: docker-image\n  Ref:  docker.io/library/alpine:3.16\n  Pin:  sha256:00\n";
    assert_eq!(
        inspect("{{.BuildInfo}}"),
        format!(
            "Name: {}:latest\n          \nPlatform: linux/amd64 \n{block}          \nPlatform: linux/arm64 \n{block}",
            gallery.name("old")
        )
    );
    let shown: Value = serde_json::from_str(&inspect("{{json .BuildInfo}}")).unwrap();
    assert_eq!(
        shown,
        serde_json::json!({"linux/amd64": info, "linux/arm64": info})
    );
    assert_eq!(
        inspect(r#"{{range (index .BuildInfo "linux/arm64").Sources}}{{.Type}} {{.Ref}} {{.Pin}}{{end}}"#),
        "docker-image docker.io/library/alpine:3.16 sha256:00"
    );
}
