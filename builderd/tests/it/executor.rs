//! One suite of properties that every executor must have. It needs root and a static busybox; the Docker half needs an
//! engine. What is missing is reported as skipped, or fails where `TRIMARAN_REQUIRE_ALL=1`.

mod bench;
mod cgroups;
mod lives;
mod properties;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use builderd::executor::step::{ExitStatus, FileSystem, Step, StepError, Stream, Writable};
use builderd::executor::{Choice, Config, Executor, Sandboxes};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const BUSYBOX: &str = "/bin/busybox";

/// A state folder with one layer in it, an executor, and the sandboxes of one build.
struct Bench {
    state: TempDir,
    base: PathBuf,
    executor: Executor,
    sandboxes: Sandboxes,
}

/// What a step did.
#[derive(Debug)]
struct Ran {
    status: Result<ExitStatus, StepError>,
    stdout: String,
    stderr: String,
    upper: PathBuf,
}

impl Ran {
    /// Standard output of a step that must have succeeded.
    #[track_caller]
    fn text(&self) -> &str {
        assert!(matches!(self.status, Ok(status) if status.success()), "{self:?}");
        self.stdout.trim_end()
    }

    #[track_caller]
    fn code(&self) -> i32 {
        self.status
            .as_ref()
            .unwrap_or_else(|error| panic!("{error}: {self:?}"))
            .code()
    }

    /// All that is in the upper folder, sorted.
    fn changes(&self) -> Vec<String> {
        fn walk(folder: &Path, below: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                found.push(
                    entry
                        .path()
                        .strip_prefix(below)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), below, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.upper, &self.upper, &mut found);
        found.sort();
        found
    }
}

impl Bench {
    fn new(choice: Choice) -> Self {
        let state = tempfile::tempdir().unwrap();
        // As the state folder of a daemon: steps of other users need not enter it by path.
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let base = state.path().join("base");
        furnish(&base);
        let executor = Executor::new(config(state.path(), choice));
        let sandboxes = executor.sandboxes();
        Self {
            state,
            base,
            executor,
            sandboxes,
        }
    }

    fn config(&self, choice: Choice) -> Config {
        config(self.path(), choice)
    }

    fn path(&self) -> &Path {
        self.state.path()
    }

    /// A fresh folder of the state folder.
    fn folder(&self, prefix: &str) -> PathBuf {
        tempfile::Builder::new()
            .prefix(prefix)
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(self.path())
            .unwrap()
            .keep()
    }

    fn file_system(&self) -> FileSystem {
        self.over(vec![self.base.clone()])
    }

    fn over(&self, lowers: Vec<PathBuf>) -> FileSystem {
        FileSystem {
            lowers,
            writable: Some(Writable {
                upper: self.folder("upper-"),
                work: self.folder("work-"),
            }),
        }
    }

    fn shell(&self, script: &str) -> Step {
        Step::new(self.file_system(), ["/bin/sh", "-c", script])
    }

    async fn sh(&self, script: &str) -> Ran {
        self.run(self.shell(script)).await
    }

    async fn run(&self, step: Step) -> Ran {
        self.run_until(step, &CancellationToken::new(), |_| ()).await
    }

    async fn run_until(
        &self,
        step: Step,
        cancel: &CancellationToken,
        mut seen: impl FnMut(&str) + Send,
    ) -> Ran {
        let upper = step
            .root
            .writable
            .as_ref()
            .map(|writable| writable.upper.clone())
            .unwrap_or_default();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let output = |stream, bytes: bytes::Bytes| {
            seen(&String::from_utf8_lossy(&bytes));
            match stream {
                Stream::Stdout => stdout.extend_from_slice(&bytes),
                Stream::Stderr => stderr.extend_from_slice(&bytes),
            }
        };
        let status = self.sandboxes.run(step, Arc::new(()), output, cancel).await;
        Ran {
            status,
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
            upper,
        }
    }
}

fn config(state: &Path, choice: Choice) -> Config {
    Config {
        choice,
        daemon: state.to_str().unwrap().to_owned(),
        state: state.to_owned(),
        run: state.join("run"),
        program: env!("CARGO_BIN_EXE_builderd").into(),
        devices: Default::default(),
        resolver: Default::default(),
        default_is_host: false,
        cgroup_parent: None,
    }
}

/// A root with busybox, its commands, and two users.
fn furnish(base: &Path) {
    for folder in ["bin", "etc", "tmp", "root", "var"] {
        fs::create_dir_all(base.join(folder)).unwrap();
    }
    fs::copy(BUSYBOX, base.join("bin/busybox")).unwrap();
    for command in [
        "sh", "cat", "ls", "id", "mount", "unshare", "chroot", "hostname", "stat", "sleep", "echo", "pwd",
        "kill", "mkdir", "rm", "ip", "env", "ps", "head", "yes", "touch", "wc", "grep", "readlink", "mknod",
        "mv", "true", "ln", "dd", "df", "nc", "chown",
    ] {
        symlink("busybox", base.join("bin").join(command)).unwrap();
    }
    fs::write(
        base.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/srv:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        base.join("etc/group"),
        "root:x:0:\nwheel:x:10:root,app\nstaff:x:50:\napp:x:1000:\n",
    )
    .unwrap();
}

fn engine_answers() -> bool {
    std::process::Command::new("docker")
        .args(["version", "--format", "{{.Server.APIVersion}}"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Why the suite cannot run here, if it cannot.
fn missing(choice: Choice) -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        Some("root")
    } else if !Path::new(BUSYBOX).exists() {
        Some("a static busybox in /bin")
    } else if choice == Choice::Docker && !engine_answers() {
        Some("a container engine")
    } else {
        None
    }
}

#[track_caller]
fn skipped(choice: Choice) -> bool {
    let Some(what) = missing(choice) else {
        return false;
    };
    assert!(
        std::env::var_os("TRIMARAN_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "needs {what}"
    );
    eprintln!("skipped: needs {what}");
    true
}

#[tokio::test]
async fn native_sandboxes_have_every_property() {
    if !skipped(Choice::Native) {
        let bench = Bench::new(Choice::Native);
        properties::all(&bench).await;
        cgroups::all(&bench).await;
        assert_eq!(bench.executor.network_mode().await.unwrap(), "host");
    }
}

#[tokio::test]
async fn docker_sandboxes_have_every_property() {
    if !skipped(Choice::Docker) {
        let bench = Bench::new(Choice::Docker);
        properties::all(&bench).await;
        cgroups::all(&bench).await;
        assert_eq!(bench.executor.network_mode().await.unwrap(), "bridge");
        bench.executor.shut_down().await;
    }
}
