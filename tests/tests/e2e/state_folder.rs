//! State folders that cannot be used, and small ones.

use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::statvfs::statvfs;
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

/// The files in the archive at a URL.
fn unpacked(url: &str) -> pb::Definition {
    let mut llb = Llb::default();
    let archive = llb.download(url, "archive");
    let copy = pb::FileActionCopy {
        src: "/archive".to_owned(),
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
    // An archive with one file of so many MiB of zeros.
    let server = WebServer::start(|request| {
        let size = request.path[1..].parse::<u64>().unwrap() << 20;
        let gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let mut archive = tar::Builder::new(gzip);
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        let zeros = std::io::repeat(0).take(size);
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
    // As the daemon sees it.
    let state = format!("/proc/{}/root{}", daemon.id(), state.display());
    let free = || statvfs(state.as_str()).map_or(0, |disk| disk.blocks_available() * disk.fragment_size());
    for round in 0..2 {
        let refused = solve(&format!("bomb{round}"), unpacked(&server.url("/200"))).unwrap_err();
        assert!(refused.message().contains("No space left"), "{refused}");
        // What the archive left is removed behind the build.
        wait_until("there to be room again", Duration::from_secs(20), || {
            free() > 30 << 20
        });
        solve(
            &format!("good{round}"),
            unpacked(&server.url(&format!("/{}", 4 + round))),
        )
        .unwrap();
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
