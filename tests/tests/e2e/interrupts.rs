//! Clients that go away in the middle of a step.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::needs::{Need, given};
use tests::waiting::wait_until;
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];
const LIMIT: Duration = Duration::from_secs(30);

/// A step that can be told from all other processes of the machine while it runs.
fn endless(mark: &str) -> String {
    format!("FROM @base@\nRUN echo step-is-running && sleep {mark}\n")
}

/// Whether a process with this argument runs anywhere.
fn runs(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|command| {
            let mut arguments = command.split(|byte| *byte == 0);
            arguments.next().is_some_and(|name| {
                name.ends_with(b"sleep") || name.ends_with(b"busybox") || name.ends_with(b"sh")
            }) && arguments.any(|argument| argument == mark.as_bytes())
        })
}

fn a_client_that_ends_takes_its_step_along(signal: Signal, mark: &str) {
    let world = World::new();
    let context = world.context("context", &[("Dockerfile", &endless(mark))]);
    let mut build = world.start_build(&context, &[]);
    build.wait_for_log("step-is-running", LIMIT);
    wait_until("the step to run", LIMIT, || runs(mark));
    build.send(signal);
    let status = build.wait(LIMIT);
    assert!(!status.success());
    wait_until("the step to end", LIMIT, || !runs(mark));
    // The daemon lives and builds.
    let next = world.context("next", &[("Dockerfile", "FROM @base@\nRUN echo alive\n")]);
    world.build(&next, &[]).succeeded().said(&["alive"]);
}

#[test]
fn ctrl_c_ends_the_step_and_the_daemon_lives() {
    if given(&NEEDS) {
        a_client_that_ends_takes_its_step_along(Signal::SIGINT, "86401");
    }
}

#[test]
fn a_client_that_is_killed_leaves_no_step_behind() {
    if given(&NEEDS) {
        a_client_that_ends_takes_its_step_along(Signal::SIGKILL, "86402");
    }
}
