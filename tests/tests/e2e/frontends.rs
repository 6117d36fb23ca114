//! Frontends that are images: a build's first line names one, and it runs in a container of the daemon.

use serde_json::json;
use tests::busybox::gzip;
use tests::distribution::{Image, digest_of};
use tests::needs::{Need, given};
use tests::programs;
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

/// Pushes our frontend as an image of one file.
fn push_greeter(world: &World) -> String {
    let program = std::fs::read(programs::ours("greeter")).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, "greeter", &*program).unwrap();
    let archive = archive.into_inner().unwrap();
    let image = Image {
        config: json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/greeter"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(&archive)]},
        }),
        layers: vec![gzip(&archive).unwrap()],
    };
    world.repository("greeter").push_single("latest", &image).unwrap();
    world.image("greeter")
}

#[test]
fn an_image_reads_the_file_in_its_own_language() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let greeter = push_greeter(&world);
    let text = format!("# syntax={greeter}\ngreet you\ngreet all\n");
    let context = world.context("greeted", &[("Dockerfile", &text)]);
    let image = world.image("greeted");
    let arguments = ["-t", &image, "--push", "--build-arg", "MORE=and more"];
    world.build(&context, &arguments).succeeded();
    let (_, config) = world
        .repository("greeted")
        .image("latest", "linux/amd64")
        .unwrap();
    assert_eq!(config["config"]["Labels"]["greeter"], "yes");
    let result = world.folder().join("result");
    let output = format!("type=local,dest={}", result.display());
    world.build(&context, &["--output", &output]).succeeded();
    let greeting = std::fs::read_to_string(result.join("greeting")).unwrap();
    assert_eq!(greeting, "hello, you\nhello, all\n");

    // A result stands also if the frontend does not end.
    world.build(&context, &["--build-arg", "LINGER=1"]).succeeded();

    // Its refusals are the build's.
    let text = format!("# syntax={greeter}\nFROM scratch\n");
    let context = world.context("refused", &[("Dockerfile", &text)]);
    world
        .build(&context, &[])
        .failed()
        .said(&["greeter knows no \"FROM scratch\""]);
}

#[test]
fn a_frontend_that_goes_without_a_result_is_named() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    // The base image is no frontend: its shell ends at once.
    let text = format!("# syntax={}\nFROM scratch\n", world.image("base"));
    let context = world.context("no-frontend", &[("Dockerfile", &text)]);
    world
        .build(&context, &[])
        .failed()
        .said(&[&format!("frontend {}", world.image("base"))]);
    // And one that is not there at all.
    let text = format!("# syntax={}\nFROM scratch\n", world.image("nobody"));
    let context = world.context("nobody", &[("Dockerfile", &text)]);
    world.build(&context, &[]).failed().said(&["nobody", "not found"]);
    // The daemon goes on.
    let context = world.context("after", &[("Dockerfile", "FROM @base@\nRUN true\n")]);
    world.build(&context, &[]).succeeded();
}
