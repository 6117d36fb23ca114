//! Files that lie at URLs: as contexts, as Dockerfiles, and for ADD.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::distribution::digest_of;
use tests::needs::{Need, given};
use tests::process::Ended;
use tests::programs::installed;
use tests::web::{Fate, Reply, WebServer};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];
const DOCKERFILE: &str = "FROM scratch\nCOPY . /\n";

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn build(world: &World, context: &str) -> Ended {
    let result = world.folder().join("result");
    std::fs::remove_dir_all(&result).ok();
    let output = format!("type=local,dest={}", result.display());
    world.build(Path::new(context), &["--output", &output])
}

fn content(world: &World, path: &str) -> String {
    let path = world.folder().join("result").join(path);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn an_archive_is_a_context_and_anything_else_a_dockerfile() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let packed = archive(&[("Dockerfile", DOCKERFILE), ("sub/a", "one")]);
    let server = WebServer::start(move |request| match request.path.as_str() {
        "/context.tgz" => Reply::of(packed.clone()).header("ETag", "\"1\""),
        "/Dockerfile" => Reply::of("FROM scratch\nCOPY context /file\n"),
        "/moved" => Reply::redirect("/context.tgz"),
        "/broken.xz" => Reply::of(&b"\xfd7zXZ\0rest"[..]),
        _ => Reply::status(404),
    });
    build(&world, &server.url("/context.tgz")).succeeded();
    assert_eq!(content(&world, "sub/a"), "one");
    build(&world, &server.url("/moved")).succeeded();
    build(&world, &server.url("/Dockerfile")).succeeded();
    assert_eq!(content(&world, "file"), "FROM scratch\nCOPY context /file\n");
    build(&world, &server.url("/broken.xz"))
        .failed()
        .said(&["context"]);
    build(&world, &server.url("/nope")).failed().said(&[
        "failed to read downloaded context",
        "/nope: invalid response status 404 Not Found",
    ]);
}

#[test]
fn add_takes_files_and_asks_whether_they_have_changed() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let version = Arc::new(AtomicUsize::new(1));
    let packed = archive(&[("in/a", "inside")]);
    let server = WebServer::start({
        let version = Arc::clone(&version);
        move |request| match request.path.as_str() {
            "/file.txt" => {
                let text = format!("version {}", version.load(Ordering::Relaxed));
                let tag = format!("\"{}\"", digest_of(text.as_bytes()));
                match request.header("if-none-match") == Some(&tag) {
                    true => Reply::status(304),
                    false => Reply::of(text).header("ETag", &tag),
                }
            }
            "/a.tgz" => Reply::of(packed.clone()),
            _ => Reply::status(404),
        }
    });
    let (file, packed) = (server.url("/file.txt"), server.url("/a.tgz"));
    let text = format!(
        "FROM scratch\nADD {file} /\nADD --chmod=751 --chown=12:34 {file} /other\nADD {packed} /packed.tgz\n\
         ADD --unpack=true {packed} /unpacked/\n"
    );
    let context = world.context("context", &[("Dockerfile", &text)]);
    let context = context.to_str().unwrap();
    build(&world, context).succeeded();
    assert_eq!(content(&world, "file.txt"), "version 1");
    assert_eq!(content(&world, "unpacked/in/a"), "inside");
    let metadata = |name: &str| std::fs::metadata(world.folder().join("result").join(name)).unwrap();
    assert_eq!(metadata("file.txt").mode() & 0o7777, 0o600);
    let other = metadata("other");
    assert_eq!((other.mode() & 0o7777, other.uid(), other.gid()), (0o751, 12, 34));
    assert!(metadata("packed.tgz").len() > 20);
    build(&world, context).succeeded().said(&["CACHED"]);
    version.store(2, Ordering::Relaxed);
    build(&world, context).succeeded();
    assert_eq!(content(&world, "file.txt"), "version 2");

    let right = digest_of(b"version 2");
    let wrong = digest_of(b"version 1");
    let with = |digest: &str| format!("FROM scratch\nADD --checksum={digest} {file} /\n");
    let context = world.context("right", &[("Dockerfile", &with(&right))]);
    // The file with this digest is here, so nobody has to be asked.
    let before = server.seen().len();
    build(&world, context.to_str().unwrap()).succeeded();
    assert_eq!(server.seen().len(), before);
    world.build_fails("wrong", &with(&wrong)).said(&[
        "Dockerfile:2",
        &format!("digest mismatch {right}: {wrong} is expected of {file}"),
    ]);
}

#[test]
fn a_server_that_misbehaves_fails_the_build_and_nothing_else() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let server = WebServer::start(|request| match request.path.as_str() {
        "/cut" => Reply::of(vec![b'x'; 100_000]).fate(Fate::CutAfter(50_000)),
        "/loop" => Reply::redirect("/loop"),
        "/private" => Reply::status(401),
        "/out" => Reply::redirect("file:///etc/hostname"),
        _ => Reply::of("fine"),
    });
    for (path, said) in [
        ("/cut", "the server stopped after "),
        ("/loop", "it redirects more than 10 times"),
        ("/private", "--secret id=HTTP_AUTH_TOKEN_127.0.0.1"),
        ("/out", "which is no http address"),
    ] {
        let text = format!("FROM scratch\nADD {} /\n", server.url(path));
        world.build_fails("bad", &text).said(&["Dockerfile:2", said]);
    }
    let text = format!("FROM scratch\nADD {} /\n", server.url("/fine"));
    let context = world.context("good", &[("Dockerfile", &text)]);
    build(&world, context.to_str().unwrap()).succeeded();
    assert_eq!(content(&world, "fine"), "fine");
}

#[test]
fn buildx_sends_an_archive_from_its_standard_input() {
    if !given(&NEEDS) || !given(&[Need::Buildx]) {
        return;
    }
    let world = World::new();
    let program = installed("docker-buildx")
        .or_else(|| installed("buildx"))
        .unwrap();
    let environment = BTreeMap::from([
        ("HOME", world.folder().join("home")),
        ("BUILDX_CONFIG", world.folder().join("buildx")),
        ("BUILDX_NO_DEFAULT_ATTESTATIONS", "1".into()),
    ]);
    let buildx = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .current_dir(world.folder())
            .envs(&environment);
        command
    };
    let address = world.daemon.address();
    let create = ["create", "--name", "peer", "--driver", "remote", &address];
    Ended::of(&mut buildx(&create)).succeeded();
    let mut child = buildx(&["build", "--builder=peer", "--output=type=local,dest=result", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let packed = archive(&[("Dockerfile", DOCKERFILE), ("sub/a", "one")]);
    child.stdin.take().unwrap().write_all(&packed).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(content(&world, "sub/a"), "one");
}
