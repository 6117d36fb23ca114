//! The kernel's side: the `binfmt_misc` file system, in which every handler is a file.
//!
//! The folder can be chosen, for a mount elsewhere and for tests. Nothing is cached: other programs register and
//! remove handlers at any time. Handlers belong to the machine, or since Linux 6.7 to a user namespace.

mod handler;

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use thiserror::Error;

pub use handler::{Flags, Handler, ParseHandlerError, Recognition};

use crate::machine::Machine;

/// Where systems mount it.
pub const DEFAULT_ROOT: &str = "/proc/sys/fs/binfmt_misc";

/// Longest line that the kernel takes for a registration.
const MAX_REGISTRATION: usize = 1920;

/// A `binfmt_misc` folder, mounted or not.
#[derive(Debug, Clone)]
pub struct BinfmtMisc {
    root: PathBuf,
}

#[derive(Debug, Error)]
pub enum KernelError {
    #[error("cannot mount binfmt_misc at {root}{hint}", root = root.display())]
    Mount {
        root: PathBuf,
        hint: &'static str,
        source: io::Error,
    },
    #[error("binfmt_misc is not mounted at {root}", root = root.display())]
    NotMounted { root: PathBuf },
    #[error("cannot list the handlers in {root}", root = root.display())]
    List { root: PathBuf, source: io::Error },
    #[error("cannot read the handler {name}")]
    Read { name: String, source: io::Error },
    #[error("cannot understand the handler {name}")]
    Parse { name: String, source: ParseHandlerError },
    #[error("cannot register the handler {name} with the interpreter {interpreter}{hint}", interpreter = interpreter.display())]
    Register {
        name: String,
        interpreter: PathBuf,
        hint: &'static str,
        source: io::Error,
    },
    #[error("the path of the interpreter {interpreter} cannot be registered: it is too long, or has a \":\" or a line break", interpreter = interpreter.display())]
    UnfitInterpreter { interpreter: PathBuf },
    #[error("cannot remove the handler {name}{hint}")]
    Unregister {
        name: String,
        hint: &'static str,
        source: io::Error,
    },
}

impl KernelError {
    /// Whether more rights would help.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Mount { source, .. } | Self::Register { source, .. } | Self::Unregister { source, .. } => {
                is_permission(source)
            }
            _ => false,
        }
    }
}

fn is_permission(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// What to add to an error that more rights would solve.
fn hint(error: &io::Error) -> &'static str {
    if is_permission(error) {
        " (this takes root, and in a container --privileged)"
    } else {
        ""
    }
}

impl BinfmtMisc {
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn is_mounted(&self) -> bool {
        self.root.join("register").exists()
    }

    /// Mounts the file system if it is not there.
    pub fn ensure_mounted(&self) -> Result<(), KernelError> {
        if self.is_mounted() {
            return Ok(());
        }
        let mounted = mount(
            Some("binfmt_misc"),
            &self.root,
            Some("binfmt_misc"),
            MsFlags::empty(),
            None::<&str>,
        );
        mounted.map_err(|errno| {
            let source = io::Error::from(errno);
            let hint = match errno {
                nix::errno::Errno::ENODEV => " (the kernel lacks it: load it with modprobe binfmt_misc)",
                _ => hint(&source),
            };
            KernelError::Mount {
                root: self.root.clone(),
                hint,
                source,
            }
        })
    }

    /// Whether handlers are in use at all; a switch for all of them.
    pub fn is_enabled(&self) -> Result<bool, KernelError> {
        let status = std::fs::read_to_string(self.root.join("status"));
        let status = status.map_err(|_| KernelError::NotMounted {
            root: self.root.clone(),
        })?;
        Ok(status.trim() == "enabled")
    }

    /// All handlers, by name.
    pub fn handlers(&self) -> Result<Vec<Handler>, KernelError> {
        if !self.is_mounted() {
            return Err(KernelError::NotMounted {
                root: self.root.clone(),
            });
        }
        let list = |source| KernelError::List {
            root: self.root.clone(),
            source,
        };
        let mut handlers = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            // Names that are not text cannot be registered by this library and are nothing it can talk about.
            let Some(name) = name
                .to_str()
                .filter(|name| !matches!(*name, "register" | "status"))
            else {
                continue;
            };
            handlers.extend(self.handler(name)?);
        }
        handlers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(handlers)
    }

    /// The handler `name`, if there is one.
    pub fn handler(&self, name: &str) -> Result<Option<Handler>, KernelError> {
        let text = match std::fs::read_to_string(self.root.join(name)) {
            Ok(text) => text,
            // Somebody removed it between listing and reading.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(KernelError::Read {
                    name: name.to_owned(),
                    source,
                });
            }
        };
        let parsed = Handler::parse(name, &text);
        parsed.map(Some).map_err(|source| KernelError::Parse {
            name: name.to_owned(),
            source,
        })
    }

    /// Registers `interpreter` for the programs of `machine`. The newest handler for a program wins.
    pub fn register(
        &self,
        name: &str,
        machine: &Machine,
        interpreter: &Path,
        flags: Flags,
    ) -> Result<(), KernelError> {
        let unfit = || KernelError::UnfitInterpreter {
            interpreter: interpreter.to_owned(),
        };
        let line = registration(name, machine, interpreter, flags).ok_or_else(unfit)?;
        self.write("register", &line)
            .map_err(|source| KernelError::Register {
                name: name.to_owned(),
                interpreter: interpreter.to_owned(),
                hint: match source.kind() {
                    io::ErrorKind::AlreadyExists => " (the name is taken)",
                    _ => hint(&source),
                },
                source,
            })
    }

    /// Removes the handler `name`; what already runs under it goes on.
    pub fn unregister(&self, name: &str) -> Result<(), KernelError> {
        let removed = self.write(name, "-1");
        removed.map_err(|source| KernelError::Unregister {
            name: name.to_owned(),
            hint: hint(&source),
            source,
        })
    }

    /// The kernel takes a command in one write, from its first byte.
    fn write(&self, file: &str, command: &str) -> io::Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .open(self.root.join(file))?;
        file.write_all(command.as_bytes())
    }
}

/// `:name:M:offset:magic:mask:interpreter:flags`, or nothing if the interpreter's path does not fit in.
fn registration(name: &str, machine: &Machine, interpreter: &Path, flags: Flags) -> Option<String> {
    let escaped = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("\\x{byte:02x}"))
            .collect::<String>()
    };
    let (magic, mask) = (escaped(&machine.magic()), escaped(&machine.mask()));
    let interpreter = interpreter
        .to_str()
        .filter(|path| !path.contains([':', '\n', '\0']))?;
    let line = format!(":{name}:M:0:{magic}:{mask}:{interpreter}:{flags}");
    (line.len() <= MAX_REGISTRATION && interpreter.len() < 127).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a mounted binfmt_misc.
    fn fake_root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("register"), "").unwrap();
        std::fs::write(root.path().join("status"), "enabled\n").unwrap();
        root
    }

    #[test]
    fn handlers_are_listed_by_name_without_the_control_files() {
        let root = fake_root();
        let text = "enabled\ninterpreter /bin/x\nflags: F\noffset 0\nmagic 7f45\n";
        std::fs::write(root.path().join("qemu-s390x"), text).unwrap();
        std::fs::write(root.path().join("python3"), text).unwrap();
        let kernel = BinfmtMisc::at(root.path());
        let names: Vec<String> = kernel
            .handlers()
            .unwrap()
            .into_iter()
            .map(|handler| handler.name)
            .collect();
        assert_eq!(names, ["python3", "qemu-s390x"]);
        assert!(kernel.is_enabled().unwrap());
        assert!(kernel.handler("qemu-arm").unwrap().is_none());
    }

    #[test]
    fn a_registration_is_one_line_in_the_kernels_format() {
        let root = fake_root();
        let kernel = BinfmtMisc::at(root.path());
        let machine = Machine::named("aarch64").unwrap();
        kernel
            .register(
                "qemu-aarch64",
                machine,
                Path::new("/usr/bin/qemu-aarch64-static"),
                Flags::ALL,
            )
            .unwrap();
        assert_eq!(
            std::fs::read_to_string(root.path().join("register")).unwrap(),
            concat!(
                r":qemu-aarch64:M:0:\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
                r":\xff\xff\xff\xff\xff\xff\xff\x00\x00\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff",
                ":/usr/bin/qemu-aarch64-static:POCF",
            )
        );
    }

    #[test]
    fn interpreters_whose_path_breaks_the_format_are_refused() {
        let kernel = BinfmtMisc::at("/nowhere");
        let machine = Machine::named("arm").unwrap();
        for path in [
            "/a:b".to_owned(),
            "/a\nb".to_owned(),
            format!("/{}", "x".repeat(127)),
        ] {
            let refused = kernel.register("qemu-arm", machine, Path::new(&path), Flags::ALL);
            assert!(
                matches!(refused, Err(KernelError::UnfitInterpreter { .. })),
                "{path:?}"
            );
        }
    }

    #[test]
    fn removing_writes_minus_one_and_names_what_is_not_there() {
        let root = fake_root();
        let kernel = BinfmtMisc::at(root.path());
        std::fs::write(root.path().join("qemu-arm"), "").unwrap();
        kernel.unregister("qemu-arm").unwrap();
        assert_eq!(
            std::fs::read_to_string(root.path().join("qemu-arm")).unwrap(),
            "-1"
        );
        let error = kernel.unregister("qemu-mips").unwrap_err();
        assert_eq!(error.to_string(), "cannot remove the handler qemu-mips");
    }

    #[test]
    fn a_folder_without_the_file_system_says_so() {
        let root = tempfile::tempdir().unwrap();
        let kernel = BinfmtMisc::at(root.path());
        assert!(matches!(kernel.handlers(), Err(KernelError::NotMounted { .. })));
        assert!(matches!(kernel.is_enabled(), Err(KernelError::NotMounted { .. })));
    }
}
