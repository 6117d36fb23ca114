//! The view must show what the kernel's overlayfs shows of the same layers, and what is written through [`Overlay`]
//! must look the same when the kernel merges it.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::*;

/// Layers in a temporary folder, written by hand.
struct Layers {
    temp: tempfile::TempDir,
    folders: Vec<PathBuf>,
}

impl Layers {
    fn new() -> Self {
        Self {
            temp: tempfile::tempdir().unwrap(),
            folders: Vec::new(),
        }
    }

    fn add(&mut self, things: &[Thing<'_>]) -> &mut Self {
        let folder = self.temp.path().join(format!("layer{}", self.folders.len()));
        fs::create_dir(&folder).unwrap();
        for thing in things {
            thing.make(&folder);
        }
        set_time(&folder, 1);
        self.folders.push(folder);
        self
    }

    fn view(&self) -> View {
        View::open(&self.folders).unwrap()
    }
}

enum Thing<'a> {
    Dir(&'a str, u32),
    Opaque(&'a str),
    File(&'a str, &'a str),
    Link(&'a str, &'a str),
    Whiteout(&'a str),
    Fifo(&'a str),
}
use Thing::{Dir, Fifo, File as Plain, Link, Opaque, Whiteout};

impl Thing<'_> {
    fn make(&self, root: &Path) {
        match self {
            Dir(path, mode) => {
                fs::create_dir_all(root.join(path)).unwrap();
                fs::set_permissions(root.join(path), fs::Permissions::from_mode(*mode)).unwrap();
            }
            Opaque(path) => {
                fs::create_dir_all(root.join(path)).unwrap();
                rustix::fs::setxattr(
                    root.join(path),
                    "trusted.overlay.opaque",
                    b"y",
                    XattrFlags::empty(),
                )
                .unwrap();
            }
            Plain(path, text) => {
                fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
                fs::write(root.join(path), text).unwrap();
            }
            Link(path, target) => {
                fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
                symlink(target, root.join(path)).unwrap();
            }
            Whiteout(path) => {
                fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
                rustix::fs::mknodat(CWD, root.join(path), FileType::CharacterDevice, Mode::empty(), 0)
                    .unwrap();
            }
            Fifo(path) => {
                rustix::fs::mknodat(
                    CWD,
                    root.join(path),
                    FileType::Fifo,
                    Mode::from_raw_mode(0o640),
                    0,
                )
                .unwrap();
            }
        }
    }
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 5,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One line for each name of a real folder.
fn list_folder(root: &Path) -> Vec<String> {
    fn walk(root: &Path, relative: &Path, lines: &mut Vec<String>) {
        let mut names: Vec<_> = fs::read_dir(root.join(relative))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            let relative = relative.join(name);
            let path = root.join(&relative);
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let what = if kind.is_dir() {
                String::from("dir")
            } else if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_file() {
                format!("{:?}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
            } else {
                String::from("special")
            };
            let time = if kind.is_dir() {
                String::new()
            } else {
                format!("{}.{}", meta.mtime(), meta.mtime_nsec())
            };
            let value = |name: &str| {
                let mut buffer = [0_u8; 64];
                let length = rustix::fs::lgetxattr(&path, name, &mut buffer[..]).unwrap_or(0);
                String::from_utf8_lossy(&buffer[..length]).into_owned()
            };
            lines.push(line(
                &relative,
                &what,
                meta.mode() & 0o7777,
                meta.uid(),
                meta.gid(),
                &time,
                &value("trusted.note"),
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

/// The same lines for a view.
fn list_view(view: &View) -> Vec<String> {
    fn walk(directory: &Directory, lines: &mut Vec<String>) {
        for entry in directory.entries().unwrap() {
            let meta = entry.metadata();
            let relative = entry.path().strip_prefix("/").unwrap();
            let what = match meta.kind {
                Kind::Directory => String::from("dir"),
                Kind::Symlink => format!("-> {}", Path::new(&entry.read_link().unwrap()).display()),
                Kind::Regular => {
                    format!(
                        "{:?}",
                        std::io::read_to_string(entry.open_file().unwrap()).unwrap()
                    )
                }
                _ => String::from("special"),
            };
            let time = match meta.kind {
                Kind::Directory => String::new(),
                _ => format!("{}.{}", meta.modified.seconds, meta.modified.nanoseconds),
            };
            let attributes = entry.attributes().unwrap();
            let note = attributes.iter().find(|(name, _)| name == "trusted.note");
            let note = note
                .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                .unwrap_or_default();
            lines.push(line(relative, &what, meta.mode, meta.uid, meta.gid, &time, &note));
            if meta.is_dir() {
                walk(&directory.open(&entry).unwrap(), lines);
            }
        }
    }
    let mut lines = Vec::new();
    walk(view.root(), &mut lines);
    lines
}

fn line(path: &Path, what: &str, mode: u32, uid: u32, gid: u32, time: &str, note: &str) -> String {
    format!("{} {what} {mode:o} {uid}:{gid} {time} {note}", path.display())
}

/// What the kernel makes of the layers. Nothing where mounts are not permitted, unless all tests are required.
fn list_mounted(layers: &Layers) -> Option<Vec<String>> {
    let target = layers.temp.path().join("merged");
    fs::create_dir_all(&target).unwrap();
    // overlayfs wants two lower folders for a read-only mount.
    let empty = layers.temp.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    let lower: Vec<String> = layers
        .folders
        .iter()
        .rev()
        .chain([&empty])
        .map(|f| f.display().to_string())
        .collect();
    let options = format!("lowerdir={}", lower.join(":"));
    let mounted = nix::mount::mount(
        Some("overlay"),
        &target,
        Some("overlay"),
        nix::mount::MsFlags::MS_RDONLY,
        Some(options.as_str()),
    );
    match mounted {
        Ok(()) => {
            let lines = std::panic::catch_unwind(|| list_folder(&target));
            nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH).unwrap();
            Some(lines.unwrap())
        }
        Err(errno) => {
            assert!(
                std::env::var_os("TRIMARAN_REQUIRE_ALL").is_none(),
                "mount overlay: {errno}"
            );
            eprintln!("skipped: overlayfs cannot be mounted here: {errno}");
            None
        }
    }
}

#[test]
fn a_view_shows_what_overlayfs_shows() {
    let tables: [(&str, &[&[Thing<'_>]]); 7] = [
        (
            "one layer",
            &[&[Dir("a", 0o700), Plain("a/f", "1"), Link("l", "a/f"), Fifo("p")]],
        ),
        (
            "files are replaced",
            &[&[Plain("a", "1"), Plain("b", "1")], &[Plain("a", "2")]],
        ),
        (
            "whiteouts hide",
            &[
                &[Plain("d/a", "1"), Plain("d/b", "1"), Dir("e", 0o755)],
                &[Whiteout("d/a"), Whiteout("e")],
            ],
        ),
        (
            "opaque folders hide",
            &[
                &[Plain("d/a", "1"), Plain("d/s/x", "1")],
                &[Opaque("d"), Plain("d/b", "2")],
            ],
        ),
        (
            "a file between folders cuts",
            &[&[Plain("d/a", "1")], &[Plain("d", "file")], &[Plain("d/b", "3")]],
        ),
        (
            "a whiteout between folders cuts",
            &[&[Plain("d/a", "1")], &[Whiteout("d")], &[Plain("d/b", "3")]],
        ),
        (
            "metadata comes from the highest",
            &[
                &[Dir("d", 0o755), Plain("d/a", "1")],
                &[Dir("d", 0o1777)],
                &[Plain("x/y/z", "3"), Whiteout("d/none")],
            ],
        ),
    ];
    for (name, layers) in tables {
        let mut made = Layers::new();
        for layer in layers {
            made.add(layer);
        }
        if let Some(mounted) = list_mounted(&made) {
            assert_eq!(list_view(&made.view()), mounted, "{name}");
        }
    }
}

#[test]
fn links_are_resolved_inside_the_root() {
    let mut layers = Layers::new();
    layers.add(&[
        Plain("etc/passwd", "root"),
        Plain("usr/bin/sh", "sh"),
        Link("bin", "usr/bin"),
        Link("abs", "/usr/bin"),
        Link("up", "../../../../etc"),
        Link("usr/relative", "../etc/passwd"),
        Link("loop", "loop2"),
        Link("loop2", "loop"),
        Link("dangling", "nowhere/x"),
        Link("chain", "abs/../relative"),
    ]);
    let view = layers.view();
    for (path, last, expected) in [
        ("/etc/passwd", LastLink::Follow, "/etc/passwd"),
        ("bin/sh", LastLink::Follow, "/usr/bin/sh"),
        ("/bin", LastLink::Keep, "/bin"),
        ("/bin", LastLink::Follow, "/usr/bin"),
        ("abs/sh", LastLink::Follow, "/usr/bin/sh"),
        ("up/passwd", LastLink::Follow, "/etc/passwd"),
        ("../../etc/passwd", LastLink::Follow, "/etc/passwd"),
        // `..` after a link goes up from where the link leads.
        ("bin/../relative", LastLink::Keep, "/usr/relative"),
        ("bin/../relative", LastLink::Follow, "/etc/passwd"),
        ("chain", LastLink::Follow, "/etc/passwd"),
        ("dangling", LastLink::Follow, "/nowhere/x"),
        ("missing/../etc", LastLink::Follow, "/etc"),
        ("/", LastLink::Follow, "/"),
        ("bin/new/deep", LastLink::Follow, "/usr/bin/new/deep"),
    ] {
        assert_eq!(
            view.resolve(path, last).unwrap().path,
            Path::new(expected),
            "{path}"
        );
    }
    assert!(matches!(
        view.resolve("loop", LastLink::Follow),
        Err(ViewError::TooManyLinks { .. })
    ));
    assert!(matches!(
        view.resolve("etc/passwd/x", LastLink::Follow),
        Err(ViewError::NotADirectory { .. })
    ));
    let missing = view.metadata("/nosuch", LastLink::Follow).unwrap_err();
    assert_eq!(missing.to_string(), "\"/nosuch\": not found");
    assert_eq!(
        std::io::read_to_string(view.open_file("up/passwd").unwrap()).unwrap(),
        "root"
    );
}

#[test]
fn scratch_is_an_empty_folder() {
    let view = View::open(&[]).unwrap();
    assert_eq!(list_view(&view), Vec::<String>::new());
    assert!(view.metadata("/", LastLink::Follow).unwrap().is_dir());
    assert!(view.metadata("/x", LastLink::Follow).unwrap_err().is_not_found());
}

#[test]
fn an_entry_knows_its_layer_and_hides_what_overlayfs_notes() {
    let mut layers = Layers::new();
    layers
        .add(&[Plain("a", "1"), Plain("b", "1")])
        .add(&[Plain("b", "2"), Opaque("d")]);
    rustix::fs::setxattr(
        layers.folders[1].join("d"),
        "trusted.note",
        b"mine",
        XattrFlags::empty(),
    )
    .unwrap();
    let view = layers.view();
    let seen: Vec<_> = view
        .read_dir("/")
        .unwrap()
        .iter()
        .map(|e| (e.name().to_owned(), e.layer()))
        .collect();
    assert_eq!(seen, [("a".into(), 0), ("b".into(), 1), ("d".into(), 1)]);
    let attributes = view.attributes("/d", LastLink::Keep).unwrap();
    assert_eq!(attributes, [("trusted.note".into(), b"mine".to_vec())]);
}

#[test]
fn wildcards_match_one_component_each() {
    let mut layers = Layers::new();
    layers.add(&[
        Plain("src/a.c", ""),
        Plain("src/b.c", ""),
        Plain("src/b.h", ""),
        Plain("src/sub/c.c", ""),
        Plain("lib/c.c", ""),
        Link("link", "src"),
    ]);
    let view = layers.view();
    let expand = |pattern: &str, last| -> Vec<String> {
        let paths = expand_wildcards(&view, pattern, last).unwrap();
        paths.into_iter().map(|path| path.display().to_string()).collect()
    };
    assert_eq!(expand("/src/*.c", LastLink::Keep), ["/src/a.c", "/src/b.c"]);
    assert_eq!(expand("*/c.c", LastLink::Keep), ["/lib/c.c"]);
    assert_eq!(
        expand("s*/[ab].?", LastLink::Keep),
        ["/src/a.c", "/src/b.c", "/src/b.h"]
    );
    assert_eq!(expand("link/*.h", LastLink::Follow), ["/src/b.h"]);
    assert_eq!(expand("link/*.h", LastLink::Keep), Vec::<String>::new());
    assert_eq!(expand("/src/a.c", LastLink::Keep), ["/src/a.c"]);
    assert!(
        expand_wildcards(&view, "none/*", LastLink::Keep)
            .unwrap_err()
            .is_not_found()
    );
    assert!(matches!(
        expand_wildcards(&view, "src/[", LastLink::Keep),
        Err(ViewError::Pattern { .. })
    ));
}

/// A random change of a tree.
#[derive(Clone, Debug)]
enum Change {
    File(Vec<u8>, u8),
    Folder(Vec<u8>),
    Remove(Vec<u8>),
    Link(Vec<u8>),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let path = || prop::collection::vec(0..3_u8, 1..4);
    prop::collection::vec(
        prop_oneof![
            (path(), b'a'..=b'z').prop_map(|(path, byte)| Change::File(path, byte)),
            path().prop_map(Change::Folder),
            path().prop_map(Change::Remove),
            path().prop_map(Change::Link),
        ],
        0..12,
    )
}

fn path_of(names: &[u8]) -> PathBuf {
    names
        .iter()
        .fold(PathBuf::from("/"), |path, name| path.join(format!("n{name}")))
}

/// Applies the changes to a real folder, and says which could be applied.
fn apply_to_folder(root: &Path, changes: &[Change]) -> Vec<Change> {
    let real = |names: &[u8]| root.join(path_of(names).strip_prefix("/").unwrap());
    let free = |path: &Path| fs::symlink_metadata(path).is_err() && parent_is_dir(path);
    fn parent_is_dir(path: &Path) -> bool {
        fs::symlink_metadata(path.parent().unwrap()).is_ok_and(|meta| meta.is_dir())
    }
    let mut applied = Vec::new();
    for change in changes {
        let done = match change {
            Change::File(names, byte) => {
                let path = real(names);
                let allowed =
                    parent_is_dir(&path) && fs::symlink_metadata(&path).map_or(true, |meta| meta.is_file());
                allowed && fs::remove_file(&path).map_or(true, |()| true) && fs::write(&path, [*byte]).is_ok()
            }
            Change::Folder(names) => free(&real(names)) && fs::create_dir(real(names)).is_ok(),
            Change::Link(names) => free(&real(names)) && symlink("target", real(names)).is_ok(),
            Change::Remove(names) => {
                parent_is_dir(&real(names))
                    && match fs::symlink_metadata(real(names)) {
                        Ok(meta) if meta.is_dir() => fs::remove_dir_all(real(names)).is_ok(),
                        Ok(_) => fs::remove_file(real(names)).is_ok(),
                        Err(_) => false,
                    }
            }
        };
        if done {
            applied.push(change.clone());
        }
    }
    applied
}

fn apply_to_overlay(overlay: &Overlay, changes: &[Change]) {
    for change in changes {
        let (Change::File(names, _) | Change::Folder(names) | Change::Remove(names) | Change::Link(names)) =
            change;
        let path = path_of(names);
        let folder = overlay.folder(path.parent().unwrap()).unwrap();
        let name = path.file_name().unwrap();
        match change {
            Change::File(_, byte) => {
                folder.clear(name).unwrap();
                std::io::Write::write_all(&mut folder.create_file(name).unwrap(), &[*byte]).unwrap();
                folder.set_mode(name, 0o644).unwrap();
            }
            Change::Folder(_) => folder.create_folder(name).unwrap().set_own_mode(0o755).unwrap(),
            Change::Link(_) => folder.create_symlink(name, OsStr::from_bytes(b"target")).unwrap(),
            Change::Remove(_) => folder.remove(name).unwrap(),
        }
    }
}

fn without_times(lines: Vec<String>) -> Vec<String> {
    let shorten = |line: String| {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.truncate(words.len() - 2);
        words.join(" ")
    };
    lines.into_iter().map(shorten).collect()
}

#[test]
fn modes_are_never_set_through_links_and_adopted_files_never_change() {
    let mut layers = Layers::new();
    layers.add(&[Plain("shared", "text")]);
    let canary = layers.temp.path().join("canary");
    fs::write(&canary, "").unwrap();
    fs::set_permissions(&canary, fs::Permissions::from_mode(0o600)).unwrap();
    let base = layers.view();
    let upper = layers.temp.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let overlay = Overlay::new(&View::open(&[]).unwrap(), &upper).unwrap();
    let folder = overlay.folder(Path::new("/")).unwrap();
    let link = OsStr::new("link");
    folder.create_symlink(link, canary.as_os_str()).unwrap();
    folder.set_mode(link, 0o4777).unwrap_err();
    assert_eq!(fs::metadata(&canary).unwrap().mode() & 0o7777, 0o600);

    let before = fs::metadata(layers.folders[0].join("shared")).unwrap();
    let entry = base.root().lookup(OsStr::new("shared")).unwrap().unwrap();
    let name = OsStr::new("mine");
    assert!(folder.adopt(name, &entry).unwrap());
    let attributes = vec![("user.note".into(), b"n".to_vec())];
    for refused in [
        folder.set_owner(name, 7, 7),
        folder.set_mode(name, 0o4777),
        folder.set_attributes(name, &attributes),
        folder.set_time(name, Time::EPOCH),
    ] {
        assert!(matches!(refused, Err(ViewError::Shared { .. })), "{refused:?}");
    }
    let after = fs::metadata(layers.folders[0].join("shared")).unwrap();
    let facts = |meta: &fs::Metadata| (meta.mode(), meta.uid(), meta.gid(), meta.mtime());
    assert_eq!(facts(&before), facts(&after));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done, layer upon layer, gives the tree that doing it in a plain folder gives; and the kernel agrees.
    #[test]
    fn layers_written_through_overlays_add_up(steps in prop::collection::vec(changes(), 1..5)) {
        let mut layers = Layers::new();
        let plain = layers.temp.path().join("plain");
        fs::create_dir(&plain).unwrap();
        for changes in &steps {
            let applied = apply_to_folder(&plain, changes);
            let base = layers.view();
            layers.add(&[]);
            let overlay = Overlay::new(&base, layers.folders.last().unwrap()).unwrap();
            apply_to_overlay(&overlay, &applied);
            prop_assert_eq!(without_times(list_view(overlay.view())), without_times(list_folder(&plain)));
            overlay.finish().unwrap();
            prop_assert_eq!(without_times(list_view(&layers.view())), without_times(list_folder(&plain)));
        }
        if let Some(mounted) = list_mounted(&layers) {
            prop_assert_eq!(list_view(&layers.view()), mounted);
        }
    }
}
