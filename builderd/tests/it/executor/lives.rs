//! What becomes of sandboxes when builds end, and when the daemon is killed.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use builderd::executor::step::{Mount, NetworkMode, Source, Step};
use builderd::executor::{Choice, Executor, ExecutorError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

use super::{Bench, skipped};

/// Far more than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Tells the test program to be a daemon: which executor, and the fifo its step holds open.
const ROLE: &str = "TRIMARAN_TEST_DAEMON";

#[tokio::test]
async fn a_killed_daemon_takes_native_steps_along() {
    a_killed_daemon_takes_its_steps_along(Choice::Native).await;
}

#[tokio::test]
async fn a_killed_daemon_takes_docker_steps_along() {
    a_killed_daemon_takes_its_steps_along(Choice::Docker).await;
}

fn make_fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
}

fn reader_of(fifo: &Path) -> Receiver {
    tokio::net::unix::pipe::OpenOptions::new()
        .open_receiver(fifo)
        .unwrap()
}

/// A step whose processes all hold the fifo in the folder `inside` open, as descriptor 3.
fn with_fifo(bench: &Bench, inside: PathBuf, script: &str) -> Step {
    let mut step = bench.shell(&format!("exec 3>/fifo/fifo; {script}"));
    step.mounts = vec![Mount {
        destination: "/fifo".into(),
        source: Source::Folder {
            path: inside,
            selector: String::new(),
        },
        read_only: false,
    }];
    step
}

/// A fifo without writers reads as ended, so wait for the step's first word.
async fn first_word(reader: &mut Receiver) {
    loop {
        match reader.read_u8().await {
            Ok(byte) => break assert_eq!(byte, b'r'),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn a_killed_daemon_takes_its_steps_along(choice: Choice) {
    if skipped(choice) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let mut daemon = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "executor::lives::daemon_to_be_killed"])
        .env(ROLE, format!("{choice:?} {}", fifo.display()))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let end = async {
        let mut reader = reader_of(&fifo);
        first_word(&mut reader).await;
        daemon.start_kill().unwrap();
        assert_eq!(daemon.wait().await.unwrap().signal(), Some(9));
        // The step's processes hold the fifo open as long as one of them lives.
        reader.read_to_end(&mut Vec::new()).await.unwrap();
    };
    tokio::time::timeout(DEADLINE, end)
        .await
        .expect("the step ends with its daemon");
}

#[tokio::test]
#[ignore = "a role of this program, not a test"]
async fn daemon_to_be_killed() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let (choice, fifo) = role.split_once(' ').unwrap();
    let bench = Bench::new(if choice == "Docker" {
        Choice::Docker
    } else {
        Choice::Native
    });
    let inside = bench.folder("fifo-");
    // The step sees folders of the state folder only.
    fs::hard_link(fifo, inside.join("fifo")).unwrap();
    let step = with_fifo(
        &bench,
        inside,
        "(while true; do sleep 1; done) & echo r >&3; sleep 1000",
    );
    let _killed = bench.run(step).await;
}

#[tokio::test]
async fn what_a_native_step_holds_is_free_when_it_is_gone() {
    what_a_step_holds_is_free_when_it_is_gone(Choice::Native).await;
}

#[tokio::test]
async fn what_a_docker_step_holds_is_free_when_it_is_gone() {
    what_a_step_holds_is_free_when_it_is_gone(Choice::Docker).await;
}

async fn what_a_step_holds_is_free_when_it_is_gone(choice: Choice) {
    if skipped(choice) {
        return;
    }
    let bench = Bench::new(choice);
    let inside = bench.folder("fifo-");
    let fifo = inside.join("fifo");
    make_fifo(&fifo);
    let mut reader = reader_of(&fifo);
    let step = with_fifo(&bench, inside, "echo r >&3; sleep 1000");
    let held = Arc::new(());
    let watched = Arc::downgrade(&held);
    let never = CancellationToken::new();
    let sandboxes = bench.executor.sandboxes();
    let given_up = async {
        let run = sandboxes.run(step, held, |_, _| (), &never);
        // Once it runs nobody waits for it any more, as for the others of a build of which one failed.
        tokio::select! {
            _ = run => panic!("it does not end by itself"),
            () = first_word(&mut reader) => {}
        }
        drop(sandboxes);
        while watched.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, given_up)
        .await
        .expect("the step is killed");
    // A writer that lives would have it wait.
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_millis(1), reader.read_to_end(&mut rest)).await;
    read.expect("no process of the step has the fifo open").unwrap();
}

#[tokio::test]
async fn leftovers_in_the_engine_are_removed_at_the_next_start() {
    if skipped(Choice::Docker) {
        return;
    }
    let bench = Bench::new(Choice::Docker);
    bench.executor.warm().await.unwrap();
    let daemon = bench.path().to_str().unwrap();
    let label = format!("dev.trimaran.sandbox={daemon}");
    let sandbox = docker(&["ps", "-q", "--filter", &format!("label={label}")]).await;
    let image = docker(&["inspect", "--format", "{{.Config.Image}}", &sandbox]).await;
    let left = docker(&["create", "--label", &label, &image, "/builderd"]).await;
    let foreign = docker(&[
        "create",
        "--label",
        "dev.trimaran.sandbox=somebody else",
        &image,
        "/builderd",
    ])
    .await;
    Executor::new(bench.config(Choice::Docker)).warm().await.unwrap();
    let all = docker(&["ps", "-aq", "--no-trunc"]).await;
    docker(&["rm", &foreign]).await;
    assert!(
        !all.contains(&left) && all.contains(&foreign),
        "left: {left}, foreign: {foreign}, all: {all}"
    );
}

#[tokio::test]
async fn folders_of_an_earlier_life_are_removed() {
    let state = tempfile::tempdir().unwrap();
    let left = state.path().join("run/sandbox-left");
    fs::create_dir_all(left.join("deep")).unwrap();
    let _executor = Executor::new(super::config(state.path(), Choice::Native));
    assert!(!left.exists());
}

#[tokio::test]
async fn what_is_cancelled_while_it_starts_leaves_no_container() {
    if skipped(Choice::Docker) {
        return;
    }
    let bench = Bench::new(Choice::Docker);
    bench.executor.warm().await.unwrap();
    let step = || {
        let mut step = bench.shell("true");
        // No sandbox that waits serves this.
        step.network = NetworkMode::Host;
        step
    };
    // Given up at every stage of making and starting a container.
    let starts = (0..8).map(async |number| {
        let sandboxes = bench.executor.sandboxes();
        let never = CancellationToken::new();
        let start = sandboxes.run(step(), Arc::new(()), |_, _| (), &never);
        let _given_up = tokio::time::timeout(Duration::from_millis(15 * number), start).await;
    });
    futures::future::join_all(starts).await;
    assert_eq!(bench.run(step()).await.code(), 0);
    let label = format!("label=dev.trimaran.sandbox={}", bench.path().display());
    let gone = async {
        // One waits, one is that of the step above.
        while docker(&["ps", "-aq", "--filter", &label]).await.lines().count() > 2 {}
    };
    tokio::time::timeout(DEADLINE, gone)
        .await
        .expect("all others end");
    assert_eq!(
        docker(&["ps", "-aq", "--filter", &label, "--filter", "status=created"]).await,
        ""
    );
    bench.executor.shut_down().await;
}

/// In a program of its own, as the engine's address is an environment variable.
#[tokio::test]
async fn an_ailing_engine_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine");
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "executor::lives::daemon_of_an_ailing_engine",
        ])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .env(ROLE, &socket)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
#[ignore = "a role of this program, not a test"]
async fn daemon_of_an_ailing_engine() {
    let Some(socket) = std::env::var_os(ROLE) else {
        return;
    };
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let engine = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let answer =
                b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
            stream.write_all(answer).await.unwrap();
        }
    };
    let state = tempfile::tempdir().unwrap();
    let executor = Executor::new(super::config(state.path(), Choice::Auto));
    let first = tokio::select! {
        first = executor.name() => first,
        () = engine => unreachable!("it serves for ever"),
    };
    assert!(
        matches!(first, Err(ExecutorError::Engine { .. })),
        "an engine that is there is not given up: {first:?}"
    );
    fs::remove_file(&socket).unwrap();
    drop(listener);
    assert_eq!(executor.name().await.unwrap(), "native");
}

async fn docker(arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("docker")
        .args(arguments)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_daemon_that_ends_leaves_no_container_that_was_never_started() {
    if skipped(Choice::Docker) {
        return;
    }
    let bench = Bench::new(Choice::Docker);
    let label = format!("label=dev.trimaran.sandbox={}", bench.path().display());
    bench.executor.warm().await.unwrap();
    // Takes the sandbox that is ready, so that a spare one is being made when the daemon ends.
    assert_eq!(bench.sh("exit 0").await.code(), 0);
    bench.executor.shut_down().await;
    let never_started = docker(&["ps", "-aq", "--filter", &label, "--filter", "status=created"]).await;
    assert_eq!(never_started, "");
}

#[tokio::test]
async fn builds_have_their_own_networks_while_they_last() {
    if skipped(Choice::Docker) {
        return;
    }
    let bench = Bench::new(Choice::Docker);
    let network = async |sandboxes: &builderd::executor::Sandboxes| {
        let mut said = Vec::new();
        let step = bench.shell("readlink /proc/self/ns/net; hostname -i 2>/dev/null; true");
        let status = sandboxes
            .run(
                step,
                Arc::new(()),
                |_, bytes| said.extend_from_slice(&bytes),
                &CancellationToken::new(),
            )
            .await;
        assert!(status.unwrap().success());
        String::from_utf8(said).unwrap()
    };
    let (one, other) = (bench.executor.sandboxes(), bench.executor.sandboxes());
    let (first, second) = (network(&one).await, network(&other).await);
    assert_ne!(first, second);
    assert_eq!(network(&one).await, first, "all steps of a build share one");
    drop((one, other));
    // Ended builds leave theirs to later ones.
    let later = network(&bench.executor.sandboxes()).await;
    assert!([first, second].contains(&later), "{later}");
    bench.executor.shut_down().await;
}

#[tokio::test]
async fn auto_takes_the_engine_that_is_there() {
    if skipped(Choice::Auto) {
        return;
    }
    let bench = Bench::new(Choice::Auto);
    let name = bench.executor.name().await.unwrap();
    let expected = if super::engine_answers() {
        "docker"
    } else {
        "native"
    };
    assert_eq!(name, expected);
    assert_eq!(bench.sh("echo works").await.text(), "works");
    bench.executor.shut_down().await;
}
