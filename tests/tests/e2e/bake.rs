//! `trimaran bake`: what it prints is what buildx prints, what it refuses it names with its place, and what it builds is
//! pushed.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::git_server::{GitServer, Manner};
use tests::needs::{Need, given};
use tests::process::Ended;
use tests::programs;
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/bake")
}

/// Without any variable that the test does not set.
fn bake(folder: &Path) -> Command {
    let mut command = Command::new(programs::ours("trimaran"));
    command.current_dir(folder).env_clear().arg("bake");
    command.env("HOME", "/root");
    command.env("PATH", std::env::var("PATH").unwrap_or_default());
    command
}

/// A line of words as a shell takes it apart, of which only quotes are needed here.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut begun) = (String::new(), None, false);
    for c in line.chars() {
        match (c, quoted) {
            ('\'' | '"', None) => (quoted, begun) = (Some(c), true),
            (c, Some(quote)) if c == quote => quoted = None,
            (' ', None) => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (c, _) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[test]
fn what_is_printed_is_what_buildx_prints() {
    let mut compared = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(golden()).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(calls) = std::fs::read_to_string(folder.join("calls")) else {
            continue;
        };
        for call in calls.lines().filter(|line| !line.is_empty()) {
            let [name, environment, arguments] = call.splitn(3, '|').collect::<Vec<_>>()[..] else {
                panic!("{call:?} in {} is no call", folder.display());
            };
            let mut command = bake(&folder);
            for pair in words(environment) {
                let (variable, value) = pair.split_once('=').unwrap();
                command.env(variable, value);
            }
            let ended = Ended::of(command.args(words(arguments)));
            let expected = std::fs::read_to_string(folder.join(format!("{name}.out"))).unwrap();
            compared += 1;
            if ended.stdout != expected {
                wrong.push(format!(
                    "{}/{name}: {ended}\nexpected:\n{expected}",
                    folder.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 50, "only {compared} calls were compared");
}

fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn a_mistake_is_shown_with_its_lines() {
    let folder = folder_of(&[(
        "docker-bake.hcl",
        "target \"app\" {\n  tags = [\"x:${TAG}\"]\n}\n",
    )]);
    let ended = Ended::of(bake(folder.path()).arg("--print")).failed();
    assert_eq!(
        ended.stderr,
        "docker-bake.hcl:2\n--------------------\n   1 |     target \"app\" {\n   2 | >>>   tags = [\"x:${TAG}\"]\n   3 |     }\n   4 |     \n--------------------\nERROR: docker-bake.hcl:2,16-19: Unknown variable; There is no variable named \"TAG\".\n"
    );
}

#[test]
fn what_is_missing_or_contradicts_itself_is_named() {
    let folder = folder_of(&[("docker-bake.hcl", "target \"app\" {}\n")]);
    let empty = folder_of(&[]);
    for (folder, arguments, expected) in [
        (
            &folder,
            &["--print", "nothing"][..],
            "failed to find target nothing: targets are app",
        ),
        (
            &folder,
            &["--print", "--list=targets"],
            "--print and --list are mutually exclusive",
        ),
        (
            &folder,
            &["--list=what"],
            "invalid list type \"what\", use targets or variables",
        ),
        (
            &folder,
            &["--print", "--var", "X"],
            "invalid variable \"X\", expected key=value",
        ),
        (
            &folder,
            &["--print", "--allow", "x"],
            "unknown entitlement key \"x\"",
        ),
        (
            &folder,
            &["--print", "-f", "gone.hcl"],
            "reading gone.hcl: No such file or directory",
        ),
        (
            &folder,
            &["--print", "--set", "app.context=-", "app"],
            "context from stdin not allowed in bake",
        ),
        (
            &folder,
            &["--print", "https://127.0.0.1/x"],
            "is not the address of a Git repository",
        ),
        (&empty, &["--print"], "couldn't find a bake definition"),
    ] {
        Ended::of(bake(folder.path()).args(arguments))
            .failed()
            .said(&[expected]);
    }
}

#[test]
fn a_definition_may_reach_out_of_the_folder_only_if_it_is_allowed() {
    let definition = "target \"app\" {\n  context = \"../src\"\n  dockerfile-inline = \"FROM scratch\"\n  network = \"host\"\n  output = [\"type=local,dest=../out\"]\n}\n";
    let folder = folder_of(&[("here/docker-bake.hcl", definition), ("src/file", "x")]);
    let here = folder.path().join("here");
    Ended::of(bake(&here).arg("app")).failed().said(&[
        " - reach the host's network from steps",
        " - read ../src",
        " - write ..",
        "additional privileges requested",
    ]);
    // What the command line itself names needs no further word.
    Ended::of(bake(&here).args([
        "app",
        "--set=app.output=type=local,dest=../out",
        "--set=app.context=.",
        "--set=app.network=default",
        "--builder=there-is-none",
    ]))
    .failed()
    .did_not_say("additional privileges requested");
    Ended::of(bake(&here).env("BUILDX_BAKE_ENTITLEMENTS_FS", "0").args([
        "app",
        "--allow=network.host",
        "--builder=there-is-none",
    ]))
    .failed()
    .did_not_say("additional privileges requested");
}

#[test]
fn groups_matrices_and_links_are_built_for_all_platforms_and_pushed() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let definition = r#"
variable "REGISTRY" {}
group "default" {
  targets = ["app", "tools"]
}
target "base" {
  dockerfile-inline = "FROM @base@\nRUN echo base > /base\n"
  platforms = ["linux/amd64", "linux/arm64"]
}
target "app" {
  contexts = { base = "target:base" }
  dockerfile-inline = "FROM base\nARG WHO\nCOPY file /file\nRUN cat /base && echo $WHO > /who\n"
  platforms = ["linux/amd64", "linux/arm64"]
  args = { WHO = upper("app") }
  tags = ["${REGISTRY}/bake-app"]
  output = ["type=image,push=true"]
}
target "tools" {
  name = "tool-${v}"
  matrix = { v = ["one", "two"] }
  dockerfile-inline = "FROM @base@\nCOPY file /file\nLABEL v=${v}\n"
  tags = ["${REGISTRY}/bake-tool:${v}"]
  platforms = ["linux/amd64"]
}
"#;
    let folder = world.context("bake", &[("docker-bake.hcl", definition), ("file", "x")]);
    let mut command = world.command(&[
        "bake",
        "--progress=plain",
        "--push",
        "--metadata-file=metadata.json",
    ]);
    command
        .current_dir(&folder)
        .env("REGISTRY", world.registry.address());
    Ended::of(&mut command).succeeded();
    for platform in ["linux/amd64", "linux/arm64"] {
        let (manifest, _) = world.repository("bake-app").image("latest", platform).unwrap();
        let tree = tests::unpacked::tree(&world.repository("bake-app"), &manifest).unwrap();
        for path in ["base", "file", "who"] {
            assert!(tree.contains_key(path), "{path} is missing for {platform}");
        }
    }
    for tag in ["one", "two"] {
        let (_, config) = world.repository("bake-tool").image(tag, "linux/amd64").unwrap();
        assert_eq!(config["config"]["Labels"]["v"], tag);
    }
    let metadata = std::fs::read_to_string(folder.join("metadata.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    for target in ["app", "tool-one", "tool-two"] {
        assert!(
            metadata[target]["containerimage.digest"].is_string(),
            "{metadata}"
        );
    }
}

#[test]
fn a_definition_is_read_from_a_repository() {
    let folder = folder_of(&[("local.hcl", "target \"default\" { tags = [\"local\"] }\n")]);
    for manner in [Manner::Protocol, Manner::Files] {
        let served = tempfile::tempdir().unwrap();
        let server = GitServer::start(served.path(), manner, None);
        server.commit(
            "x.git",
            &[
                (
                    "sub/docker-bake.hcl",
                    "target \"default\" {\n  args = { CONTEXT = BAKE_CMD_CONTEXT }\n  contexts = { lib = \"lib\" }\n}\n",
                ),
                ("other.hcl", "target \"default\" { context = \"cwd://here\" }\n"),
            ],
        );
        let address = server.url("x.git");
        let print = |arguments: &[&str]| {
            let ended = Ended::of(bake(folder.path()).arg("--print").args(arguments)).succeeded();
            serde_json::from_str::<serde_json::Value>(&ended.stdout).unwrap()["target"]["default"].clone()
        };
        let remote = format!("{address}#main:sub");
        let target = print(&[&remote]);
        assert_eq!(target["context"], remote.as_str());
        // As buildx prints it: where named contexts are is settled when they are sent.
        assert_eq!(target["contexts"]["lib"], "lib");
        assert_eq!(target["args"]["CONTEXT"], "cwd://");
        let target = print(&[&address, "-f", "other.hcl", "-f", "cwd://local.hcl"]);
        assert_eq!(target["context"], "here");
        assert_eq!(target["tags"], serde_json::json!(["local"]));
        Ended::of(bake(folder.path()).args(["--print", &address, "-f", "gone.hcl"]))
            .failed()
            .said(&["reading gone.hcl from"]);
    }
}

#[test]
fn the_contexts_of_a_remote_definition_are_fetched_by_the_builder() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let served = tempfile::tempdir().unwrap();
    let server = GitServer::start(served.path(), Manner::Protocol, None);
    server.commit(
        "x.git",
        &[
            (
                "docker-bake.hcl",
                "target \"default\" {\n  context = \"app\"\n  contexts = { lib = \"lib\" }\n  output = [\"out\"]\n}\n",
            ),
            ("app/Dockerfile", "FROM scratch\nCOPY file /\nCOPY --from=lib inner /\n"),
            ("app/file", "of the repository"),
            ("lib/inner", "of its library"),
        ],
    );
    Ended::of(&mut world.command(&["bake", "--progress=plain", &server.url("x.git")])).succeeded();
    let text = |name: &str| std::fs::read_to_string(world.folder().join("out").join(name)).unwrap();
    assert_eq!(text("file"), "of the repository");
    assert_eq!(text("inner"), "of its library");
}
