//! What a request puts in place of images and stages.

use crate::graph::builder::Operation;
use base64::Engine as _;

use super::*;
use crate::graph::builder::{Builder, Note};

/// The names of all vertices, and which paths are taken from folders of the client.
fn vertices(built: &Build) -> Vec<String> {
    let definition = &built.targets[0].definition;
    let mut shown = Vec::new();
    for bytes in &definition.def {
        let Some(metadata) = definition.metadata.get(&crate::graph::digest_of(bytes)) else {
            continue;
        };
        let name = metadata
            .description
            .get("llb.customname")
            .cloned()
            .unwrap_or_default();
        let op: pb::Op = prost::Message::decode(&bytes[..]).unwrap();
        let attributes = match op.op {
            Some(pb::op::Op::Source(source)) => source.attrs,
            _ => BTreeMap::new(),
        };
        let of = |key: &str| attributes.get(key).map_or("", String::as_str);
        let (follow, exclude) = (of("local.followpaths"), of("local.excludepatterns"));
        if !name.is_empty() {
            shown.push(format!("{name} {follow} {exclude}").trim().to_owned());
        }
    }
    shown.sort();
    shown
}

#[test]
fn a_folder_stands_for_an_image() {
    let dockerfile = "\
FROM scratch
COPY --from=lib /a /
RUN --mount=from=lib,source=sub/b,target=/b x
";
    let host = TestHost::new(dockerfile).file(".dockerignore", "*.md\n");
    let attributes = [
        ("context:lib", "local:lib"),
        ("sharedkey:localdir:lib", "key"),
        ("local-sessionid:lib", "s2"),
    ];
    let built = run(build(&host, &request(&attributes))).unwrap();
    assert_eq!(
        vertices(&built),
        [
            "[context lib] load from client [\"a\",\"sub/b\"] [\"*.md\"]",
            "[stage-0 1/2] COPY --from=lib /a /",
            "[stage-0 2/2] RUN --mount=from=lib,source=sub/b,target=/b x",
        ]
    );
    assert_eq!(
        host.asked(),
        [
            "[context lib] load .dockerignore",
            "[internal] load .dockerignore",
            "[internal] load build definition from Dockerfile"
        ]
    );
    let text = render(&built.targets[0].definition);
    assert!(text.contains("s2"), "{text}");
}

#[test]
fn a_folder_that_is_built_upon_comes_as_a_whole() {
    let host = TestHost::new("FROM busybox AS one\nRUN x\nFROM one\nCOPY --from=one /a /b\n");
    let built = run(build(&host, &request(&[("context:busybox", "local:b")]))).unwrap();
    assert_eq!(
        vertices(&built),
        [
            "[context busybox] load from client",
            "[one 1/2] RUN x",
            "[stage-1 1/1] COPY --from=one /a /b"
        ]
    );
}

#[test]
fn an_image_stands_for_another() {
    let host = TestHost::new("FROM alpine:3 AS one\nRUN x\nFROM scratch\nCOPY --from=one /a /\n");
    let attributes = [
        ("context:alpine:3", "docker-image://golang:1.22"),
        ("context:two", "docker-image://scratch"),
    ];
    let built = run(build(&host, &request(&attributes))).unwrap();
    assert!(
        vertices(&built)[0].starts_with("[context alpine:3] docker.io/library/golang:1.22@sha256:"),
        "{:?}",
        vertices(&built)
    );
    assert_eq!(
        host.asked()[0],
        "[context alpine:3] load metadata for docker.io/library/golang:1.22"
    );
    assert_eq!(built.sources.len(), 1);
}

#[test]
fn a_stage_that_a_context_replaces_is_not_built() {
    let dockerfile = "FROM nowhere/at/all AS base\nRUN never\nENV A=1\nFROM base\nRUN x\n";
    let config = |name: &str, architecture: &str| {
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux",
            "config": { "Env": [format!("FROM={name}")], "OnBuild": ["RUN trigger"] },
        });
        let encoded = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        serde_json::json!({ "containerimage.config": encoded }).to_string()
    };
    let input = |name: &str| {
        let mut builder = Builder::default();
        let head = builder.add(Operation {
            kind: pb::op::Op::Source(pb::SourceOp {
                identifier: format!("docker-image://{name}"),
                ..pb::SourceOp::default()
            }),
            inputs: Vec::new(),
            platform: None,
            note: Note {
                name: format!("FROM {name}"),
                ..Note::default()
            },
        });
        builder.definition(Some(head), None)
    };
    let metadata = [config("all", "amd64"), config("arm", "arm64")];
    let attributes = [
        ("platform", "linux/arm64,linux/amd64"),
        ("context:base", "input:t"),
        ("input-metadata:t", metadata[0].as_str()),
        ("context:base::linux/arm64", "input:t::linux/arm64"),
        ("input-metadata:t::linux/arm64", metadata[1].as_str()),
    ];
    let mut wanted = request(&attributes);
    for name in ["t", "t::linux/arm64"] {
        wanted.inputs.insert(name.to_owned(), input(name));
    }
    let host = TestHost::new(dockerfile);
    let built = run(build(&host, &wanted)).unwrap();
    assert_eq!(
        vertices(&built),
        ["FROM t::linux/arm64", "[linux/arm64 stage-1 1/1] RUN x"]
    );
    for (target, from) in built.targets.iter().zip(["arm", "all"]) {
        let config = registry::ImageConfig::parse(&target.config).unwrap();
        assert_eq!(config.config.env[0], format!("FROM={from}"));
        assert_eq!(target.platform.architecture(), config.architecture);
    }
}

#[test]
fn what_is_wrong_with_a_context_is_named() {
    for (value, expected) in [
        ("input:x", "invalid input x for base"),
        ("nothing", "invalid context specifier nothing for base"),
        ("target:x", "unsupported context source target for base"),
        ("docker-image://UPPER", "invalid context name UPPER"),
    ] {
        let host = TestHost::new("FROM base\nRUN x\n");
        let error = run(build(&host, &request(&[("context:base", value)]))).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn a_policy_puts_something_else_in_the_place_of_a_context() {
    let dockerfile = "FROM scratch AS one\nFROM scratch\nCOPY --from=one /a /\n";
    let image = "docker.io/library/golang:1.22";
    let asked = request(&[("context:one", "docker-image://golang:1.22")]);
    let built = |moved: &'static str| {
        let mut host = TestHost::new(dockerfile);
        host.moved.insert(image, moved);
        run(build(&host, &asked))
    };
    let local = built("local://folder").unwrap();
    assert_eq!(
        vertices(&local)[0],
        "[context one::linux/amd64] load from client [\"a\"]"
    );
    // What else the policy says of it stays, and so does what its scheme means in a source.
    for (moved, kept) in [
        ("https://name:word@example.com/a.tar", "https://example.com/a.tar"),
        ("git://example.com/a.git#main", "git://example.com/a.git#main"),
    ] {
        let remote = built(moved).unwrap();
        assert_eq!(vertices(&remote)[0], format!("[context one::linux/amd64] {kept}"));
        let fetched = <pb::Op as prost::Message>::decode(&remote.targets[0].definition.def[0][..]).unwrap();
        let Some(pb::op::Op::Source(source)) = fetched.op else {
            panic!("{fetched:?}");
        };
        assert_eq!(source.identifier, moved);
        assert_eq!(source.attrs["http.checksum"], "sha256:1");
    }
    let circle = built("docker-image://golang:1.22").unwrap_err().to_string();
    assert!(circle.contains("again and again"), "{circle}");

    let mut host = TestHost::new("FROM golang:1.22\n");
    host.moved.insert(image, "local://folder");
    let refused = run(build(&host, &request(&[]))).unwrap_err().to_string();
    assert!(
        refused.contains("local://folder in the place of this image"),
        "{refused}"
    );
}
