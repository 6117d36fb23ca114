//! File operations on real snapshots in a real store, and the trees that come out.

mod archives;
mod content_keys;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::*;
use crate::store::view::{Directory, Kind, LastLink};

struct Fixture {
    store: Store,
    _temp: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(&temp.path().join("state")).unwrap(),
            _temp: temp,
        }
    }

    /// A snapshot of one layer that `fill` writes.
    fn layer(&self, fill: impl FnOnce(&Path)) -> Snapshot {
        self.layer_on(&Snapshot::default(), fill)
    }

    fn layer_on(&self, base: &Snapshot, fill: impl FnOnce(&Path)) -> Snapshot {
        let draft = self.store.draft().unwrap();
        fill(&draft.upper());
        base.with(self.store.commit(draft, NewLayer::default()).unwrap())
    }

    fn run(&self, actions: Vec<pb::FileAction>, inputs: &[Snapshot]) -> Result<Vec<Snapshot>, FileOpError> {
        run_blocking(&pb::FileOp { actions }, inputs, &self.store)
    }

    /// Copies from input 1 to input 0, and lists what comes out.
    fn copy(
        &self,
        base: &Snapshot,
        source: &Snapshot,
        copy: pb::FileActionCopy,
    ) -> Result<Vec<String>, String> {
        let action = action(0, 1, 0, Action::Copy(copy));
        match self.run(vec![action], &[base.clone(), source.clone()]) {
            Ok(outputs) => Ok(self.list(&outputs[0])),
            Err(error) => Err(error.to_string()),
        }
    }

    fn view(&self, snapshot: &Snapshot) -> View {
        view_of(snapshot, &self.store).unwrap()
    }

    /// `path mode uid:gid what`, one line for each name.
    fn list(&self, snapshot: &Snapshot) -> Vec<String> {
        fn walk(directory: &Directory, lines: &mut Vec<String>) {
            for entry in directory.entries().unwrap() {
                let meta = entry.metadata();
                let what = match meta.kind {
                    Kind::Directory => "/".to_owned(),
                    Kind::Symlink => format!("-> {}", Path::new(&entry.read_link().unwrap()).display()),
                    Kind::Regular => {
                        let mut bytes = Vec::new();
                        entry.open_file().unwrap().read_to_end(&mut bytes).unwrap();
                        String::from_utf8_lossy(&bytes).into_owned()
                    }
                    other => format!("{other:?}"),
                };
                let path = entry.path().strip_prefix("/").unwrap().display();
                lines.push(format!("{path} {:o} {}:{} {what}", meta.mode, meta.uid, meta.gid));
                if meta.is_dir() {
                    walk(&directory.open(&entry).unwrap(), lines);
                }
            }
        }
        let mut lines = Vec::new();
        walk(self.view(snapshot).root(), &mut lines);
        lines
    }
}

fn action(input: i64, secondary_input: i64, output: i64, action: Action) -> pb::FileAction {
    pb::FileAction {
        input,
        secondary_input,
        output,
        action: Some(action),
    }
}

/// As the Dockerfile frontend writes COPY.
fn copy(src: &str, dest: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: src.into(),
        dest: dest.into(),
        mode: -1,
        timestamp: -1,
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..Default::default()
    }
}

fn by_name(name: &str, input: i64) -> Option<pb::UserOpt> {
    let named = pb::NamedUserOpt {
        name: name.into(),
        input,
    };
    Some(pb::UserOpt {
        user: Some(pb::user_opt::User::ByName(named)),
    })
}

fn by_id(id: u32) -> Option<pb::UserOpt> {
    Some(pb::UserOpt {
        user: Some(pb::user_opt::User::ById(id)),
    })
}

fn write(root: &Path, path: &str, text: &str) {
    fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    fs::write(root.join(path), text).unwrap();
}

fn source_tree(root: &Path) {
    write(root, "a.txt", "A");
    write(root, "b.md", "B");
    write(root, "dir/c.txt", "C");
    write(root, "dir/sub/d.md", "D");
    symlink("dir", root.join("link")).unwrap();
    symlink("a.txt", root.join("file-link")).unwrap();
    fs::set_permissions(root.join("dir/c.txt"), fs::Permissions::from_mode(0o4711)).unwrap();
}

#[test]
fn copies_arrive_where_docker_puts_them() {
    let fixture = Fixture::new();
    let source = fixture.layer(source_tree);
    let base = fixture.layer(|root| {
        write(root, "etc/old", "old");
        fs::create_dir(root.join("real")).unwrap();
        symlink("real", root.join("app")).unwrap();
    });
    let old = [
        "app 777 0:0 -> real",
        "etc 755 0:0 /",
        "etc/old 644 0:0 old",
        "real 755 0:0 /",
    ];
    let dir_contents = |at: &str| {
        vec![
            format!("{at}/c.txt 4711 0:0 C"),
            format!("{at}/sub 755 0:0 /"),
            format!("{at}/sub/d.md 644 0:0 D"),
        ]
    };
    let with = |mut new: Vec<String>| {
        new.extend(old.map(str::to_owned));
        new.sort();
        new
    };
    let one = |line: &str| vec![line.to_owned()];
    let mut new_dir = dir_contents("new");
    new_dir.insert(0, "new 755 0:0 /".into());
    for (name, action, expected) in [
        (
            "a file under a name",
            copy("a.txt", "/x"),
            with(one("x 644 0:0 A")),
        ),
        (
            "a file into a folder",
            copy("a.txt", "/etc/"),
            with(one("etc/a.txt 644 0:0 A")),
        ),
        (
            "a file onto an existing folder",
            copy("/a.txt", "/etc"),
            with(one("etc/a.txt 644 0:0 A")),
        ),
        (
            "a file through a link to a folder",
            copy("/a.txt", "/app"),
            with(one("real/a.txt 644 0:0 A")),
        ),
        (
            "a file into new folders",
            copy("a.txt", "/n/m/"),
            with(vec![
                "n 755 0:0 /".into(),
                "n/m 755 0:0 /".into(),
                "n/m/a.txt 644 0:0 A".into(),
            ]),
        ),
        (
            "a folder's contents to a new name",
            copy("dir", "/new"),
            with(new_dir.clone()),
        ),
        (
            "a folder's contents through a link",
            copy("dir/", "/app/"),
            with(dir_contents("real")),
        ),
        ("a linked folder", copy("link", "/new"), with(new_dir)),
        ("a linked file", copy("file-link", "/x"), with(one("x 644 0:0 A"))),
        (
            "the link itself",
            pb::FileActionCopy {
                follow_symlink: false,
                ..copy("file-link", "/x")
            },
            with(one("x 777 0:0 -> a.txt")),
        ),
        (
            "wildcards",
            copy("*.[tm]*", "/w/"),
            with(vec![
                "w 755 0:0 /".into(),
                "w/a.txt 644 0:0 A".into(),
                "w/b.md 644 0:0 B".into(),
            ]),
        ),
        ("wildcards without a match", copy("*.zip", "/w/"), with(vec![])),
        (
            "a folder as such",
            pb::FileActionCopy {
                dir_copy_contents: false,
                ..copy("dir", "/real")
            },
            with([one("real/dir 755 0:0 /"), dir_contents("real/dir")].concat()),
        ),
        (
            "an excluding pattern",
            pb::FileActionCopy {
                exclude_patterns: vec!["**/*.md".into()],
                ..copy("dir", "/real/")
            },
            with(vec!["real/c.txt 4711 0:0 C".into(), "real/sub 755 0:0 /".into()]),
        ),
        (
            "an including pattern makes only the folders it needs",
            pb::FileActionCopy {
                include_patterns: vec!["dir/sub/*.md".into()],
                ..copy("/", "/real/")
            },
            with(vec![
                "real/dir 755 0:0 /".into(),
                "real/dir/sub 755 0:0 /".into(),
                "real/dir/sub/d.md 644 0:0 D".into(),
            ]),
        ),
        (
            "owner, mode and time",
            pb::FileActionCopy {
                owner: Some(pb::ChownOpt {
                    user: by_id(5),
                    group: by_id(7),
                }),
                mode: 0o600,
                timestamp: 3_000_000_007,
                ..copy("a.txt", "/o/x")
            },
            with(vec!["o 600 5:7 /".into(), "o/x 600 5:7 A".into()]),
        ),
        (
            "a symbolic mode",
            pb::FileActionCopy {
                mode_str: "g+w".into(),
                ..copy("a.txt", "/x")
            },
            with(one("x 664 0:0 A")),
        ),
    ] {
        assert_eq!(fixture.copy(&base, &source, action), Ok(expected), "{name}");
    }
}

#[test]
fn what_cannot_be_copied_says_why() {
    let fixture = Fixture::new();
    let source = fixture.layer(|root| {
        source_tree(root);
        symlink("loop", root.join("loop")).unwrap();
        symlink("../../../../etc/passwd", root.join("outside")).unwrap();
    });
    let base = fixture.layer(|root| {
        write(root, "file", "");
        fs::create_dir_all(root.join("d/a.txt")).unwrap();
    });
    for (action, expected) in [
        (copy("/nosuch", "/x"), "lstat /nosuch: no such file or directory"),
        (
            copy("../nosuch", "/x"),
            "lstat /nosuch: no such file or directory",
        ),
        (copy("nosuch/*", "/x"), "lstat /nosuch: no such file or directory"),
        // The link leads to the root of the source, where there is no such file, and no further.
        (copy("outside", "/x"), "lstat /outside: no such file or directory"),
        (copy("loop", "/x"), "\"/loop\": too many symbolic links"),
        (
            copy("a.txt", "/d"),
            "cannot replace to directory /d/a.txt with file",
        ),
        (copy("dir", "/file"), "cannot copy to non-directory: /file"),
        (copy("a.txt", "/file/x"), "\"/file\": not a directory"),
        (
            pb::FileActionCopy {
                create_dest_path: false,
                ..copy("a.txt", "/no/x")
            },
            "lstat /no: no such file or directory",
        ),
        (
            pb::FileActionCopy {
                allow_empty_wildcard: false,
                ..copy("*.zip", "/")
            },
            "lstat /*.zip: no such file or directory",
        ),
        (
            pb::FileActionCopy {
                mode_str: "u+q".into(),
                ..copy("a.txt", "/x")
            },
            "invalid mode \"u+q\"",
        ),
    ] {
        let name = format!("{} to {}", action.src, action.dest);
        assert_eq!(
            fixture.copy(&base, &source, action),
            Err(expected.to_owned()),
            "{name}"
        );
    }
}

#[test]
fn existing_things_are_replaced_only_where_asked() {
    let fixture = Fixture::new();
    let source = fixture.layer(source_tree);
    let base = fixture.layer(|root| {
        fs::create_dir_all(root.join("d/a.txt/full")).unwrap();
        write(root, "d/dir", "a file");
        write(root, "d/b.md", "old");
    });
    let replace = |src: &str, dest: &str| pb::FileActionCopy {
        always_replace_existing_dest_paths: true,
        exclude_patterns: vec!["sub".into()],
        dir_copy_contents: false,
        ..copy(src, dest)
    };
    let first = fixture.run(
        vec![
            action(0, 1, -1, Action::Copy(replace("a.txt", "/d/"))),
            action(2, 1, -1, Action::Copy(replace("dir", "/d/"))),
            action(3, 1, 0, Action::Copy(replace("b.md", "/d/"))),
        ],
        &[base, source],
    );
    let first = first.unwrap().remove(0);
    assert_eq!(first.layers().len(), 2, "a chain of actions is one layer");
    assert_eq!(
        fixture.list(&first),
        [
            "d 755 0:0 /",
            "d/a.txt 644 0:0 A",
            "d/b.md 644 0:0 B",
            "d/dir 755 0:0 /",
            "d/dir/c.txt 4711 0:0 C"
        ]
    );
}

#[test]
fn folders_of_the_base_come_up_as_they_are_and_unchanged_files_are_not_copied() {
    let fixture = Fixture::new();
    let source = fixture.layer(|root| {
        write(root, "f", "F");
        fs::hard_link(root.join("f"), root.join("g")).unwrap();
        write(root, "h", "H");
    });
    let base = fixture.layer(|root| {
        fs::create_dir_all(root.join("var/cache")).unwrap();
        fs::set_permissions(root.join("var/cache"), fs::Permissions::from_mode(0o1770)).unwrap();
        rustix::fs::chown(root.join("var/cache"), Some(rustix::fs::Uid::from_raw(3)), None).unwrap();
        rustix::fs::setxattr(
            root.join("var"),
            "trusted.note",
            b"n",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        let time = rustix::fs::Timespec {
            tv_sec: 77,
            tv_nsec: 0,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        for path in ["var/cache", "var"] {
            rustix::fs::utimensat(
                rustix::fs::CWD,
                root.join(path),
                &times,
                rustix::fs::AtFlags::empty(),
            )
            .unwrap();
        }
    });
    let output = fixture
        .run(
            vec![
                action(0, 1, -1, Action::Copy(copy("[fg]", "/var/cache/x/"))),
                action(2, 1, -1, Action::Copy(copy("/", "/var/cache/y/"))),
                action(3, 1, 0, Action::Copy(copy("h", "/var/cache/again"))),
            ],
            &[base, source.clone()],
        )
        .unwrap()
        .remove(0);
    let view = fixture.view(&output);
    let var = view.metadata("/var", LastLink::Keep).unwrap();
    let cache = view.metadata("/var/cache", LastLink::Keep).unwrap();
    assert_eq!((var.modified.seconds, cache.modified.seconds), (77, 77));
    assert_eq!((cache.mode, cache.uid), (0o1770, 3));
    assert_eq!(
        view.attributes("/var", LastLink::Keep).unwrap(),
        [("trusted.note".into(), b"n".to_vec())]
    );
    let inode = |path: &str| view.metadata(path, LastLink::Keep).unwrap().inode;
    let origin = fixture
        .view(&source)
        .metadata("/h", LastLink::Keep)
        .unwrap()
        .inode;
    assert_eq!(
        inode("/var/cache/y/h"),
        origin,
        "a file of which nothing changes is shared with its source"
    );
    assert_ne!(inode("/var/cache/again"), origin, "two copies are two files");
    assert_eq!(
        inode("/var/cache/y/f"),
        inode("/var/cache/y/g"),
        "links stay links within a copy"
    );
    assert_ne!(
        inode("/var/cache/x/f"),
        inode("/var/cache/x/g"),
        "each match of a wildcard is a copy of its own"
    );
}

#[test]
fn files_and_folders_are_made_and_removed() {
    let fixture = Fixture::new();
    let base = fixture.layer(|root| {
        write(
            root,
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\napp:x:10:20::/:/bin/sh\n",
        );
        write(root, "etc/group", "root:x:0:\nstaff:x:50:\n");
        write(root, "tmp/a.log", "");
        write(root, "tmp/b.log", "");
        write(root, "tmp/deep/c", "");
        fs::set_permissions(root.join("etc/group"), fs::Permissions::from_mode(0o640)).unwrap();
    });
    let owner = Some(pb::ChownOpt {
        user: by_name("app", 0),
        group: by_name("staff", 0),
    });
    let unknown = Some(pb::ChownOpt {
        user: by_name("nobody", 0),
        group: None,
    });
    let mkdir = |path: &str, make_parents, owner| {
        Action::Mkdir(pb::FileActionMkDir {
            path: path.into(),
            mode: 0o750,
            make_parents,
            owner,
            timestamp: -1,
        })
    };
    let mkfile = |path: &str, owner| {
        let (path, data) = (path.into(), b"data".as_slice().into());
        Action::Mkfile(pb::FileActionMkFile {
            path,
            mode: 0o604,
            data,
            owner,
            timestamp: 1_000_000_000,
        })
    };
    let rm = |path: &str, allow_wildcard| {
        Action::Rm(pb::FileActionRm {
            path: path.into(),
            allow_not_found: false,
            allow_wildcard,
        })
    };
    let link = |oldpath: &str, newpath: &str| {
        let (oldpath, newpath) = (oldpath.into(), newpath.into());
        Action::Symlink(pb::FileActionSymlink {
            oldpath,
            newpath,
            owner: None,
            timestamp: 5,
        })
    };
    let all = [
        mkdir("/w/x", true, owner.clone()),
        mkdir("/w/x", false, None),
        mkfile("w/f", owner),
        mkfile("/etc/group", None),
        mkfile("/g", unknown),
        rm("/tmp/*.log", true),
        rm("/tmp/deep", false),
        link("../etc", "/w/l"),
        mkfile("/w/l/new", None),
    ];
    let last = i64::try_from(all.len()).unwrap();
    let chain = all
        .into_iter()
        .zip(0..)
        .map(|(what, index)| action(index, -1, if index + 1 == last { 0 } else { -1 }, what));
    let outputs = fixture.run(chain.collect(), &[base]).unwrap();
    assert_eq!(
        fixture.list(&outputs[0]),
        [
            "etc 755 0:0 /",
            "etc/group 640 0:0 data",
            "etc/new 604 0:0 data",
            "etc/passwd 644 0:0 root:x:0:0::/:/bin/sh\napp:x:10:20::/:/bin/sh\n",
            "g 604 0:0 data",
            "tmp 755 0:0 /",
            "w 750 10:50 /",
            "w/f 604 10:50 data",
            "w/l 777 0:0 -> ../etc",
            "w/x 750 10:50 /",
        ]
    );
    let modified = fixture
        .view(&outputs[0])
        .metadata("/w/f", LastLink::Keep)
        .unwrap()
        .modified;
    assert_eq!((modified.seconds, modified.nanoseconds), (1, 0));
    let top = fixture.store.layer_folder(outputs[0].layers().last().unwrap());
    let whiteout = fs::symlink_metadata(top.join("tmp/deep")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
}

#[test]
fn making_and_removing_fails_by_name() {
    let fixture = Fixture::new();
    let base = fixture.layer(|root| write(root, "d/f", ""));
    let mkfile = |path: &str| {
        Action::Mkfile(pb::FileActionMkFile {
            path: path.into(),
            mode: 0o644,
            timestamp: -1,
            ..Default::default()
        })
    };
    let rm = |path: &str, allow_not_found| {
        Action::Rm(pb::FileActionRm {
            path: path.into(),
            allow_not_found,
            allow_wildcard: false,
        })
    };
    let mkdir = |path: &str| {
        Action::Mkdir(pb::FileActionMkDir {
            path: path.into(),
            mode: 0o755,
            timestamp: -1,
            ..Default::default()
        })
    };
    for (what, expected) in [
        (mkfile("/d"), Some("\"/d\": is a directory")),
        (mkfile("/no/f"), Some("\"/no\": not found")),
        (mkdir("/no/d"), Some("\"/no\": not found")),
        (mkdir("/d/f/x"), Some("\"/d/f\": not a directory")),
        (rm("/no", false), Some("\"/no\": not found")),
        (rm("/no", true), None),
        (rm("/", true), Some("the root folder cannot be removed")),
        (rm("/d/f", false), None),
    ] {
        let name = format!("{what:?}");
        let got = fixture.run(vec![action(0, -1, 0, what)], std::slice::from_ref(&base));
        assert_eq!(
            got.err().map(|error| error.to_string()).as_deref(),
            expected,
            "{name}"
        );
    }
}

#[test]
fn results_are_passed_on_by_index() {
    let fixture = Fixture::new();
    let mkfile = |path: &str, input, output| {
        let file = pb::FileActionMkFile {
            path: path.into(),
            mode: 0o644,
            timestamp: -1,
            ..Default::default()
        };
        action(input, -1, output, Action::Mkfile(file))
    };
    // Two results on one; the last copies from the first.
    let outputs = fixture
        .run(
            vec![
                mkfile("/a", -1, 0),
                mkfile("/b", 0, 2),
                mkfile("/c", 0, -1),
                action(2, 0, 1, Action::Copy(copy("a", "/copied"))),
            ],
            &[],
        )
        .unwrap();
    let lists: Vec<_> = outputs.iter().map(|output| fixture.list(output)).collect();
    assert_eq!(lists[0], ["a 644 0:0 "]);
    assert_eq!(lists[1], ["a 644 0:0 ", "c 644 0:0 ", "copied 644 0:0 "]);
    assert_eq!(lists[2], ["a 644 0:0 ", "b 644 0:0 "]);

    for (actions, expected) in [
        (vec![], "file operation without actions"),
        (vec![mkfile("/a", -1, -1)], "file operation has no output 0"),
        (vec![mkfile("/a", -1, 1)], "file operation has no output 0"),
        (
            vec![mkfile("/a", -1, 0), mkfile("/b", -1, 0)],
            "file operation has output 0 twice",
        ),
        (
            vec![mkfile("/a", 1, 0), mkfile("/b", -1, 1)],
            "file action refers to input 1 of 0",
        ),
        (vec![mkfile("/a", 0, 0)], "file action refers to input 0 of 0"),
        (vec![mkfile("/a", -7, 0)], "file action refers to input -7 of 0"),
    ] {
        assert_eq!(fixture.run(actions, &[]).unwrap_err().to_string(), expected);
    }
}
