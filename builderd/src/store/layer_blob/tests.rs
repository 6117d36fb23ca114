use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::*;
use crate::store::layers::RemoteLayer;
use crate::store::tar::{Archive, Entry, Kind};
use crate::store::unpack::KeepBlob;
use crate::store::{LayerDraft, NewLayer};

fn store(root: &Path) -> Store {
    Store::open(&root.join("state")).unwrap()
}

fn compression(kind: CompressionKind) -> Compression {
    Compression {
        kind,
        ..Compression::default()
    }
}

/// A layer with one of everything.
fn rich(store: &Store) -> LayerDraft {
    let draft = store.draft().unwrap();
    let at = |path: &str| draft.upper().join(path);
    fs::create_dir_all(at("b/inner")).unwrap();
    fs::write(at("b/file"), "text").unwrap();
    fs::write(at("b-file"), vec![b'x'; 3 << 20]).unwrap();
    fs::hard_link(at("b/file"), at("b/inner/link")).unwrap();
    symlink("b/file", at("symlink")).unwrap();
    fs::hard_link(at("symlink"), at("symlink-too")).unwrap();
    mknodat(
        CWD,
        at("a-gone"),
        FileType::CharacterDevice,
        Mode::empty(),
        makedev(0, 0),
    )
    .unwrap();
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("opaque")).unwrap();
    xattr::set(at("opaque"), "trusted.overlay.opaque", b"y").unwrap();
    xattr::set(at("opaque"), "trusted.overlay.origin", b"").unwrap();
    xattr::set(at("b/file"), "user.note", b"n").unwrap();
    draft
}

fn entries(store: &Store, blob: &LayerBlob) -> Vec<Entry> {
    let file = store.blobs().open(&blob.descriptor.digest).unwrap();
    let mut archive = Archive::new(decompress(file).unwrap());
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        entries.push(entry);
    }
    entries
}

#[tokio::test]
async fn a_layer_becomes_a_sorted_tar_with_the_marks_of_image_layers() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = store.commit(rich(&store), NewLayer::default()).unwrap();
    let blob = store
        .layer_blob(&layer, Compression::default(), None)
        .await
        .unwrap();
    let entries = entries(&store, &blob);
    let paths: Vec<_> = entries
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
        .collect();
    assert_eq!(
        paths,
        [
            ".wh.a-gone",
            "b/",
            "b/file",
            "b/inner/",
            "b/inner/link",
            "b-file",
            "opaque/",
            "opaque/.wh..wh..opq",
            "pipe",
            "symlink",
            "symlink-too",
        ]
    );
    let kind = |path: &str| {
        &entries
            .iter()
            .find(|entry| entry.path == path.as_bytes())
            .unwrap()
            .kind
    };
    assert_eq!(
        *kind("b/inner/link"),
        Kind::HardLink {
            target: b"b/file".to_vec()
        }
    );
    assert_eq!(
        *kind("symlink-too"),
        Kind::HardLink {
            target: b"symlink".to_vec()
        }
    );
    assert_eq!(
        *kind("symlink"),
        Kind::Symlink {
            target: b"b/file".to_vec()
        }
    );
    assert_eq!(*kind("pipe"), Kind::Fifo);
    assert_eq!(entries[2].xattrs, [(b"user.note".to_vec(), b"n".to_vec())]);
    assert!(entries.iter().all(|entry| entry.mtime.nanoseconds == 0));
    assert_eq!(
        blob.descriptor.size,
        store.blobs().size(&blob.descriptor.digest).unwrap()
    );
    let record = store.layer(&layer).unwrap();
    assert_eq!(record.diff_id, Some(blob.diff_id));
    assert_eq!(record.blobs, [("gzip-4".to_owned(), blob.descriptor)].into());
}

#[tokio::test]
async fn unpacking_and_packing_again_gives_the_same_layer() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = store.commit(rich(&store), NewLayer::default()).unwrap();
    for kind in [
        CompressionKind::Uncompressed,
        CompressionKind::Gzip,
        CompressionKind::Zstd,
    ] {
        let blob = store.layer_blob(&layer, compression(kind), None).await.unwrap();
        let unpacked = store
            .unpack_stored_layer(&blob.diff_id, &blob.descriptor.digest)
            .await
            .unwrap();
        // As a layer of our own, it is packed from its folder.
        let draft = store.draft().unwrap();
        fs::remove_dir(draft.upper()).unwrap();
        fs::rename(store.layer_folder(&unpacked), draft.upper()).unwrap();
        fs::remove_dir(store.layer_folder(&unpacked).parent().unwrap()).unwrap();
        let again = store.commit(draft, NewLayer::default()).unwrap();
        assert_eq!(
            store.layer_blob(&again, compression(kind), None).await.unwrap(),
            blob,
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn a_file_shared_with_another_layer_is_no_hard_link() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let first = store.draft().unwrap();
    fs::write(first.upper().join("a"), "text").unwrap();
    let second = store.draft().unwrap();
    fs::hard_link(first.upper().join("a"), second.upper().join("a")).unwrap();
    let mut blobs = Vec::new();
    for draft in [first, second] {
        let layer = store.commit(draft, NewLayer::default()).unwrap();
        blobs.push(
            store
                .layer_blob(&layer, compression(CompressionKind::Uncompressed), None)
                .await
                .unwrap(),
        );
    }
    assert_eq!(entries(&store, &blobs[0])[0].kind, Kind::File { size: 4 });
    assert_eq!(blobs[0], blobs[1]);
}

#[tokio::test]
async fn all_who_ask_at_once_get_the_same_blob() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = store.commit(rich(&store), NewLayer::default()).unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, layer) = (store.clone(), layer.clone());
        asking.spawn(async move {
            store
                .layer_blob(&layer, Compression::default(), None)
                .await
                .unwrap()
        });
    }
    let blobs = asking.join_all().await;
    assert!(blobs.iter().all(|blob| *blob == blobs[0]));
    assert!(
        store
            .inner()
            .layer_locks
            .lock()
            .unwrap()
            .values()
            .all(|lock| lock.strong_count() == 0)
    );
    assert_eq!(fs::read_dir(root.path().join("state/tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_layer_of_an_image_is_given_as_it_came() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    // Another tool's tar: packing its folder would not give the same bytes.
    let mut builder = ::tar::Builder::new(Vec::new());
    for name in ["z", "a"] {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, name, name.as_bytes()).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    let diff_id = Digest::of(&tar);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&tar).unwrap();
    let bytes = encoder.finish().unwrap();
    let descriptor = Descriptor::new(
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        Digest::of(&bytes),
        bytes.len() as u64,
    );
    let remote = RemoteLayer {
        diff_id: diff_id.clone(),
        descriptor: descriptor.clone(),
        repository: Some("r/a".into()),
        made: None,
    };
    store.record_remote_layers([remote]).unwrap();
    let layer = LayerId::of_image(&diff_id);
    let expected = LayerBlob {
        diff_id: diff_id.clone(),
        descriptor: descriptor.clone(),
        remote: Some(RemoteBlob {
            descriptor: descriptor.clone(),
            repositories: vec!["r/a".into()],
        }),
    };
    for kind in [CompressionKind::Gzip, CompressionKind::Zstd] {
        assert_eq!(
            store.layer_blob(&layer, compression(kind), None).await.unwrap(),
            expected
        );
    }
    let forced = |kind| Compression {
        force: true,
        ..compression(kind)
    };
    assert_eq!(
        store
            .layer_blob(&layer, forced(CompressionKind::Gzip), None)
            .await
            .unwrap(),
        expected
    );
    let error = store
        .layer_blob(&layer, forced(CompressionKind::Zstd), None)
        .await
        .unwrap_err();
    assert!(matches!(error, LayerBlobError::Absent { .. }), "{error}");
    let stream = tokio_stream::once(Ok(bytes::Bytes::from(bytes)));
    store
        .unpack_layer(&diff_id, &descriptor, stream, KeepBlob::Yes)
        .await
        .unwrap();
    let zstd = store
        .layer_blob(&layer, forced(CompressionKind::Zstd), None)
        .await
        .unwrap();
    assert_eq!((&zstd.diff_id, &zstd.remote), (&diff_id, &None));
    assert_eq!(
        zstd.descriptor.media_type,
        "application/vnd.oci.image.layer.v1.tar+zstd"
    );
    assert_eq!(entries(&store, &zstd).len(), 2);
}

#[tokio::test]
async fn what_cannot_be_packed_is_named() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let unknown = LayerId::new("unknown");
    let error = store
        .layer_blob(&unknown, Compression::default(), None)
        .await
        .unwrap_err();
    assert!(matches!(error, LayerBlobError::Unknown { layer } if layer == unknown));
    let draft = store.draft().unwrap();
    fs::create_dir(draft.upper().join("moved")).unwrap();
    xattr::set(draft.upper().join("moved"), "trusted.overlay.redirect", b"/old").unwrap();
    let layer = store.commit(draft, NewLayer::default()).unwrap();
    let error = store
        .layer_blob(&layer, Compression::default(), None)
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        LayerBlobError::Pack { source: PackError::Redirect { path, attribute }, .. }
            if path == Path::new("moved") && attribute == "trusted.overlay.redirect"
    ));
    let draft = store.draft().unwrap();
    fs::write(draft.upper().join("a"), "1").unwrap();
    let layer = store.commit(draft, NewLayer::default()).unwrap();
    store
        .layer_blob(&layer, compression(CompressionKind::Gzip), None)
        .await
        .unwrap();
    fs::write(store.layer_folder(&layer).join("a"), "2").unwrap();
    let error = store
        .layer_blob(&layer, compression(CompressionKind::Zstd), None)
        .await
        .unwrap_err();
    assert!(matches!(error, LayerBlobError::Changed { .. }), "{error}");
}
