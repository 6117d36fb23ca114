//! What the commands do with records: find, remove, hand on.

use std::path::Path;
use std::process::Command;

use tests::fake_daemon::FakeDaemon;
use tests::process::Ended;
use tests::programs::ours;

use super::fixture::{self, CANCELED, COMPLETED, FAILED, FIXED, RUNNING};

struct Setup {
    daemon: FakeDaemon,
    folder: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let daemon = FakeDaemon::start(&folder.path().join("fake.sock"), fixture::answers(FIXED));
        let setup = Self { daemon, folder };
        let create = [
            "create",
            "--use",
            "--name",
            "test",
            "--driver",
            "remote",
            setup.daemon.address(),
        ];
        setup.run(&create).succeeded();
        setup
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(ours("trimaran"));
        command.args(arguments).current_dir(self.folder.path());
        command.env_clear().env("TZ", "UTC").env("PATH", "/usr/bin:/bin");
        command.env("HOME", self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn listed(&self, arguments: &[&str]) -> Vec<String> {
        let mut all = vec!["history", "ls", "--format", "{{.FullRef}}"];
        all.extend(arguments);
        let ended = self.run(&all).succeeded();
        ended.stdout.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_record_is_found_by_id_beginning_full_name_and_offset() {
    let setup = Setup::new();
    let full = format!("test/test0/{COMPLETED}");
    for reference in [COMPLETED, "c0m", &full, "test/test0/c0mpl", "^2"] {
        let arguments = ["history", "inspect", reference, "--format", "{{.Ref}}"];
        let ended = setup.run(&arguments).succeeded();
        assert_eq!(ended.stdout, format!("{COMPLETED}\n"), "{reference}");
    }
    for (reference, said) in [
        ("c", "is the beginning of several"),
        ("nowhere", "no record found for ref \"nowhere\""),
        ("test/other/c0m", "no record found"),
        ("^9", "no build found with offset 9, there are 4"),
        ("^x", "invalid offset"),
        ("a/b", "names no build record"),
    ] {
        setup
            .run(&["history", "inspect", reference])
            .failed()
            .said(&[said]);
    }
    setup
        .run(&["history", "ls", "--filter", "colour=red"])
        .failed()
        .said(&["\"colour\" is not supported"]);
    setup
        .run(&["history", "ls", "--format", "{{.Nothing}}"])
        .failed()
        .said(&["Nothing"]);
}

#[test]
fn records_are_removed() {
    let setup = Setup::new();
    // Counted from the list as it was, though the first is gone when the second goes.
    setup.run(&["history", "rm", "^1", "^2"]).succeeded();
    assert_eq!(setup.daemon.records(), [RUNNING, CANCELED]);
    setup
        .run(&["history", "rm", "nothing", CANCELED])
        .failed()
        .said(&["failed to remove nothing"]);
    assert_eq!(setup.daemon.records(), [RUNNING]);
    for arguments in [&["history", "rm"][..], &["history", "rm", "--all", "x"]] {
        setup.run(arguments).failed();
    }

    let setup = Setup::new();
    setup.run(&["history", "rm", "--all"]).succeeded();
    assert_eq!(
        setup.daemon.records(),
        [RUNNING],
        "a running build keeps its record"
    );
}

#[test]
fn an_exported_record_can_be_imported_elsewhere() {
    let setup = Setup::new();
    setup
        .run(&["history", "export", "-o", "both.dockerbuild", FAILED, COMPLETED])
        .succeeded();
    let bundle = std::fs::read(setup.path("both.dockerbuild")).unwrap();
    setup.run(&["history", "rm", "--all"]).succeeded();

    let imported = setup
        .run(&["history", "import", "-f", "both.dockerbuild"])
        .succeeded();
    let names = [FAILED, COMPLETED].map(|id| format!(".imported/_/{id}"));
    assert_eq!(imported.stdout, format!("{}\n{}\n", names[0], names[1]));
    assert_eq!(
        setup.listed(&[]),
        [
            format!("test/test0/{RUNNING}"),
            names[0].clone(),
            names[1].clone()
        ]
    );
    assert_eq!(setup.listed(&["--builder", ".imported"]), names);
    assert_eq!(
        setup.listed(&["--builder", "test"]),
        [format!("test/test0/{RUNNING}")]
    );

    // All that was known of it is known here.
    let before = Setup::new();
    for arguments in [
        &["history", "inspect", COMPLETED][..],
        &["history", "inspect", FAILED],
        &["history", "logs", FAILED],
        &["history", "trace", COMPLETED],
    ] {
        let (there, here) = (
            before.run(arguments).succeeded(),
            setup.run(arguments).succeeded(),
        );
        assert_eq!(
            here.stderr.replace("secret", "xxxxx"),
            there.stderr.replace("secret", "xxxxx")
        );
        // Indexes are carried without what is below them, and secrets are not carried.
        let comparable = |ended: &Ended| -> Vec<String> {
            let lines = ended.stdout.replace("--token=secret", "--token=xxxxx");
            let lines = lines
                .lines()
                .filter(|line| !line.starts_with("sha256:") && !line.starts_with("cache-imports"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(comparable(&here), comparable(&there), "{arguments:?}");
    }

    // Importing it again replaces it; removing it forgets it.
    setup
        .run(&["history", "import", "-f", "both.dockerbuild"])
        .succeeded();
    setup.run(&["history", "rm", COMPLETED]).succeeded();
    assert_eq!(setup.listed(&["--builder", ".imported"]), [names[0].clone()]);

    for (name, content, said) in [
        ("empty", &b""[..], "no-error-text"),
        ("text", b"no bundle", "is it a .dockerbuild file?"),
        ("cut", &bundle[..bundle.len() / 2], "the bundle"),
    ] {
        std::fs::write(setup.path(name), content).unwrap();
        let ended = setup.run(&["history", "import", "-f", name]).failed();
        if said != "no-error-text" {
            ended.said(&[said]);
        }
    }
    setup
        .run(&["history", "import", "-f", "missing"])
        .failed()
        .said(&["failed to open file missing"]);
    assert_eq!(setup.listed(&["--builder", ".imported"]), [names[0].clone()]);
}

/// A bundle whose file has another content than its name says is refused as a whole.
#[test]
fn a_damaged_bundle_is_refused() {
    let setup = Setup::new();
    setup
        .run(&["history", "export", "-o", "good.dockerbuild", COMPLETED])
        .succeeded();
    let good = std::fs::File::open(setup.path("good.dockerbuild")).unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(good));
    let bad = std::fs::File::create(setup.path("bad.dockerbuild")).unwrap();
    let mut changed = tar::Builder::new(flate2::write::GzEncoder::new(bad, flate2::Compression::fast()));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if let Some(first) = content.first_mut().filter(|first| **first != b'{') {
            *first ^= 1;
        }
        let mut header = entry.header().clone();
        let path = entry.path().unwrap().into_owned();
        changed
            .append_data(&mut header, path, content.as_slice())
            .unwrap();
    }
    changed.into_inner().unwrap().finish().unwrap();
    setup
        .run(&["history", "import", "-f", "bad.dockerbuild"])
        .failed()
        .said(&["has another content than its name says"]);
    assert!(setup.listed(&["--builder", ".imported"]).is_empty());
    let left = std::fs::read_dir(setup.path(".docker/trimaran/imported")).unwrap();
    assert_eq!(left.count(), 0, "nothing is left of it");
}

#[test]
fn prune_asks_first_and_tells_the_daemon_what_to_keep() {
    let setup = Setup::new();
    let asked = setup.run(&["prune"]).succeeded();
    assert_eq!(
        asked.stdout,
        "WARNING! This will remove all dangling build cache. Are you sure you want to continue? [y/N] "
    );
    assert!(setup.daemon.pruned().is_empty(), "nobody said yes");

    let arguments = [
        "prune",
        "-af",
        "--filter",
        "type=regular",
        "--filter",
        "until=24h",
        "--keep-storage",
        "1GB",
        "--max-used-space",
        "2GiB",
        "--min-free-space",
        "512m",
    ];
    setup
        .run(&arguments)
        .succeeded()
        .said(&["Flag --keep-storage has been deprecated"]);
    let pruned = setup.daemon.pruned();
    assert_eq!(pruned.len(), 1);
    let request = &pruned[0];
    assert_eq!(request.filter, ["type==regular"]);
    assert!(request.all);
    assert_eq!(request.keep_duration, 24 * 3600 * 1_000_000_000);
    assert_eq!(request.reserved_space, 1 << 30);
    assert_eq!(request.max_used_space, 2 << 30);
    assert_eq!(request.min_free_space, 512 << 20);

    setup
        .run(&["prune", "-f", "--reserved-space", "much"])
        .failed()
        .said(&["invalid size"]);
    setup.run(&["du", "--filter", "shared=false"]).succeeded();
    assert_eq!(setup.daemon.asked_usage()[0].filter, ["shared==false"]);
    setup
        .run(&["du", "--verbose", "--format", "json"])
        .failed()
        .said(&["--format and --verbose cannot be used together"]);
    setup.run(&["du", "--filter", "type"]).failed();
}

#[test]
fn a_page_is_written_where_the_user_wants_it() {
    let setup = Setup::new();
    let written = setup
        .run(&["history", "open", COMPLETED, "-o", "page.html"])
        .succeeded();
    assert_eq!(written.stdout, "page.html\n");
    let page = std::fs::read_to_string(setup.path("page.html")).unwrap();
    let printed = setup.run(&["history", "open", COMPLETED, "-o", "-"]).succeeded();
    assert_eq!(printed.stdout, page);
    // Into the cache, where only the user can look.
    let cached = setup.run(&["history", "open", COMPLETED]).succeeded();
    let path = Path::new(cached.stdout.trim_end());
    assert!(
        path.starts_with(setup.path(".cache/trimaran/history")),
        "{cached}"
    );
    assert_eq!(std::fs::read_to_string(path).unwrap(), page);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&path.parent().unwrap().metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}
