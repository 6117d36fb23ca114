//! Docker engines that come and go.

use std::process::Command;

use tests::daemon;
use tests::engine::Engine;
use tests::needs::{Need, given};
use tests::process::Running;
use tests::waiting::wait_until;
use tests::world::World;

#[test]
fn builds_go_on_after_the_engine_was_restarted() {
    if !given(&[Need::Root, Need::Registry, Need::BusyBox, Need::Docker]) {
        return;
    }
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(folder.path());
    // A daemon that knows this engine and no other way to run steps.
    let place = folder.path().join("daemon");
    std::fs::create_dir(&place).unwrap();
    let mut command: Command = daemon::command(&place, &["--executor".to_owned(), "docker".to_owned()]);
    let mut process = Running::start(
        command.env("DOCKER_HOST", engine.host()),
        &place.join("builderd.log"),
    );
    let socket = daemon::socket(&place);
    wait_until("the daemon to listen", std::time::Duration::from_secs(30), || {
        assert!(process.ended().is_none(), "{}", process.log());
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    let address = format!("unix://{}", socket.display());
    world
        .trimaran(&[
            "create", "--use", "--name", "engine", "--driver", "remote", &address,
        ])
        .succeeded();

    let context = world.context(
        "context",
        &[("Dockerfile", "FROM @base@\nARG WHICH\nRUN echo build-$WHICH\n")],
    );
    world
        .build(&context, &["--build-arg=WHICH=one"])
        .succeeded()
        .said(&["build-one"]);
    engine.restart();
    world
        .build(&context, &["--build-arg=WHICH=two"])
        .succeeded()
        .said(&["build-two"]);
    process.stop();
}
