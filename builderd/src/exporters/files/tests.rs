use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use registry::client::{Anonymous, Config};

use super::walk::{listed, merged};
use super::*;
use crate::progress::Progress;
use crate::session::Sessions;
use crate::session::tests::{Client, open};
use crate::sources::image::Images;
use crate::store::{NewLayer, Store};

/// Two layers: the upper one replaces a file, removes nothing, and adds links.
fn layers(folder: &Path) -> Vec<PathBuf> {
    let (lower, upper) = (folder.join("lower"), folder.join("upper"));
    for layer in [&lower, &upper] {
        std::fs::create_dir_all(layer.join("etc")).unwrap();
    }
    std::fs::write(lower.join("etc/a"), "old").unwrap();
    std::fs::write(lower.join("etc/b"), "kept").unwrap();
    std::fs::write(upper.join("etc/a"), "new!").unwrap();
    std::fs::set_permissions(upper.join("etc/a"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("etc/a", upper.join("link")).unwrap();
    std::fs::hard_link(upper.join("etc/a"), upper.join("etc/z")).unwrap();
    vec![lower, upper]
}

fn tree(folder: &Path, prefix: Option<&str>) -> Tree {
    Tree::open(&layers(folder), prefix.map(str::to_owned), Some(7)).unwrap()
}

#[test]
fn a_result_is_listed_merged_in_order_below_its_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let entries: Vec<_> = tree(folder.path(), Some("linux_arm64"))
        .into_iter()
        .map(|found| listed(found).unwrap())
        .collect();
    let shown: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry.stat.path.as_str(),
                entry.stat.size,
                entry.stat.linkname.as_str(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("linux_arm64", 0, ""),
            ("linux_arm64/etc", 0, ""),
            ("linux_arm64/etc/a", 4, ""),
            ("linux_arm64/etc/b", 4, ""),
            ("linux_arm64/etc/z", 0, "linux_arm64/etc/a"),
            ("linux_arm64/link", 0, "etc/a"),
        ]
    );
    assert!(entries.iter().all(|entry| entry.stat.mod_time == 7_000_000_000));
    let a = &entries[2];
    assert_eq!(proto::transfer::mode::permissions(a.stat.mode), 0o4755);
    assert_eq!(std::fs::read(a.content.as_ref().unwrap()).unwrap(), b"new!");
    assert_eq!(entries[4].content, None);
}

fn of_platforms(trees: &[Tree]) -> Vec<(String, Tree)> {
    let ids = ["linux/amd64", "linux/arm64"].map(str::to_owned);
    ids.into_iter().zip(trees.iter().cloned()).collect()
}

#[test]
fn platforms_in_one_folder_may_share_folders_but_no_files() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir_all(two.path().join("etc")).unwrap();
    std::fs::write(two.path().join("etc/c"), "").unwrap();
    let other = Tree::open(&[two.path().to_owned()], None, None).unwrap();
    let trees = vec![tree(one.path(), None), other.clone()];
    check_collisions(of_platforms(&trees)).unwrap();
    let paths: Vec<_> = merged(trees)
        .unwrap()
        .into_iter()
        .map(|found| found.path)
        .collect();
    assert_eq!(paths, ["etc", "etc/a", "etc/b", "etc/c", "etc/z", "link"]);
    let error = check_collisions(of_platforms(&[other.clone(), other])).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot overwrite etc/c from linux/amd64 with linux/arm64"),
        "{error}"
    );
}

#[tokio::test]
async fn a_tarball_holds_all_files_with_their_content_links_and_modes() {
    let folder = tempfile::tempdir().unwrap();
    let tree = tree(folder.path(), None);
    let (sender, mut chunks) = mpsc::channel(IN_FLIGHT);
    let writer = std::thread::spawn(move || Tarball::new(sender).write(vec![tree]));
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    writer.join().unwrap().unwrap();
    let mut found = Vec::new();
    let mut archive = ::tar::Archive::new(bytes.as_slice());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
        let path = entry.path().unwrap().display().to_string();
        let link = entry.link_name().unwrap().map(|link| link.display().to_string());
        found.push((
            path,
            link.unwrap_or_default(),
            content,
            entry.header().mode().unwrap(),
        ));
    }
    let shown: Vec<_> = found
        .iter()
        .map(|(p, l, c, _)| (p.as_str(), l.as_str(), c.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("etc/", "", ""),
            ("etc/a", "", "new!"),
            ("etc/b", "", "kept"),
            ("etc/z", "etc/a", ""),
            ("link", "etc/a", ""),
        ]
    );
    assert_eq!(found[1].3, 0o4755);
}

#[tokio::test]
async fn clients_that_do_not_read_keep_nobody_else_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state")).unwrap();
    let draft = store.draft().unwrap();
    // More than connections hold.
    let file = std::fs::File::create(draft.upper().join("file")).unwrap();
    file.set_len(64 << 20).unwrap();
    let layer = store.commit(draft, NewLayer::default()).unwrap();
    let target = Target {
        id: "linux/amd64".to_owned(),
        platform: registry::Platform::new("linux", "amd64", ""),
        snapshot: [layer].into_iter().collect(),
        config: None,
        base_config: None,
        epoch: None,
        attestations: Vec::new(),
    };
    let results = Results {
        targets: vec![target],
        multi_platform: false,
        build_info: None,
        metadata: BTreeMap::new(),
    };
    let sessions = Sessions::new();
    let (stalls, mut began) = mpsc::channel(1);
    let _client = open(&sessions, "slow", Client::that_stalls(stalls)).await;
    let images = Images::new(
        registry::Client::new(Config::default(), Arc::new(Anonymous)),
        store.clone(),
    );
    let progress = Progress::default();
    let context = Context {
        images: &images,
        sessions: &sessions.group(["slow"]),
        progress: &progress,
        number: 0,
    };
    let vertex = progress.internal_vertex("export");
    let attributes = BTreeMap::new();
    // As many as there is room for in the pool that all builds share, and one more.
    let cores = std::thread::available_parallelism().unwrap().get();
    let exports = (0..(2 * cores).max(4) + 1).map(|_| to_tar(&attributes, &results, &context, &vertex));
    let mut exports = exports.collect::<FuturesUnordered<_>>();
    let count = exports.len();
    let others = async {
        for _ in 0..count {
            began.recv().await.unwrap();
        }
        store.pool().run(|| ()).await.unwrap();
    };
    let others = tokio::time::timeout(Duration::from_secs(20), others);
    tokio::select! {
        done = others => done.expect("the others are not kept waiting"),
        ended = exports.next() => panic!("nobody read, but an export ended: {ended:?}"),
    }
}
