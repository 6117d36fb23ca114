use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use tokio_stream::StreamExt;

use super::*;
use crate::store::tar::{Entry, Time, end_of_archive, padding, push_header};

/// An archive in the making.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, entry: &Entry, data: &[u8]) -> Self {
        push_header(&mut self.0, entry);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len() + padding(data.len() as u64), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        let entry = entry(
            path,
            Kind::File {
                size: data.len() as u64,
            },
        );
        self.add(&entry, data.as_bytes())
    }

    fn folder(self, path: &str) -> Self {
        self.add(
            &Entry {
                mode: 0o755,
                ..entry(path, Kind::Folder)
            },
            b"",
        )
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.add(
            &entry(
                path,
                Kind::Symlink {
                    target: target.into(),
                },
            ),
            b"",
        )
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.add(
            &entry(
                path,
                Kind::HardLink {
                    target: target.into(),
                },
            ),
            b"",
        )
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.extend_from_slice(end_of_archive());
        self.0
    }
}

fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.into(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time {
            seconds: 1_600_000_000,
            nanoseconds: 0,
        },
        xattrs: Vec::new(),
    }
}

/// Unpacks into `root/layer`, beside which nothing may appear.
fn unpack_into(root: &Path, tar: Tar) -> Result<Unpacked, UnpackError> {
    let layer = root.join("layer");
    fs::create_dir(&layer).unwrap();
    unpack(tar.bytes().as_slice(), &layer)
}

/// All paths below `folder` with what they are: `file=content`, `folder/`, `link->target`, `whiteout!`, `opaque/!`.
fn listing(folder: &Path) -> Vec<String> {
    let mut list = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(path) = waiting.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            let metadata = fs::symlink_metadata(&path).unwrap();
            list.push(if metadata.is_dir() {
                let opaque = xattr::get(&path, "trusted.overlay.opaque").unwrap().is_some();
                waiting.push(path);
                format!("{name}/{}", if opaque { "!" } else { "" })
            } else if metadata.is_symlink() {
                format!("{name}->{}", fs::read_link(&path).unwrap().display())
            } else if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
                format!("{name}!")
            } else if metadata.is_file() {
                format!("{name}={}", fs::read_to_string(&path).unwrap())
            } else {
                name
            });
        }
    }
    list.sort();
    list
}

#[test]
fn nothing_leads_out_of_the_layer() {
    let cases: Vec<(&str, Tar)> = vec![
        ("parent", Tar::default().file("../outside", "evil")),
        (
            "parent behind a name",
            Tar::default().file("a/../../outside", "evil"),
        ),
        ("folder", Tar::default().folder("../outside/")),
        (
            "absolute link",
            Tar::default()
                .symlink("link", "/")
                .file("link/../../outside", "evil"),
        ),
        (
            "hard link to the outside",
            Tar::default().hard_link("inside", "../secret"),
        ),
        (
            "hard link through a link",
            Tar::default()
                .symlink("up", "..")
                .hard_link("inside", "up/secret"),
        ),
        (
            "hard link to itself",
            Tar::default().hard_link("inside", "inside"),
        ),
        ("whiteout of the parent", Tar::default().file("a/.wh...", "")),
        ("whiteout of nothing", Tar::default().file(".wh.", "")),
        (
            "zero byte",
            Tar::default().add(
                &Entry {
                    path: b"a\0b".to_vec(),
                    ..entry("", Kind::Fifo)
                },
                b"",
            ),
        ),
        ("long name", Tar::default().file(&"n".repeat(256), "")),
        ("long path", Tar::default().file(&"n/".repeat(3000), "")),
        ("the root as a file", Tar::default().file("./", "x").file("/", "")),
    ];
    for (what, tar) in cases {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("secret"), "secret").unwrap();
        let result = unpack_into(root.path(), tar);
        assert!(result.is_err(), "{what}");
        let mut beside: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        beside.sort();
        assert_eq!(beside, ["layer", "secret"], "{what}");
        assert_eq!(
            fs::metadata(root.path().join("secret")).unwrap().nlink(),
            1,
            "{what}"
        );
    }
}

#[test]
fn links_are_followed_within_the_layer_only() {
    let root = tempfile::tempdir().unwrap();
    let tar = Tar::default()
        .symlink("up", "../../../..")
        .symlink("absolute", "/folder")
        .folder("folder/")
        .file("up/at-root", "1")
        .file("absolute/in-folder", "2")
        // The last name is replaced, not followed.
        .symlink("last", "/etc/passwd")
        .file("last", "3");
    unpack_into(root.path(), tar).unwrap();
    assert_eq!(
        listing(&root.path().join("layer")),
        [
            "absolute->/folder",
            "at-root=1",
            "folder/",
            "folder/in-folder=2",
            "last=3",
            "up->../../../.."
        ]
    );
}

#[test]
fn a_link_that_leads_nowhere_is_no_folder() {
    let root = tempfile::tempdir().unwrap();
    let error = unpack_into(
        root.path(),
        Tar::default().symlink("lib", "usr/lib").file("lib/a", ""),
    )
    .unwrap_err();
    assert!(matches!(error, UnpackError::NotAFolder { path } if path == "lib"));
    let root = tempfile::tempdir().unwrap();
    let error = unpack_into(root.path(), Tar::default().file("lib", "").file("lib/a", "")).unwrap_err();
    assert!(matches!(error, UnpackError::NotAFolder { path } if path == "lib"));
}

#[test]
fn marks_hide_lower_layers_and_nothing_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let tar = Tar::default()
        .file("gone/.wh.file", "")
        .file("before", "1")
        .file(".wh.before", "")
        .file(".wh.after", "")
        .file("after", "2")
        .folder("folder-before/")
        .file("folder-before/mine", "3")
        .file(".wh.folder-before", "")
        .file(".wh.folder-after", "")
        .folder("folder-after/")
        .file("folder-after/mine", "4")
        .file(".wh.implied", "")
        .file("implied/mine", "5")
        .folder("opaque/")
        .file("opaque/mine", "6")
        .file("opaque/.wh..wh..opq", "")
        .file("new-opaque/.wh..wh..opq", "")
        .file(".wh..wh.plnk", "");
    unpack_into(root.path(), tar).unwrap();
    assert_eq!(
        listing(&root.path().join("layer")),
        [
            "after=2",
            "before=1",
            "folder-after/!",
            "folder-after/mine=4",
            "folder-before/!",
            "folder-before/mine=3",
            "gone/",
            "gone/file!",
            "implied/!",
            "implied/mine=5",
            "new-opaque/!",
            "opaque/!",
            "opaque/mine=6",
        ]
    );
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let root = tempfile::tempdir().unwrap();
    let tar = Tar::default()
        .file("file", "old")
        .file("file", "new")
        .folder("folder/")
        .file("folder/old", "")
        .file("folder", "file now")
        .file("other", "")
        .folder("other/")
        .file("other/a", "1")
        .folder("other/")
        .file("hard", "x")
        .hard_link("hard2", "hard")
        .hard_link("hard2", "file");
    unpack_into(root.path(), tar).unwrap();
    let layer = root.path().join("layer");
    assert_eq!(
        listing(&layer),
        [
            "file=new",
            "folder=file now",
            "hard2=new",
            "hard=x",
            "other/",
            "other/a=1"
        ]
    );
    assert_eq!(fs::metadata(layer.join("file")).unwrap().nlink(), 2);
}

#[test]
fn owners_modes_times_and_attributes_arrive() {
    let root = tempfile::tempdir().unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let file = Entry {
        mode: 0o4751,
        uid: 12,
        gid: 34,
        xattrs: vec![
            (b"security.capability".to_vec(), capability.to_vec()),
            (b"security.selinux".to_vec(), b"label".to_vec()),
            (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
            (b"user.note".to_vec(), b"a\0b".to_vec()),
            (b"user.overlay.opaque".to_vec(), b"y".to_vec()),
        ],
        ..entry("bin/tool", Kind::File { size: 0 })
    };
    let folder = Entry {
        mode: 0o1777,
        uid: 5,
        ..entry("tmp/", Kind::Folder)
    };
    let tar = Tar::default()
        .add(&folder, b"")
        .file("tmp/later", "changes the folder's own time")
        .add(&file, b"")
        .add(
            &Entry {
                uid: 7,
                ..entry(
                    "link",
                    Kind::Symlink {
                        target: b"tmp".to_vec(),
                    },
                )
            },
            b"",
        )
        .add(
            &Entry {
                mode: 0o620,
                ..entry("tty", Kind::Character { major: 5, minor: 1 })
            },
            b"",
        )
        .add(&entry("pipe", Kind::Fifo), b"")
        .add(
            &Entry {
                mode: 0o700,
                ..entry("./", Kind::Folder)
            },
            b"",
        );
    let unpacked = unpack_into(root.path(), tar).unwrap();
    assert_eq!(unpacked.entries, 7);
    let layer = root.path().join("layer");
    let metadata = |path: &str| fs::symlink_metadata(layer.join(path)).unwrap();
    let facts = |path: &str| {
        let metadata = metadata(path);
        (
            metadata.permissions().mode() & 0o7777,
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
        )
    };
    assert_eq!(facts("bin/tool"), (0o4751, 12, 34, 1_600_000_000));
    assert_eq!(facts("tmp"), (0o1777, 5, 0, 1_600_000_000));
    assert_eq!(facts("bin"), (0o755, 0, 0, 0), "left out by the archive");
    assert_eq!(facts("tty"), (0o620, 0, 0, 1_600_000_000));
    assert_eq!(facts(""), (0o700, 0, 0, 1_600_000_000));
    assert_eq!(
        (metadata("link").uid(), metadata("link").mtime()),
        (7, 1_600_000_000)
    );
    assert_eq!(
        (metadata("tty").rdev(), metadata("pipe").file_type().is_fifo()),
        (5 << 8 | 1, true)
    );
    let mut names: Vec<_> = xattr::list(layer.join("bin/tool")).unwrap().collect();
    names.sort();
    assert_eq!(names, ["security.capability", "user.note"]);
    assert_eq!(
        xattr::get(layer.join("bin/tool"), "user.note").unwrap().unwrap(),
        b"a\0b"
    );
}

fn stream(bytes: &[u8], chunk: usize) -> impl Stream<Item = io::Result<Bytes>> {
    tokio_stream::iter(
        bytes
            .chunks(chunk)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect::<Vec<_>>(),
    )
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn descriptor(blob: &[u8]) -> Descriptor {
    Descriptor::new("application/x", Digest::of(blob), blob.len() as u64)
}

#[tokio::test]
async fn a_layer_is_unpacked_while_it_arrives_and_kept_if_its_digests_are_right() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("state")).unwrap();
    let tar = Tar::default().file("a", &"text ".repeat(100_000)).bytes();
    let (blob, diff_id) = (gzip(&tar), Digest::of(&tar));
    for keep in [KeepBlob::No, KeepBlob::Yes] {
        let layer = store
            .unpack_layer(&diff_id, &descriptor(&blob), stream(&blob, 100), keep)
            .await
            .unwrap();
        assert_eq!(
            fs::metadata(store.layer_folder(&layer).join("a")).unwrap().len(),
            500_000
        );
        assert_eq!(store.layer(&layer).unwrap().diff_id.as_ref(), Some(&diff_id));
        assert_eq!(store.blobs().has(&Digest::of(&blob)), keep == KeepBlob::Yes);
    }
    let layer = store
        .unpack_stored_layer(&diff_id, &Digest::of(&blob))
        .await
        .unwrap();
    assert_eq!(layer, LayerId::of_image(&diff_id));
}

#[tokio::test]
async fn a_layer_that_is_not_what_was_announced_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("state")).unwrap();
    let tar = Tar::default().file("a", "text").bytes();
    let (blob, diff_id) = (gzip(&tar), Digest::of(&tar));
    let other = Tar::default().file("b", "text").bytes();
    let (other_blob, other_id) = (gzip(&other), Digest::of(&other));
    let good = descriptor(&blob);
    for keep in [KeepBlob::No, KeepBlob::Yes] {
        let error = store
            .unpack_layer(&diff_id, &good, stream(&other_blob, 7), keep)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                UnpackError::Blob(BlobError::Digest { .. } | BlobError::Size { .. })
            ),
            "{error}"
        );
        let error = store
            .unpack_layer(&diff_id, &good, stream(&blob[..50], 7), keep)
            .await
            .unwrap_err();
        assert!(
            matches!(error, UnpackError::Blob(BlobError::Size { found: 50, .. })),
            "{error}"
        );
        let error = store
            .unpack_layer(&other_id, &good, stream(&blob, 7), keep)
            .await
            .unwrap_err();
        assert!(matches!(error, UnpackError::DiffId { .. }), "{error}");
        let longer = [&blob[..], b"more"].concat();
        let error = store
            .unpack_layer(&diff_id, &good, stream(&longer, 7), keep)
            .await
            .unwrap_err();
        assert!(
            matches!(error, UnpackError::Decompress(_) | UnpackError::Blob(_)),
            "{error}"
        );
        let broken =
            stream(&blob[..50], 7).chain(tokio_stream::once(Err(io::ErrorKind::ConnectionReset.into())));
        let error = store
            .unpack_layer(&diff_id, &good, broken, keep)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, UnpackError::Receive(source) if source.kind() == io::ErrorKind::ConnectionReset),
            "{error}"
        );
    }
    for id in [&diff_id, &other_id] {
        assert!(!store.has_folder(&LayerId::of_image(id)));
    }
    assert_eq!(fs::read_dir(root.path().join("state/tmp")).unwrap().count(), 0);
}
