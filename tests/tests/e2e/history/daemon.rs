//! The same with the real daemon: a build, and all that can be asked about it afterwards.

use tests::needs::{Need, given};
use tests::world::World;

const NEEDS: [Need; 4] = [Need::Root, Need::Registry, Need::BusyBox, Need::Qemu];

#[test]
fn a_build_can_be_looked_at_afterwards() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@\nRUN echo built on $(uname -m) > /made && cat /made\n";
    let context = world.context("project", &[("Dockerfile", dockerfile)]);
    world
        .build(
            &context,
            &["--platform=linux/amd64,linux/arm64", "--build-arg=VERSION=7"],
        )
        .succeeded();
    let bad = world.context(
        "broken",
        &[("Dockerfile", "FROM @base@\nRUN echo before the end && exit 7\n")],
    );
    world.build(&bad, &["--platform=linux/amd64"]).failed();
    let history = |arguments: &[&str]| {
        let mut all = vec!["history"];
        all.extend(arguments);
        world.trimaran(&all)
    };

    let listed = history(&["ls", "--format", "{{.Name}} {{.Status}}"]).succeeded();
    assert_eq!(listed.stdout, "broken Error\nproject Completed\n");
    let completed = history(&["ls", "--filter", "status=completed", "--format", "{{.Name}}"]).succeeded();
    assert_eq!(completed.stdout, "project\n");

    history(&["inspect", "^1"]).succeeded().said(&[
        "Name:\t\tproject",
        "Platforms:\tlinux/amd64, linux/arm64",
        "VERSION\t\t7",
    ]);
    history(&["inspect"]).succeeded().said(&[
        "exit code: 7",
        ">>> RUN echo before the end",
        "> before the end",
    ]);
    history(&["logs", "^1"])
        .succeeded()
        .said(&["built on x86_64", "built on aarch64", "DONE"]);
    history(&["trace", "^1"]);

    history(&["open", "^1", "-o", "page.html", "--no-open"]).succeeded();
    let page = std::fs::read_to_string(world.folder().join("page.html")).unwrap();
    assert!(page.contains("built on aarch64") && page.contains("\"platform\":\"linux/arm64\""));
    assert!(page.contains("\"emulated\":true"), "arm64 is emulated here");

    let ids = history(&["ls", "--format", "{{.Ref}}"]).succeeded();
    let ids: Vec<&str> = ids.stdout.lines().collect();
    history(&["export", "-o", "all.dockerbuild", "--all"]).succeeded();
    history(&["rm", "--all"]).succeeded();
    assert_eq!(history(&["ls", "--format", "{{.Ref}}"]).succeeded().stdout, "");
    history(&["import", "-f", "all.dockerbuild"]).succeeded();
    let imported = history(&["ls", "--format", "{{.Ref}}"]).succeeded();
    assert_eq!(imported.stdout.lines().collect::<Vec<_>>(), ids);
    history(&["logs", ids[1]]).succeeded().said(&["built on aarch64"]);
    history(&["inspect", ids[0]]).succeeded().said(&["exit code: 7"]);
}

#[test]
fn the_cache_can_be_looked_at_and_pruned() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@\nRUN dd if=/dev/zero of=/large bs=1024 count=512\n";
    let context = world.context("project", &[("Dockerfile", dockerfile)]);
    world.build(&context, &["--platform=linux/amd64"]).succeeded();
    world.trimaran(&["du", "--verbose"]).succeeded().said(&[
        "count=512",
        "regular",
        "source.local",
        "Reclaimable:",
        "Total:",
    ]);
    let folders = world
        .trimaran(&["du", "--filter", "type=source.local", "--format", "{{.Type}}"])
        .succeeded();
    assert!(folders.stdout.starts_with("source.local\n"), "{folders}");
    assert!(!folders.stdout.contains("regular"), "{folders}");
    let pruned = world
        .trimaran(&["prune", "--force", "--filter", "type=source.local"])
        .succeeded();
    assert!(pruned.stdout.starts_with("ID"), "{pruned}");
    let left = world.trimaran(&["du", "--format", "{{.Type}}"]).succeeded();
    assert!(!left.stdout.contains("source.local"), "{left}");
    assert!(left.stdout.contains("regular"), "{left}");
    world.trimaran(&["prune", "--all", "--force"]).succeeded();
    let left = world
        .trimaran(&["du", "--filter", "type=regular", "--format", "{{.ID}}"])
        .succeeded();
    assert_eq!(left.stdout, "");
}
