//! A kernel to register handlers in without touching the machine's own.
//!
//! Since Linux 6.7 a user namespace has handlers of its own: a test runs itself again inside a new one. On older
//! kernels, where handlers are the whole machine's, it runs in place and leaves nothing behind.

use std::process::Command;

use binfmt::kernel::BinfmtMisc;
use binfmt::{Emulators, InterpreterFolders, Machine};

const INSIDE: &str = "TRIMARAN_TEST_INSIDE";

/// What a test works with; what it registered for its machine is removed at the end.
pub(crate) struct World {
    pub(crate) emulators: Emulators,
    /// One that no other test and hardly any machine uses.
    pub(crate) machine: &'static Machine,
    _mount_point: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        // Nothing to remove is what tests that failed early leave.
        let _ = self.emulators.uninstall(self.machine.name());
        let _ = self.emulators.uninstall("trimaran-test-*");
    }
}

/// Runs `body` with a kernel that it may change, or says why not.
pub(crate) fn with_kernel(test: &str, body: impl FnOnce(&World)) {
    let machine = Machine::named("mips64").expect("the table has it");
    if InterpreterFolders::default().find(machine).is_none() {
        return skip(
            test,
            "no static emulator for mips64 (apt-get install qemu-user-static)",
        );
    }
    if std::env::var_os(INSIDE).is_some() {
        let mount_point = tempfile::tempdir().unwrap();
        let kernel = BinfmtMisc::at(mount_point.path());
        kernel
            .ensure_mounted()
            .expect("the namespace allows it: it was tried before");
        return body(&World {
            emulators: Emulators::new(kernel, InterpreterFolders::default()),
            machine,
            _mount_point: mount_point,
        });
    }
    let namespace = ["--user", "--map-root-user", "--mount", "--fork"];
    let tried = Command::new("unshare")
        .args(namespace)
        .args(["sh", "-c", "mount -t binfmt_misc none /mnt"])
        .output();
    if tried.is_ok_and(|output| output.status.success()) {
        let inside = Command::new("unshare")
            .args(namespace)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = [inside.stdout, inside.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat();
        assert!(
            inside.status.success() && said.contains("1 passed"),
            "inside the namespace:\n{said}"
        );
        return;
    }
    let emulators = Emulators::default();
    if let Err(error) = emulators.kernel().ensure_mounted() {
        return skip(test, &format!("{error}"));
    }
    let taken = emulators
        .kernel()
        .handlers()
        .unwrap()
        .into_iter()
        .find(|handler| handler.recognises(&machine.magic()));
    if let Some(handler) = taken {
        // Nobody can set this right: a daemon on the machine may have registered it.
        eprintln!(
            "skipped: {test}: the machine has a handler for mips64, {}",
            handler.name
        );
        return;
    }
    body(&World {
        emulators,
        machine,
        _mount_point: tempfile::tempdir().unwrap(),
    });
}

fn skip(test: &str, reason: &str) {
    assert!(
        std::env::var_os("TRIMARAN_REQUIRE_ALL").is_none(),
        "{test} must run here, but: {reason}"
    );
    eprintln!("skipped: {test}: {reason}");
}
