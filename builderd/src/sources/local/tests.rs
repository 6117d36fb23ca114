//! Folders sent by the real sender, and packets that no honest sender would send.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use proptest::prelude::*;
use proto::fsutil::packet::PacketType;
use proto::fsutil::{Packet, Stat};
use proto::transfer::{self, Receiving, Verdict, Walk};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::store::view::{Kind, LastLink, View};

struct Fixture {
    store: Store,
    temp: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("client")).unwrap();
        Self {
            store: Store::open(&temp.path().join("state")).unwrap(),
            temp,
        }
    }

    fn client(&self) -> std::path::PathBuf {
        self.temp.path().join("client")
    }

    /// Sends the client's folder; the result and the number of bytes that were asked for.
    async fn sync(&self, source: &LocalSource) -> (Snapshot, u64) {
        let (packets, incoming) = mpsc::channel(4);
        let (replies, requests) = mpsc::channel(4);
        let walk = Walk::new(self.client(), |_: &str, _| Verdict::Include).unwrap();
        let sending = async move {
            let mut requests = ReceiverStream::new(requests).map(Ok);
            transfer::send(walk, &mut requests, packets).await.unwrap();
            while requests.next().await.is_some() {}
        };
        let mut bytes = 0;
        let incoming = ReceiverStream::new(incoming).map(|packet| {
            bytes += packet.data.len() as u64;
            Ok(packet)
        });
        let files = Receiving::new(incoming, replies);
        let receiving = receive(files, source, "key", &self.store, |_| {});
        let both = async { tokio::join!(sending, receiving) };
        let ((), snapshot) = tokio::time::timeout(Duration::from_secs(60), both)
            .await
            .expect("the transfer ends");
        (snapshot.unwrap(), bytes)
    }

    fn view(&self, snapshot: &Snapshot) -> View {
        let folders: Vec<_> = snapshot
            .layers()
            .iter()
            .map(|layer| self.store.layer_folder(layer))
            .collect();
        View::open(&folders).unwrap()
    }

    /// Nothing half-made may stay. The writer cleans up after the transfer has failed, so this waits a while.
    fn assert_nothing_left(&self) {
        let count = |name: &str| {
            fs::read_dir(self.temp.path().join("state").join(name))
                .unwrap()
                .count()
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while count("tmp") + count("layers") > 0 {
            assert!(
                Instant::now() < deadline,
                "something half-made stayed in the state folder"
            );
            std::thread::yield_now();
        }
    }
}

fn context() -> LocalSource {
    LocalSource {
        files: FileRequest {
            name: "context".into(),
            ..FileRequest::default()
        },
        ..LocalSource::default()
    }
}

/// One line for each name, with all that must arrive.
fn describe(root: &Path) -> Vec<String> {
    fn walk(root: &Path, relative: &Path, lines: &mut Vec<String>) {
        let mut names: Vec<_> = fs::read_dir(root.join(relative))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            let relative = relative.join(name);
            let path = root.join(&relative);
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let content = if kind.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else if kind.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            let mut note = [0; 16];
            let length = rustix::fs::lgetxattr(&path, "trusted.note", &mut note[..]).unwrap_or(0);
            let links = if kind.is_dir() { 0 } else { meta.nlink() };
            lines.push(format!(
                "{} {:o} {}:{} {}.{} x{links} {:?} {:?}",
                relative.display(),
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                blake3::hash(&content).to_hex().as_str(),
                &note[..length],
            ));
            if kind.is_dir() {
                walk(root, &relative, lines);
            }
        }
    }
    let mut lines = Vec::new();
    walk(root, Path::new(""), &mut lines);
    lines
}

fn fill(root: &Path) {
    fs::create_dir_all(root.join("src/deep/er")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("Dockerfile"), "FROM scratch\n").unwrap();
    fs::write(root.join("src/a"), vec![b'a'; 100_000]).unwrap();
    fs::write(root.join("src/deep/er/b"), "b").unwrap();
    fs::write(root.join("nothing"), "").unwrap();
    fs::hard_link(root.join("src/a"), root.join("src/deep/same")).unwrap();
    symlink("../../outside", root.join("src/link")).unwrap();
    fs::set_permissions(root.join("src/deep/er/b"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1700)).unwrap();
    rustix::fs::chown(
        root.join("src"),
        Some(rustix::fs::Uid::from_raw(12)),
        Some(rustix::fs::Gid::from_raw(34)),
    )
    .unwrap();
    rustix::fs::setxattr(
        root.join("src/a"),
        "trusted.note",
        b"n",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
}

#[tokio::test]
async fn a_folder_arrives_as_it_is_and_only_once() {
    let fixture = Fixture::new();
    let client = fixture.client();
    fill(&client);
    let (first, bytes) = fixture.sync(&context()).await;
    assert_eq!(first.layers().len(), 1);
    let folder = fixture.store.layer_folder(&first.layers()[0]);
    let sent_notes = |mut lines: Vec<String>| {
        // What a client sends of attributes is the sender's business; here only that nothing else differs counts.
        lines
            .iter_mut()
            .for_each(|line| line.truncate(line.rfind(" [").unwrap()));
        lines
    };
    assert_eq!(sent_notes(describe(&folder)), sent_notes(describe(&client)));
    assert_eq!(bytes, 100_000 + 1 + 13);

    let (again, bytes) = fixture.sync(&context()).await;
    assert_eq!(
        (again, bytes),
        (first, 0),
        "nothing changed, nothing is asked for"
    );
}

#[tokio::test]
async fn only_what_changed_is_asked_for() {
    let fixture = Fixture::new();
    let client = fixture.client();
    fill(&client);
    let (first, _) = fixture.sync(&context()).await;
    fs::write(client.join("src/deep/er/b"), "changed").unwrap();
    fs::remove_file(client.join("Dockerfile")).unwrap();
    fs::write(client.join("zz"), "new").unwrap();
    let (second, bytes) = fixture.sync(&context()).await;
    assert_ne!(first, second);
    assert_eq!(bytes, 7 + 3);
    let (old, new) = (fixture.view(&first), fixture.view(&second));
    let names: Vec<_> = new
        .read_dir("/")
        .unwrap()
        .iter()
        .map(|entry| entry.name().to_owned())
        .collect();
    assert_eq!(names, ["empty", "nothing", "pipe", "src", "zz"]);
    assert_eq!(
        std::io::read_to_string(new.open_file("/src/deep/er/b").unwrap()).unwrap(),
        "changed"
    );
    assert_eq!(
        std::io::read_to_string(old.open_file("/src/deep/er/b").unwrap()).unwrap(),
        "b"
    );
    let inode = |view: &View, path: &str| view.metadata(path, LastLink::Keep).unwrap().inode;
    assert_eq!(
        inode(&old, "/src/a"),
        inode(&new, "/src/a"),
        "an unchanged file is shared"
    );
    assert_eq!(
        inode(&new, "/src/a"),
        inode(&new, "/src/deep/same"),
        "hard links stay"
    );

    fs::remove_file(client.join("zz")).unwrap();
    let (third, bytes) = fixture.sync(&context()).await;
    assert_eq!(bytes, 0);
    assert!(
        fixture
            .view(&third)
            .metadata("/zz", LastLink::Keep)
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn equal_content_is_one_layer_whenever_and_wherever_it_comes_from() {
    let fixture = Fixture::new();
    let client = fixture.client();
    fill(&client);
    let (first, all) = fixture.sync(&context()).await;
    let later = rustix::fs::Timespec {
        tv_sec: 2_000_000_000,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: later,
        last_modification: later,
    };
    for path in ["src/a", "src/deep/er/b", "empty"] {
        rustix::fs::utimensat(
            rustix::fs::CWD,
            client.join(path),
            &times,
            rustix::fs::AtFlags::empty(),
        )
        .unwrap();
    }
    let (touched, bytes) = fixture.sync(&context()).await;
    assert_eq!(
        (&touched, bytes),
        (&first, 100_001),
        "touched files are sent again, but nothing is new"
    );
    assert_eq!(fixture.sync(&context()).await, (first.clone(), 0));

    let elsewhere = LocalSource {
        shared_key_hint: "other".into(),
        ..context()
    };
    assert_eq!(fixture.sync(&elsewhere).await, (first.clone(), all));
    let mut patterns = context();
    patterns.files.exclude.push("*.md".into());
    assert_eq!(
        fixture.sync(&patterns).await,
        (first.clone(), 0),
        "other patterns begin with what is there"
    );
    let never_same = LocalSource {
        differ: Differ::None,
        ..context()
    };
    assert_eq!(fixture.sync(&never_same).await, (first.clone(), all));

    // A file that is taken over has the time that was listed, also if the layer it comes from is older.
    fs::write(client.join("zz"), "").unwrap();
    let (extended, _) = fixture.sync(&context()).await;
    let modified = fixture
        .view(&extended)
        .metadata("/src/a", LastLink::Keep)
        .unwrap()
        .modified;
    assert_eq!(modified.seconds, 2_000_000_000);
}

#[tokio::test]
async fn digests_that_came_with_the_files_are_used_for_cache_keys() {
    let fixture = Fixture::new();
    fill(&fixture.client());
    let (snapshot, _) = fixture.sync(&context()).await;
    let view = fixture.view(&snapshot);
    let sum = |known: &crate::store::checksum::KnownDigests| {
        let found = view.lookup("/", LastLink::Keep).unwrap();
        let selection = crate::store::view::Selection::default();
        let root = crate::store::checksum::Root::ContentsOnly;
        crate::store::checksum::of_selection(&view, &found, &selection, root, known).unwrap()
    };
    let known = crate::store::checksum::KnownDigests::of(&snapshot, &fixture.store);
    assert_eq!(sum(&known), sum(&crate::store::checksum::KnownDigests::default()));
    // Where the bytes are not what they were, the recorded digests still speak.
    let path = fixture
        .store
        .layer_folder(&snapshot.layers()[0])
        .join("Dockerfile");
    let before = sum(&known);
    fs::write(path, "FROM other\n\n").unwrap();
    assert_eq!(sum(&known), before);
}

#[tokio::test]
async fn an_empty_folder_is_an_empty_layer() {
    let fixture = Fixture::new();
    let (snapshot, bytes) = fixture.sync(&context()).await;
    assert_eq!(
        (fixture.view(&snapshot).read_dir("/").unwrap().len(), bytes),
        (0, 0)
    );
    assert_eq!(fixture.sync(&context()).await, (snapshot, 0));
}

fn stat(path: &str, mode: u32) -> Stat {
    Stat {
        path: path.into(),
        mode: transfer::mode::from_stat(mode),
        size: 1,
        ..Stat::default()
    }
}

fn listed(stat: Stat) -> Packet {
    Packet {
        r#type: PacketType::PacketStat.into(),
        stat: Some(stat),
        ..Packet::default()
    }
}

fn data(id: u32, bytes: &[u8]) -> Packet {
    let data = Bytes::copy_from_slice(bytes);
    Packet {
        r#type: PacketType::PacketData.into(),
        id,
        data,
        ..Packet::default()
    }
}

/// Sends these packets whatever is answered, and says how the transfer failed.
async fn fails_with(packets: Vec<Packet>) -> String {
    let fixture = Fixture::new();
    let (replies, mut requests) = mpsc::channel(1 << 12);
    // The connection stays: what fails is the transfer.
    let packets = futures::stream::iter(packets).chain(futures::stream::pending());
    let files = Receiving::new(packets.map(Ok).boxed(), replies);
    let error = receive(files, &context(), "key", &fixture.store, |_| ())
        .await
        .unwrap_err();
    let mut told = String::new();
    while let Some(packet) = requests.recv().await {
        if packet.r#type() == PacketType::PacketErr {
            told = String::from_utf8_lossy(&packet.data).into_owned();
        }
    }
    fixture.assert_nothing_left();
    assert_eq!(told, error.to_string(), "the client is told");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn hostile_clients_get_an_error_and_leave_nothing() {
    let file = |path: &str| listed(stat(path, 0o100_644));
    let dir = |path: &str| listed(stat(path, 0o040_755));
    let link = |path: &str, to: &str| {
        listed(Stat {
            linkname: to.into(),
            ..stat(path, 0o120_777)
        })
    };
    let hard = |path: &str, to: &str| {
        listed(Stat {
            linkname: to.into(),
            ..stat(path, 0o100_644)
        })
    };
    let end = || Packet {
        r#type: PacketType::PacketStat.into(),
        ..Packet::default()
    };
    let long_name = "n".repeat(300);
    let long_path = "n".repeat(5000);
    let many: Vec<Packet> = (0..100)
        .map(|n| file(&format!("f{n:03}")))
        .chain((0..100).map(|n| data(n, b"x")))
        .collect();
    let growing: Vec<Packet> = [file("f")]
        .into_iter()
        .chain((0..66).map(|_| data(0, &vec![b'x'; 1 << 20])))
        .collect();
    for (packets, expected) in [
        (vec![file("../x")], "is not a clean relative path"),
        (vec![dir("a"), file("a/../../x")], "is not a clean relative path"),
        (vec![file("/etc/x")], "is not a clean relative path"),
        (vec![file("b"), file("a")], "does not come after"),
        (vec![file("a"), file("a")], "does not come after"),
        (
            vec![link("a", "/etc"), file("a/x")],
            "is not below a listed folder",
        ),
        (vec![file("a/x")], "is not below a listed folder"),
        (
            vec![hard("a", "../../etc/passwd")],
            "is not a file listed before it",
        ),
        (
            vec![listed(Stat {
                size: -4,
                ..stat("a", 0o100_644)
            })],
            "has the negative size",
        ),
        (vec![file("a"), data(7, b"x")], "not requested"),
        (vec![dir("a"), data(0, b"x")], "not requested"),
        (
            vec![file("a"), data(0, b"x"), data(0, b""), data(0, b"y")],
            "not requested",
        ),
        (vec![file("a"), end(), end()], "an entry came after the listing"),
        (vec![file(&long_name), data(0, b"x"), end()], "File name too long"),
        (vec![file(&long_path)], "is longer than 4095 bytes"),
        (vec![listed(stat("null", 0o020_666))], "character device 0:0"),
        (
            vec![listed(Stat {
                devmajor: -1,
                ..stat("dev", 0o060_666)
            })],
            "has the device number -1:0",
        ),
        (many, "more than 64 files at a time"),
        (growing, "was announced with 1 bytes"),
    ] {
        let text = fails_with(packets).await;
        assert!(text.contains(expected), "{text} does not say {expected:?}");
    }
}

#[tokio::test]
async fn a_transfer_that_is_cut_off_or_dropped_leaves_nothing() {
    let fixture = Fixture::new();
    let packets = || vec![listed(stat("a", 0o100_644)), data(0, b"x")];
    let (replies, _requests) = mpsc::channel(16);
    let files = Receiving::new(futures::stream::iter(packets()).map(Ok), replies);
    let error = receive(files, &context(), "key", &fixture.store, |_| ())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            LocalError::Receive {
                source: ReceiveError::Cut,
                ..
            }
        ),
        "{error:?}"
    );
    fixture.assert_nothing_left();

    let (replies, mut requests) = mpsc::channel(16);
    let endless = futures::stream::iter(packets()).chain(futures::stream::pending());
    let files = Receiving::new(endless.map(Ok).boxed(), replies);
    let source = context();
    let mut receiving = Box::pin(receive(files, &source, "key", &fixture.store, |_| ()));
    tokio::select! {
        _ = &mut receiving => panic!("the transfer cannot end"),
        request = requests.recv() => assert!(request.is_some()),
    }
    drop(receiving);
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn a_client_cannot_set_the_marks_of_overlayfs() {
    let fixture = Fixture::new();
    let xattrs = [
        ("trusted.overlay.opaque", "y"),
        ("trusted.overlay.redirect", "/etc"),
        ("trusted.fine", "f"),
    ];
    let xattrs = xattrs.map(|(name, value)| (name.to_owned(), Bytes::from(value)));
    let packets = vec![
        listed(Stat {
            xattrs: xattrs.into_iter().collect(),
            ..stat("d", 0o040_755)
        }),
        Packet {
            r#type: PacketType::PacketStat.into(),
            ..Packet::default()
        },
        Packet {
            r#type: PacketType::PacketFin.into(),
            ..Packet::default()
        },
    ];
    let (replies, _requests) = mpsc::channel(16);
    let files = Receiving::new(futures::stream::iter(packets).map(Ok), replies);
    let snapshot = receive(files, &context(), "key", &fixture.store, |_| ())
        .await
        .unwrap();
    let path = fixture.store.layer_folder(&snapshot.layers()[0]).join("d");
    let mut names = [0_u8; 256];
    let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
    assert_eq!(&names[..length], b"trusted.fine\0");
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_asked_for_again() {
    let fixture = Fixture::new();
    let packets = |content: &[u8]| {
        vec![
            listed(stat("log", 0o100_644)),
            Packet {
                r#type: PacketType::PacketStat.into(),
                ..Packet::default()
            },
            data(0, content),
            data(0, b""),
            Packet {
                r#type: PacketType::PacketFin.into(),
                ..Packet::default()
            },
        ]
    };
    // The packets are there before the requests; the receiver takes data only after it has asked.
    for content in [b"longer".as_slice(), b"x"] {
        let (replies, mut requests) = mpsc::channel(16);
        let files = Receiving::new(futures::stream::iter(packets(content)).map(Ok), replies);
        let snapshot = receive(files, &context(), "key", &fixture.store, |_| ())
            .await
            .unwrap();
        let mut file = fixture.view(&snapshot).open_file("/log").unwrap();
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut got).unwrap();
        assert_eq!(got, content);
        assert_eq!(requests.recv().await.unwrap().r#type(), PacketType::PacketReq);
    }
}

#[test]
fn attributes_are_understood_or_refused_by_name() {
    let parse = |identifier: &str, attrs: &[(&str, &str)]| {
        let attrs = attrs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        LocalSource::parse(&pb::SourceOp {
            identifier: identifier.into(),
            attrs,
        })
    };
    assert_eq!(
        parse(
            "local://context",
            &[
                ("local.session", "s1"),
                ("local.unique", "u"),
                ("local.includepattern", r#"["a","b/**"]"#),
                ("local.excludepatterns", "null"),
                ("local.followpaths", r#"["link"]"#),
                ("local.sharedkeyhint", "hint"),
                ("local.differ", "none"),
                ("local.metadatatransfer", "false"),
            ]
        )
        .unwrap(),
        LocalSource {
            files: FileRequest {
                name: "context".into(),
                include: vec!["a".into(), "b/**".into()],
                exclude: vec![],
                follow: vec!["link".into()],
            },
            session: Some("s1".into()),
            shared_key_hint: "hint".into(),
            differ: Differ::None,
            listing: None,
        }
    );
    for (identifier, attrs, expected) in [
        ("local://", &[][..], "\"local://\" is no local source"),
        ("git://x", &[], "\"git://x\" is no local source"),
        (
            "local://c",
            &[("local.followpaths", "x")],
            "invalid value of local.followpaths for local source c",
        ),
        (
            "local://c",
            &[("local.differ", "maybe")],
            "local source c asks for local.differ=maybe, which this daemon does not support",
        ),
        (
            "local://c",
            &[("local.metadatatransfer", "some")],
            "local source c asks for local.metadatatransfer=some, which this daemon does not support",
        ),
    ] {
        assert_eq!(parse(identifier, attrs).unwrap_err().to_string(), expected);
    }
}

/// Some files in some folders.
fn trees() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let path = prop::collection::vec(0..4_u8, 1..4);
    prop::collection::vec((path, prop::collection::vec(any::<u8>(), 0..50)), 0..10)
}

/// Makes the files that can be made, with times that do not depend on the clock.
fn make(root: &Path, tree: &[(Vec<u8>, Vec<u8>)]) {
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root).unwrap();
    for (names, content) in tree {
        let path = names.iter().fold(root.to_owned(), |path, name| {
            path.join(["a", "a-b", "a.b", "z"][*name as usize])
        });
        if fs::create_dir_all(path.parent().unwrap()).is_ok() && fs::write(&path, content).is_ok() {
            let time = i64::from(blake3::hash(content).as_bytes()[0]) << 20
                | i64::from(blake3::hash(content).as_bytes()[1]) << 8
                | content.len() as i64;
            let time = rustix::fs::Timespec {
                tv_sec: time,
                tv_nsec: 0,
            };
            let times = rustix::fs::Timestamps {
                last_access: time,
                last_modification: time,
            };
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        }
    }
}

fn contents(view: &View) -> Vec<(std::path::PathBuf, Option<Vec<u8>>)> {
    fn walk(
        directory: &crate::store::view::Directory,
        found: &mut Vec<(std::path::PathBuf, Option<Vec<u8>>)>,
    ) {
        for entry in directory.entries().unwrap() {
            if entry.metadata().kind == Kind::Directory {
                found.push((entry.path().to_owned(), None));
                walk(&directory.open(&entry).unwrap(), found);
            } else {
                let mut content = Vec::new();
                std::io::Read::read_to_end(&mut entry.open_file().unwrap(), &mut content).unwrap();
                found.push((entry.path().to_owned(), Some(content)));
            }
        }
    }
    let mut found = Vec::new();
    walk(view.root(), &mut found);
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// However the folder changes between transfers, what is received is what is there.
    #[test]
    fn random_trees_arrive_equal(steps in prop::collection::vec(trees(), 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let fixture = Fixture::new();
        for tree in steps {
            make(&fixture.client(), &tree);
            let (snapshot, _) = runtime.block_on(fixture.sync(&context()));
            let sent = View::open(&[fixture.client()]).unwrap();
            prop_assert_eq!(contents(&fixture.view(&snapshot)), contents(&sent));
        }
    }
}
