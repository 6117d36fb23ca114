//! Docker engines that come and go.

use std::process::Command;

use tests::daemon;
use tests::engine::Engine;
use tests::needs::{Need, given};
use tests::process::Running;
use tests::waiting::wait_until;
use tests::web::{Reply, WebServer};
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

#[test]
fn steps_in_containers_reach_the_network_through_the_proxy() {
    if !given(&[Need::Root, Need::Registry, Need::BusyBox, Need::Docker]) {
        return;
    }
    let arguments = [
        "--executor",
        "docker",
        "--proxy-network",
        "--allow-insecure-entitlement=network.host",
    ];
    let world = World::with_daemon(&arguments);
    let server = WebServer::start(|_| Reply::of("here"));
    let wget = format!("env NO_PROXY= no_proxy= wget -q -O- {}", server.url("/file"));
    // The sandbox's own loopback is as closed as the machine's; the engine's network is the machine's if asked for.
    let dockerfile = format!(
        "FROM @base@\nRUN ! {wget} && test \"$(ls /sys/class/net)\" = lo\nRUN --network=host {wget} | grep -x here\n"
    );
    let context = world.context("context", &[("Dockerfile", &dockerfile)]);
    world
        .build(&context, &["--allow=network.host"])
        .succeeded()
        .said(&["-> 502", "-> 200"]);
    assert_eq!(server.seen().len(), 1);
}
