use super::*;
use crate::progress::status::{Status, Vertex, VertexLog};

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
}

fn vertex(name: &str, started: i64, completed: Option<i64>) -> Vertex {
    Vertex {
        digest: name.to_owned(),
        name: name.to_owned(),
        started: Some(at(started)),
        completed: completed.map(at),
        ..Vertex::default()
    }
}

fn texts(trace: &Trace, size: Size, extent: Extent) -> Vec<String> {
    picture(trace, "remote:b", size, at(2000), 2.0, extent)
        .into_iter()
        .map(|line| line.text)
        .collect()
}

#[test]
fn the_picture_sums_up_platforms_and_steps() {
    let mut trace = Trace::default();
    trace.update(&Status {
        vertexes: vec![
            vertex("[linux/arm64 1/2] RUN a", 0, Some(1500)),
            vertex("[linux/amd64->arm64 2/2] RUN b", 1000, None),
            vertex("[linux/amd64 1/2] RUN a", 0, Some(500)),
        ],
        logs: vec![VertexLog {
            vertex: "[linux/amd64->arm64 2/2] RUN b".to_owned(),
            data: b"some output\n".to_vec(),
            timestamp: at(1100),
            ..VertexLog::default()
        }],
        ..Status::default()
    });
    let size = Size {
        columns: 60,
        rows: 24,
    };
    assert_eq!(
        texts(&trace, size, Extent::Screen),
        [
            "[+] Building 2.0s (2/3)                            remote:b",
            "    linux/amd64 0.5s (1/1) · linux/arm64 2.0s (1/2)",
            " => [linux/arm64 1/2] RUN a                            1.5s",
            " => [linux/amd64->arm64 2/2] RUN b                     1.0s",
            " => => # 0.100 some output",
            " => [linux/amd64 1/2] RUN a                            0.5s",
        ]
    );
}

#[test]
fn a_small_screen_keeps_what_runs() {
    let mut trace = Trace::default();
    let mut vertexes: Vec<Vertex> = (0..20)
        .map(|n| vertex(&format!("done {n}"), n, Some(n + 1)))
        .collect();
    vertexes.insert(3, vertex("running", 0, None));
    trace.update(&Status {
        vertexes,
        ..Status::default()
    });
    let lines = texts(&trace, Size { columns: 40, rows: 6 }, Extent::Screen);
    assert_eq!(lines.len(), 5);
    assert!(lines[1].starts_with(" => running"), "{lines:?}");
    assert!(lines[4].starts_with(" => done 19"), "{lines:?}");
    assert_eq!(
        texts(&trace, Size { columns: 40, rows: 6 }, Extent::Everything).len(),
        22
    );
}

#[test]
fn the_picture_is_redrawn_in_place() {
    let mut trace = Trace::default();
    trace.update(&Status {
        vertexes: vec![vertex("a", 0, None)],
        ..Status::default()
    });
    let mut out = Vec::new();
    let mut tty = Tty::new(&mut out, "b".to_owned(), Paint::None);
    let size = Size {
        columns: 40,
        rows: 10,
    };
    tty.refresh(&trace, size, at(0)).unwrap();
    tty.refresh(&trace, size, at(0)).unwrap();
    drop(tty);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches("\x1b[2A\r").count(), 1, "{text:?}");
    assert_eq!(text.matches(" => a").count(), 2);
    assert!(!text.contains("\x1b[34m"));
}
