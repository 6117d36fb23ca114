//! State folders that cannot be used.

use std::process::Command;
use std::time::Duration;

use tests::daemon;
use tests::needs::{Need, given};
use tests::process::Running;
use tests::waiting::wait_until;

/// Starts a daemon that cannot start, and returns what it said.
fn refused(command: &mut Command, folder: &std::path::Path) -> String {
    let mut daemon = Running::start(command, &folder.join("refused.log"));
    let status = daemon.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    daemon.log()
}

#[test]
fn a_missing_state_folder_is_made() {
    if !given(&[Need::Root]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("not/yet");
    std::fs::create_dir_all(&deep).unwrap();
    let daemon = daemon::Daemon::start(&deep, &["--executor", "native"]);
    assert!(daemon.state().is_dir());
}

#[test]
fn a_read_only_state_folder_is_named() {
    if !given(&[Need::Root]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let state = daemon::state(folder.path());
    std::fs::create_dir_all(&state).unwrap();
    // Root writes where the mode forbids it; only the mount stops it.
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let plain = daemon::command(folder.path(), &[]);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation=private", "sh", "-c", script])
        .arg(&state);
    command.arg(plain.get_program()).args(plain.get_args());
    let said = refused(&mut command, folder.path());
    assert!(said.contains(state.to_str().unwrap()), "{said}");
    assert!(said.to_lowercase().contains("read-only"), "{said}");
}

#[test]
fn a_file_in_place_of_the_state_folder_is_named() {
    if !given(&[Need::Root]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let state = daemon::state(folder.path());
    std::fs::write(&state, "").unwrap();
    let said = refused(&mut daemon::command(folder.path(), &[]), folder.path());
    assert!(said.contains(state.to_str().unwrap()), "{said}");
}

#[test]
fn two_daemons_do_not_share_a_state_folder() {
    if !given(&[Need::Root]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon::Daemon::start(folder.path(), &["--executor", "native"]);
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::os::unix::fs::symlink(daemon.state(), daemon::state(&other)).unwrap();
    let said = refused(&mut daemon::command(&other, &[]), folder.path());
    assert!(said.contains("state"), "{said}");
    wait_until("the first to answer", Duration::from_secs(5), || {
        std::os::unix::net::UnixStream::connect(daemon::socket(folder.path())).is_ok()
    });
}
