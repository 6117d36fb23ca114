//! The `binfmt` command: installs, removes and reports emulators.
//!
//! Its arguments and the status that it prints are those of the well-known `tonistiigi/binfmt` image, so that scripts
//! can use either. The status is data and goes to the output; what was done and what is wrong goes to the error output.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use crate::emulators::{Emulators, InstallError, Installed, Support, one_line};
use crate::interpreter::InterpreterFolders;
use crate::kernel::{BinfmtMisc, DEFAULT_ROOT};
use crate::machine::Machine;

/// Register emulators, so that this machine runs programs of other architectures
///
/// Without arguments, prints which platforms run and which handlers are registered. A platform is listed only if a
/// program of it was just executed. What there is to remove may be gone already; what cannot be installed fails.
///
/// Examples:
///   binfmt
///   binfmt --install all
///   binfmt --install arm64,riscv64
///   binfmt --uninstall 'qemu-*'
#[derive(Debug, Clone, Parser)]
#[command(name = "binfmt", verbatim_doc_comment)]
pub struct Args {
    /// Register emulators: "all", or architectures or platforms separated by commas
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    install: Vec<String>,

    /// Remove emulators: architectures, handler names, or "qemu-*", separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    uninstall: Vec<String>,

    /// Print the versions of this command and of the emulators it would register
    #[arg(long)]
    version: bool,

    /// Folder where binfmt_misc is, or is to be mounted
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    mount: PathBuf,

    /// Folder with QEMU's static emulators, in place of the usual ones
    #[arg(long, value_name = "DIR", env = "QEMU_BINARY_PATH", hide_env_values = true)]
    qemu_path: Option<PathBuf>,
}

/// What the command prints.
#[derive(Debug, Serialize)]
struct Status {
    supported: Vec<String>,
    emulators: Vec<String>,
}

/// Runs the command with the arguments after its name and says how to exit; wrong usage is explained and exits with 2.
pub fn run<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let arguments = arguments.into_iter().map(Into::into);
    match Args::try_parse_from(std::iter::once(OsString::from("binfmt")).chain(arguments)) {
        Ok(args) => args.run(),
        Err(error) => {
            // Nothing is left to say if even this cannot be printed.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}

impl Args {
    /// Runs the command as its arguments say.
    pub fn run(&self) -> ExitCode {
        match self.execute(&mut io::stdout().lock(), &mut io::stderr().lock()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            // The reader went away, as in `binfmt | head -1`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    }

    /// Does everything asked for, also after a failure; says whether all of it was done.
    fn execute(&self, output: &mut impl Write, messages: &mut impl Write) -> io::Result<bool> {
        let folders = match &self.qemu_path {
            Some(folder) => InterpreterFolders::only(folder)?,
            None => InterpreterFolders::default(),
        };
        let emulators = Emulators::new(BinfmtMisc::at(&self.mount), folders);
        if self.version {
            let emulator = emulators.version();
            let emulator = emulator.as_deref().unwrap_or("none");
            writeln!(output, "binfmt/{} qemu/{emulator}", env!("CARGO_PKG_VERSION"))?;
            return Ok(true);
        }
        // A status, too, mounts what is missing: else it could not see the handlers there are.
        if let Err(error) = emulators.kernel().ensure_mounted()
            && self.is_status()
        {
            writeln!(
                messages,
                "binfmt: {}; handlers cannot be listed",
                one_line(&error)
            )?;
        }
        let uninstalled = self.uninstall_all(&emulators, messages)?;
        let installed = self.install_all(&emulators, messages)?;
        print_status(&emulators, output, messages)?;
        Ok(uninstalled && installed)
    }

    fn is_status(&self) -> bool {
        self.install.is_empty() && self.uninstall.is_empty()
    }

    fn uninstall_all(&self, emulators: &Emulators, messages: &mut impl Write) -> io::Result<bool> {
        let mut all_done = true;
        for pattern in &self.uninstall {
            match emulators.uninstall(pattern) {
                Ok(names) => {
                    for name in names {
                        writeln!(messages, "uninstalling: {name} OK")?;
                    }
                }
                // What is to be gone is gone: scripts remove before they install.
                Err(InstallError::NoSuchHandler { registered, .. }) => {
                    writeln!(
                        messages,
                        "uninstalling: {pattern} not found; registered are: {registered}"
                    )?;
                }
                Err(error) => {
                    all_done = false;
                    writeln!(messages, "uninstalling: {pattern} failed: {}", one_line(&error))?;
                }
            }
        }
        Ok(all_done)
    }

    fn install_all(&self, emulators: &Emulators, messages: &mut impl Write) -> io::Result<bool> {
        let mut all_done = true;
        for word in &self.install {
            let machines: Vec<&'static Machine> = match (word.as_str(), Machine::named(word)) {
                ("all", _) => Machine::all()
                    .iter()
                    .filter(|machine| !machine.is_host())
                    .collect(),
                (_, Some(machine)) => vec![machine],
                (_, None) => {
                    all_done = false;
                    let known: Vec<&str> = Machine::all().iter().map(Machine::architecture).collect();
                    writeln!(
                        messages,
                        "installing: {word} failed: unknown architecture; known are {}",
                        known.join(", ")
                    )?;
                    continue;
                }
            };
            for machine in machines {
                let architecture = machine.architecture();
                match emulators.install(machine) {
                    Ok(Installed::Registered { handler }) => {
                        writeln!(messages, "installing: {architecture} OK ({handler})")?;
                    }
                    Ok(Installed::Replaced { handler }) => {
                        writeln!(messages, "installing: {architecture} OK ({handler} replaced)")?;
                    }
                    Ok(Installed::Unchanged { handler }) => {
                        writeln!(messages, "installing: {architecture} OK ({handler} was there)")?;
                    }
                    Ok(Installed::Native) => {
                        writeln!(
                            messages,
                            "installing: {architecture} not needed, this machine runs it"
                        )?;
                    }
                    Err(error) => {
                        all_done = false;
                        writeln!(
                            messages,
                            "installing: {architecture} failed: {}",
                            one_line(&error)
                        )?;
                    }
                }
            }
        }
        Ok(all_done)
    }
}

fn print_status(emulators: &Emulators, output: &mut impl Write, messages: &mut impl Write) -> io::Result<()> {
    let supports = emulators.survey(&Emulators::known_platforms());
    for warning in supports.iter().filter_map(Support::warning) {
        writeln!(messages, "warning: {warning}")?;
    }
    let supported = supports
        .iter()
        .filter(|support| support.runs())
        .map(|support| support.platform().to_string());
    // Where the list cannot be read, that was said before.
    let handlers = emulators.kernel().handlers().unwrap_or_default();
    let status = Status {
        supported: supported.collect(),
        emulators: handlers
            .into_iter()
            .filter(|handler| handler.enabled)
            .map(|handler| handler.name)
            .collect(),
    };
    serde_json::to_writer_pretty(&mut *output, &status)?;
    writeln!(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;

    fn execute(arguments: &[&str]) -> (bool, String, String) {
        let args = Args::try_parse_from(std::iter::once(&"binfmt").chain(arguments)).unwrap();
        let (mut output, mut messages) = (Vec::new(), Vec::new());
        let done = args.execute(&mut output, &mut messages).unwrap();
        (
            done,
            String::from_utf8(output).unwrap(),
            String::from_utf8(messages).unwrap(),
        )
    }

    /// A folder that looks like a mounted binfmt_misc.
    fn fake_root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("register"), "").unwrap();
        std::fs::write(root.path().join("status"), "enabled\n").unwrap();
        root
    }

    #[test]
    fn the_status_lists_what_runs_and_what_is_registered() {
        let root = fake_root();
        let text = "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 23\n";
        std::fs::write(root.path().join("python3"), text).unwrap();
        let disabled = text.replace("enabled", "disabled");
        std::fs::write(root.path().join("qemu-off"), disabled).unwrap();
        let (done, output, _) = execute(&["--mount", root.path().to_str().unwrap()]);
        assert!(done);
        let start = format!("{{\n  \"supported\": [\n    \"{}\"", Platform::host());
        assert!(output.starts_with(&start), "{output}");
        assert!(
            output.ends_with("  ],\n  \"emulators\": [\n    \"python3\"\n  ]\n}\n"),
            "{output}"
        );
    }

    #[test]
    fn what_cannot_be_done_is_said_and_fails() {
        let root = fake_root();
        let empty = tempfile::tempdir().unwrap();
        let mount = root.path().to_str().unwrap();
        let (done, _, messages) = execute(&["--mount", mount, "--install", "vax"]);
        assert!(!done);
        assert!(
            messages.starts_with("installing: vax failed: unknown architecture; known are amd64, arm64, "),
            "{messages}"
        );

        let (done, _, messages) = execute(&["--mount", mount, "--uninstall", "qemu-aarch64"]);
        assert!(done);
        let said = "uninstalling: qemu-aarch64 not found; registered are: none\n";
        assert!(messages.starts_with(said), "{messages}");

        let folder = empty.path().to_str().unwrap();
        let (done, _, messages) = execute(&["--mount", mount, "--qemu-path", folder, "--install", "s390x"]);
        assert!(!done);
        let said = format!("installing: s390x failed: no static emulator for s390x is in {folder}: ");
        assert!(messages.starts_with(&said), "{messages}");
    }

    #[test]
    fn the_own_architecture_is_never_given_an_emulator() {
        let root = fake_root();
        let host = Platform::host();
        let (done, _, messages) = execute(&[
            "--mount",
            root.path().to_str().unwrap(),
            "--install",
            host.architecture(),
        ]);
        assert!(done);
        let said = format!(
            "installing: {} not needed, this machine runs it\n",
            host.architecture()
        );
        assert!(messages.starts_with(&said), "{messages}");
        assert_eq!(std::fs::read_to_string(root.path().join("register")).unwrap(), "");
    }

    #[test]
    fn wrong_usage_exits_with_two() {
        assert_eq!(run(["--frobnicate"]), ExitCode::from(2));
    }
}
