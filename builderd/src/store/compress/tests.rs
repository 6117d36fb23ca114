use super::*;

fn compression(kind: CompressionKind) -> Compression {
    Compression {
        kind,
        ..Compression::default()
    }
}

/// Bytes that compress like text, the same in every run.
fn sample(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut bytes = Vec::with_capacity(size + 16);
    while bytes.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(format!("{:x} line\n", state >> 20).as_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn compressed(compression: Compression, threads: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (digest, size) = compress(compression, threads, &mut out, |blocks| blocks.write_all(bytes)).unwrap();
    assert_eq!((digest, size), (Digest::of(bytes), bytes.len() as u64));
    out
}

#[test]
fn what_is_compressed_decompresses_to_the_same_whatever_the_number_of_threads() {
    for kind in [
        CompressionKind::Uncompressed,
        CompressionKind::Gzip,
        CompressionKind::Zstd,
    ] {
        for size in [1, 1024, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
            let bytes = sample(size);
            let one = compressed(compression(kind), 1, &bytes);
            assert!(
                one == compressed(compression(kind), 4, &bytes),
                "{kind:?}, {size} bytes"
            );
            let mut back = Vec::new();
            decompress(one.as_slice())
                .unwrap()
                .read_to_end(&mut back)
                .unwrap();
            assert!(back == bytes, "{kind:?}, {size} bytes");
        }
    }
}

#[test]
fn the_bytes_of_gzip_do_not_change_between_versions() {
    // If this fails after an update of libdeflate, every layer gets a new digest: decide that, do not just adapt it.
    let digests = [1, 4, 9].map(|level| {
        let compression = Compression {
            level: Some(level),
            ..Compression::default()
        };
        Digest::of(&compressed(compression, 2, &sample(BLOCK + 4096))).to_string()
    });
    assert_eq!(
        digests,
        [
            "sha256:ffe3932990649d4d936d584692e95d575a843269c2ad1611f17a9413bc42f51a",
            "sha256:89824f97651a5f5f83c8bcc12f6b30fbfc345d51e48688c68f17df6f2ed0d19d",
            "sha256:9f7eadba211eb7b4b6c72eb5b3fcdfb3e301e1b748aa7f998a3abf548fbd7baf",
        ]
    );
}

#[test]
fn levels_beyond_the_range_mean_the_best() {
    for (kind, level, name) in [
        (CompressionKind::Gzip, None, "gzip-4"),
        (CompressionKind::Gzip, Some(99), "gzip-12"),
        (CompressionKind::Gzip, Some(-1), "gzip-0"),
        (CompressionKind::Zstd, None, "zstd-3"),
        (CompressionKind::Zstd, Some(99), "zstd-22"),
        (CompressionKind::Uncompressed, Some(5), "uncompressed"),
    ] {
        assert_eq!(
            Compression {
                kind,
                level,
                force: false
            }
            .name(),
            name
        );
    }
    let stored = compressed(
        Compression {
            level: Some(0),
            ..Compression::default()
        },
        1,
        &sample(1000),
    );
    assert!(stored.len() > 1000);
}

#[test]
fn the_failure_of_the_output_is_the_one_reported() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for kind in [
        CompressionKind::Uncompressed,
        CompressionKind::Gzip,
        CompressionKind::Zstd,
    ] {
        for size in [1000, 8 * BLOCK] {
            let produce = |blocks: &mut Blocks<'_>| blocks.write_all(&sample(size));
            let error = compress(compression(kind), 2, &mut Full, produce).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{kind:?}, {size} bytes");
        }
    }
}

#[test]
fn the_failure_of_the_input_ends_the_work() {
    for kind in [
        CompressionKind::Uncompressed,
        CompressionKind::Gzip,
        CompressionKind::Zstd,
    ] {
        for size in [0, 1000, 3 * BLOCK] {
            let produce = |blocks: &mut Blocks<'_>| {
                blocks.write_all(&sample(size))?;
                Err(io::Error::from(io::ErrorKind::NotFound))
            };
            let error = compress(compression(kind), 2, &mut Vec::new(), produce).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{kind:?}, {size} bytes");
        }
    }
}

#[test]
fn media_types_of_docker_and_oci_are_known() {
    for (media_type, kind) in [
        (
            "application/vnd.oci.image.layer.v1.tar",
            Some(CompressionKind::Uncompressed),
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            Some(CompressionKind::Gzip),
        ),
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
            Some(CompressionKind::Zstd),
        ),
        (
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Some(CompressionKind::Gzip),
        ),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            Some(CompressionKind::Gzip),
        ),
        ("application/vnd.in-toto+json", None),
    ] {
        assert_eq!(CompressionKind::of_media_type(media_type), kind, "{media_type}");
    }
}
