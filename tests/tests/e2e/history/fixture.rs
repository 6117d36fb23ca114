//! Records as a daemon may have them: completed, failed, canceled and running builds, with all that can hang on them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message as _;
use proto::control::{
    BuildHistoryRecord, BuildResultInfo, Descriptor, Exporter, StatusResponse, UsageRecord, Vertex,
    VertexLog, VertexStatus, VertexWarning,
};
use proto::errdefs::{Detail, Position, Range, Source, SourceInfo, Vertex as FailedVertex};
use proto::rpc;
use serde_json::json;
use tests::distribution::digest_of;
use tests::fake_daemon::Answers;

pub(super) const COMPLETED: &str = "c0mpl3t3d00000000000000aa";
pub(super) const FAILED: &str = "fa1l3d0000000000000000abb";
pub(super) const CANCELED: &str = "canc3l3d000000000000000cc";
pub(super) const RUNNING: &str = "runn1ng0000000000000000dd";

/// 2025-01-31T12:00:00Z
pub(super) const FIXED: i64 = 1_738_324_800;

pub(super) fn now() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(now.as_secs()).unwrap()
}

fn at(seconds: i64, nanos: i32) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos })
}

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()));
    pairs.collect()
}

/// Everything, `base` being the time that all others are counted from, in seconds.
pub(super) fn answers(base: i64) -> Answers {
    let mut blobs = Blobs::default();
    let records = vec![
        failed(base - 30 * 60, &mut blobs),
        completed(base - 80 * 3600, &mut blobs),
        running(base - 125),
        canceled(base - 9 * 24 * 3600),
    ];
    let progress = [
        (COMPLETED.to_owned(), completed_progress(base - 80 * 3600)),
        (FAILED.to_owned(), failed_progress(base - 30 * 60)),
        (RUNNING.to_owned(), Vec::new()),
        (CANCELED.to_owned(), Vec::new()),
    ];
    Answers {
        usage: usage(),
        records,
        progress: progress.into(),
        blobs: blobs.0,
        clock: rfc3339(base),
    }
}

/// The same with results for one platform only: buildx has no order for those of several.
pub(super) fn one_platform(mut answers: Answers) -> Answers {
    for record in &mut answers.records {
        record.results.retain(|platform, _| platform == "linux/amd64");
    }
    answers
}

/// Only for the two times that are needed.
fn rfc3339(seconds: i64) -> String {
    if seconds == FIXED {
        return "2025-01-31T12:00:00.5Z".to_owned();
    }
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    fn add(
        &mut self,
        media_type: &str,
        content: impl Into<Vec<u8>>,
        annotations: &[(&str, &str)],
    ) -> Descriptor {
        let content = content.into();
        let digest = digest_of(&content);
        let size = i64::try_from(content.len()).unwrap();
        self.0.insert(digest.clone(), content);
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: strings(annotations),
        }
    }
}

/// A log as daemons keep it.
fn log(progress: &[StatusResponse]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in progress {
        let message = message.encode_to_vec();
        bytes.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
        bytes.extend(message);
    }
    bytes
}

const OCI: &str = "application/vnd.oci.image";

fn completed(start: i64, blobs: &mut Blobs) -> BuildHistoryRecord {
    let manifest = |blobs: &mut Blobs, architecture: &str| {
        let config = format!(r#"{{"architecture":"{architecture}","os":"linux"}}"#);
        let config = blobs.add(&format!("{OCI}.config.v1+json"), config, &[]);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
            "config": {"mediaType": config.media_type, "digest": config.digest, "size": config.size}, "layers": [],
        });
        let descriptor = blobs.add(&format!("{OCI}.manifest.v1+json"), manifest.to_string(), &[]);
        json!({
            "mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size,
            "platform": {"architecture": architecture, "os": "linux"},
        })
    };
    let index = json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.index.v1+json"),
        "manifests": [manifest(blobs, "amd64"), manifest(blobs, "arm64")],
    });
    let index = blobs.add(&format!("{OCI}.index.v1+json"), index.to_string(), &[]);
    let provenance = json!({
        "buildDefinition": {"resolvedDependencies": [
            {"uri": "pkg:docker/alpine@3.20?platform=linux%2Famd64", "digest": {"sha256": "ab".repeat(32)}},
            {"uri": "https://example.org/source.git#main", "digest": {"sha1": "cd".repeat(20)}},
        ]},
    });
    let attestation = |blobs: &mut Blobs, kind: &str, content: String| {
        blobs.add(
            "application/vnd.in-toto+json",
            content,
            &[("in-toto.io/predicate-type", kind)],
        )
    };
    let per_platform = |blobs: &mut Blobs, name: &str| BuildResultInfo {
        attestations: vec![
            attestation(blobs, "https://slsa.dev/provenance/v1", provenance.to_string()),
            attestation(
                blobs,
                "https://spdx.dev/Document",
                json!({"name": name}).to_string(),
            ),
        ],
        ..BuildResultInfo::default()
    };
    let trace = concat!(
        r#"{"Name":"moby.buildkit.v1.Control/Solve","SpanContext":{"TraceID":"0102030405060708090a0b0c0d0e0f10","#,
        r#""SpanID":"0102030405060708","TraceFlags":"01","TraceState":"","Remote":false},"Parent":{"TraceID":"#,
        r#""00000000000000000000000000000000","SpanID":"0000000000000000","TraceFlags":"00","TraceState":"","#,
        r#""Remote":false},"SpanKind":2,"StartTime":"2025-01-28T04:00:00.001Z","EndTime":"2025-01-28T04:00:01.5Z","#,
        r#""Attributes":[{"Key":"command","Value":{"Type":"STRING","Value":"sh -c 'a && b' --token=secret,x"}},"#,
        r#"{"Key":"size","Value":{"Type":"INT64","Value":12}}],"Events":[{"Name":"started","Attributes":null,"#,
        r#""DroppedAttributeCount":0,"Time":"2025-01-28T04:00:00.002Z"}],"Links":null,"Status":{"Code":1,"#,
        r#""Description":"it failed"},"DroppedAttributes":0,"DroppedEvents":0,"DroppedLinks":0,"ChildSpanCount":1,"#,
        r#""Resource":[{"Key":"service.name","Value":{"Type":"STRING","Value":"buildkitd"}},{"Key":"process.pid","#,
        r#""Value":{"Type":"INT64","Value":7}}],"InstrumentationLibrary":{"Name":"otel","Version":"1.2.3","#,
        r#""SchemaURL":"","Attributes":{}}}"#,
    );
    BuildHistoryRecord {
        r#ref: COMPLETED.to_owned(),
        frontend_attrs: strings(&[
            ("build-arg:BUILDKIT_INLINE_CACHE", "1"),
            ("build-arg:VERSION", "1.2 <beta>"),
            ("context:base", "docker-image://alpine"),
            ("cgroup-parent", "builds"),
            ("filename", "app.Dockerfile"),
            ("force-network-mode", "host"),
            ("image-resolve-mode", "pull"),
            ("label:org.opencontainers.image.title", "app & more"),
            ("memory", "536870912"),
            ("no-cache", ""),
            ("platform", "linux/amd64,linux/arm64/v8"),
            ("shm-size", "67108864"),
            ("target", "release"),
            ("unheard-of", "value"),
            (
                "cache-imports",
                r#"[{"Type":"s3","Attrs":{"ref":"r","access_key_id":"secret"}}]"#,
            ),
            ("vcs:localdir:context", "services/app"),
            ("vcs:localdir:dockerfile", "services/app"),
            ("vcs:revision", "f15eaa1ee324ffbbab29605600d27a84cab86361"),
            ("vcs:source", "https://example.org/team/project.git"),
        ]),
        exporters: vec![Exporter {
            r#type: "image".to_owned(),
            attrs: strings(&[("name", "example.org/app"), ("push", "true")]),
        }],
        created_at: at(start, 1_000_000),
        completed_at: at(start + 1, 441_000_000),
        logs: Some(blobs.add(
            "application/vnd.buildkit.status.v0",
            log(&completed_progress(start)),
            &[],
        )),
        exporter_response: strings(&[("containerimage.digest", &index.digest)]),
        result: Some(BuildResultInfo {
            results: [(0, index)].into(),
            ..BuildResultInfo::default()
        }),
        results: [
            ("linux/amd64".to_owned(), per_platform(blobs, "amd64")),
            ("linux/arm64".to_owned(), per_platform(blobs, "arm64")),
        ]
        .into(),
        generation: 3,
        trace: Some(blobs.add("application/vnd.buildkit.otlp.json.v0", trace, &[])),
        num_cached_steps: 1,
        num_total_steps: 5,
        num_completed_steps: 5,
        num_warnings: 1,
        ..BuildHistoryRecord::default()
    }
}

fn digest(name: &str) -> String {
    digest_of(name.as_bytes())
}

fn vertex(name: &str, inputs: &[&str], start: Option<(i64, i32)>, stop: Option<(i64, i32)>) -> Vertex {
    Vertex {
        digest: digest(name),
        inputs: inputs.iter().map(|name| digest(name)).collect(),
        name: name.to_owned(),
        started: start.and_then(|(seconds, nanos)| at(seconds, nanos)),
        completed: stop.and_then(|(seconds, nanos)| at(seconds, nanos)),
        ..Vertex::default()
    }
}

fn output(name: &str, time: (i64, i32), text: &str) -> VertexLog {
    VertexLog {
        vertex: digest(name),
        timestamp: at(time.0, time.1),
        stream: 1,
        msg: text.as_bytes().to_vec().into(),
    }
}

const LOAD: &str = "[internal] load build definition from app.Dockerfile";
const FROM_AMD64: &str = "[linux/amd64 release 1/2] FROM docker.io/library/alpine:3.20";
const FROM_ARM64: &str = "[linux/arm64 release 1/2] FROM docker.io/library/alpine:3.20";
const RUN_AMD64: &str = "[linux/amd64 release 2/2] RUN echo \"</script><script>alert(1)</script>\"";
const RUN_ARM64: &str = "[linux/arm64 release 2/2] RUN echo \"</script><script>alert(1)</script>\"";
const EXPORT: &str = "exporting to image";

fn completed_progress(start: i64) -> Vec<StatusResponse> {
    let ms = |milliseconds: i64| {
        let nanos = i32::try_from(milliseconds % 1000 * 1_000_000).unwrap();
        (start + milliseconds / 1000, nanos)
    };
    let done =
        |name: &str, inputs: &[&str], from: i64, to: i64| vertex(name, inputs, Some(ms(from)), Some(ms(to)));
    let cached = Vertex {
        cached: true,
        ..done(FROM_ARM64, &[], 150, 151)
    };
    let transfer = VertexStatus {
        id: "transferring dockerfile:".to_owned(),
        vertex: digest(LOAD),
        current: 512,
        total: 512,
        timestamp: at(ms(20).0, ms(20).1),
        started: at(ms(10).0, ms(10).1),
        completed: at(ms(20).0, ms(20).1),
        ..VertexStatus::default()
    };
    vec![
        StatusResponse {
            vertexes: vec![vertex(LOAD, &[], Some(ms(5)), None)],
            ..StatusResponse::default()
        },
        StatusResponse {
            vertexes: vec![done(LOAD, &[], 5, 21)],
            statuses: vec![transfer],
            warnings: vec![VertexWarning {
                vertex: digest(LOAD),
                level: 1,
                short: b"StageNameCasing: Stage name 'Release' should be lowercase (line 1)"
                    .to_vec()
                    .into(),
                ..VertexWarning::default()
            }],
            ..StatusResponse::default()
        },
        StatusResponse {
            vertexes: vec![done(FROM_AMD64, &[], 100, 300)],
            ..StatusResponse::default()
        },
        StatusResponse {
            vertexes: vec![cached],
            ..StatusResponse::default()
        },
        StatusResponse {
            vertexes: vec![vertex(RUN_AMD64, &[FROM_AMD64], Some(ms(310)), None)],
            logs: vec![output(
                RUN_AMD64,
                ms(400),
                "</script><script>alert(1)</script>\nsecond line\n",
            )],
            ..StatusResponse::default()
        },
        StatusResponse {
            vertexes: vec![done(RUN_AMD64, &[FROM_AMD64], 310, 410)],
            ..StatusResponse::default()
        },
        StatusResponse {
            vertexes: vec![vertex(RUN_ARM64, &[FROM_ARM64], Some(ms(420)), None)],
            logs: vec![output(RUN_ARM64, ms(900), "emulated output\nwithout an end")],
            ..StatusResponse::default()
        },
        StatusResponse {
            vertexes: vec![done(RUN_ARM64, &[FROM_ARM64], 420, 1200)],
            ..StatusResponse::default()
        },
        StatusResponse {
            vertexes: vec![done(EXPORT, &[RUN_AMD64, RUN_ARM64], 1210, 1420)],
            ..StatusResponse::default()
        },
    ]
}

const FAILING: &str = "[2/2] RUN make check";

fn failed(start: i64, blobs: &mut Blobs) -> BuildHistoryRecord {
    let message = "process \"/bin/sh -c make check\" did not complete successfully: exit code: 2";
    let stack = json!({
        "frames": [{"Name": "main.main", "File": "/src/main.go", "Line": 12}],
        "cmdline": ["buildkitd", "--debug"], "pid": 42, "version": "v0.26.0",
    });
    let source = Source {
        info: SourceInfo {
            filename: "Dockerfile".to_owned(),
            data: b"FROM alpine\nRUN make check\n".to_vec().into(),
            language: "Dockerfile".to_owned(),
            ..SourceInfo::default()
        },
        ranges: vec![Range {
            start: Position {
                line: 2,
                character: 0,
            },
            end: Position {
                line: 2,
                character: 0,
            },
        }],
    };
    let details = vec![
        prost_types::Any {
            type_url: "github.com/moby/buildkit/stack.Stack+json".to_owned(),
            value: stack.to_string().into_bytes(),
        },
        Detail::Vertex(FailedVertex {
            digest: digest(FAILING),
        })
        .to_any(),
        Detail::Source(source).to_any(),
    ];
    let status = rpc::Status {
        code: 2,
        message: message.to_owned(),
        details,
    };
    BuildHistoryRecord {
        r#ref: FAILED.to_owned(),
        frontend_attrs: strings(&[
            ("context", "https://example.org/team/other.git#main"),
            ("filename", "Dockerfile"),
        ]),
        error: Some(rpc::Status {
            details: Vec::new(),
            ..status.clone()
        }),
        created_at: at(start, 0),
        completed_at: at(start + 125, 900_000_000),
        logs: Some(blobs.add(
            "application/vnd.buildkit.status.v0",
            log(&failed_progress(start)),
            &[],
        )),
        external_error: Some(blobs.add(
            "application/vnd.googeapis.google.rpc.status+proto",
            status.encode_to_vec(),
            &[],
        )),
        num_total_steps: 3,
        num_completed_steps: 2,
        ..BuildHistoryRecord::default()
    }
}

fn failed_progress(start: i64) -> Vec<StatusResponse> {
    let failing = |completed| Vertex {
        error: if completed {
            "process \"/bin/sh -c make check\" did not complete successfully: exit code: 2".to_owned()
        } else {
            String::new()
        },
        ..vertex(
            FAILING,
            &["[1/2] FROM docker.io/library/alpine"],
            Some((start + 2, 0)),
            completed.then_some((start + 125, 0)),
        )
    };
    let lines: String = (1..=30).map(|number| format!("test {number} ok\n")).collect();
    vec![
        StatusResponse {
            vertexes: vec![vertex(
                "[1/2] FROM docker.io/library/alpine",
                &[],
                Some((start + 1, 0)),
                Some((start + 2, 0)),
            )],
            ..StatusResponse::default()
        },
        StatusResponse {
            vertexes: vec![failing(false)],
            logs: vec![output(FAILING, (start + 3, 0), &lines)],
            ..StatusResponse::default()
        },
        StatusResponse {
            vertexes: vec![failing(true)],
            logs: vec![output(FAILING, (start + 124, 0), "test 31 FAILED\n")],
            ..StatusResponse::default()
        },
    ]
}

fn canceled(start: i64) -> BuildHistoryRecord {
    BuildHistoryRecord {
        r#ref: CANCELED.to_owned(),
        frontend_attrs: strings(&[(
            "build-arg:BUILDKIT_BUILD_NAME",
            "a name that is longer than what fits into a table",
        )]),
        error: Some(rpc::Status {
            code: 1,
            message: "context canceled".to_owned(),
            details: Vec::new(),
        }),
        created_at: at(start, 0),
        completed_at: at(start + 3, 0),
        num_total_steps: 4,
        num_completed_steps: 1,
        num_cached_steps: 1,
        ..BuildHistoryRecord::default()
    }
}

fn running(start: i64) -> BuildHistoryRecord {
    BuildHistoryRecord {
        r#ref: RUNNING.to_owned(),
        frontend_attrs: strings(&[("target", "test"), ("platform", "linux/riscv64")]),
        created_at: at(start, 0),
        num_total_steps: 8,
        num_completed_steps: 3,
        ..BuildHistoryRecord::default()
    }
}

/// Ages count from now, as clients show no other times of use; creation has a fixed time.
fn usage() -> Vec<UsageRecord> {
    let record = |id: &str, kind: &str, size: i64| UsageRecord {
        id: id.to_owned(),
        size,
        created_at: at(FIXED, 250_000_000),
        last_used_at: at(now() - 80 * 3600, 0),
        usage_count: 2,
        record_type: kind.to_owned(),
        ..UsageRecord::default()
    };
    vec![
        UsageRecord {
            shared: true,
            parents: vec![
                "aaaaaaaaaaaaaaaaaaaaaaaaa".to_owned(),
                "bbbbbbbbbbbbbbbbbbbbbbbbb".to_owned(),
            ],
            description: "mount / from exec /bin/sh -c make && make install <all>".to_owned(),
            ..record("zzzzzzzzzzzzzzzzzzzzzzzzz", "regular", 1_234_567_890)
        },
        UsageRecord {
            mutable: true,
            description: "cached mount /root/.cache from exec /bin/sh -c go build".to_owned(),
            usage_count: 17,
            ..record("ccccccccccccccccccccccccc", "exec.cachemount", 4096)
        },
        UsageRecord {
            in_use: true,
            last_used_at: None,
            usage_count: 0,
            ..record("aaaaaaaaaaaaaaaaaaaaaaaaa", "source.local", 4096)
        },
        record("internal", "internal", 0),
    ]
}
