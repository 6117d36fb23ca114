//! ADD of archives.

use std::fs;
use std::io::Write as _;

use lzma_rust2::{XzOptions, XzWriter};

use super::super::*;
use super::{Fixture, copy, write};

fn tar_of(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    fill(&mut builder);
    builder.into_inner().unwrap()
}

fn add_entry(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, link: &str, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    // The builder would refuse what hostile archives hold, so the name is set byte by byte.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_mode(0o640);
    header.set_uid(11);
    header.set_gid(12);
    header.set_mtime(1000);
    header.set_size(data.len() as u64);
    header.set_cksum();
    builder.append(&header, data).unwrap();
}

#[test]
fn archives_are_extracted_whatever_they_are_called() {
    use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};
    let fixture = Fixture::new();
    let plain = tar_of(|tar| {
        add_entry(tar, Directory, "./", "", b"");
        add_entry(tar, Directory, "bin/", "", b"");
        add_entry(tar, Regular, "bin/tool", "", b"tool");
        add_entry(tar, Link, "bin/same", "bin/tool", b"");
        add_entry(tar, Symlink, "lib", "usr/lib", b"");
        add_entry(tar, Regular, "lib/x", "", b"x");
        add_entry(tar, Regular, "/abs", "", b"abs");
        add_entry(tar, Fifo, "pipe", "", b"");
        add_entry(tar, Symlink, "out", "/", b"");
        add_entry(tar, Regular, "out/inside", "", b"still inside");
    });
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let source = fixture.layer(|root| {
        fs::write(root.join("plain"), &plain).unwrap();
        fs::write(root.join("gzip"), gzip.finish().unwrap()).unwrap();
        fs::write(root.join("zstd"), zstd::encode_all(plain.as_slice(), 1).unwrap()).unwrap();
        fs::write(root.join("text.tar"), "no archive").unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&plain).unwrap();
        fs::write(root.join("bzip2"), bzip2.finish().unwrap()).unwrap();
        let mut xz = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
        xz.write_all(&plain).unwrap();
        fs::write(root.join("xz"), xz.finish().unwrap()).unwrap();
        fs::write(root.join("broken.tar.xz"), b"\xfd7zXZ\0...").unwrap();
    });
    let base = fixture.layer(|root| write(root, "to/bin/old", "old"));
    let add = |src: &str, dest: &str| pb::FileActionCopy {
        attempt_unpack_docker_compatibility: true,
        ..copy(src, dest)
    };
    let expected = [
        "to 755 0:0 /",
        "to/abs 640 11:12 abs",
        "to/bin 640 11:12 /",
        "to/bin/old 644 0:0 old",
        "to/bin/same 640 11:12 tool",
        "to/bin/tool 640 11:12 tool",
        "to/inside 640 11:12 still inside",
        "to/lib 777 11:12 -> usr/lib",
        "to/out 777 11:12 -> /",
        "to/pipe 640 11:12 Fifo",
        "to/usr 755 0:0 /",
        "to/usr/lib 755 0:0 /",
        "to/usr/lib/x 640 11:12 x",
    ];
    for name in ["plain", "gzip", "zstd", "bzip2", "xz"] {
        assert_eq!(
            fixture.copy(&base, &source, add(name, "/to/")).unwrap(),
            expected,
            "{name}"
        );
    }
    assert_eq!(
        fixture
            .copy(&Snapshot::default(), &source, add("text.tar", "/to/"))
            .unwrap(),
        ["to 755 0:0 /", "to/text.tar 644 0:0 no archive"]
    );
    let broken = fixture
        .copy(&Snapshot::default(), &source, add("broken.tar.xz", "/to/"))
        .unwrap();
    assert_eq!(
        broken.last().map(String::as_str),
        Some("to/broken.tar.xz 644 0:0 \u{fffd}7zXZ\0...")
    );
    assert_eq!(
        fixture
            .copy(&base, &source, copy("gzip", "/only-copied"))
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn hostile_archives_are_refused() {
    use tar::EntryType::{Char, Directory, Link, Regular};
    let fixture = Fixture::new();
    for (entries, expected) in [
        (vec![(Regular, "../x", "")], "leads out of the folder"),
        (vec![(Regular, "a/../../x", "")], "leads out of the folder"),
        (vec![(Link, "l", "../../etc/passwd")], "leads out of the folder"),
        (
            vec![(Link, "l", "none")],
            "is a link to something that is not there",
        ),
        (
            vec![(Directory, "d", ""), (Link, "l", "d")],
            "is a link to a folder",
        ),
        (vec![(Char, "c", "")], "is a character device 0:0"),
    ] {
        let bytes = tar_of(|tar| {
            for (kind, path, link) in &entries {
                add_entry(tar, *kind, path, link, b"");
            }
        });
        let source = fixture.layer(|root| fs::write(root.join("t"), &bytes).unwrap());
        let add = pb::FileActionCopy {
            attempt_unpack_docker_compatibility: true,
            ..copy("t", "/")
        };
        let error = fixture.copy(&Snapshot::default(), &source, add).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

fn add_pax(builder: &mut tar::Builder<Vec<u8>>, key: &str, value: &str) {
    builder.append_pax_extensions([(key, value.as_bytes())]).unwrap();
}

fn add_all() -> pb::FileActionCopy {
    pb::FileActionCopy {
        attempt_unpack_docker_compatibility: true,
        ..copy("t", "/")
    }
}

#[test]
fn a_hard_link_to_a_symbolic_link_changes_nothing_it_leads_to() {
    use std::os::unix::fs::PermissionsExt as _;
    use tar::EntryType::{Link, Symlink};
    let fixture = Fixture::new();
    let outside = tempfile::tempdir().unwrap();
    let canary = outside.path().join("canary");
    fs::write(&canary, "").unwrap();
    fs::set_permissions(&canary, fs::Permissions::from_mode(0o600)).unwrap();
    let bytes = tar_of(|tar| {
        add_entry(tar, Symlink, "s", canary.to_str().unwrap(), b"");
        add_entry(tar, Link, "h", "s", b"");
    });
    let source = fixture.layer(|root| fs::write(root.join("t"), &bytes).unwrap());
    let lines = fixture.copy(&Snapshot::default(), &source, add_all()).unwrap();
    let leads = |name: &str| format!("{name} 777 11:12 -> {}", canary.display());
    assert_eq!(lines, [leads("h"), leads("s")]);
    let mode = fs::metadata(&canary).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_hard_link_to_a_file_of_the_base_leaves_the_base_alone() {
    use tar::EntryType::Link;
    let fixture = Fixture::new();
    let base = fixture.layer(|root| write(root, "old", "old"));
    let bytes = tar_of(|tar| add_entry(tar, Link, "h", "old", b""));
    let source = fixture.layer(|root| {
        write(root, "shared", "shared");
        fs::write(root.join("t"), &bytes).unwrap();
        fs::write(
            root.join("t2"),
            tar_of(|tar| add_entry(tar, Link, "h2", "shared", b"")),
        )
        .unwrap();
    });
    assert_eq!(
        fixture.copy(&base, &source, add_all()).unwrap(),
        ["h 644 0:0 old", "old 644 0:0 old"]
    );
    // In one layer with a file that it shares with its source.
    let second = pb::FileActionCopy {
        src: "t2".into(),
        ..add_all()
    };
    let actions = vec![
        super::action(0, 1, -1, Action::Copy(copy("shared", "/"))),
        super::action(2, 1, 0, Action::Copy(second)),
    ];
    let outputs = fixture.run(actions, &[base.clone(), source.clone()]).unwrap();
    assert!(
        fixture
            .list(&outputs[0])
            .contains(&"h2 644 0:0 shared".to_owned())
    );
    for (snapshot, line) in [(&base, "old 644 0:0 old"), (&source, "shared 644 0:0 shared")] {
        assert!(fixture.list(snapshot).contains(&line.to_owned()));
    }
}

#[test]
fn archives_cannot_make_the_daemon_hold_or_compute_too_much() {
    use tar::EntryType::{GNULongName, GNUSparse, Regular};
    let fixture = Fixture::new();
    let long = vec![b'x'; (1 << 20) + 1];
    let huge = tar_of(|tar| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(Regular);
        header.set_path("f").unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(1 << 50);
        header.set_cksum();
        tar.get_mut().extend_from_slice(header.as_bytes());
    });
    for (bytes, expected) in [
        (
            tar_of(|tar| {
                add_entry(tar, Regular, "first", "", b"");
                add_entry(tar, GNULongName, "././@LongLink", "", &long);
                add_entry(tar, Regular, "x", "", b"");
            }),
            "extension headers of an entry over one MiB",
        ),
        (
            tar_of(|tar| add_entry(tar, GNUSparse, "s", "", b"")),
            "sparse file",
        ),
        (huge, "more than 1099511627776 bytes"),
        (
            tar_of(|tar| {
                add_entry(tar, Regular, "first", "", b"");
                add_pax(tar, "mtime", "9223372036854775808");
                add_entry(tar, Regular, "x", "", b"");
            }),
            "PAX records",
        ),
    ] {
        let source = fixture.layer(|root| fs::write(root.join("t"), &bytes).unwrap());
        let action = super::action(0, 1, 0, Action::Copy(add_all()));
        let error = fixture
            .run(vec![action], &[Snapshot::default(), source])
            .unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        assert!(text.contains(expected), "{text}");
    }
    // Times that overflowed when they were counted in nanoseconds.
    for mtime in ["9223372036.999999999", "-9223372036.999999999"] {
        let bytes = tar_of(|tar| {
            add_pax(tar, "mtime", mtime);
            add_entry(tar, Regular, "x", "", b"");
        });
        let source = fixture.layer(|root| fs::write(root.join("t"), &bytes).unwrap());
        fixture.copy(&Snapshot::default(), &source, add_all()).unwrap();
    }
}
