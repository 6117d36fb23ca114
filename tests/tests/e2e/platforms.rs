//! Platforms that run, platforms that do not, and what is said about them.

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use tests::daemon::{self, Daemon};
use tests::needs::{Need, given};
use tests::process::{Ended, Running};
use tests::programs;
use tests::waiting::wait_until;
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn each_platform_gets_what_its_own_programs_say() {
    if !given(&NEEDS) || !given(&[Need::Qemu]) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@ AS build\nARG TARGETPLATFORM\nRUN echo \"$TARGETPLATFORM $(uname -m)\" > /told\n\
        FROM @base@\nCOPY --from=build /told /told\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let platforms = [
        "linux/amd64",
        "linux/arm64",
        "linux/s390x",
        "linux/ppc64le",
        "linux/arm/v7",
        "linux/386",
    ];
    let platform_flag = format!("--platform={}", platforms.join(","));
    world
        .build(&context, &[&platform_flag, "-t", &world.image("many"), "--push"])
        .succeeded();

    let repository = world.repository("many");
    for (platform, told) in [
        ("linux/amd64", "linux/amd64 x86_64\n"),
        ("linux/arm64", "linux/arm64 aarch64\n"),
        ("linux/s390x", "linux/s390x s390x\n"),
        ("linux/ppc64le", "linux/ppc64le ppc64le\n"),
    ] {
        let (manifest, config) = repository.image("latest", platform).unwrap();
        assert_eq!(
            config["architecture"].as_str().unwrap(),
            platform.split('/').nth(1).unwrap()
        );
        let tree = tests::unpacked::tree(&repository, &manifest).unwrap();
        let expected = tests::distribution::digest_of(told.as_bytes());
        match &tree.get("told").unwrap().kind {
            tests::unpacked::Kind::File { digest, .. } => assert_eq!(*digest, expected, "{platform}"),
            other => panic!("{other:?}"),
        }
    }
    let index = repository.manifest("latest").unwrap();
    assert_eq!(
        index["manifests"].as_array().unwrap().len(),
        platforms.len(),
        "{index}"
    );
}

#[test]
fn an_emulated_busybox_keeps_the_names_of_its_applets() {
    if !given(&NEEDS) || !given(&[Need::Qemu]) {
        return;
    }
    let world = World::new();
    // Debian's shell runs applets by executing itself under another name.
    let dockerfile =
        "FROM @base@\nRUN echo told > /file && cat /file && ls /file && test \"$(cat /file)\" = told\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    world
        .build(&context, &["--platform=linux/arm64"])
        .succeeded()
        .said(&["told", "/file"]);
}

#[test]
fn a_platform_that_nobody_knows_is_refused_by_name() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context("context", &[("Dockerfile", "FROM scratch\n")]);
    world
        .build(&context, &["--platform=linux/vax/v1/x"])
        .failed()
        .said(&["linux/vax/v1/x"]);
    let context = world.context("run", &[("Dockerfile", "FROM @base@\nRUN true\n")]);
    world
        .build(&context, &["--platform=linux/sparc64"])
        .failed()
        .said(&["linux/sparc64"]);
}

/// A daemon on a machine without any handlers but those that a script registers; the current builder is for it.
struct OtherMachine {
    _daemon: Running,
    _folder: tempfile::TempDir,
}

impl OtherMachine {
    fn start(world: &World, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && {script} && exec \"$@\"");
        let plain = daemon::command(folder.path(), &["--executor".to_owned(), "native".to_owned()]);
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--propagation=private"]);
        command.args(["sh", "-c", &script, "sh"]);
        command.arg(plain.get_program()).args(plain.get_args());
        let mut daemon = Running::start(&mut command, &folder.path().join("builderd.log"));
        let socket = daemon::socket(folder.path());
        wait_until("the daemon to listen", LIMIT, || {
            assert!(daemon.ended().is_none(), "{}", daemon.log());
            UnixStream::connect(&socket).is_ok()
        });
        let address = format!("unix://{}", socket.display());
        let arguments = [
            "create", "--use", "--name", "other", "--driver", "remote", &address,
        ];
        world.trimaran(&arguments).succeeded();
        Self {
            _daemon: daemon,
            _folder: folder,
        }
    }
}

#[test]
fn a_weak_handler_of_somebody_else_is_named() {
    if !given(&NEEDS) || !given(&[Need::Qemu, Need::OwnHandlers]) {
        return;
    }
    let world = World::new();
    // As Debian's package registers it: without C.
    let magic = r"\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16";
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff";
    let handler = format!(":qemu-s390x:M::{magic}:{mask}:/usr/bin/qemu-s390x-static:OPF");
    let register = format!("printf %s '{handler}' > /proc/sys/fs/binfmt_misc/register");
    let _other = OtherMachine::start(&world, &register);
    world.trimaran(&["inspect", "other"]).succeeded().said(&[
        "handler qemu-s390x",
        "registered by somebody else, flags POF only",
        "without C set-uid programs do not change user",
        "binfmt --install s390x",
    ]);
}

#[test]
fn a_missing_emulator_is_named_before_the_first_step_with_what_helps() {
    if !given(&NEEDS) || !given(&[Need::Qemu, Need::OwnHandlers]) {
        return;
    }
    let world = World::new();
    let hidden = "mount --bind /dev/null /usr/bin/qemu-s390x-static";
    let _other = OtherMachine::start(&world, hidden);

    let context = world.context(
        "context",
        &[("Dockerfile", "FROM @base@\nRUN echo first-\"step\"\n")],
    );
    world
        .build(&context, &["--platform=linux/amd64,linux/s390x"])
        .failed()
        .said(&[
            "linux/s390x",
            "apt-get install qemu-user-static",
            "binfmt --install s390x",
        ])
        .did_not_say("first-step");
}

#[test]
fn what_a_builder_offers_is_what_it_can_run() {
    if !given(&NEEDS) || !given(&[Need::Qemu]) {
        return;
    }
    let world = World::new();
    let inspected = world.trimaran(&["inspect", "test", "--bootstrap"]).succeeded();
    let inspected = inspected.said(&[
        "Name:",
        "test",
        "Driver:",
        "remote",
        "Status:",
        "running",
        "Platforms:",
    ]);
    let offered = inspected
        .stdout
        .lines()
        .find(|line| line.starts_with("Platforms:"))
        .unwrap()
        .to_owned();
    let proved = Ended::of(&mut Command::new(programs::ours("binfmt"))).succeeded();
    let proved: serde_json::Value = serde_json::from_str(&proved.stdout).unwrap();
    for platform in proved["supported"].as_array().unwrap() {
        assert!(
            offered.contains(platform.as_str().unwrap()),
            "{platform} is missing in {offered}"
        );
    }
    world
        .trimaran(&["ls"])
        .succeeded()
        .said(&["NAME/NODE", "test*", "running", "linux/arm64"]);
}

#[test]
fn a_daemon_that_starts_registers_what_is_missing() {
    if !given(&NEEDS) || !given(&[Need::Qemu]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(folder.path(), &["--executor", "native"]);
    let probed = Ended::of(Command::new(programs::ours("binfmt")).arg("--version")).succeeded();
    assert!(probed.stdout.starts_with("binfmt/"), "{probed}");
    wait_until("the emulators to be registered", LIMIT, || {
        Ended::of(&mut Command::new(programs::ours("binfmt")))
            .stdout
            .contains("linux/arm64")
    });
}
