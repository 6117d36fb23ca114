//! Build contexts and files from elsewhere: repositories, and what lies at URLs.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use tests::git_server::{GitServer, Manner};
use tests::needs::{Need, given};
use tests::process::Ended;
use tests::programs::installed;
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];
const DOCKERFILE: &str = "FROM scratch\nCOPY . /\n";

fn served(world: &World, manner: Manner, password: Option<&str>) -> GitServer {
    let folder = world.folder().join("served");
    std::fs::create_dir_all(&folder).unwrap();
    GitServer::start(&folder, manner, password)
}

/// Builds a context from elsewhere into a folder.
fn build(world: &World, context: &str, arguments: &[&str]) -> Ended {
    let result = world.folder().join("result");
    std::fs::remove_dir_all(&result).ok();
    let output = format!("type=local,dest={}", result.display());
    let arguments = [&["--output", &output], arguments].concat();
    world.build(Path::new(context), &arguments)
}

fn built(world: &World, context: &str, arguments: &[&str]) -> BTreeMap<String, String> {
    build(world, context, arguments).succeeded();
    files(&world.folder().join("result"))
}

fn files(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let content = std::fs::read(&path).unwrap();
                found.insert(name, String::from_utf8_lossy(&content).into_owned());
            }
        }
    }
    found
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, content): &(&str, &str)| ((*name).to_owned(), (*content).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn a_repository_is_a_context_by_protocol_and_as_plain_files() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    for manner in [Manner::Protocol, Manner::Files] {
        let server = served(&world, manner, None);
        let repository = format!("{manner:?}.git");
        let first = server.commit(
            &repository,
            &[
                ("Dockerfile", DOCKERFILE),
                ("sub/Dockerfile", DOCKERFILE),
                ("sub/a", "one"),
            ],
        );
        server.git(&repository, &["tag", "--annotate", "--message=x", "v1"]);
        server.commit(&repository, &[("sub/a", "two")]);
        let url = server.url(&repository);
        let sub = |content| expected(&[("Dockerfile", DOCKERFILE), ("a", content)]);
        assert_eq!(built(&world, &format!("{url}#main:sub"), &[]), sub("two"));
        assert_eq!(built(&world, &format!("{url}#v1:sub"), &[]), sub("one"));
        assert_eq!(
            built(&world, &format!("{url}?ref={first}&subdir=sub"), &[]),
            sub("one")
        );
        let whole = built(&world, &url, &["-f", "sub/Dockerfile"]);
        assert_eq!(whole.get("sub/a").map(String::as_str), Some("two"));
        assert!(whole.keys().all(|path| !path.starts_with(".git/")), "{whole:?}");
        let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"];
        assert!(built(&world, &url, &keep).contains_key(".git/HEAD"));
        build(&world, &format!("{url}?checksum=1234"), &[])
            .failed()
            .said(&["expected checksum to match 1234, got"]);
        build(&world, &format!("{url}#nope"), &[])
            .failed()
            .said(&["does not contain ref nope"]);
        build(&world, &format!("{url}#main:nope"), &[])
            .failed()
            .said(&["has no folder \"nope\""]);
        build(&world, &server.url("nope.git"), &[]).failed().said(&[
            "failed to fetch remote",
            "nope.git",
            "not found",
        ]);
    }
}

#[test]
fn an_unchanged_branch_costs_one_question_to_the_server() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let server = served(&world, Manner::Protocol, None);
    server.commit("a.git", &[("Dockerfile", DOCKERFILE), ("a", "one")]);
    let url = format!("{}#main", server.url("a.git"));
    built(&world, &url, &[]);
    let before = server.web.seen().len();
    build(&world, &url, &[]).succeeded().said(&["CACHED"]);
    // A listing by protocol 2 is two requests.
    assert_eq!(server.web.seen().len() - before, 2);
    server.commit("a.git", &[("a", "two")]);
    let files = built(&world, &url, &[]);
    assert_eq!(files.get("a").map(String::as_str), Some("two"));
}

#[test]
fn a_private_repository_is_read_with_the_clients_token_which_nobody_else_sees() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let token = "very-secret-token";
    let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    let password = format!("basic {}", encode(format!("x-access-token:{token}")));
    let server = served(&world, Manner::Protocol, Some(&password));
    server.commit("a.git", &[("Dockerfile", DOCKERFILE), ("a", "one")]);
    let url = server.url("a.git");
    build(&world, &url, &[])
        .failed()
        .said(&["give the build a token: --secret id=GIT_AUTH_TOKEN"]);
    let secret = |name: &str, content: &str| {
        let path = world.folder().join(name);
        std::fs::write(&path, content).unwrap();
        format!("id={name},src={}", path.display())
    };
    let wrong = secret("GIT_AUTH_TOKEN", "wrong");
    build(&world, &url, &["--secret", &wrong])
        .failed()
        .said(&["failed to fetch remote"]);
    let right = secret(&format!("GIT_AUTH_TOKEN.{}", server.web.address()), token);
    let ended = build(&world, &url, &["--secret", &right]).succeeded();
    let header = secret("GIT_AUTH_HEADER", &password);
    build(&world, &url, &["--secret", &header]).succeeded();
    let with_user = url.replace("http://", &format!("http://me:{token}@"));
    let refused = build(&world, &with_user, &[]).failed();
    for text in [ended.stderr, refused.stderr, world.daemon.process.log()] {
        assert!(!text.contains(token), "{text}");
    }
    // Nor does another server that the first one sends us to.
    let other = tests::web::WebServer::start(|_| tests::web::Reply::status(404));
    let to = other.url("/a.git/info/refs");
    let password = password.clone();
    let redirecting = tests::web::WebServer::start(move |request| {
        match request.header("authorization") == Some(&password) {
            true => tests::web::Reply::redirect(&to),
            false => tests::web::Reply::status(401),
        }
    });
    let general = secret("GIT_AUTH_TOKEN", token);
    build(&world, &redirecting.url("/a.git"), &["--secret", &general])
        .failed()
        .said(&["redirects are not followed with credentials"]);
    assert!(other.seen().is_empty());
}

#[test]
fn add_takes_repositories() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let server = served(&world, Manner::Protocol, None);
    let commit = server.commit("a.git", &[("a", "one"), ("sub/b", "two")]);
    let url = server.url("a.git");
    let text = format!(
        "FROM scratch\nADD {url}#main:sub /sub/\nADD --keep-git-dir=true --checksum={commit} {url} /whole/\n"
    );
    let context = world.context("context", &[("Dockerfile", &text)]);
    let files = built(&world, context.to_str().unwrap(), &[]);
    for (path, content) in [("sub/b", "two"), ("whole/a", "one"), ("whole/sub/b", "two")] {
        assert_eq!(files.get(path).map(String::as_str), Some(content), "{path}");
    }
    assert!(files.contains_key("whole/.git/config"));
    let wrong = format!("FROM scratch\nADD --checksum=0000 {url} /\n");
    world.build_fails("wrong", &wrong).said(&[
        "Dockerfile:2",
        "expected checksum to match 0000, got",
        &commit,
    ]);
}

#[test]
fn buildx_builds_from_repositories() {
    if !given(&NEEDS) || !given(&[Need::Buildx]) {
        return;
    }
    let world = World::new();
    let server = served(&world, Manner::Protocol, None);
    server.commit("a.git", &[("sub/Dockerfile", DOCKERFILE), ("sub/a", "one")]);
    let program = installed("docker-buildx")
        .or_else(|| installed("buildx"))
        .unwrap();
    let buildx = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command
            .args(arguments)
            .current_dir(world.folder())
            .env("HOME", world.folder().join("home"))
            .env("BUILDX_CONFIG", world.folder().join("buildx"))
            .env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
        Ended::of(&mut command)
    };
    let address = world.daemon.address();
    buildx(&["create", "--name", "peer", "--driver", "remote", &address]).succeeded();
    let url = format!("{}#main:sub", server.url("a.git"));
    buildx(&[
        "build",
        "--builder=peer",
        "--progress=plain",
        "--output=type=local,dest=result",
        &url,
    ])
    .succeeded();
    let all = expected(&[("Dockerfile", DOCKERFILE), ("a", "one")]);
    assert_eq!(files(&world.folder().join("result")), all);
}
