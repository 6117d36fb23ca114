//! What the client prints for fixed answers of a daemon, compared with what buildx printed for the same.
//!
//! The recordings are in `tests/golden/buildx-history`. Where buildx is installed its output is compared with them too;
//! with TRIMARAN_RECORD set they are written.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::fake_daemon::{Answers, FakeDaemon};
use tests::needs::{Need, given};
use tests::process::Ended;
use tests::programs::{installed, ours};

use super::fixture::{self, CANCELED, COMPLETED, FAILED, RUNNING};

/// Which times the daemon tells.
#[derive(Clone, Copy, PartialEq)]
enum Times {
    /// Of long ago: for what prints dates.
    Fixed,
    /// Counted from now: for what prints ages.
    Recent,
}

/// Name, times, arguments.
const CASES: [(&str, Times, &[&str]); 27] = [
    ("ls", Times::Recent, &["history", "ls"]),
    ("ls-no-trunc", Times::Recent, &["history", "ls", "--no-trunc"]),
    (
        "ls-error",
        Times::Recent,
        &["history", "ls", "--filter", "status=error"],
    ),
    (
        "ls-long",
        Times::Recent,
        &[
            "history",
            "ls",
            "--filter",
            "duration>1m",
            "--filter",
            "status!=completed",
        ],
    ),
    (
        "ls-columns",
        Times::Recent,
        &[
            "history",
            "ls",
            "--format",
            "table {{.Ref}}\\t{{.Status}}\\t{{.Duration}}",
        ],
    ),
    (
        "ls-template",
        Times::Recent,
        &[
            "history",
            "ls",
            "--format",
            "{{.FullRef}} {{upper .Name}} ({{.CreatedAt}})",
        ],
    ),
    ("ls-json", Times::Fixed, &["history", "ls", "--format", "json"]),
    ("inspect", Times::Fixed, &["history", "inspect", COMPLETED]),
    ("inspect-offset", Times::Fixed, &["history", "inspect", "^2"]),
    ("inspect-latest", Times::Fixed, &["history", "inspect"]),
    ("inspect-failed", Times::Fixed, &["history", "inspect", FAILED]),
    (
        "inspect-canceled",
        Times::Fixed,
        &["history", "inspect", CANCELED],
    ),
    ("inspect-running", Times::Fixed, &["history", "inspect", RUNNING]),
    (
        "inspect-json",
        Times::Fixed,
        &["history", "inspect", COMPLETED, "--format", "json"],
    ),
    (
        "inspect-failed-json",
        Times::Fixed,
        &["history", "inspect", FAILED, "--format", "json"],
    ),
    (
        "inspect-template",
        Times::Fixed,
        &[
            "history",
            "inspect",
            COMPLETED,
            "--format",
            "{{.Name}}: {{.Duration}} {{range .BuildArgs}}{{.Name}}={{.Value}} {{end}}{{.Config.Network}} {{.NumTotalSteps}}",
        ],
    ),
    (
        "attachment-index",
        Times::Fixed,
        &["history", "inspect", "attachment", COMPLETED, "--type", "index"],
    ),
    (
        "attachment-provenance",
        Times::Fixed,
        &[
            "history",
            "inspect",
            "attachment",
            COMPLETED,
            "--type",
            "provenance",
            "--platform",
            "linux/arm64",
        ],
    ),
    ("logs", Times::Fixed, &["history", "logs", COMPLETED]),
    ("logs-failed", Times::Fixed, &["history", "logs", FAILED]),
    (
        "logs-rawjson",
        Times::Fixed,
        &["history", "logs", COMPLETED, "--progress", "rawjson"],
    ),
    ("trace", Times::Fixed, &["history", "trace", COMPLETED]),
    ("du", Times::Fixed, &["du"]),
    ("du-verbose", Times::Fixed, &["du", "--verbose"]),
    ("du-json", Times::Fixed, &["du", "--format", "json"]),
    ("prune", Times::Fixed, &["prune", "--force"]),
    ("prune-verbose", Times::Fixed, &["prune", "--force", "--verbose"]),
];

struct Setup {
    daemon: FakeDaemon,
    folder: tempfile::TempDir,
}

impl Setup {
    fn new(times: Times) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = match times {
            Times::Fixed => fixture::FIXED,
            Times::Recent => fixture::now(),
        };
        Self::of(folder, fixture::answers(base))
    }

    /// For bundles.
    fn one_platform() -> Self {
        let answers = fixture::one_platform(fixture::answers(fixture::FIXED));
        Self::of(tempfile::tempdir().unwrap(), answers)
    }

    fn of(folder: tempfile::TempDir, answers: Answers) -> Self {
        let daemon = FakeDaemon::start(&folder.path().join("fake.sock"), answers);
        Self { daemon, folder }
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path());
        command.env_clear().env("TZ", "UTC");
        command
            .env("HOME", self.folder.path())
            .env("PATH", "/usr/bin:/bin");
        command
    }

    /// Runs a program that knows the daemon as the builder "test".
    fn run(&self, program: &Path, arguments: &[&str]) -> Ended {
        let create = [
            "create",
            "--use",
            "--name",
            "test",
            "--driver",
            "remote",
            self.daemon.address(),
        ];
        Ended::of(&mut self.command(program, &create)).succeeded();
        Ended::of(&mut self.command(program, arguments)).succeeded()
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden/buildx-history")
        .join(name)
}

/// What a user reads, without what cannot be the same: the last two lines of `inspect` name the program, and a stack
/// begins with that of the program itself.
fn shown(arguments: &[&str], ended: &Ended) -> String {
    let text = match arguments {
        ["history", "logs", ..] => &ended.stderr,
        _ => &ended.stdout,
    };
    let is_common = |line: &&str| {
        let starts = ["Print build logs: ", "View build in ", "    \"Stack\": "];
        !starts.iter().any(|start| line.starts_with(start))
    };
    text.split_inclusive('\n').filter(is_common).collect()
}

fn recorded(name: &str) -> String {
    std::fs::read_to_string(golden(name)).unwrap()
}

#[test]
fn output_is_that_of_buildx() {
    for (name, times, arguments) in CASES {
        let setup = Setup::new(times);
        let ended = setup.run(&ours("trimaran"), arguments);
        assert_eq!(shown(arguments, &ended), recorded(name), "{name}: {arguments:?}");
    }
}

#[test]
fn recordings_are_what_buildx_prints() {
    if !given(&[Need::Buildx]) {
        return;
    }
    let buildx = installed("docker-buildx")
        .or_else(|| installed("buildx"))
        .unwrap();
    for (name, times, arguments) in CASES {
        let setup = Setup::new(times);
        let ended = setup.run(&buildx, arguments);
        compare_or_record(name, &shown(arguments, &ended));
    }
    let setup = Setup::one_platform();
    compare_or_record("export", &exported(&setup, &buildx, &[COMPLETED]));
    let setup = Setup::one_platform();
    compare_or_record("export-several", &exported(&setup, &buildx, &[FAILED, COMPLETED]));
}

fn compare_or_record(name: &str, text: &str) {
    if std::env::var_os("TRIMARAN_RECORD").is_some() {
        std::fs::create_dir_all(golden("")).unwrap();
        std::fs::write(golden(name), text).unwrap();
    } else {
        assert_eq!(text, recorded(name), "{name}");
    }
}

#[test]
fn bundles_are_those_of_buildx() {
    for (name, references) in [
        ("export", &[COMPLETED][..]),
        ("export-several", &[FAILED, COMPLETED]),
    ] {
        let setup = Setup::one_platform();
        assert_eq!(exported(&setup, &ours("trimaran"), references), recorded(name));
    }
}

/// What is in the bundle that a program makes, as text. Compression is each program's own matter.
fn exported(setup: &Setup, program: &Path, references: &[&str]) -> String {
    let mut arguments = vec!["history", "export", "-o", "bundle.dockerbuild"];
    arguments.extend(references);
    setup.run(program, &arguments);
    let bundle = std::fs::File::open(setup.folder.path().join("bundle.dockerbuild")).unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(bundle));
    let mut text = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        let header = entry.header();
        text.push_str(&format!(
            "== {} {:o} {:?} {}\n",
            entry.path().unwrap().display(),
            header.mode().unwrap(),
            header.entry_type(),
            content.len()
        ));
        // What is no text is known by the digest in its name.
        if let Ok(content) = String::from_utf8(content) {
            text.push_str(&content);
            text.push('\n');
        }
    }
    text
}
