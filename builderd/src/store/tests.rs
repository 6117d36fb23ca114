//! What holds for the state folder as a whole: one user, nothing half-made, nothing lost that was recorded.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use super::*;

fn open(root: &Path) -> Store {
    Store::open(&root.join("state")).unwrap()
}

fn digest(text: &str) -> registry::digest::Digest {
    registry::digest::Digest::of(text.as_bytes())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_second_daemon_is_told_who_has_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path());
    let error = Store::open(&root.path().join("state")).unwrap_err();
    assert!(
        matches!(&error, OpenError::InUse { process: Some(id), .. } if *id == std::process::id()),
        "{error}"
    );
    drop(first);
    open(root.path());
}

#[test]
fn a_missing_parent_and_a_file_in_the_way_are_named() {
    let root = tempfile::tempdir().unwrap();
    let missing = root.path().join("missing/state");
    let error = Store::open(&missing).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot create {} in the state folder", missing.display())
    );
    let file = root.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(
        Store::open(&file),
        Err(OpenError::Folder { doing: "create", .. })
    ));
}

#[test]
fn the_folder_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    let store = open(root.path());
    for folder in [&state, &state.join("layers"), &state.join("blobs")] {
        assert_eq!(
            std::fs::metadata(folder).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
    let draft = store.draft().unwrap();
    assert_eq!(
        std::fs::metadata(draft.upper()).unwrap().permissions().mode() & 0o777,
        0o755
    );
}

#[test]
fn an_unknown_format_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    store
        .inner()
        .metadata
        .put(metadata::Table::State, b"format", *b"99");
    drop(store);
    let error = Store::open(&root.path().join("state")).unwrap_err();
    assert!(matches!(error, OpenError::Format { found, .. } if found == "99"));
}

#[tokio::test]
async fn committed_layers_survive_and_drafts_do_not() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let draft = store.draft().unwrap();
    std::fs::write(draft.upper().join("file"), "text").unwrap();
    std::fs::create_dir_all(draft.work().join("work/incompat/volatile")).unwrap();
    let layer = store
        .commit(
            draft,
            NewLayer {
                description: "RUN true".into(),
                ..NewLayer::default()
            },
        )
        .unwrap();
    let dropped = store.draft().unwrap();
    let dropped_folder = dropped.upper();
    drop(dropped);
    assert!(!dropped_folder.exists());
    // A kill runs no destructors: the draft stays, and a folder may be there without its record.
    let killed = store.draft().unwrap();
    std::fs::write(killed.upper().join("half"), "").unwrap();
    std::mem::forget(killed);
    std::fs::create_dir_all(root.path().join("state/layers/unrecorded/fs")).unwrap();
    store.flush().await.unwrap();
    let state = root.path().join("state");
    let copy = root.path().join("copy");
    copy_folder(&state, &copy);

    let store = Store::open(&copy).unwrap();
    assert_eq!(
        std::fs::read_to_string(store.layer_folder(&layer).join("file")).unwrap(),
        "text"
    );
    assert_eq!(store.layer(&layer).unwrap().description, "RUN true");
    assert_eq!(names(&copy.join("tmp")), [""; 0]);
    assert_eq!(names(&copy.join("layers")), [layer.as_str()]);
    assert_eq!(names(&copy.join("layers").join(layer.as_str())), ["fs"]);
    wait_until("the trash is emptied", || names(&copy.join("trash")).is_empty());
}

/// What a kill leaves is what the files hold at that moment.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_flushed_survives_a_kill() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let layer = store.commit(store.draft().unwrap(), NewLayer::default()).unwrap();
    let key = CacheKey::new("exec", ["a", "b"]);
    let result = CachedResult::now(vec![Snapshot::default().with(layer)]);
    store.remember(&key, &result);
    store.put_record(RecordKind::Images, b"alpine", *b"digest");
    store.flush().await.unwrap();
    let copy = root.path().join("copy");
    copy_folder(&root.path().join("state"), &copy);

    let after = Store::open(&copy).unwrap();
    assert_eq!(after.lookup(&key).unwrap().outputs, result.outputs);
    assert_eq!(
        after
            .get_record(RecordKind::Images, b"alpine")
            .unwrap()
            .as_deref(),
        Some(&b"digest"[..])
    );
}

#[test]
fn what_had_not_reached_the_disk_when_the_machine_stopped_is_thrown_away() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let layer = store.commit(store.draft().unwrap(), NewLayer::default()).unwrap();
    let blob = store.blobs().put(b"blob").unwrap();
    let key = CacheKey::new("exec", ["a"]);
    store.remember(
        &key,
        &CachedResult::now(vec![Snapshot::default().with(layer.clone())]),
    );
    drop(store);
    // An orderly end has synced: nothing is suspect, whatever the machine did since.
    let store = open(root.path());
    store
        .inner()
        .metadata
        .put(metadata::Table::State, b"boot", *b"another");
    drop(store);
    let store = open(root.path());
    assert!(store.has_folder(&layer) && store.blobs().has(&blob) && store.lookup(&key).is_some());

    store
        .inner()
        .metadata
        .put(metadata::Table::State, b"boot", *b"another");
    drop(store);
    let store = open(root.path());
    let metadata = &store.inner().metadata;
    metadata.put(metadata::Table::Unsynced, format!("layer {layer}").as_bytes(), []);
    metadata.put(metadata::Table::Unsynced, format!("blob {blob}").as_bytes(), []);
    metadata.put(metadata::Table::State, b"boot", *b"another");
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(store.flush())
        .unwrap();
    let copy = root.path().join("copy");
    copy_folder(&root.path().join("state"), &copy);
    let store = Store::open(&copy).unwrap();
    assert!(!store.has_folder(&layer) && !store.blobs().has(&blob));
    assert_eq!(store.layer(&layer), None);
    assert_eq!(store.lookup(&key), None);
}

#[test]
fn a_result_whose_layer_was_removed_from_outside_is_none() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let layer = store.commit(store.draft().unwrap(), NewLayer::default()).unwrap();
    let key = CacheKey::new("exec", ["a"]);
    store.remember(
        &key,
        &CachedResult::now(vec![Snapshot::default().with(layer.clone())]),
    );
    drop(store);
    std::fs::remove_dir_all(root.path().join("state/layers").join(layer.as_str())).unwrap();
    assert_eq!(open(root.path()).lookup(&key), None);
}

#[test]
fn the_slower_of_two_writers_of_one_layer_loses_gracefully() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let id = LayerId::of_image(&digest("layer"));
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (store, id) = (&store, &id);
            scope.spawn(move || {
                let draft = store.draft().unwrap();
                std::fs::write(draft.upper().join("file"), writer.to_string()).unwrap();
                store.commit_as(draft, id, NewLayer::default()).unwrap();
            });
        }
    });
    assert_eq!(names(&store.layer_folder(&id)), ["file"]);
    assert_eq!(names(&root.path().join("state/tmp")), [""; 0]);
    assert_eq!(
        names(&root.path().join("state/layers")),
        [id.as_str().replace(':', "-")]
    );
}

#[test]
fn no_layer_id_leaves_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let layers = root.path().join("state/layers").canonicalize().unwrap();
    for id in ["../../etc", "..", ".", "/etc", "a/b", "sha256:00"] {
        let folder = store.layer_folder(&LayerId::new(id));
        assert_eq!(folder.parent().unwrap().parent().unwrap(), layers, "{id}");
        assert!(
            !folder
                .components()
                .any(|part| part == std::path::Component::ParentDir),
            "{id}"
        );
    }
}

#[test]
fn remote_layers_gather_repositories_and_keep_them_when_they_are_unpacked() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let diff_id = digest("layer");
    let remote = |repository: &str| RemoteLayer {
        diff_id: diff_id.clone(),
        descriptor: Descriptor::new("application/x", digest("blob"), 7),
        repository: Some(repository.into()),
        made: None,
    };
    store
        .record_remote_layers(["r/a", "r/b", "r/a"].map(remote))
        .unwrap();
    let id = LayerId::of_image(&diff_id);
    assert!(!store.has_folder(&id));
    let created_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let layer = NewLayer {
        created_at: Some(created_at),
        size: Some(9),
        ..NewLayer::default()
    };
    store.commit_as(store.draft().unwrap(), &id, layer).unwrap();
    let record = store.layer(&id).unwrap();
    assert_eq!(record.remote.unwrap().repositories, ["r/a", "r/b"]);
    assert_eq!(
        (record.diff_id, record.size, record.created_at),
        (Some(diff_id), Some(9), created_at)
    );
    assert!(store.has_folder(&id));
}

#[test]
fn what_another_image_says_of_a_layer_replaces_nothing_but_what_was_verified_does() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let diff_id = digest("layer");
    let id = LayerId::of_image(&diff_id);
    let blob = |text: &str, repository: &str| RemoteBlob {
        descriptor: Descriptor::new("application/x", digest(text), 7),
        repositories: vec![repository.into()],
    };
    for (text, repository) in [("first", "r/a"), ("other", "r/b")] {
        let layer = RemoteLayer {
            diff_id: diff_id.clone(),
            descriptor: blob(text, repository).descriptor,
            repository: Some(repository.into()),
            made: None,
        };
        store.record_remote_layers([layer]).unwrap();
        assert_eq!(store.layer(&id).unwrap().remote, Some(blob("first", "r/a")));
    }
    store.record_unpacked_from(&id, &blob("other", "r/b")).unwrap();
    assert_eq!(store.layer(&id).unwrap().remote, Some(blob("other", "r/b")));
}

#[test]
fn after_a_restart_of_the_machine_only_finished_image_layers_stay() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let layer = |text: &str| {
        let diff_id = digest(text);
        let id = LayerId::of_image(&diff_id);
        let remote = RemoteLayer {
            diff_id,
            descriptor: Descriptor::new("application/x", digest("blob"), 7),
            repository: Some("r/a".into()),
            made: None,
        };
        store.record_remote_layers([remote]).unwrap();
        // As if the folder had reached the disk before anything was written about it.
        std::fs::create_dir_all(store.layer_folder(&id)).unwrap();
        id
    };
    let (unfinished, finished) = (layer("unfinished"), layer("finished"));
    // Somebody was faster and was killed: who comes second completes the record.
    let new = NewLayer {
        size: Some(9),
        ..NewLayer::default()
    };
    std::fs::write(store.layer_folder(&finished).join("file"), "").unwrap();
    store.commit_as(store.draft().unwrap(), &finished, new).unwrap();
    assert_eq!(store.layer(&finished).unwrap().size, Some(9));
    assert_eq!(names(&root.path().join("state/tmp")), [""; 0]);
    drop(store);
    let store = open(root.path());
    assert!(store.has_folder(&unfinished) && store.has_folder(&finished));
    store
        .inner()
        .metadata
        .put(metadata::Table::State, b"boot", *b"another");
    drop(store);
    let store = open(root.path());
    assert!(!store.has_folder(&unfinished) && store.has_folder(&finished));
    assert!(store.layer(&unfinished).unwrap().remote.is_some());
}

#[test]
fn a_blob_is_published_only_with_the_announced_bytes() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let blobs = store.blobs();
    let expected = |text: &str, size: u64| {
        Some(Expected {
            digest: digest(text),
            size: Some(size),
        })
    };
    let write = |expected, bytes: &[u8]| {
        let mut writer = blobs.writer(expected).unwrap();
        writer.write_all(bytes).map(|()| writer.commit())
    };
    assert!(matches!(
        write(expected("good", 4), b"evil").unwrap(),
        Err(BlobError::Digest { .. })
    ));
    assert!(matches!(
        write(expected("good", 4), b"goo").unwrap(),
        Err(BlobError::Size { found: 3, .. })
    ));
    assert!(write(expected("good", 4), b"good and more").is_err());
    assert!(!blobs.has(&digest("good")));
    assert_eq!(
        write(expected("good", 4), b"good").unwrap().unwrap(),
        (digest("good"), 4)
    );
    assert_eq!(blobs.read(&digest("good"), 4).unwrap(), b"good");
    assert!(matches!(
        blobs.read(&digest("good"), 3),
        Err(BlobError::TooLarge { size: 4, .. })
    ));
    assert_eq!(blobs.put(b"good").unwrap(), digest("good"));
    assert_eq!(names(&root.path().join("state/tmp")), [""; 0]);
    blobs.remove(&digest("good")).unwrap();
    blobs.remove(&digest("good")).unwrap();
    assert!(!blobs.has(&digest("good")));
}

#[tokio::test]
async fn records_are_readable_before_and_after_they_are_written() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    for round in 0..3_u8 {
        for number in 0..200_u8 {
            store.put_record(RecordKind::Contexts, &[number], [number, round]);
            let read = store.get_record(RecordKind::Contexts, &[number]).unwrap();
            assert_eq!(read.as_deref(), Some(&[number, round][..]));
        }
        store.flush().await.unwrap();
        let read = store.get_record(RecordKind::Contexts, &[7]).unwrap();
        assert_eq!(read.as_deref(), Some(&[7, round][..]));
    }
    store.remove_record(RecordKind::Contexts, &[7]);
    assert_eq!(store.get_record(RecordKind::Contexts, &[7]).unwrap(), None);
    store.flush().await.unwrap();
    assert_eq!(store.get_record(RecordKind::Contexts, &[7]).unwrap(), None);
    assert_eq!(store.get_record(RecordKind::Images, &[8]).unwrap(), None);
}

#[tokio::test]
async fn records_outlive_a_failure_of_their_file() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    store.put_record(RecordKind::Images, b"before", *b"1");
    store.flush().await.unwrap();
    store.inner().metadata.close_file();
    assert_eq!(
        store
            .get_record(RecordKind::Images, b"before")
            .unwrap()
            .as_deref(),
        Some(&b"1"[..])
    );

    // A file that cannot be opened: reads of what is queued go on, `flush` says why it cannot.
    store.inner().metadata.close_file();
    let (file, aside) = (root.path().join("state/metadata.redb"), root.path().join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    std::fs::create_dir(&file).unwrap();
    store.put_record(RecordKind::Images, b"during", *b"2");
    store.flush().await.unwrap_err();
    assert_eq!(
        store
            .get_record(RecordKind::Images, b"during")
            .unwrap()
            .as_deref(),
        Some(&b"2"[..])
    );
    store.get_record(RecordKind::Images, b"before").unwrap_err();
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    while store.flush().await.is_err() {
        tokio::task::yield_now().await;
    }
    drop(store);
    let store = open(root.path());
    for (key, value) in [(&b"before"[..], b"1"), (b"during", b"2")] {
        assert_eq!(
            store.get_record(RecordKind::Images, key).unwrap().as_deref(),
            Some(&value[..])
        );
    }
}

#[test]
fn parts_of_a_cache_key_do_not_run_together() {
    let keys = [
        CacheKey::new("exec", ["ab", "c"]),
        CacheKey::new("exec", ["a", "bc"]),
        CacheKey::new("exec", ["abc"]),
        CacheKey::new("exec", ["abc", ""]),
        CacheKey::new("file", ["abc"]),
    ];
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key));
    }
}

#[tokio::test]
async fn a_panic_in_the_pool_is_an_error_and_frees_its_place() {
    let pool = Pool::new(1);
    for _ in 0..3 {
        assert!(pool.run(|| panic!("on purpose")).await.is_err());
    }
    assert_eq!(pool.run(|| 7).await.unwrap(), 7);
}
