//! What of the context a build sees, and that nothing outside it can be reached.

use std::os::unix::fs::symlink;

use tests::distribution::digest_of;
use tests::needs::{Need, given};
use tests::unpacked::{Kind, tree};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

#[test]
fn a_missing_copy_source_is_named_with_its_line() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    world
        .build_fails("missing", "FROM @base@\nCOPY not-here.txt /\n")
        .said(&["Dockerfile:2", "not-here.txt"]);
    let stages = "FROM @base@ AS one\nFROM @base@\nCOPY --from=one /not/there /\n";
    world
        .build_fails("stage", stages)
        .said(&["Dockerfile:3", "/not/there"]);
}

#[test]
fn nothing_outside_the_context_gets_in() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    std::fs::write(world.folder().join("secret.txt"), "outside").unwrap();
    let context = world.context(
        "context",
        &[("Dockerfile", "FROM @base@\nCOPY ../secret.txt /\n")],
    );
    // The path is taken below the context's root, where there is no such file.
    world.build(&context, &[]).failed().said(&["secret.txt"]);

    symlink("../secret.txt", context.join("link.txt")).unwrap();
    symlink(world.folder(), context.join("folder")).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY link.txt /a\n").unwrap();
    let through_link = world.build(&context, &["-t", &world.image("link"), "--push"]);
    if through_link.code == Some(0) {
        let (manifest, _) = world.repository("link").image("latest", "linux/amd64").unwrap();
        let copied = tree(&world.repository("link"), &manifest).unwrap();
        let outside = digest_of(b"outside");
        let leaked = copied
            .values()
            .any(|entry| matches!(&entry.kind, Kind::File { digest, .. } if *digest == outside));
        assert!(!leaked, "a link led outside: {copied:?}");
    } else {
        through_link.failed().said(&["link.txt"]);
    }
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY folder/secret.txt /a\n",
    )
    .unwrap();
    world.build(&context, &[]).failed().said(&["secret.txt"]);
}

#[test]
fn ignored_files_are_not_there() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let files = [
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        (
            ".dockerignore",
            "# not these\n*.log\n!keep.log\nnode_modules\n**/deep\n",
        ),
        ("a.txt", "a"),
        ("b.log", "b"),
        ("keep.log", "c"),
        ("node_modules/x", "d"),
        ("src/deep/y", "e"),
        ("src/z", "f"),
    ];
    let context = world.context("context", &files);
    world
        .build(&context, &["-t", &world.image("ignored"), "--push"])
        .succeeded();
    let (manifest, _) = world
        .repository("ignored")
        .image("latest", "linux/amd64")
        .unwrap();
    let copied = tree(&world.repository("ignored"), &manifest).unwrap();
    let paths: Vec<&str> = copied.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [".dockerignore", "Dockerfile", "a.txt", "keep.log", "src", "src/z"]
    );
}

#[test]
fn the_dockerfile_may_come_from_elsewhere() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context("context", &[("a.txt", "a")]);
    let elsewhere = world.context("elsewhere", &[("My.Dockerfile", "FROM scratch\nCOPY a.txt /\n")]);
    let dockerfile = elsewhere.join("My.Dockerfile");
    world
        .build(&context, &["-f", dockerfile.to_str().unwrap()])
        .succeeded();
}
