//! Real repositories, reached as files: what a source asks for, and what of it ends up in the layer.

mod signed;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::progress::Progress;
use crate::session::Sessions;

struct World {
    folder: tempfile::TempDir,
    store: Store,
    git: Git,
}

/// A repository that sources come from.
struct Origin(PathBuf);

impl Origin {
    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.0)
            .args(["-c", "user.name=me", "-c", "user.email=me@e.com"])
            .args(["-c", "protocol.file.allow=always"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_DATE", "1600000000 +0000")
            .env("GIT_COMMITTER_DATE", "1600000000 +0000")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"])
    }
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let git = Git {
            protocols: "file",
            ..Git::default()
        };
        Self { folder, store, git }
    }

    /// One with `main` (first commit `a.txt`), an annotated tag `v1` of it, and a second commit.
    fn origin(&self, name: &str, options: &[&str]) -> Origin {
        let origin = Origin(self.folder.path().join(name));
        fs::create_dir(&origin.0).unwrap();
        let init = [&["init", "--quiet", "--initial-branch=main"], options].concat();
        origin.git(&init);
        origin.write("a.txt", "one");
        origin.write("sub/deep/b.txt", "two");
        std::os::unix::fs::symlink("sub", origin.0.join("link")).unwrap();
        origin.commit("first");
        origin.git(&["tag", "--annotate", "--message=v1", "v1"]);
        origin.write("a.txt", "three");
        origin.commit("second");
        origin
    }

    fn source(&self, origin: &Origin, reference: &str, subfolder: &str) -> GitSource {
        let path = origin.0.display().to_string();
        GitSource {
            url: GitUrl {
                scheme: "git",
                user: None,
                host: String::new(),
                path: path.clone(),
                query: None,
                fragment: String::new(),
                remote: path,
            },
            reference: reference.to_owned(),
            subfolder: subfolder.to_owned(),
            checksum: None,
            signature: None,
            keep_git_dir: false,
            submodules: true,
            mtime: Mtime::Checkout,
            fetch_by_commit: false,
            bundle: None,
            as_bundle: false,
            header_secret: String::new(),
            token_secret: String::new(),
            known_hosts: String::new(),
            agent: None,
        }
    }

    async fn request(&self, source: GitSource) -> Request {
        let sessions = Sessions::new().group(Vec::<String>::new());
        let log = Progress::default().internal_vertex("git");
        Request::open(self.git.clone(), source, &sessions, self.store.clone(), log)
            .await
            .unwrap()
    }

    /// The folder of the layer that a source becomes.
    async fn load(&self, source: GitSource) -> Result<PathBuf, String> {
        let request = self.request(source).await;
        let loaded = async { request.check_out(&request.resolve().await?).await };
        let snapshot = loaded.await.map_err(|error| proto::chain(&error))?;
        Ok(self.store.layer_folder(&snapshot.layers()[0]))
    }

    async fn files(&self, source: GitSource) -> BTreeMap<String, String> {
        listing(&self.load(source).await.unwrap())
    }
}

/// Contents of files, targets of links.
fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_symlink() {
                found.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
            } else if kind.is_dir() {
                waiting.push(path);
            } else {
                found.insert(
                    name,
                    String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
                );
            }
        }
    }
    found
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, content): &(&str, &str)| ((*name).to_owned(), (*content).to_owned());
    pairs.iter().map(owned).collect()
}

#[tokio::test]
async fn every_way_to_name_a_commit_leads_to_its_files() {
    let world = World::new();
    for (name, options) in [("sha1", &[][..]), ("sha256", &["--object-format=sha256"])] {
        let origin = world.origin(name, options);
        origin.git(&["branch", "feature/x", "v1"]);
        let first = origin.git(&["rev-parse", "HEAD~1"]);
        let tag_object = origin.git(&["rev-parse", "v1"]);
        let (old, new) = ("one", "three");
        for (reference, content) in [
            ("", new),
            ("main", new),
            ("refs/heads/main", new),
            ("heads/main", new),
            ("feature/x", old),
            ("v1", old),
            ("tags/v1", old),
            ("refs/tags/v1", old),
            (first.as_str(), old),
            (tag_object.as_str(), old),
        ] {
            let files = world.files(world.source(&origin, reference, "")).await;
            let all = [("a.txt", content), ("link", "-> sub"), ("sub/deep/b.txt", "two")];
            assert_eq!(files, expected(&all), "{name} {reference}");
        }
        let short = world
            .load(world.source(&origin, &first[..12], ""))
            .await
            .unwrap_err();
        assert!(
            short.contains(&format!("does not contain ref {}, ", &first[..12])),
            "{short}"
        );
        assert!(
            short.ends_with("; a commit must be given with all its digits"),
            "{short}"
        );
        let missing = world.load(world.source(&origin, "nope", "")).await.unwrap_err();
        assert!(
            missing.contains("repository does not contain ref nope, it is "),
            "{missing}"
        );
        let unknown = "1".repeat(first.len());
        let missing = world.load(world.source(&origin, &unknown, "")).await.unwrap_err();
        assert!(missing.contains(&unknown), "{missing}");
    }
}

#[tokio::test]
async fn an_unchanged_reference_costs_one_question() {
    let mut world = World::new();
    let origin = world.origin("origin", &[]);
    let (script, log) = (world.folder.path().join("git"), world.folder.path().join("log"));
    let text = format!("#!/bin/sh\necho \"$1\" >> {}\nexec git \"$@\"\n", log.display());
    fs::write(&script, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    world.git.program = script;
    let source = world.source(&origin, "v1", "sub");
    let first = world.request(source.clone()).await;
    let resolved = first.resolve().await.unwrap();
    first.check_out(&resolved).await.unwrap();
    fs::remove_file(&log).unwrap();
    let second = world.request(source.clone()).await;
    let again = second.resolve().await.unwrap();
    assert_eq!(source.cache_key(&resolved), source.cache_key(&again));
    assert_eq!(fs::read_to_string(&log).unwrap(), "ls-remote\n");
    // What was fetched is not fetched again for another folder of it.
    let other = GitSource {
        subfolder: "sub/deep".to_owned(),
        ..source
    };
    let other = world.request(other).await;
    other.check_out(&other.resolve().await.unwrap()).await.unwrap();
    let calls = fs::read_to_string(&log).unwrap();
    assert!(!calls.contains("fetch"), "{calls}");
}

#[tokio::test]
async fn a_folder_is_a_root_and_links_are_no_way_to_it() {
    let world = World::new();
    let origin = world.origin("origin", &[]);
    let deep = world.files(world.source(&origin, "main", "sub/deep")).await;
    assert_eq!(deep, expected(&[("b.txt", "two")]));
    for folder in ["link", "link/deep", "a.txt", "nope"] {
        let error = world
            .load(world.source(&origin, "main", folder))
            .await
            .unwrap_err();
        assert!(error.ends_with(&format!("has no folder {folder:?}")), "{error}");
    }
    // Attributes stand above the folder they are for.
    origin.write(".gitattributes", "*.txt text eol=crlf\n");
    origin.write("sub/deep/b.txt", "x\ny\n");
    origin.commit("attributes");
    let deep = world.files(world.source(&origin, "main", "sub/deep")).await;
    assert_eq!(deep, expected(&[("b.txt", "x\r\ny\r\n")]));
}

#[tokio::test]
async fn a_kept_git_folder_needs_no_other() {
    let world = World::new();
    let origin = world.origin("origin", &[]);
    for (reference, described) in [("v1", "v1"), ("main", "heads/main")] {
        let source = GitSource {
            keep_git_dir: true,
            ..world.source(&origin, reference, "")
        };
        let folder = world.load(source).await.unwrap();
        let inside = Origin(folder.clone());
        assert_eq!(inside.git(&["status", "--porcelain"]), "");
        assert_eq!(
            inside.git(&["rev-parse", "HEAD"]),
            origin.git(&["rev-parse", &format!("{reference}^{{commit}}")])
        );
        assert_eq!(
            inside.git(&["describe", "--all"]),
            if described == "v1" { "tags/v1" } else { described }
        );
        assert_eq!(
            inside.git(&["config", "remote.origin.url"]),
            origin.0.display().to_string()
        );
        for absent in ["FETCH_HEAD", "hooks", "logs", "objects/info/alternates"] {
            assert!(!folder.join(".git").join(absent).exists(), "{absent}");
        }
        assert!(
            !fs::read_to_string(folder.join(".git/config"))
                .unwrap()
                .contains("worktree")
        );
    }
    let folder = GitSource {
        keep_git_dir: true,
        ..world.source(&origin, "main", "sub")
    };
    assert_eq!(world.files(folder).await, expected(&[("deep/b.txt", "two")]));
}

#[tokio::test]
async fn submodules_come_with_their_commits() {
    let world = World::new();
    let inner = world.origin("inner", &[]);
    let middle = world.origin("middle", &[]);
    middle.git(&["submodule", "add", "--quiet", "../inner", "in/ner"]);
    Origin(middle.0.join("in/ner")).git(&["checkout", "--quiet", "v1"]);
    middle.commit("submodule");
    let outer = world.origin("outer", &[]);
    outer.git(&["submodule", "add", "--quiet", middle.0.to_str().unwrap(), "mid"]);
    outer.commit("submodule");
    let files = world.files(world.source(&outer, "main", "")).await;
    let content = |path: &str| files.get(path).map(String::as_str);
    assert_eq!(content("a.txt"), Some("three"));
    assert_eq!(content("mid/a.txt"), Some("three"));
    assert_eq!(content("mid/in/ner/a.txt"), Some("one"));
    assert!(files.keys().all(|path| !path.contains(".git/")), "{files:?}");
    let inside = world.files(world.source(&outer, "main", "mid")).await;
    assert_eq!(inside.get("in/ner/a.txt").map(String::as_str), Some("one"));
    let without = GitSource {
        submodules: false,
        ..world.source(&outer, "main", "")
    };
    let files = world.files(without).await;
    assert!(!files.contains_key("mid/a.txt"), "{files:?}");
    let kept = GitSource {
        keep_git_dir: true,
        ..world.source(&outer, "main", "")
    };
    let folder = world.load(kept).await.unwrap();
    assert_eq!(
        Origin(folder.join("mid/in/ner")).git(&["rev-parse", "HEAD"]),
        inner.git(&["rev-parse", "v1^{commit}"])
    );
}

#[tokio::test]
async fn a_repository_may_have_itself_as_a_submodule() {
    let world = World::new();
    let origin = world.origin("origin", &[]);
    origin.git(&["submodule", "add", "--quiet", "./", "self"]);
    origin.commit("submodule");
    let loading = world.files(world.source(&origin, "main", ""));
    let files = tokio::time::timeout(Duration::from_secs(60), loading)
        .await
        .unwrap();
    assert_eq!(files.get("self/a.txt").map(String::as_str), Some("three"));
}

#[tokio::test]
async fn hostile_submodules_are_refused() {
    let mut world = World::new();
    let origin = world.origin("origin", &[]);
    let commit = origin.git(&["rev-parse", "HEAD"]);
    let hit = world.folder.path().join("hit");
    for address in [
        format!("ext::sh -c touch% {}", hit.display()),
        format!("-u./{}", hit.display()),
        "--upload-pack=touch".to_owned(),
        "/etc".to_owned(),
        "file:///etc".to_owned(),
    ] {
        let modules = format!(
            "[submodule \"x\"]\n\tpath = x\n\turl = \"{address}\"\n\tupdate = !touch {}\n",
            hit.display()
        );
        origin.write(".gitmodules", &modules);
        origin.git(&[
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("160000,{commit},x"),
        ]);
        origin.git(&["add", ".gitmodules"]);
        origin.git(&["commit", "--quiet", "--message=hostile"]);
        world.git.protocols = "file";
        let request = world.request(world.source(&origin, "main", "")).await;
        let resolved = request.resolve().await.unwrap();
        Fetched::get(&request, &request.source.url.remote, &resolved, false)
            .await
            .unwrap();
        // The repository is here; from now on the protocols are those of a daemon.
        world.git.protocols = Git::default().protocols;
        let request = world.request(world.source(&origin, "main", "")).await;
        let error = request.check_out(&resolved).await.unwrap_err();
        let error = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            error.contains("only http, https, ssh and git are allowed"),
            "{error}"
        );
        assert!(!hit.exists());
    }
}

#[tokio::test]
async fn what_a_repository_says_of_hooks_filters_and_git_folders_is_not_done() {
    let world = World::new();
    let origin = world.origin("origin", &[]);
    let hit = world.folder.path().join("hit");
    origin.write(".gitattributes", "* filter=lfs diff=x\n");
    origin.write(
        ".gitconfig",
        &format!("[filter \"lfs\"]\n\tsmudge = touch {}\n", hit.display()),
    );
    origin.write(
        "hooks/post-checkout",
        &format!("#!/bin/sh\ntouch {}\n", hit.display()),
    );
    origin.commit("hooks");
    for keep_git_dir in [false, true] {
        let source = GitSource {
            keep_git_dir,
            ..world.source(&origin, "main", "")
        };
        world.load(source).await.unwrap();
        assert!(!hit.exists());
    }
    // A tree that brings a git folder of its own.
    let blob = origin.git(&["hash-object", "-w", "a.txt"]);
    let list = world.folder.path().join("tree");
    fs::write(&list, format!("100644 blob {blob}\tconfig\n")).unwrap();
    let tree = |list: &Path| {
        let output = Command::new("git")
            .arg("-C")
            .arg(&origin.0)
            .arg("mktree")
            .stdin(fs::File::open(list).unwrap())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let inner = tree(&list);
    fs::write(&list, format!("040000 tree {inner}\t.git\n")).unwrap();
    let outer = tree(&list);
    let commit = origin.git(&["commit-tree", "-m", "hostile", &outer]);
    origin.git(&["update-ref", "refs/heads/hostile", &commit]);
    let error = world
        .load(world.source(&origin, "hostile", ""))
        .await
        .unwrap_err();
    assert!(error.contains("invalid path"), "{error}");
}

#[tokio::test]
async fn a_reference_that_moves_under_way_is_what_it_was_when_it_was_asked_for() {
    let world = World::new();
    let origin = world.origin("origin", &[]);
    let request = world.request(world.source(&origin, "main", "")).await;
    let resolved = request.resolve().await.unwrap();
    origin.write("a.txt", "four");
    origin.git(&["commit", "--quiet", "--all", "--amend", "--message=moved"]);
    let snapshot = request.check_out(&resolved).await.unwrap();
    let folder = world.store.layer_folder(&snapshot.layers()[0]);
    assert_eq!(fs::read_to_string(folder.join("a.txt")).unwrap(), "three");

    // And when what it was is gone, that is said.
    origin.write("a.txt", "neither seen before nor after");
    origin.git(&["commit", "--quiet", "--all", "--amend", "--message=moved"]);
    let request = world.request(world.source(&origin, "main", "")).await;
    let resolved = request.resolve().await.unwrap();
    origin.write("a.txt", "five");
    origin.git(&["commit", "--quiet", "--all", "--amend", "--message=moved"]);
    origin.git(&["reflog", "expire", "--expire=now", "--all"]);
    origin.git(&["gc", "--quiet", "--prune=now"]);
    let error = request.check_out(&resolved).await.unwrap_err().to_string();
    assert!(error.contains(&resolved.object), "{error}");
    let files = world.files(world.source(&origin, "main", "")).await;
    assert_eq!(files.get("a.txt").map(String::as_str), Some("five"));
}

#[tokio::test]
async fn branches_may_take_each_others_names() {
    let world = World::new();
    let origin = world.origin("origin", &[]);
    origin.git(&["branch", "x"]);
    world.files(world.source(&origin, "x", "")).await;
    origin.git(&["branch", "--delete", "--force", "x"]);
    origin.git(&["branch", "x/y", "v1"]);
    let files = world.files(world.source(&origin, "x/y", "")).await;
    assert_eq!(files.get("a.txt").map(String::as_str), Some("one"));
    origin.git(&["tag", "--force", "v1"]);
    let files = world.files(world.source(&origin, "v1", "")).await;
    assert_eq!(files.get("a.txt").map(String::as_str), Some("three"));
}

#[tokio::test]
async fn a_damaged_repository_is_made_anew() {
    let world = World::new();
    let origin = world.origin("origin", &[]);
    let source = world.source(&origin, "v1", "");
    world.files(source.clone()).await;
    let folders: Vec<_> = fs::read_dir(world.folder.path().join("state/repositories"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(folders.len(), 1);
    let damages: [fn(&Path); 2] = [
        |folder| fs::remove_dir_all(folder.join("objects")).unwrap(),
        |folder| fs::write(folder.join("shallow.lock"), "").unwrap(),
    ];
    for (damage, reference) in damages.iter().zip(["main", "tags/v1"]) {
        damage(&folders[0]);
        world.files(world.source(&origin, reference, "")).await;
    }
}

#[tokio::test]
async fn checksums_are_checked_against_tag_and_commit() {
    let world = World::new();
    let origin = world.origin("origin", &[]);
    let (tag, first) = (
        origin.git(&["rev-parse", "v1"]),
        origin.git(&["rev-parse", "v1^{commit}"]),
    );
    let with = |reference: &str, checksum: &str| GitSource {
        checksum: Some(checksum.to_owned()),
        ..world.source(&origin, reference, "")
    };
    for (reference, checksum) in [
        ("v1", &tag[..]),
        ("v1", &first[..9]),
        (first.as_str(), &first[..4]),
    ] {
        world.load(with(reference, checksum)).await.unwrap();
    }
    assert_eq!(
        world.load(with("v1", "0000")).await.unwrap_err(),
        format!("expected checksum to match 0000, got {tag} or {first}")
    );
    assert_eq!(
        world.load(with(&first, "0000")).await.unwrap_err(),
        format!("expected checksum to match 0000, got {first}")
    );
    let by_commit = |reference: &str, checksum: &str| GitSource {
        fetch_by_commit: true,
        ..with(reference, checksum)
    };
    // The branch is somewhere else by now.
    let files = world.files(by_commit("main", &first)).await;
    assert_eq!(files.get("a.txt").map(String::as_str), Some("one"));
    let error = world.load(by_commit("main", &first[..9])).await.unwrap_err();
    assert!(error.contains("a full commit"), "{error}");
}

#[tokio::test]
async fn files_may_be_as_old_as_their_commit() {
    let world = World::new();
    let origin = world.origin("origin", &[]);
    let source = GitSource {
        mtime: Mtime::Commit,
        ..world.source(&origin, "main", "")
    };
    let folder = world.load(source).await.unwrap();
    for path in ["", "a.txt", "link", "sub", "sub/deep", "sub/deep/b.txt"] {
        let metadata = fs::symlink_metadata(folder.join(path)).unwrap();
        assert_eq!(
            (metadata.mtime(), metadata.mtime_nsec()),
            (1_600_000_000, 0),
            "{path}"
        );
    }
}

#[tokio::test]
async fn objects_are_handed_out_as_they_are() {
    let world = World::new();
    let origin = world.origin("origin", &[]);
    let request = world.request(world.source(&origin, "v1", "")).await;
    let mut resolved = request.resolve().await.unwrap();
    let objects = request.objects(&mut resolved).await.unwrap();
    assert!(objects.tag.starts_with(b"object "));
    assert!(objects.commit.starts_with(b"tree "));
    assert_eq!(resolved.commit, Some(origin.git(&["rev-parse", "v1^{commit}"])));
    let request = world.request(world.source(&origin, "main", "")).await;
    let mut resolved = request.resolve().await.unwrap();
    let objects = request.objects(&mut resolved).await.unwrap();
    assert!(objects.tag.is_empty() && resolved.commit.is_none());
}

#[test]
fn attributes_are_read_and_what_is_not_understood_is_named() {
    let parse = |identifier: &str, attributes: &[(&str, &str)]| {
        GitSource::parse(&pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attributes
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        })
    };
    let source = parse(
        "git://e.com/a.git#main:x/../sub",
        &[
            ("git.fullurl", "https://me:secret@e.com/a.git"),
            ("git.keepgitdir", "true"),
            ("git.checksum", "ABC1"),
            ("git.mtime", "commit"),
            ("git.skipsubmodules", "true"),
        ],
    )
    .unwrap();
    assert_eq!(source.url.remote, "https://me:secret@e.com/a.git");
    assert_eq!(source.shown(), "https://e.com/a.git");
    assert_eq!(
        (source.reference.as_str(), source.subfolder.as_str()),
        ("main", "sub")
    );
    assert_eq!(source.checksum.as_deref(), Some("abc1"));
    assert!(source.keep_git_dir && !source.submodules && source.mtime == Mtime::Commit);
    assert!(!source.keeps_git_dir());
    let plain = parse("git://e.com/a.git", &[]).unwrap();
    assert_eq!(plain.url.remote, "https://e.com/a.git");
    let scp = parse("git://e.com/a", &[("git.fullurl", "git@e.com:a")]).unwrap();
    assert_eq!((scp.url.scheme, scp.url.remote.as_str()), ("ssh", "git@e.com:a"));
    for (identifier, attributes, problem) in [
        ("git://e.com/a#-x", &[][..], "invalid git ref \"-x\""),
        (
            "git://e.com/a",
            &[("git.checksum", "xyz")],
            "invalid value \"xyz\" of git.checksum for a git source: a commit, or the beginning of one, in hex",
        ),
        (
            "git://e.com/a",
            &[("git.fullurl", "file:///etc")],
            "\"git://e.com/a\" is no git source",
        ),
    ] {
        assert_eq!(parse(identifier, attributes).unwrap_err().to_string(), problem);
    }
}

#[tokio::test]
async fn a_bundle_has_all_that_a_commit_comes_from() {
    let world = World::new();
    for (name, options) in [("sha1", &[][..]), ("sha256", &["--object-format=sha256"])] {
        let origin = world.origin(name, options);
        let head = origin.git(&["rev-parse", "HEAD"]);
        // A checkout before leaves a repository here in which the older commits are missing.
        world.load(world.source(&origin, "main", "")).await.unwrap();
        for reference in ["main", head.as_str(), "v1"] {
            let wanted = GitSource {
                as_bundle: true,
                ..world.source(&origin, reference, "")
            };
            let bundle = world.load(wanted.clone()).await.unwrap().join("bundle");
            let copy = Origin(world.folder.path().join(format!("{name}-{reference}")));
            fs::create_dir(&copy.0).unwrap();
            copy.git(&[&["init", "--quiet", "--bare"], options].concat());
            let path = bundle.display().to_string();
            copy.git(&["fetch", "--quiet", &path, "+refs/*:refs/*"]);
            let commit = origin.git(&["rev-parse", &format!("{reference}^{{commit}}")]);
            assert_eq!(
                copy.git(&["log", "--format=%H", &commit]),
                origin.git(&["log", "--format=%H", &commit])
            );
            // It stands for a repository that is gone.
            let other = World::new();
            let gone = Origin(world.folder.path().join("gone"));
            for reference in [reference, &commit, ""] {
                let source = GitSource {
                    checksum: Some(commit.clone()),
                    ..other.source(&gone, reference, "")
                };
                let request = other.request(source).await.with_bundle(Some(bundle.clone()));
                let resolved = match reference {
                    "" => Resolved::commit(&commit),
                    _ => request.resolve().await.unwrap(),
                };
                let snapshot = request.check_out(&resolved).await.unwrap();
                let files = listing(&other.store.layer_folder(&snapshot.layers()[0]));
                let content = if commit == head { "three" } else { "one" };
                assert_eq!(files["a.txt"], content, "{name} {reference}");
            }
        }
    }
    let parse = |attributes: &[(&str, &str)]| {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        GitSource::parse(&pb::SourceOp {
            identifier: "git://e.com/a".to_owned(),
            attrs: attributes.iter().map(owned).collect(),
        })
    };
    let place = format!("docker-image+blob://e.com/a@sha256:{}", "0".repeat(64));
    assert!(parse(&[("git.bundle", &place), ("git.checksum", "abc1")]).is_ok());
    assert!(matches!(
        parse(&[("git.bundle", &place)]),
        Err(GitError::BundleWithoutChecksum)
    ));
    assert!(matches!(
        parse(&[("git.checkoutbundle", "true"), ("git.keepgitdir", "true")]),
        Err(GitError::BundleOf("git.keepgitdir"))
    ));
}

#[tokio::test]
async fn without_git_the_way_out_is_named() {
    let mut world = World::new();
    let origin = world.origin("origin", &[]);
    world.git.program = "/nowhere/git".into();
    let error = world.load(world.source(&origin, "main", "")).await.unwrap_err();
    assert!(
        error.starts_with("cannot run /nowhere/git: repositories are fetched by"),
        "{error}"
    );
}
