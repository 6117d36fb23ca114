//! Pruning while others work, and what a kill leaves.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::filter::Filter;
use crate::store::{CacheKey, CachedResult, Content, NewLayer, RemoteLayer};

fn open(root: &Path) -> Store {
    Store::open(&root.join("state")).unwrap()
}

fn layer(store: &Store, text: &str, new: NewLayer) -> LayerId {
    let draft = store.draft().unwrap();
    std::fs::write(draft.upper().join("file"), text).unwrap();
    store.commit(draft, new).unwrap()
}

async fn prune(store: &Store, policy: PrunePolicy) -> Vec<String> {
    let (sender, mut receiver) = mpsc::channel::<Usage>(1);
    let policies = [policy];
    let listening = async {
        let mut removed = Vec::new();
        while let Some(entry) = receiver.recv().await {
            removed.push(entry.id);
        }
        removed
    };
    let (pruned, removed) = tokio::join!(store.prune(&policies, sender), listening);
    pruned.unwrap();
    removed
}

fn all() -> PrunePolicy {
    PrunePolicy {
        all: true,
        ..PrunePolicy::default()
    }
}

#[tokio::test]
async fn nothing_is_left_of_what_nobody_uses() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let base = layer(&store, "base", NewLayer::default());
    let top = layer(
        &store,
        "top",
        NewLayer {
            parent: Some(base.clone()),
            ..NewLayer::default()
        },
    );
    let local = NewLayer {
        content: Content::Local,
        ..NewLayer::default()
    };
    let local = layer(&store, "local", local);
    store.blobs().put(b"a manifest").unwrap();
    let blob = store
        .layer_blob(&top, crate::store::Compression::default(), None)
        .await
        .unwrap();
    let remote = RemoteLayer {
        diff_id: Digest::of(b"remote"),
        descriptor: blob.descriptor.clone(),
        repository: Some("example.com/image".to_owned()),
        made: None,
    };
    store.record_remote_layers([remote]).unwrap();
    let snapshot: Snapshot = [base.clone(), top.clone()].into_iter().collect();
    let key = CacheKey::new("test", ["a"]);
    store.remember(&key, &CachedResult::now(vec![snapshot]));
    store.put_record(RecordKind::Fetched, key.as_bytes(), *b"it");

    let usage = store.usage().await.unwrap();
    let of = |id: &LayerId| usage.iter().find(|usage| usage.id == id.as_str()).unwrap();
    assert_eq!(of(&top).parents, [base.to_string()]);
    assert_eq!(of(&local).content, Content::Local);
    assert!(of(&top).size >= 4096 + blob.descriptor.size, "{usage:?}");
    assert_eq!(usage.len(), 5);

    let removed = prune(&store, PrunePolicy::default()).await;
    assert_eq!(removed.len(), 4, "the manifest is the daemon's own: {removed:?}");
    assert_eq!(prune(&store, all()).await, [crate::store::usage::DOCUMENTS]);
    assert_eq!(store.usage().await.unwrap(), []);
    assert_eq!(store.lookup(&key), None);
    let results = store
        .inner()
        .metadata
        .get(Table::Results, key.as_bytes())
        .unwrap();
    assert_eq!(results, None);
    assert_eq!(
        store.get_record(RecordKind::Fetched, key.as_bytes()).unwrap(),
        None
    );
    assert!(!store.has_folder(&top) && !store.blobs().has(&blob.descriptor.digest));
    store.compact().await.unwrap();
    drop(store);
    assert_eq!(open(root.path()).usage().await.unwrap(), []);
}

#[tokio::test]
async fn a_git_repository_goes_unless_somebody_fetches() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let repository = store.repository("https://example.com/a.git").await;
    let draft = repository.draft();
    std::fs::create_dir(&draft).unwrap();
    std::fs::write(draft.join("HEAD"), "ref: refs/heads/main").unwrap();
    repository.publish(&draft).unwrap();
    let usage = store.usage().await.unwrap();
    assert!(
        usage[0].in_use && usage[0].mutable && usage[0].size > 0,
        "{usage:?}"
    );
    assert_eq!(usage[0].content, Content::Git);
    assert!(prune(&store, all()).await.is_empty());
    let folder = repository.folder().to_owned();
    drop(repository);
    assert_eq!(prune(&store, PrunePolicy::default()).await.len(), 1);
    assert!(!folder.exists());
}

#[tokio::test]
async fn what_a_build_uses_stays_with_all_that_it_was_made_on() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let base = layer(&store, "base", NewLayer::default());
    let on_base = |text| {
        let parent = Some(base.clone());
        layer(
            &store,
            text,
            NewLayer {
                parent,
                ..NewLayer::default()
            },
        )
    };
    let (used, unused) = (on_base("used"), on_base("unused"));
    let key = CacheKey::new("test", ["a"]);
    let snapshot: Snapshot = [base.clone(), used.clone()].into_iter().collect();
    store.remember(&key, &CachedResult::now(vec![snapshot]));
    store.put_record(RecordKind::Fetched, key.as_bytes(), *b"it");

    let build = store.leased();
    build.lookup(&key).unwrap();
    let made = layer(&build, "made", NewLayer::default());
    // Work in a pool may go on after its build.
    let work = build.clone();
    drop(build);
    assert_eq!(prune(&store, all()).await, [unused.to_string()]);
    let in_use = store.usage().await.unwrap();
    assert!(in_use.iter().all(|usage| usage.in_use), "{in_use:?}");
    drop(work);
    assert!(store.lookup(&key).is_some());
    let fetched = store.get_record(RecordKind::Fetched, key.as_bytes());
    assert!(fetched.unwrap().is_some());
    let mut removed = prune(&store, all()).await;
    removed.sort();
    let mut expected = [base, used, made].map(|id| id.to_string());
    expected.sort();
    assert_eq!(removed, expected);
}

#[tokio::test]
async fn a_blob_of_two_layers_goes_with_the_second() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let compression = crate::store::Compression::default();
    let empty = || {
        let draft = store.draft().unwrap();
        let upper = std::fs::File::open(draft.upper()).unwrap();
        upper.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        store.commit(draft, NewLayer::default()).unwrap()
    };
    let (one, other) = (empty(), empty());
    let blob = store
        .layer_blob(&one, compression, None)
        .await
        .unwrap()
        .descriptor
        .digest;
    assert_eq!(
        store
            .layer_blob(&other, compression, None)
            .await
            .unwrap()
            .descriptor
            .digest,
        blob
    );
    let only = |id: &LayerId| PrunePolicy {
        filter: Filter::parse(&[format!("id=={id}")]).unwrap(),
        ..PrunePolicy::default()
    };
    assert_eq!(prune(&store, only(&one)).await, [one.to_string()]);
    assert!(store.blobs().has(&blob));
    prune(&store, only(&other)).await;
    assert!(!store.blobs().has(&blob));
}

#[tokio::test]
async fn uses_are_counted_once_a_build_and_noted_in_one_go() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let id = layer(&store, "a", NewLayer::default());
    let key = CacheKey::new("test", ["a"]);
    store.remember(&key, &CachedResult::now(vec![Snapshot::new([id.clone()])]));
    for _ in 0..3 {
        let build = store.leased();
        for _ in 0..5 {
            build.lookup(&key).unwrap();
        }
    }
    assert_eq!(
        store.layer(&id).unwrap().uses,
        0,
        "nothing is written while builds run"
    );
    let uses = |usage: Vec<Usage>| usage[0].uses;
    // Its maker was the first.
    assert_eq!(uses(store.usage().await.unwrap()), 4);
    assert_eq!(uses(store.usage().await.unwrap()), 4);
}

/// Whoever finds a layer can read its files until the end of its lease, however much is pruned meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn builds_and_pruning_do_not_disturb_each_other() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let pruning = tokio::spawn({
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        async move {
            let mut removed = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                removed += prune(&store, all()).await.len();
            }
            removed
        }
    });
    let builders: Vec<_> = (0..3)
        .map(|_| {
            let store = store.clone();
            tokio::task::spawn_blocking(move || {
                for round in 0..150_u32 {
                    let build = store.leased();
                    let key = CacheKey::new("test", [[(round % 7) as u8]]);
                    let snapshot = match build.lookup(&key) {
                        Some(hit) => hit.outputs[0].clone(),
                        None => {
                            // Equal content has one name, as image layers have.
                            let shared = LayerId::new(format!("shared-{}", round % 7));
                            if !build.use_layer(&shared) {
                                let draft = build.draft().unwrap();
                                std::fs::write(draft.upper().join("file"), "text").unwrap();
                                build.commit_as(draft, &shared, NewLayer::default()).unwrap();
                            }
                            let top = layer(&build, "text", NewLayer::default());
                            let snapshot: Snapshot = [shared, top].into_iter().collect();
                            build.remember(&key, &CachedResult::now(vec![snapshot.clone()]));
                            snapshot
                        }
                    };
                    for layer in snapshot.layers() {
                        let file = build.layer_folder(layer).join("file");
                        assert_eq!(
                            std::fs::read_to_string(&file).unwrap(),
                            "text",
                            "{}",
                            file.display()
                        );
                        assert!(build.layer(layer).is_some());
                    }
                }
            })
        })
        .collect();
    for builder in builders {
        builder.await.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(pruning.await.unwrap() > 0);
    prune(&store, all()).await;
    assert_eq!(store.usage().await.unwrap(), []);
}

#[tokio::test]
async fn a_kill_while_removing_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (folderless, recordless, whole) = (
        layer(&store, "1", NewLayer::default()),
        layer(&store, "2", NewLayer::default()),
        layer(&store, "3", NewLayer::default()),
    );
    store.inner().metadata.put(Table::State, REMOVING, []);
    store.inner().folder.discard(&store.layer_path(&folderless));
    store
        .inner()
        .metadata
        .remove(Table::Layers, recordless.as_str().as_bytes());
    store.flush().await.unwrap();
    drop(store);
    let store = open(root.path());
    assert_eq!(store.layer(&folderless), None);
    assert!(!store.has_folder(&recordless));
    let usage = store.usage().await.unwrap();
    assert_eq!(usage.len(), 1);
    assert_eq!(usage[0].id, whole.to_string());
    assert_eq!(store.inner().metadata.get(Table::State, REMOVING).unwrap(), None);
}

#[tokio::test]
async fn whoever_stops_listening_stops_the_pruning() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    for number in 0..3 * BATCH {
        layer(&store, &number.to_string(), NewLayer::default());
    }
    let (sender, mut receiver) = mpsc::channel::<Usage>(1);
    let policies = [all()];
    let listening = async move { receiver.recv().await.unwrap().id };
    let (pruned, _) = tokio::join!(store.prune(&policies, sender), listening);
    pruned.unwrap();
    assert_eq!(store.usage().await.unwrap().len(), 2 * BATCH);
}
