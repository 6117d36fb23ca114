//! Builder instances: what is said of them, whose they are, and how their daemons are reached.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::needs::{Need, given};
use tests::process::Ended;
use tests::programs;
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

/// A user without builders and without a Docker engine.
struct User {
    home: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::ours("trimaran"));
        command.args(arguments).env_clear();
        command.env("HOME", self.home.path());
        command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
        command
    }

    fn trimaran(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn stored(&self, path: &str) -> Value {
        let bytes = std::fs::read(self.home.path().join(path)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }
}

/// One command of a transcript.
#[derive(Debug, Default)]
struct Exchange {
    command: String,
    output: Vec<String>,
    errors: Vec<String>,
    code: i32,
}

fn transcript(text: &str) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            exchanges.push(Exchange {
                command: command.to_owned(),
                ..Exchange::default()
            });
            continue;
        }
        let last = exchanges.last_mut().unwrap();
        if let Some(error) = line.strip_prefix("! ") {
            last.errors.push(error.to_owned());
        } else if let Some(code) = line.strip_prefix("= ") {
            last.code = code.parse().unwrap();
        } else {
            last.output.push(line.to_owned());
        }
    }
    exchanges
}

/// Without times, and without the builder that nobody made: it runs in an engine, or as a process, which differs.
fn comparable<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_default = |line: &&str| {
        let line = line.trim_start();
        !(line.starts_with("default")
            || line.starts_with(r"\_ default0")
            || line.contains(r#""Name":"default""#))
    };
    let without_time = |line: &str| match line.split_once("\"LastActivity\":\"") {
        Some((before, after)) => format!("{before}{}", &after[20..]),
        None if line.starts_with("Last Activity:") => "Last Activity:".to_owned(),
        None => line.to_owned(),
    };
    lines.filter(is_default).map(without_time).collect()
}

#[test]
fn instances_are_made_shown_and_removed_as_in_buildx() {
    let user = User::new();
    for expected in transcript(include_str!("../../golden/buildx-builders/transcript")) {
        let words: Vec<&str> = expected.command.split(' ').collect();
        let ended = user.trimaran(&words);
        assert_eq!(ended.code, Some(expected.code), "{ended}");
        assert_eq!(
            comparable(ended.stdout.lines()),
            comparable(expected.output.iter().map(String::as_str)),
            "{ended}"
        );
        if words.first() == Some(&"ls") {
            continue;
        }
        // Several are removed at the same time; and ours may go on with what helps.
        let (mut said, mut wanted): (Vec<&str>, Vec<String>) =
            (ended.stderr.lines().collect(), expected.errors);
        said.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(said.len(), wanted.len(), "{ended}");
        for (said, wanted) in said.iter().zip(&wanted) {
            assert!(said.starts_with(wanted.as_str()), "{wanted}\n{ended}");
        }
    }
}

#[test]
fn processes_that_change_a_builder_at_once_lose_nothing() {
    let user = User::new();
    let remote = ["--driver", "remote"];
    let create = |more: &[&str]| user.command(&[&["create", "--name", "shared"], &remote[..], more].concat());
    Ended::of(&mut create(&["unix:///first.sock"])).succeeded();
    let started: Vec<_> = (0..24)
        .map(|number| {
            let endpoint = format!("unix:///{number}.sock");
            // Some of them fail, and must take back nothing but their own.
            let option = if number % 3 == 0 {
                "nonsense=1"
            } else {
                "default-load=true"
            };
            let mut command = create(&["--append", "--driver-opt", option, &endpoint]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            (number, command.spawn().unwrap())
        })
        .collect();
    for (number, mut process) in started {
        assert_eq!(process.wait().unwrap().success(), number % 3 != 0, "{number}");
    }
    let stored = user.stored(".docker/trimaran/instances/shared");
    let nodes = stored["Nodes"].as_array().unwrap();
    let mut endpoints: Vec<&str> = nodes
        .iter()
        .map(|node| node["Endpoint"].as_str().unwrap())
        .collect();
    assert_eq!(endpoints.len(), 17, "{stored}");
    endpoints.sort_unstable();
    endpoints.dedup();
    assert_eq!(endpoints.len(), 17, "{stored}");
}

#[test]
fn what_cannot_be_used_says_what_can() {
    let user = User::new();
    for (arguments, said) in [
        (&["--driver", "kubernetes"][..], "kubectl port-forward"),
        (&["--driver", "remote", "kube-pod://pod"], "kubectl port-forward"),
        (
            &["--driver", "remote", "ssh://me:secret@host"],
            "use a key or an agent",
        ),
        (
            &["--driver", "docker-container", "npipe:////./pipe/x"],
            "use unix://PATH",
        ),
        (
            &["--driver", "docker-container", "nosuchcontext"],
            "docker context ls",
        ),
        (
            &["--driver", "docker-container", "tcp://127.0.0.1:1"],
            "tcp://127.0.0.1:1",
        ),
        (
            &["--driver", "remote", "--driver-opt", "gpus=all", "unix:///x"],
            "cacert, cert, key, servername and default-load",
        ),
        (&["--driver", "local", "--driver-opt", "memory=1g"], "local"),
        (
            &["--driver", "local", "--buildkitd-config", "/no.toml"],
            "/no.toml",
        ),
    ] {
        let arguments = [&["create", "--name", "x"], arguments].concat();
        let ended = user.trimaran(&arguments).failed().said(&["ERROR: ", said]);
        assert!(!ended.stderr.contains("secret"), "{ended}");
    }
    user.trimaran(&["inspect", "x"]).failed();
}

#[test]
fn instances_of_buildx_are_listed_used_changed_and_removed_where_they_are() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let folder = world.folder().join("buildx");
    let instance = folder.join("instances/theirs");
    std::fs::create_dir_all(instance.parent().unwrap()).unwrap();
    let text = format!(
        r#"{{"Name":"theirs","Driver":"remote","Nodes":[{{"Name":"theirs0","Endpoint":"{}","Platforms":null,"DriverOpts":null,"Flags":null,"Files":null}}],"Dynamic":false}}"#,
        world.daemon.address()
    );
    std::fs::write(&instance, text).unwrap();
    let trimaran = |arguments: &[&str]| Ended::of(world.command(arguments).env("BUILDX_CONFIG", &folder));

    trimaran(&["ls"])
        .succeeded()
        .said(&["theirs ", "theirs0", "running"]);
    let context = world.context("context", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let context = context.to_str().unwrap();
    trimaran(&["build", "--builder", "theirs", "-o", "out", context]).succeeded();
    assert!(world.folder().join("out/Dockerfile").exists());
    assert!(folder.join("activity/theirs").exists());
    trimaran(&["use", "theirs"]).succeeded();
    trimaran(&["inspect"]).succeeded().said(&["theirs0"]);

    let far = "unix:///far.sock";
    trimaran(&[
        "create",
        "--name",
        "theirs",
        "--append",
        "--platform",
        "linux/arm64",
        far,
    ])
    .succeeded();
    let stored: Value = serde_json::from_slice(&std::fs::read(&instance).unwrap()).unwrap();
    assert_eq!(
        stored["Nodes"][1],
        serde_json::json!({"Name": "theirs1", "Endpoint": far, "Platforms": [{"os": "linux", "architecture": "arm64"}],
            "DriverOpts": {}, "Flags": [], "Files": {}})
    );
    trimaran(&["rm", "theirs"]).succeeded();
    assert!(!instance.exists());
    trimaran(&["ls"]).succeeded().did_not_say("theirs");
}

#[test]
fn the_configuration_takes_certificates_along() {
    let user = User::new();
    let authority = user.write("ca.pem", "authority");
    let config = user.write(
        "buildkitd.toml",
        &format!(
            "debug = true\n[registry.'r:5000']\nca = ['{}']\n",
            authority.display()
        ),
    );
    let config = config.to_str().unwrap();
    // On this machine the daemon reads them where they are.
    user.trimaran(&[
        "create",
        "--name",
        "here",
        "--driver",
        "local",
        "--buildkitd-config",
        config,
    ])
    .succeeded();
    user.trimaran(&["inspect", "here"]).succeeded().said(&[
        "File#buildkitd.toml:\n > debug = true\n > [registry.'r:5000']\n",
        authority.to_str().unwrap(),
    ]);
    user.trimaran(&["rm", "here"]).succeeded();
}

/// A folder for PATH with an `ssh` that runs the command on this machine, and notes how it was called.
fn with_ssh(folder: &Path, daemon: &str) -> String {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let script = "#!/bin/sh\necho \"$*\" >> \"$(dirname \"$0\")/called\"\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nexec sh -c \"$*\"\n";
    std::fs::write(bin.join("ssh"), script).unwrap();
    let _ = std::fs::remove_file(bin.join("buildctl"));
    std::os::unix::fs::symlink(daemon, bin.join("buildctl")).unwrap();
    Ended::of(Command::new("chmod").arg("755").arg(bin.join("ssh"))).succeeded();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn a_daemon_is_reached_through_ssh() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let builderd = programs::ours("builderd");
    let path = with_ssh(world.folder(), builderd.to_str().unwrap());
    let trimaran = |arguments: &[&str]| Ended::of(world.command(arguments).env("PATH", &path));
    let socket = world.daemon.address().replace("unix://", "");
    let address = format!("ssh://me@machine:2222{socket}");
    trimaran(&["create", "--use", "--name", "far", "--driver", "remote", &address]).succeeded();
    trimaran(&["inspect", "far"])
        .succeeded()
        .said(&["running", "linux/amd64"]);
    let context = world.context("context", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    trimaran(&["build", "-o", "out", context.to_str().unwrap()]).succeeded();
    assert!(world.folder().join("out/Dockerfile").exists());
    let called = std::fs::read_to_string(world.folder().join("bin/called")).unwrap();
    let expected = format!(
        "-l me -p 2222 -o ConnectTimeout=30 -T -- machine buildctl --addr unix://{socket} dial-stdio"
    );
    assert_eq!(called.lines().next(), Some(expected.as_str()));

    // What ssh complains about is what the user reads.
    std::fs::write(
        world.folder().join("bin/ssh"),
        "#!/bin/sh\necho 'Permission denied (publickey).' >&2\nexit 255\n",
    )
    .unwrap();
    trimaran(&[
        "create",
        "--name",
        "engine",
        "--driver",
        "docker-container",
        "ssh://machine",
    ])
    .failed()
    .said(&["ssh to machine: Permission denied (publickey)."]);
}

#[test]
fn shells_are_told_what_can_come_next() {
    let user = User::new();
    user.trimaran(&["create", "--name", "mine", "--driver", "remote", "unix:///x"])
        .succeeded();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        user.trimaran(&["completion", shell])
            .succeeded()
            .said(&["trimaran"]);
    }
    let complete = |words: &[&str]| {
        let index = (words.len() - 1).to_string();
        let mut command = user.command(&[&["--"], words].concat());
        command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index);
        command.env("_CLAP_IFS", "\n");
        Ended::of(&mut command).succeeded().stdout
    };
    let names = complete(&["trimaran", "use", ""]);
    assert!(names.lines().any(|name| name == "mine"), "{names}");
    assert!(complete(&["trimaran", "ins"]).contains("inspect"));
    assert!(complete(&["trimaran", "create", "--driver", "re"]).contains("remote"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let user = User::new();
    for arguments in [&["--help"][..], &["ls"], &["completion", "bash"], &["binfmt"]] {
        let mut process = user
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(process.stdout.take());
        let ended = process.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            ended.status.success() && !errors.contains("panicked"),
            "{arguments:?}: {errors}"
        );
    }
}

#[test]
fn a_mistake_is_answered_with_what_was_meant() {
    let user = User::new();
    let unknown = user.trimaran(&["inspekt"]).failed();
    assert!(unknown.stderr.contains("'inspect'"), "{unknown}");
    let flag = user.trimaran(&["create", "--nam", "x"]).failed();
    assert!(flag.stderr.contains("'--name'"), "{flag}");
    // A command that only has others shows them.
    user.trimaran(&[])
        .succeeded()
        .said(&["Usage: trimaran", "create"]);
    user.trimaran(&["imagetools"]).succeeded().said(&["inspect"]);
    let plain = Ended::of(user.command(&["inspect", "nobody"]).env("NO_COLOR", "1")).failed();
    assert!(!plain.stderr.contains('\u{1b}'), "{plain}");
}

#[test]
fn the_daemon_of_an_image_registers_emulators_too() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("binfmt");
    std::os::unix::fs::symlink(programs::ours("builderd"), &link).unwrap();
    let mount = folder.path().join("handlers");
    std::fs::create_dir(&mount).unwrap();
    std::fs::write(mount.join("register"), "").unwrap();
    std::fs::write(mount.join("status"), "enabled\n").unwrap();
    let mount = mount.to_str().unwrap();
    let as_command = Ended::of(Command::new(&link).args(["--mount", mount])).succeeded();
    let as_role =
        Ended::of(Command::new(programs::ours("builderd")).args(["binfmt", "--mount", mount])).succeeded();
    let of_client =
        Ended::of(Command::new(programs::ours("trimaran")).args(["binfmt", "--mount", mount])).succeeded();
    let status: Value = serde_json::from_str(&as_command.stdout).unwrap();
    assert_eq!(status["emulators"], serde_json::json!([]));
    assert_eq!(as_command.stdout, as_role.stdout);
    assert_eq!(as_command.stdout, of_client.stdout);
    // What is to be gone is gone; what cannot be installed is said.
    Ended::of(Command::new(&link).args(["--mount", mount, "--uninstall", "qemu-*"]))
        .succeeded()
        .said(&["uninstalling: qemu-* not found"]);
    Ended::of(Command::new(&link).args(["--mount", mount, "--install", "vax"]))
        .failed()
        .said(&["installing: vax failed: unknown architecture; known are amd64, arm64"]);
}
