use registry::{Platform, RawManifest, media_type};

use super::*;

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;

fn list() -> Reference {
    "localhost:5000/a/list:v1".parse().unwrap()
}

fn image(name: &str) -> Reference {
    format!("localhost:5000/{name}:v1").parse().unwrap()
}

fn member(name: &str) -> Member {
    let raw = RawManifest::new(MANIFEST.into(), Some(media_type::OCI_MANIFEST));
    Member::new(image(name), &raw, Platform::new("linux", "amd64", "")).unwrap()
}

fn names(lists: &Lists) -> Vec<String> {
    let members = lists.read(&list()).unwrap().members().unwrap();
    members
        .iter()
        .map(|member| member.reference.to_string())
        .collect()
}

fn set_variant(lists: &Lists, name: &str, variant: &str) -> bool {
    lists
        .change::<ListsError>(&list(), &image(name), |member| {
            member.descriptor.platform.get_or_insert_default().variant = variant.to_owned();
            Ok(())
        })
        .unwrap()
}

fn variant(lists: &Lists, name: &str) -> String {
    let member = lists.read(&list()).unwrap().member(&image(name)).unwrap();
    member.unwrap().descriptor.platform.unwrap().variant
}

#[test]
fn the_files_are_where_docker_looks_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(folder.path());
    lists
        .add(&list(), &[member("b"), member("a")], Existing::Refuse)
        .unwrap();
    lists.add(&list(), &[member("c")], Existing::Amend).unwrap();
    let path = folder.path().join("manifests/localhost-5000_a_list-v1");
    let mut files: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            "localhost-5000_a-v1",
            "localhost-5000_b-v1",
            "localhost-5000_c-v1"
        ]
    );
    lists.remove(&list()).unwrap();
    let mut left: Vec<String> = fs::read_dir(folder.path().join("manifests"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".lock"]);
}

#[test]
fn what_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(folder.path());
    assert!(matches!(lists.read(&list()), Err(ListsError::NotFound { .. })));
    assert!(matches!(lists.remove(&list()), Err(ListsError::NotFound { .. })));
    assert!(lists.find(&list()).unwrap().is_none());
    assert!(!set_variant(&lists, "a", "v1"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_amendment_keeps_annotations_that_came_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(folder.path());
    let before = member("a");
    lists
        .add(&list(), std::slice::from_ref(&before), Existing::Refuse)
        .unwrap();
    assert!(matches!(
        lists.add(&list(), &[member("b")], Existing::Refuse),
        Err(ListsError::Exists)
    ));
    assert!(set_variant(&lists, "a", "v8"));
    lists
        .add(&list(), &[before, member("b")], Existing::Amend)
        .unwrap();
    assert_eq!(names(&lists), ["localhost:5000/a:v1", "localhost:5000/b:v1"]);
    assert_eq!(variant(&lists, "a"), "v8");
}

#[test]
fn a_list_that_changed_is_not_purged() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(folder.path());
    lists.add(&list(), &[member("a")], Existing::Refuse).unwrap();
    let pushed = lists.read(&list()).unwrap();
    set_variant(&lists, "a", "v8");
    assert!(!lists.remove_unchanged(&list(), &pushed).unwrap());
    let pushed = lists.read(&list()).unwrap();
    assert!(lists.remove_unchanged(&list(), &pushed).unwrap());
    assert!(lists.find(&list()).unwrap().is_none());
    assert!(lists.remove_unchanged(&list(), &pushed).unwrap());
}

#[test]
fn a_change_that_fails_leaves_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(folder.path());
    lists.add(&list(), &[member("a")], Existing::Refuse).unwrap();
    let failed = lists.change(&list(), &image("a"), |member| {
        member.descriptor.platform = None;
        Err(ListsError::Exists)
    });
    assert!(matches!(failed, Err(ListsError::Exists)));
    assert_eq!(variant(&lists, "a"), "");
}

#[test]
fn a_torn_file_is_named_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(folder.path());
    lists.add(&list(), &[member("a")], Existing::Refuse).unwrap();
    let path = folder
        .path()
        .join("manifests/localhost-5000_a_list-v1/localhost-5000_a-v1");
    fs::write(&path, "{").unwrap();
    let error = lists.read(&list()).unwrap().members().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "invalid manifest file {} (drop the whole list with `trimaran manifest rm`)",
            path.display()
        )
    );
    lists.remove(&list()).unwrap();
}

#[test]
fn writers_at_the_same_time_lose_nothing_and_readers_see_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(folder.path());
    lists.add(&list(), &[member("shared")], Existing::Refuse).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let lists = &lists;
            scope.spawn(move || {
                for round in 0..10 {
                    let name = format!("i{writer}-{round}");
                    lists.add(&list(), &[member(&name)], Existing::Amend).unwrap();
                    let changed = lists.change::<ListsError>(&list(), &image("shared"), |member| {
                        let platform = member.descriptor.platform.get_or_insert_default();
                        platform.os_features.push(name.clone());
                        Ok(())
                    });
                    assert!(changed.unwrap());
                    lists.read(&list()).unwrap().members().unwrap();
                }
            });
        }
    });
    assert_eq!(names(&lists).len(), 41);
    let shared = lists.read(&list()).unwrap().member(&image("shared")).unwrap();
    assert_eq!(shared.unwrap().descriptor.platform.unwrap().os_features.len(), 40);
}
