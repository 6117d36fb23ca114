//! Questions to the frontend in place of a build.

use tests::needs::{Need, given};
use tests::world::World;

const NEEDS: [Need; 2] = [Need::Root, Need::Registry];

#[test]
fn a_check_says_what_it_finds_and_exits_with_one() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let found = world.context("found", &[("Dockerfile", "FROM scratch as a\nCOPY $x /\n")]);
    let output = world.build(&found, &["--check"]).failed();
    let text = output.stdout;
    assert!(
        text.starts_with("Check complete, 2 warnings have been found!\n"),
        "{text}"
    );
    assert!(
        text.contains("WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/"),
        "{text}"
    );
    world
        .build(&found, &["--call=check,ignorestatus=true"])
        .succeeded();
    let clean = world.context("clean", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let output = world.build(&clean, &["--check"]).succeeded();
    assert_eq!(output.stdout, "Check complete, no warnings found.\n");
    let outline = world.build(&clean, &["--call=targets,format=json"]).succeeded();
    let json: serde_json::Value = serde_json::from_str(&outline.stdout).unwrap();
    assert_eq!(json["targets"][0]["base"], "scratch");
}
