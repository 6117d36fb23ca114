//! Dockerfiles with mistakes: which file, which line, what is wrong.

use tests::needs::{Need, given};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

#[test]
fn mistakes_are_shown_with_their_file_line_and_excerpt() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    for (name, dockerfile, said) in [
        (
            "unknown-instruction",
            "FROM @base@\nRNU true\n",
            &["Dockerfile:2", "RNU", ">>> RNU true"][..],
        ),
        (
            "unknown-flag",
            "FROM @base@\nCOPY --form=x a b\n",
            &["Dockerfile:2", "form", ">>> COPY --form=x a b"],
        ),
        ("no-from", "RUN true\n", &["Dockerfile:1"]),
        (
            "no-argument",
            "FROM @base@\nWORKDIR\n",
            &["Dockerfile:2", "WORKDIR"],
        ),
        ("copy-one", "FROM @base@\nCOPY a\n", &["Dockerfile:2", "COPY"]),
        (
            "bad-stage",
            "FROM @base@\nCOPY --from=nowhere/\u{20}x /a /b\n",
            &["Dockerfile:2"],
        ),
        ("empty", "", &["Dockerfile"]),
        (
            "env",
            "FROM @base@\n\n# a comment\nENV\n",
            &["Dockerfile:4", "ENV"],
        ),
    ] {
        world.build_fails(name, dockerfile).said(said);
    }
}

#[test]
fn a_missing_dockerfile_is_named() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context("context", &[("other", "")]);
    world.build(&context, &[]).failed().said(&["Dockerfile"]);
    world
        .build(&context, &["-f", "/nowhere/Dockerfile.x"])
        .failed()
        .said(&["Dockerfile.x"]);
    world
        .build(&world.folder().join("no-folder"), &[])
        .failed()
        .said(&["no-folder"]);
}

#[test]
fn a_target_that_is_not_there_is_named() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context(
        "context",
        &[("Dockerfile", "FROM scratch AS first\nCOPY Dockerfile /\n")],
    );
    world
        .build(&context, &["--target=second"])
        .failed()
        .said(&["second"]);
}
