use std::fs;

use super::*;
use crate::builders::NodeChange;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("trimaran"), folder.path().join("buildx"));
    (folder, store)
}

#[test]
fn an_instance_survives_a_round_trip() {
    let (_folder, store) = store();
    let transaction = store.lock().unwrap();
    let mut builder = Builder::new("mine", "remote");
    builder
        .update(NodeChange {
            endpoint: "unix:///run/x.sock".to_owned(),
            ..NodeChange::default()
        })
        .unwrap();
    transaction.save(&builder).unwrap();
    assert_eq!(transaction.builder("MINE").unwrap(), builder);
    assert_eq!(transaction.list().unwrap(), std::slice::from_ref(&builder));
    assert!(transaction.last_activity(&builder).unwrap().is_some());
    transaction.remove(&builder).unwrap();
    assert_eq!(transaction.list().unwrap(), []);
    assert!(matches!(
        transaction.builder("mine"),
        Err(StoreError::NotFound { .. })
    ));
}

#[test]
fn the_current_instance_depends_on_the_docker_endpoint() {
    let (_folder, store) = store();
    let transaction = store.lock().unwrap();
    for name in ["a", "b", "c"] {
        transaction.save(&Builder::new(name, "local")).unwrap();
    }
    let current = |endpoint: &str| transaction.current(endpoint).unwrap().map(|builder| builder.name);
    assert_eq!(current("x"), None);
    transaction.set_current("x", "a", Reach::Default).unwrap();
    assert_eq!((current("x").as_deref(), current("y")), (Some("a"), None));
    transaction.set_current("y", "b", Reach::Endpoint).unwrap();
    assert_eq!(
        (current("x").as_deref(), current("y").as_deref()),
        (Some("a"), Some("b"))
    );
    transaction.set_current("y", "c", Reach::Global).unwrap();
    assert_eq!(
        (current("x").as_deref(), current("y").as_deref()),
        (Some("c"), Some("c"))
    );
    transaction.remove(&Builder::new("c", "local")).unwrap();
    assert_eq!((current("x").as_deref(), current("y")), (Some("a"), None));
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let (_folder, store) = store();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                for round in 0..5 {
                    let transaction = store.lock().unwrap();
                    let mut builder = transaction
                        .find("shared")
                        .unwrap()
                        .unwrap_or_else(|| Builder::new("shared", "remote"));
                    builder
                        .update(NodeChange {
                            append: true,
                            endpoint: format!("unix:///{writer}/{round}"),
                            ..NodeChange::default()
                        })
                        .unwrap();
                    transaction.save(&builder).unwrap();
                }
            });
        }
    });
    assert_eq!(store.lock().unwrap().builder("shared").unwrap().nodes.len(), 40);
}

#[test]
fn a_broken_file_is_named() {
    let (folder, store) = store();
    let transaction = store.lock().unwrap();
    fs::write(folder.path().join("trimaran/instances/bad"), b"{").unwrap();
    let error = transaction.list().unwrap_err();
    assert!(
        error.to_string().contains("instances/bad is no builder instance"),
        "{error}"
    );
}

#[test]
fn instances_of_buildx_are_used_where_they_are() {
    let (folder, store) = store();
    assert!(store.lock().unwrap().list().unwrap().is_empty());
    assert!(
        !folder.path().join("buildx").exists(),
        "reading makes no folder for somebody else"
    );
    let instances = folder.path().join("buildx/instances");
    fs::create_dir_all(&instances).unwrap();
    fs::create_dir_all(folder.path().join("buildx/refs/theirs/theirs0")).unwrap();
    fs::write(
        instances.join("theirs"),
        r#"{"Name":"theirs","Driver":"remote","Nodes":[{"Name":"theirs0","Endpoint":"unix:///a","Platforms":null,"DriverOpts":null,"Flags":null,"Files":null}],"Dynamic":false}"#,
    )
    .unwrap();
    fs::write(instances.join(".tmp-theirs"), "{").unwrap();

    let transaction = store.lock_for("theirs").unwrap();
    let mut builder = transaction.builder("theirs").unwrap();
    assert_eq!(builder.origin, Origin::Buildx);
    builder
        .update(NodeChange {
            append: true,
            endpoint: "unix:///b".to_owned(),
            ..NodeChange::default()
        })
        .unwrap();
    transaction.save(&builder).unwrap();
    assert_eq!(transaction.list().unwrap(), std::slice::from_ref(&builder));
    assert!(!folder.path().join("trimaran/instances/theirs").exists());
    assert!(folder.path().join("buildx/activity/theirs").exists());

    let ours = Builder::new("theirs", "local");
    transaction.save(&ours).unwrap();
    assert_eq!(transaction.list().unwrap(), std::slice::from_ref(&ours));
    transaction.remove(&ours).unwrap();
    transaction.remove(&builder).unwrap();
    assert!(transaction.list().unwrap().is_empty());
    assert!(!folder.path().join("buildx/refs/theirs").exists());
}
