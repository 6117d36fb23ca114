//! What runs again, and what does not.

use tests::needs::{Need, given};
use tests::process::Ended;
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

/// How often a step that prints the mark ran; its name also has the mark, in quotes of another kind.
fn times_run(build: &Ended, mark: &str) -> usize {
    let line = format!(" {mark}\n");
    build.stderr.matches(&line).count() + build.stdout.matches(&line).count()
}

#[test]
fn unchanged_steps_do_not_run_again_and_changed_ones_do() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@\nRUN echo mark-\"one\"\nCOPY a.txt /\nRUN echo mark-\"two\"\n";
    let context = world.context(
        "context",
        &[
            ("Dockerfile", dockerfile),
            ("a.txt", "first"),
            ("b.txt", "unused"),
        ],
    );
    let first = world.build(&context, &[]).succeeded();
    assert_eq!(
        (times_run(&first, "mark-one"), times_run(&first, "mark-two")),
        (1, 1),
        "{first}"
    );
    // What no step uses may change.
    std::fs::write(context.join("b.txt"), "other").unwrap();
    let second = world.build(&context, &[]).succeeded();
    assert_eq!(
        (times_run(&second, "mark-one"), times_run(&second, "mark-two")),
        (0, 0),
        "{second}"
    );
    std::fs::write(context.join("a.txt"), "second").unwrap();
    let third = world.build(&context, &[]).succeeded();
    assert_eq!(
        (times_run(&third, "mark-one"), times_run(&third, "mark-two")),
        (0, 1),
        "{third}"
    );
    let fourth = world.build(&context, &["--no-cache"]).succeeded();
    assert_eq!(
        (times_run(&fourth, "mark-one"), times_run(&fourth, "mark-two")),
        (1, 1),
        "{fourth}"
    );
}

#[test]
fn the_same_build_twice_gives_the_same_image() {
    if !given(&NEEDS) || !given(&[Need::Qemu]) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@\nRUN echo made > /made\nCOPY Dockerfile /\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let platforms = "--platform=linux/amd64,linux/arm64";
    world
        .build(&context, &[platforms, "-t", &world.image("a"), "--push"])
        .succeeded();
    world
        .build(&context, &[platforms, "-t", &world.image("b"), "--push"])
        .succeeded();
    assert_eq!(
        world.repository("a").manifest("latest").unwrap(),
        world.repository("b").manifest("latest").unwrap()
    );
}

#[test]
fn what_does_not_depend_on_the_platform_runs_once() {
    if !given(&NEEDS) || !given(&[Need::Qemu]) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM --platform=$BUILDPLATFORM @base@ AS build\nRUN echo mark-\"once\" && echo x > /out\n\
        FROM @base@\nCOPY --from=build /out /out\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let build = world
        .build(&context, &["--platform=linux/amd64,linux/arm64"])
        .succeeded();
    assert_eq!(times_run(&build, "mark-once"), 1, "{build}");
}

#[test]
fn stages_that_nothing_needs_are_skipped() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile =
        "FROM @base@ AS unused\nRUN echo mark-\"unused\" && false\nFROM @base@\nRUN echo mark-\"used\"\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let build = world.build(&context, &[]).succeeded();
    assert_eq!(
        (times_run(&build, "mark-unused"), times_run(&build, "mark-used")),
        (0, 1),
        "{build}"
    );
}
