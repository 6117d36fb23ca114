//! Daemons that are killed in the middle of their work.

use std::time::Duration;

use tests::needs::{Need, given};
use tests::waiting::wait_until;
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_daemon_killed_during_a_step_builds_the_same_after_a_restart() {
    if !given(&NEEDS) {
        return;
    }
    let mut world = World::new();
    let gate = world.folder().join("context/gate");
    // The first step takes until the file is changed; what the second attempt copies lets it end.
    let dockerfile =
        "FROM @base@\nRUN echo kept > /kept\nCOPY gate /gate\nRUN echo step-is-running && sh /gate\n";
    let context = world.context(
        "context",
        &[("Dockerfile", dockerfile), ("gate", "sleep 86403\n")],
    );
    let mut build = world.start_build(&context, &[]);
    build.wait_for_log("step-is-running", LIMIT);
    world.daemon.process.kill();
    assert!(!build.wait(LIMIT).success());

    std::fs::write(gate, "true\n").unwrap();
    world.daemon.restart();
    world
        .build(&context, &["-t", &world.image("after"), "--push"])
        .succeeded();
    assert!(world.repository("after").has("latest").unwrap());
    nothing_half_made_is_left(&world);
}

#[test]
fn a_daemon_killed_during_export_builds_the_same_after_a_restart() {
    if !given(&NEEDS) {
        return;
    }
    let mut world = World::new();
    // Large and hard to compress: packing it takes a while.
    let dockerfile = "FROM @base@\nRUN dd if=/dev/urandom of=/large bs=1M count=200 2>/dev/null\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let image = world.image("large");
    let mut build = world.start_build(&context, &["-t", &image, "--push"]);
    build.wait_for_log("exporting", LIMIT);
    world.daemon.process.kill();
    assert!(!build.wait(LIMIT).success());
    assert!(!world.repository("large").has("latest").unwrap());

    world.daemon.restart();
    world.build(&context, &["-t", &image, "--push"]).succeeded();
    let (manifest, _) = world.repository("large").image("latest", "linux/amd64").unwrap();
    let tree = tests::unpacked::tree(&world.repository("large"), &manifest).unwrap();
    assert!(tree.contains_key("large"));
    nothing_half_made_is_left(&world);
}

#[test]
fn what_was_built_before_the_kill_is_still_cached() {
    if !given(&NEEDS) {
        return;
    }
    let mut world = World::new();
    let context = world.context(
        "context",
        &[("Dockerfile", "FROM @base@\nRUN echo expensive > /made\n")],
    );
    world.build(&context, &[]).succeeded();
    world.daemon.process.kill();
    world.daemon.restart();
    world.build(&context, &[]).succeeded().said(&["CACHED"]);
}

#[test]
fn a_cache_of_one_step_at_a_time_is_free_again_when_its_holder_is_killed() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let holder = world.context(
        "holder",
        &[(
            "Dockerfile",
            "FROM @base@\nRUN --mount=type=cache,id=one,sharing=locked,target=/c touch /c/held && echo holder-\"runs\" && sleep 86404\n",
        )],
    );
    let next = world.context(
        "next",
        &[(
            "Dockerfile",
            "FROM @base@\nRUN --mount=type=cache,id=one,sharing=locked,target=/c test -e /c/held && echo next-\"runs\"\n",
        )],
    );
    let mut held = world.start_build(&holder, &[]);
    held.wait_for_log("holder-runs", LIMIT);
    held.kill();
    world.build(&next, &[]).succeeded().said(&["next-runs"]);
}

/// No temporary files wait in the state folder for somebody to remove them, and nothing is mounted below it.
fn nothing_half_made_is_left(world: &World) {
    let state = world.daemon.state();
    wait_until("half-made things to be gone", LIMIT, || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        !mounts.contains(state.to_str().unwrap()) && leftovers(&state).is_empty()
    });
}

fn leftovers(state: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for name in ["tmp", "ingest", "work", "incoming"] {
        let folder = state.join(name);
        found.extend(
            std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .filter_map(Result::ok)
                .map(|entry| entry.path()),
        );
    }
    found
}
