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

#[test]
fn a_step_that_reads_a_mount_runs_again_when_the_files_there_change() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@ AS made\nCOPY stamp /\nRUN mkdir /out && head -n 1 /stamp > /out/file\n\
                      FROM @base@\nRUN --mount=from=made,source=/out,target=/in cat /in/file && echo mark-\"read\"\n";
    let context = world.context(
        "context",
        &[("Dockerfile", dockerfile), ("stamp", "same\nfirst\n")],
    );
    let times_read = || times_run(&world.build(&context, &[]).succeeded(), "mark-read");
    assert_eq!(times_read(), 1);
    // The stage is built anew and its folder has the same in it.
    std::fs::write(context.join("stamp"), "same\nsecond\n").unwrap();
    assert_eq!(times_read(), 0);
    std::fs::write(context.join("stamp"), "other\n").unwrap();
    assert_eq!(times_read(), 1);
}

#[test]
fn a_cache_in_a_registry_serves_a_daemon_that_kept_nothing() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@ AS made\nCOPY a.txt /\nRUN cat /proc/sys/kernel/random/uuid > /unique\n\
                      FROM @base@\nCOPY --from=made /unique /\n";
    let context = world.context("context", &[("Dockerfile", dockerfile), ("a.txt", "1")]);
    let layers = |name: &str| {
        let (manifest, _) = world.repository(name).image("latest", "linux/amd64").unwrap();
        manifest["layers"].clone()
    };
    let cache = world.image("cache");
    for (kind, to, from) in [
        (
            "separate",
            format!("type=registry,ref={cache},mode=max"),
            format!("type=registry,ref={cache}"),
        ),
        (
            "inline",
            "type=inline".to_owned(),
            format!("type=registry,ref={}", world.image("inline")),
        ),
    ] {
        let (made, again) = (world.image(kind), format!("{kind}-again"));
        let nothing_kept = || world.trimaran(&["prune", "--all", "--force"]).succeeded();
        nothing_kept();
        world
            .build(&context, &["-t", &made, "--push", "--cache-to", &to])
            .succeeded();
        nothing_kept();
        world
            .build(
                &context,
                &["-t", &world.image(&again), "--push", "--cache-from", &from],
            )
            .succeeded()
            .said(&["CACHED"]);
        assert_eq!(layers(kind), layers(&again), "{kind}");
        nothing_kept();
        world
            .build(&context, &["-t", &world.image(&again), "--push"])
            .succeeded();
        assert_ne!(layers(kind), layers(&again), "without a cache");
    }
}
