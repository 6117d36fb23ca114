//! The Docker command line beside ours: as its plugin, with its contexts, and with engines that it reaches through ssh.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::needs::{Need, given};
use tests::process::Ended;
use tests::programs;
use tests::world::World;

const NEEDS: [Need; 4] = [Need::Root, Need::Registry, Need::BusyBox, Need::Docker];

fn config(world: &World) -> PathBuf {
    world.folder().join("home/.docker")
}

fn docker(world: &World, arguments: &[&str]) -> Ended {
    let mut command = Command::new("docker");
    command.args(arguments).current_dir(world.folder());
    command.env("HOME", world.folder().join("home"));
    for variable in ["DOCKER_CONFIG", "BUILDX_BUILDER", "TRIMARAN_BUILDER"] {
        command.env_remove(variable);
    }
    Ended::of(&mut command)
}

fn install(world: &World, name: &str) {
    let plugins = config(world).join("cli-plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    std::os::unix::fs::symlink(programs::ours("trimaran"), plugins.join(name)).unwrap();
}

#[test]
fn docker_runs_it_as_a_plugin() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    install(&world, "docker-trimaran");
    install(&world, "docker-buildx");
    docker(&world, &["trimaran", "version"])
        .succeeded()
        .said(&["trimaran v"]);
    docker(&world, &["trimaran", "ls"])
        .succeeded()
        .said(&["test*", "running"]);
    docker(&world, &["buildx", "inspect", "test"])
        .succeeded()
        .said(&["Driver:", "remote"]);
    docker(&world, &["trimaran", "build", "--help"])
        .succeeded()
        .said(&["Usage: docker trimaran build"]);

    let context = world.context("context", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let context = context.to_str().unwrap();
    docker(&world, &["trimaran", "build", "-o", "out", context]).succeeded();
    assert!(world.folder().join("out/Dockerfile").exists());
    docker(&world, &["buildx", "build", "-o", "other", context]).succeeded();
    assert!(world.folder().join("other/Dockerfile").exists());

    // Docker's own ways to exit and to complete.
    let flag = docker(&world, &["trimaran", "build", "--nonsense", "."]);
    assert_eq!(flag.code, Some(125), "{flag}");
    docker(&world, &["trimaran", "nonsense"]).failed();
    docker(&world, &["trimaran", "inspect", "nobody"]).failed();
    docker(&world, &["__complete", "trimaran", "use", ""])
        .succeeded()
        .said(&["test\n", ":4\n"]);
    docker(&world, &["__complete", "trimaran", "imag"])
        .succeeded()
        .said(&["imagetools\t"]);
    // Flags of Docker come first.
    let elsewhere = world.folder().join("elsewhere");
    let elsewhere = elsewhere.to_str().unwrap();
    let plugins = Path::new(elsewhere).join("cli-plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    std::os::unix::fs::symlink(programs::ours("trimaran"), plugins.join("docker-trimaran")).unwrap();
    docker(&world, &["--config", elsewhere, "trimaran", "ls"])
        .succeeded()
        .did_not_say("test");
}

#[test]
fn a_builder_may_load_what_has_no_output() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let address = world.daemon.address();
    let option = ["--driver", "remote", "--driver-opt", "default-load=true"];
    world
        .trimaran(&[&["create", "--use", "--name", "loads"], &option[..], &[&address]].concat())
        .succeeded();
    let context = world.context("context", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let image = format!("trimaran-test/loaded:{}", std::process::id());
    let built = world.build(&context, &["-t", &image]).succeeded();
    built.did_not_say("No output specified");
    docker(&world, &["image", "inspect", &image]).succeeded();
    docker(&world, &["image", "rm", &image]).succeeded();
}

/// A builder that is removed also if the test fails.
struct Builder<'a> {
    world: &'a World,
    name: String,
}

impl Drop for Builder<'_> {
    fn drop(&mut self) {
        self.world.trimaran(&["rm", &self.name]);
    }
}

#[test]
fn an_engine_is_named_by_its_context_or_reached_through_ssh() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let bin = world.folder().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nexec sh -c \"$*\"\n";
    std::fs::write(bin.join("ssh"), script).unwrap();
    Ended::of(Command::new("chmod").arg("755").arg(bin.join("ssh"))).succeeded();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let trimaran = |arguments: &[&str]| Ended::of(world.command(arguments).env("PATH", &path));

    let host = "host=unix:///var/run/docker.sock";
    docker(&world, &["context", "create", "near", "--docker", host]).succeeded();
    docker(
        &world,
        &["context", "create", "far", "--docker", "host=ssh://machine"],
    )
    .succeeded();
    trimaran(&["ls"])
        .succeeded()
        .said(&["near ", "near0", "far0", "default0"]);
    trimaran(&["create", "--name", "near", "unix:///x"])
        .failed()
        .said(&["already exists as context builder"]);
    trimaran(&["use", "near"])
        .failed()
        .said(&["run `docker context use near`"]);
    trimaran(&["rm", "near"])
        .failed()
        .said(&["docker context rm near"]);

    let builder = Builder {
        world: &world,
        name: format!("context{}", std::process::id()),
    };
    let name = builder.name.as_str();
    let option = ["--driver-opt", "memory=1g,env.WHO=me"];
    let create = ["create", "--name", name, "--driver", "docker-container"];
    trimaran(&[&create[..], &option, &["near"]].concat()).succeeded();
    let node = format!("{name}-far");
    trimaran(&[&create[..], &["--append", "--node", &node, "far"]].concat()).succeeded();
    trimaran(&["inspect", "--bootstrap", name]).succeeded().said(&[
        "Endpoint:              near",
        "Endpoint:              far",
        "Driver Options:        env.WHO=\"me\" memory=\"1g\"",
        "BuildKit daemon flags: --allow-insecure-entitlement=network.host",
        "Status:                running",
    ]);
    let container = format!("trimaran_builderd_{name}0");
    docker(
        &world,
        &[
            "inspect",
            "--format",
            "{{.HostConfig.Memory}} {{.Config.Env}}",
            &container,
        ],
    )
    .succeeded()
    .said(&["1073741824 [WHO=me"]);
    let listed = trimaran(&["ls", "--format", "{{.Name}} {{.Status}}"]).succeeded();
    listed.said(&[&format!("{name}0 running"), &format!("{node} running")]);

    // The daemon's image tells what runs, without rights.
    docker(&world, &["run", "--rm", "trimaran/builderd", "binfmt"])
        .succeeded()
        .said(&["\"supported\"", "\"linux/amd64\""]);
    docker(
        &world,
        &[
            "run",
            "--rm",
            "--entrypoint",
            "binfmt",
            "trimaran/builderd",
            "--version",
        ],
    )
    .succeeded()
    .said(&["binfmt/", " qemu/"]);
    trimaran(&["stop", name]).succeeded();
    let listed = trimaran(&["ls", "--format", "{{.Name}} {{.Status}}"]).succeeded();
    listed.said(&[&format!("{name}0 stopped"), &format!("{node} stopped")]);
    trimaran(&["rm", "--keep-state", name])
        .succeeded()
        .said(&[&format!("{name} removed")]);
    let volume = format!("{container}_state");
    docker(&world, &["volume", "inspect", &volume]).succeeded();
    docker(
        &world,
        &[
            "volume",
            "rm",
            &volume,
            &format!("trimaran_builderd_{node}_state"),
        ],
    )
    .succeeded();
}
