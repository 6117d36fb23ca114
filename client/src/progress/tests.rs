//! Recorded sequences of status messages and what the plain display makes of them.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::plain::Plain;
use super::status::{ProgressGroup, Status, Vertex, VertexLog, VertexStatus, VertexWarning};
use super::trace::Trace;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
}

fn vertex(name: &str, started: Option<i64>, completed: Option<i64>) -> Vertex {
    Vertex {
        digest: format!("sha256:{name}"),
        name: name.to_owned(),
        started: started.map(at),
        completed: completed.map(at),
        ..Vertex::default()
    }
}

fn vertexes(vertexes: &[Vertex]) -> Status {
    Status {
        vertexes: vertexes.to_vec(),
        ..Status::default()
    }
}

fn log(name: &str, milliseconds: i64, text: &str) -> Status {
    let log = VertexLog {
        vertex: format!("sha256:{name}"),
        stream: 1,
        data: text.as_bytes().to_vec(),
        timestamp: at(milliseconds),
    };
    Status {
        logs: vec![log],
        ..Status::default()
    }
}

/// The plain output of messages that arrive one right after the other.
fn plain(messages: &[Status]) -> String {
    let mut out = Vec::new();
    let mut trace = Trace::default();
    let mut plain = Plain::new(
        &mut out,
        Some("building with \"b\" instance using remote driver".to_owned()),
    );
    let now = Instant::now();
    for message in messages {
        trace.update(message);
        plain.refresh(&mut trace, now).unwrap();
    }
    plain.finish(&mut trace).unwrap();
    drop(plain);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_step_is_printed_with_its_statuses_logs_and_time() {
    let transfer = |current, completed: Option<i64>| Status {
        statuses: vec![VertexStatus {
            id: "transferring dockerfile:".to_owned(),
            vertex: "sha256:load".to_owned(),
            current,
            timestamp: at(20),
            started: Some(at(0)),
            completed: completed.map(at),
            ..VertexStatus::default()
        }],
        ..Status::default()
    };
    let text = plain(&[
        vertexes(&[vertex("load", None, None), vertex("run", None, None)]),
        vertexes(&[vertex("load", Some(0), None)]),
        transfer(2320, Some(5)),
        vertexes(&[vertex("load", Some(0), Some(30))]),
        vertexes(&[vertex("run", Some(40), None)]),
        log("run", 163, "hel"),
        log("run", 200, "lo\nwor"),
        log("run", 240, "ld\n\nlast"),
        vertexes(&[vertex("run", Some(40), Some(1540))]),
    ]);
    assert_eq!(
        text,
        "#0 building with \"b\" instance using remote driver\n\n\
         #1 load\n#1 transferring dockerfile: 2.32kB done\n#1 DONE 0.0s\n\n\
         #2 run\n#2 0.123 hello\n#2 0.160 world\n#2 0.200 \n#2 0.200 last\n#2 DONE 1.5s\n"
    );
}

#[test]
fn cached_canceled_and_failed_steps_are_told_apart() {
    let cached = Vertex {
        cached: true,
        ..vertex("a", Some(0), Some(0))
    };
    let failed = Vertex {
        error: "exit code: 3".to_owned(),
        ..vertex("b", Some(1), Some(9))
    };
    let canceled = Vertex {
        error: "context canceled".to_owned(),
        ..vertex("c", Some(1), Some(10))
    };
    let text = plain(&[
        vertexes(&[cached, vertex("b", Some(1), None)]),
        log("b", 5, "before\nthe end\n"),
        vertexes(&[vertex("c", Some(1), None)]),
        vertexes(&[failed]),
        vertexes(&[canceled]),
    ]);
    assert_eq!(
        text,
        "#0 building with \"b\" instance using remote driver\n\n\
         #1 a\n#1 CACHED\n\n#2 b\n#2 0.004 before\n#2 0.004 the end\n#2 ERROR: exit code: 3\n\n\
         #3 c\n#3 CANCELED\n------\n > b:\n0.004 before\n0.004 the end\n------\n"
    );
}

#[test]
fn two_steps_at_once_do_not_mix_their_lines() {
    let text = plain(&[
        vertexes(&[vertex("a", Some(0), None), vertex("b", Some(0), None)]),
        log("b", 10, "b one\n"),
        log("a", 11, "a one\n"),
        log("b", 12, "b two\n"),
        vertexes(&[vertex("b", Some(0), Some(20))]),
        log("a", 30, "a two\n"),
        vertexes(&[vertex("a", Some(0), Some(40))]),
    ]);
    assert_eq!(
        text,
        "#0 building with \"b\" instance using remote driver\n\n\
         #1 a\n#1 0.011 a one\n#1 ...\n\n#2 b\n#2 0.010 b one\n#2 0.012 b two\n#2 DONE 0.0s\n\n\
         #1 a\n#1 0.030 a two\n#1 DONE 0.0s\n"
    );
}

#[test]
fn a_waiting_step_is_shown_after_a_while() {
    let mut out = Vec::new();
    let mut trace = Trace::default();
    let mut plain = Plain::new(&mut out, None);
    let now = Instant::now();
    trace.update(&vertexes(&[
        vertex("a", Some(0), None),
        vertex("b", Some(0), None),
    ]));
    plain.refresh(&mut trace, now).unwrap();
    trace.update(&log("b", 10, "still here\n"));
    plain.refresh(&mut trace, now + Duration::from_secs(1)).unwrap();
    plain.refresh(&mut trace, now + Duration::from_secs(6)).unwrap();
    drop(plain);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "#1 a\n#1 ...\n\n#2 b\n#2 0.010 still here\n"
    );
}

#[test]
fn a_weak_group_is_hidden_until_a_strong_member_starts() {
    let member = |name: &str, weak, start, stop, cached| Vertex {
        cached,
        group: Some(ProgressGroup {
            id: "g".to_owned(),
            name: "LINK COPY x".to_owned(),
            weak,
        }),
        ..vertex(name, start, stop)
    };
    let hidden = [vertexes(&[member("w", true, Some(0), Some(5), false)])];
    assert_eq!(plain(&hidden), "");
    let shown = [
        vertexes(&[member("w", true, Some(0), Some(5), true)]),
        vertexes(&[member("s", false, Some(10), None, false)]),
        vertexes(&[member("s", false, Some(10), Some(2010), false)]),
    ];
    assert_eq!(
        plain(&shown),
        "#0 building with \"b\" instance using remote driver\n\n#1 LINK COPY x\n#1 DONE 2.0s\n"
    );
}

#[test]
fn warnings_are_printed_where_they_arise() {
    let warning = VertexWarning {
        vertex: "sha256:a".to_owned(),
        level: 1,
        short: b"StageNameCasing: x (line 1)".to_vec(),
        ..VertexWarning::default()
    };
    let text = plain(&[
        vertexes(&[vertex("a", Some(0), None)]),
        Status {
            warnings: vec![warning],
            ..Status::default()
        },
        vertexes(&[vertex("a", Some(0), Some(100))]),
    ]);
    assert!(
        text.ends_with("#1 a\n#1 WARN: StageNameCasing: x (line 1)\n#1 DONE 0.1s\n"),
        "{text}"
    );
}

#[test]
fn raw_json_has_the_shape_of_buildx() {
    let mut status = vertexes(&[Vertex {
        cached: true,
        ..vertex("a", Some(0), None)
    }]);
    status.logs = log("a", 1, "hi").logs;
    assert_eq!(
        serde_json::to_string(&status).unwrap(),
        r#"{"vertexes":[{"digest":"sha256:a","name":"a","started":"2023-11-14T22:13:20Z","cached":true}],"logs":[{"vertex":"sha256:a","stream":1,"data":"aGk=","timestamp":"2023-11-14T22:13:20.001Z"}]}"#
    );
}

#[test]
fn a_restarted_step_adds_up_its_time() {
    let text = plain(&[
        vertexes(&[vertex("export", Some(0), Some(1000))]),
        vertexes(&[vertex("export", Some(5000), None)]),
        vertexes(&[vertex("export", Some(5000), Some(6500))]),
    ]);
    assert!(
        text.ends_with("#1 DONE 1.0s\n\n#1 export\n#1 DONE 2.5s\n"),
        "{text}"
    );
}
