//! Base images that are not there, or not for the platform.

use tests::needs::{Need, given};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

#[test]
fn an_image_that_the_registry_does_not_have_is_named() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let missing = world.image("nothing/here:v1");
    world
        .build_fails("missing", &format!("FROM {missing}\nRUN true\n"))
        .said(&[&missing, "not found", "Dockerfile:1"]);
    let tag = world.image("base:no-such-tag");
    world
        .build_fails("tag", &format!("FROM {tag}\nRUN true\n"))
        .said(&[&tag, "not found"]);
}

#[test]
fn an_image_without_the_platform_is_named_with_both() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let context = world.context("context", &[("Dockerfile", "FROM @base@\nCOPY Dockerfile /\n")]);
    world
        .build(&context, &["--platform=linux/riscv64"])
        .failed()
        .said(&[&world.image("base"), "linux/riscv64"]);
}

#[test]
fn images_are_found_by_digest() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let index = world.repository("base").manifest("latest").unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let dockerfile = format!("FROM {}@{digest}\nRUN true\n", world.image("base"));
    let context = world.context("context", &[("Dockerfile", &dockerfile)]);
    world.build(&context, &["--platform=linux/amd64"]).succeeded();
}
