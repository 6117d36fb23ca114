use std::io::{Cursor, Read};

use proptest::prelude::*;

use super::*;

fn file(path: &[u8], size: u64) -> Entry {
    Entry {
        path: path.to_vec(),
        kind: Kind::File { size },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
    }
}

fn write(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (entry, data) in entries {
        push_header(&mut bytes, entry);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len() + padding(data.len() as u64), 0);
    }
    bytes.extend_from_slice(end_of_archive());
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, ArchiveError> {
    let mut archive = Archive::new(Cursor::new(bytes));
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut data = Vec::new();
        archive.read_to_end(&mut data).unwrap();
        entries.push((entry, data));
    }
    Ok(entries)
}

#[test]
fn what_fits_into_ustar_takes_one_block() {
    let long_but_splittable = [vec![b'd'; 120], b"/".to_vec(), vec![b'f'; 100]].concat();
    for (entry, blocks) in [
        (file(b"etc/passwd", 0), 1),
        (file(&long_but_splittable, 0), 1),
        (file(&[b'f'; 101], 0), 3),
        (file("é".as_bytes(), 0), 3),
        (
            Entry {
                uid: 0o7_777_777,
                ..file(b"a", 0)
            },
            1,
        ),
        (
            Entry {
                uid: 0o10_000_000,
                ..file(b"a", 0)
            },
            3,
        ),
        (
            Entry {
                mtime: Time {
                    seconds: 1_700_000_000,
                    nanoseconds: 0,
                },
                ..file(b"a", 0)
            },
            1,
        ),
        (
            Entry {
                mtime: Time {
                    seconds: 1,
                    nanoseconds: 5,
                },
                ..file(b"a", 0)
            },
            3,
        ),
        (
            Entry {
                mtime: Time {
                    seconds: -1,
                    nanoseconds: 0,
                },
                ..file(b"a", 0)
            },
            3,
        ),
        (
            Entry {
                xattrs: vec![(b"user.a".to_vec(), vec![0, 10])],
                ..file(b"a", 0)
            },
            3,
        ),
    ] {
        let mut bytes = Vec::new();
        push_header(&mut bytes, &entry);
        assert_eq!(bytes.len(), blocks * BLOCK, "{entry:?}");
    }
}

#[test]
fn another_reader_understands_what_is_written() {
    let deep = [
        vec![b'd'; 90],
        b"/".to_vec(),
        vec![b'e'; 90],
        b"/".to_vec(),
        vec![b'f'; 90],
    ]
    .concat();
    let entries = [
        (file(b"small", 5), &b"hello"[..]),
        (file(&deep, 512), &[7; 512][..]),
        (
            Entry {
                kind: Kind::Folder,
                ..file(b"folder/", 0)
            },
            b"",
        ),
        (
            Entry {
                kind: Kind::Symlink {
                    target: [b't'; 150].to_vec(),
                },
                ..file(b"link", 0)
            },
            b"",
        ),
        (
            Entry {
                kind: Kind::HardLink {
                    target: b"small".to_vec(),
                },
                ..file(b"hard", 0)
            },
            b"",
        ),
        (
            Entry {
                kind: Kind::Character { major: 5, minor: 1 },
                ..file(b"tty", 0)
            },
            b"",
        ),
        (
            Entry {
                uid: 3_000_000_000,
                gid: 4_000_000,
                ..file(b"ids", 0)
            },
            b"",
        ),
    ];
    let bytes = write(&entries);
    let mut archive = ::tar::Archive::new(Cursor::new(&bytes));
    let mut count = 0;
    for (found, (entry, data)) in archive.entries().unwrap().zip(&entries) {
        let mut found = found.unwrap();
        assert_eq!(found.path_bytes(), entry.path.as_slice());
        assert_eq!(found.header().uid().unwrap(), u64::from(entry.uid));
        assert_eq!(found.header().gid().unwrap(), u64::from(entry.gid));
        match &entry.kind {
            Kind::Symlink { target } | Kind::HardLink { target } => {
                assert_eq!(found.link_name_bytes().unwrap(), target.as_slice());
            }
            Kind::Character { major, minor } => {
                let header = found.header();
                assert_eq!(header.device_major().unwrap(), Some(*major));
                assert_eq!(header.device_minor().unwrap(), Some(*minor));
            }
            _ => {}
        }
        let mut content = Vec::new();
        found.read_to_end(&mut content).unwrap();
        assert_eq!(content, *data);
        count += 1;
    }
    assert_eq!(count, entries.len());
}

#[test]
fn archives_of_gnu_tar_are_understood() {
    let long = format!("{}/file", "d".repeat(200));
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o104_755);
    header.set_uid(u64::from(u32::MAX - 1));
    header.set_gid(0);
    header.set_mtime(1 << 35);
    builder.append_data(&mut header, &long, &b"abc"[..]).unwrap();
    let mut link = ::tar::Header::new_gnu();
    link.set_entry_type(::tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "link", &long).unwrap();
    let entries = read(&builder.into_inner().unwrap()).unwrap();
    let [(file, data), (link, _)] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!(
        (file.path.as_slice(), data.as_slice()),
        (long.as_bytes(), &b"abc"[..])
    );
    assert_eq!(
        (file.mode, file.uid, file.mtime.seconds),
        (0o4755, u32::MAX - 1, 1 << 35)
    );
    assert_eq!(
        link.kind,
        Kind::Symlink {
            target: long.into_bytes()
        }
    );
}

#[test]
fn times_before_the_epoch_are_read_as_they_are_written() {
    for (seconds, nanoseconds) in [
        (-1, 500_000_000),
        (-2, 1),
        (0, 999_999_999),
        (-1, 0),
        (i64::MIN, 0),
        (i64::MAX, 1),
    ] {
        let entry = Entry {
            mtime: Time { seconds, nanoseconds },
            ..file(b"a", 0)
        };
        assert_eq!(
            read(&write(&[(entry.clone(), b"")])).unwrap(),
            [(entry, Vec::new())]
        );
    }
}

#[test]
fn damaged_archives_are_refused_with_the_place() {
    let whole = write(&[(file(b"first", 3), b"abc"), (file(b"second", 600), &[1; 600])]);
    let mut wrong_sum = whole.clone();
    wrong_sum[1024] ^= 1;
    assert!(matches!(
        read(&wrong_sum),
        Err(ArchiveError::Header {
            at: 1024,
            what: "checksum"
        })
    ));
    // Cut in a header, in data, and in data of the last entry.
    for end in [100, 1024 + 100, 1024 + 512 + 599] {
        assert!(
            matches!(read(&whole[..end]), Err(ArchiveError::Truncated)),
            "{end}"
        );
    }
    // A missing end and missing padding are tolerated, as other readers do.
    assert_eq!(read(&whole[..1024 + 512 + 600]).unwrap().len(), 2);
    assert_eq!(read(b"").unwrap().len(), 0);
}

#[test]
fn sparse_files_and_unknown_types_are_refused_by_name() {
    let mut sparse = ::tar::Header::new_gnu();
    sparse.set_path("sparse").unwrap();
    sparse.set_entry_type(::tar::EntryType::GNUSparse);
    sparse.set_size(0);
    sparse.set_cksum();
    assert!(matches!(read(sparse.as_bytes()), Err(ArchiveError::Sparse { path }) if path == "sparse"));
    sparse.set_entry_type(::tar::EntryType::new(b'Z'));
    sparse.set_cksum();
    assert!(matches!(
        read(sparse.as_bytes()),
        Err(ArchiveError::Type { flag: 'Z', .. })
    ));
}

#[test]
fn an_extension_header_cannot_fill_the_memory() {
    let mut header = ::tar::Header::new_gnu();
    header.set_path("x").unwrap();
    header.set_entry_type(::tar::EntryType::XHeader);
    header.set_size(1 << 40);
    header.set_cksum();
    let endless = Cursor::new(header.as_bytes().to_vec()).chain(std::io::repeat(b'0'));
    let error = Archive::new(endless).next_entry().unwrap_err();
    assert!(matches!(
        error,
        ArchiveError::Header {
            what: "extension headers of an entry over one MiB",
            ..
        }
    ));
}

#[test]
fn many_extension_headers_are_as_bad_as_a_large_one() {
    let extended = |count: usize, kind, records: &[u8]| {
        let mut bytes = Vec::new();
        for _ in 0..count {
            let mut header = ::tar::Header::new_gnu();
            header.set_path("x").unwrap();
            header.set_entry_type(kind);
            header.set_size(records.len() as u64);
            header.set_cksum();
            bytes.extend(header.as_bytes());
            bytes.extend(records);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        Archive::new(Cursor::new(bytes)).next_entry()
    };
    let one: Vec<u8> = (0..25_000)
        .flat_map(|number| format!("28 SCHILY.xattr.u.{number:07}=x\n").into_bytes())
        .collect();
    assert!(extended(1, ::tar::EntryType::XHeader, &one).unwrap().is_none());
    for (count, kind, records) in [
        (2, ::tar::EntryType::XHeader, &one[..]),
        (20, ::tar::EntryType::GNULongName, &[b'n'; 60_000]),
        (2_049, ::tar::EntryType::XGlobalHeader, b""),
    ] {
        let error = extended(count, kind, records).unwrap_err();
        assert!(matches!(error, ArchiveError::Header { .. }), "{error}");
    }
}

fn entries() -> impl Strategy<Value = Entry> {
    let path = proptest::collection::vec(1_u8.., 1..300);
    let kind = prop_oneof![
        (0..2_000_u64).prop_map(|size| Kind::File { size }),
        Just(Kind::Folder),
        proptest::collection::vec(1_u8.., 1..200).prop_map(|target| Kind::Symlink { target }),
        proptest::collection::vec(1_u8.., 1..200).prop_map(|target| Kind::HardLink { target }),
        (0..0o7_777_777_u32, 0..0o7_777_777_u32).prop_map(|(major, minor)| Kind::Block { major, minor }),
        Just(Kind::Fifo),
    ];
    let time =
        (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
    let name = proptest::collection::vec(prop_oneof![b'a'..=b'z', Just(b'.')], 1..20);
    let xattrs = proptest::collection::btree_map(name, proptest::collection::vec(any::<u8>(), 0..50), 0..4);
    (
        path,
        kind,
        0..0o10000_u32,
        any::<u32>(),
        any::<u32>(),
        time,
        xattrs,
    )
        .prop_map(|(mut path, kind, mode, uid, gid, mtime, xattrs)| {
            // A slash at the end means a folder, and nothing else.
            path.retain(|byte| *byte != b'/');
            path.push(if kind == Kind::Folder { b'/' } else { b'n' });
            Entry {
                path,
                kind,
                mode,
                uid,
                gid,
                mtime,
                xattrs: xattrs.into_iter().collect(),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_written_is_read_back(entries in proptest::collection::vec(entries(), 1..4)) {
        let data: Vec<Vec<u8>> = entries
            .iter()
            .map(|entry| match entry.kind {
                Kind::File { size } => vec![b'd'; usize::try_from(size).unwrap()],
                _ => Vec::new(),
            })
            .collect();
        let members: Vec<_> = entries.iter().cloned().zip(data.iter().map(Vec::as_slice)).collect();
        let found = read(&write(&members)).unwrap();
        prop_assert_eq!(found, entries.into_iter().zip(data.clone()).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        entry in entries(),
        at in 0..1024_usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut archive = write(&[(entry, b"")]);
        for (place, byte) in archive.iter_mut().skip(at).zip(&bytes) {
            *place = *byte;
        }
        // With a sum that fits, the fields behind it are looked at too.
        let sum: u32 = archive[..148].iter().chain(&archive[156..512]).map(|byte| u32::from(*byte)).sum::<u32>() + 256;
        archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let _ = read(&archive);
    }
}
