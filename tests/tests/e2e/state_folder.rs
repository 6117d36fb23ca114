//! State folders that cannot be used, and small ones.

use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use proto::control::SolveRequest;
use proto::pb;
use tests::api::Api;
use tests::daemon;
use tests::llb::Llb;
use tests::needs::{Need, given};
use tests::process::Running;
use tests::waiting::wait_until;
use tests::web::{Reply, WebServer};

/// Starts a daemon that cannot start, and returns what it said.
fn refused(command: &mut Command, folder: &Path) -> String {
    let mut daemon = Running::start(command, &folder.join("refused.log"));
    let status = daemon.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    daemon.log()
}

/// A daemon in a mount namespace of its own, in which a script has mounted something at its state folder, `$0`.
fn mounted(mount: &str, folder: &Path) -> Command {
    let daemon = daemon::command(folder, &["--executor".to_owned(), "native".to_owned()]);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation=private", "sh", "-c"])
        .arg(format!("{mount} && exec \"$@\""))
        .arg(daemon::state(folder))
        .arg(daemon.get_program())
        .args(daemon.get_args());
    command
}

/// The files in a gzip tar with one file of 200 MiB of zeros, unpacked.
fn bomb(server: &WebServer) -> pb::Definition {
    let mut llb = Llb::default();
    let archive = llb.download(&server.url("/bomb"), "bomb");
    let copy = pb::FileActionCopy {
        src: "/bomb".to_owned(),
        dest: "/".to_owned(),
        attempt_unpack_docker_compatibility: true,
        mode: -1,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    };
    let action = pb::FileAction {
        input: -1,
        secondary_input: 0,
        output: 0,
        action: Some(pb::file_action::Action::Copy(copy)),
    };
    let op = pb::FileOp {
        actions: vec![action],
    };
    let unpacked = llb.add(pb::op::Op::File(op), vec![archive]);
    llb.with_result(unpacked)
}

#[test]
fn an_archive_that_fills_the_disk_ends_its_build_and_nothing_else() {
    if !given(&[Need::Root]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let state = daemon::state(folder.path());
    std::fs::create_dir_all(&state).unwrap();
    let mount = "mount -t tmpfs -o size=64m tmpfs \"$0\"";
    let log = folder.path().join("daemon.log");
    let mut daemon = Running::start(&mut mounted(mount, folder.path()), &log);
    daemon.wait_for_log("listening", Duration::from_secs(20));
    let server = WebServer::start(|_| {
        let gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let mut archive = tar::Builder::new(gzip);
        let mut header = tar::Header::new_gnu();
        header.set_size(200 << 20);
        header.set_mode(0o644);
        let zeros = std::io::repeat(0).take(200 << 20);
        archive.append_data(&mut header, "zeros", zeros).unwrap();
        Reply::of(archive.into_inner().unwrap().finish().unwrap())
    });
    let solve = |reference: &str, definition: pb::Definition| {
        let request = SolveRequest {
            r#ref: reference.to_owned(),
            definition: Some(definition),
            ..SolveRequest::default()
        };
        Api::connect(&daemon::socket(folder.path())).solve(request)
    };
    for round in 0..2 {
        let refused = solve(&format!("bomb{round}"), bomb(&server)).unwrap_err();
        assert!(refused.message().contains("No space left"), "{refused}");
        let mut llb = Llb::default();
        let file = llb.file(&format!("/{round}"));
        // What the archive left is removed behind the build.
        wait_until("there to be room again", Duration::from_secs(20), || {
            let used = Api::connect(&daemon::socket(folder.path())).disk_usage(&[]);
            used.is_ok_and(|entries| entries.iter().map(|entry| entry.size).sum::<i64>() < 4 << 20)
        });
        solve(&format!("good{round}"), llb.with_result(file)).unwrap();
    }
    daemon.stop();
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
    let mount = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
    let said = refused(&mut mounted(mount, folder.path()), folder.path());
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
