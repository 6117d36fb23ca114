//! One handler as `binfmt_misc` shows it: a small text file per handler.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// How the kernel starts a handler's interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u8);

impl Flags {
    /// P: the program's own argv[0] is passed on. Without it programs that look at their name misbehave.
    pub const PRESERVE_ARGV0: Self = Self(1);
    /// O: the program is passed as an open file, so that it need not be readable.
    pub const OPEN_BINARY: Self = Self(2);
    /// C: set-uid and set-gid bits of the program count. Implies O.
    pub const CREDENTIALS: Self = Self(4);
    /// F: the interpreter is opened at registration, so that it works inside any root file system.
    pub const FIX_BINARY: Self = Self(8);
    /// What a handler for builds should have.
    pub const ALL: Self = Self(15);

    const LETTERS: [(char, Self); 4] = [
        ('P', Self::PRESERVE_ARGV0),
        ('O', Self::OPEN_BINARY),
        ('C', Self::CREDENTIALS),
        ('F', Self::FIX_BINARY),
    ];

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of `wanted` that are not here.
    pub fn lacking(self, wanted: Self) -> Self {
        Self(wanted.0 & !self.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn from_letters(letters: &str) -> Self {
        let known = Self::LETTERS
            .iter()
            .filter(|(letter, _)| letters.contains(*letter));
        Self(known.fold(0, |bits, (_, flag)| bits | flag.0))
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::LETTERS
            .iter()
            .filter(|(_, flag)| self.contains(*flag))
            .try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

/// How the kernel recognises the programs a handler is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognition {
    Magic {
        offset: usize,
        magic: Vec<u8>,
        mask: Vec<u8>,
    },
    Extension(String),
}

/// A registered handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    pub name: String,
    pub enabled: bool,
    pub interpreter: PathBuf,
    pub flags: Flags,
    pub recognition: Recognition,
}

/// Why a handler's file could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseHandlerError {
    #[error("line {line:?} is not one this version knows")]
    UnknownLine { line: String },
    #[error("no line says {what}")]
    Missing { what: &'static str },
    #[error("{text:?} is not hexadecimal")]
    NotHexadecimal { text: String },
}

impl Handler {
    /// Reads the kernel's description of the handler `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self, ParseHandlerError> {
        let mut enabled = None;
        let mut interpreter = None;
        let mut flags = Flags::default();
        let mut offset = 0;
        let (mut magic, mut mask, mut extension) = (None, None, None);
        for line in text.lines() {
            let unknown = || ParseHandlerError::UnknownLine {
                line: line.to_owned(),
            };
            match line.split_once(' ') {
                None if line == "enabled" => enabled = Some(true),
                None if line == "disabled" => enabled = Some(false),
                // A handler without flags.
                None if line == "flags:" => {}
                Some(("interpreter", path)) => interpreter = Some(PathBuf::from(path)),
                Some(("flags:", letters)) => flags = Flags::from_letters(letters),
                Some(("offset", number)) => offset = number.parse().map_err(|_| unknown())?,
                Some(("magic", digits)) => magic = Some(bytes_of_hex(digits)?),
                Some(("mask", digits)) => mask = Some(bytes_of_hex(digits)?),
                Some(("extension", suffix)) => extension = Some(suffix.to_owned()),
                _ => return Err(unknown()),
            }
        }
        let recognition = match (magic, extension) {
            (Some(magic), _) => {
                let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
                Recognition::Magic { offset, magic, mask }
            }
            (None, Some(extension)) => Recognition::Extension(extension),
            (None, None) => {
                return Err(ParseHandlerError::Missing {
                    what: "how programs are recognised",
                });
            }
        };
        Ok(Self {
            name: name.to_owned(),
            enabled: enabled.ok_or(ParseHandlerError::Missing {
                what: "whether the handler is enabled",
            })?,
            interpreter: interpreter.ok_or(ParseHandlerError::Missing {
                what: "which interpreter is used",
            })?,
            flags,
            recognition,
        })
    }

    /// Whether the kernel gives a program that starts with `program` to this handler.
    pub fn recognises(&self, program: &[u8]) -> bool {
        let Recognition::Magic { offset, magic, mask } = &self.recognition else {
            return false;
        };
        let Some(start) = offset
            .checked_add(magic.len())
            .and_then(|end| program.get(*offset..end))
        else {
            return false;
        };
        start
            .iter()
            .zip(magic)
            .zip(mask)
            .all(|((byte, magic), mask)| (byte ^ magic) & mask == 0)
    }
}

fn bytes_of_hex(digits: &str) -> Result<Vec<u8>, ParseHandlerError> {
    let error = || ParseHandlerError::NotHexadecimal {
        text: digits.to_owned(),
    };
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return Err(error());
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| error()))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::machine::Machine;

    const AARCH64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: POCF\noffset 0\nmagic \
        7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn a_handler_is_read_as_the_kernel_prints_it() {
        let handler = Handler::parse("qemu-aarch64", AARCH64).unwrap();
        assert!(handler.enabled);
        assert_eq!(handler.interpreter, PathBuf::from("/usr/bin/qemu-aarch64-static"));
        assert_eq!(handler.flags, Flags::ALL);
        for machine in Machine::all() {
            assert_eq!(
                handler.recognises(&machine.magic()),
                machine.name() == "aarch64",
                "{}",
                machine.name()
            );
        }
        assert!(!handler.recognises(b"\x7fELF"));
    }

    #[test]
    fn a_handler_by_extension_recognises_no_program() {
        let handler =
            Handler::parse("java", "disabled\ninterpreter /a b\nflags: \nextension .jar\n").unwrap();
        assert_eq!(
            handler,
            Handler {
                name: "java".to_owned(),
                enabled: false,
                interpreter: PathBuf::from("/a b"),
                flags: Flags::default(),
                recognition: Recognition::Extension(".jar".to_owned()),
            }
        );
        assert!(!handler.recognises(&[0; 128]));
    }

    #[test]
    fn flags_print_in_the_kernels_order_and_name_what_is_lacking() {
        let flags = Flags::from_letters("FCO");
        assert_eq!(flags.to_string(), "OCF");
        assert_eq!(flags.lacking(Flags::ALL), Flags::PRESERVE_ARGV0);
        assert!(Flags::ALL.lacking(flags).is_empty());
    }

    #[test]
    fn what_is_no_handler_is_refused() {
        for (text, error) in [
            (
                "enabled\n",
                ParseHandlerError::Missing {
                    what: "how programs are recognised",
                },
            ),
            (
                "interpreter /x\nmagic 7f\n",
                ParseHandlerError::Missing {
                    what: "whether the handler is enabled",
                },
            ),
            (
                "enabled\nmagic 7f\n",
                ParseHandlerError::Missing {
                    what: "which interpreter is used",
                },
            ),
            (
                "enabled\nmagic 7\n",
                ParseHandlerError::NotHexadecimal { text: "7".to_owned() },
            ),
            (
                "enabled\nshape round\n",
                ParseHandlerError::UnknownLine {
                    line: "shape round".to_owned(),
                },
            ),
        ] {
            assert_eq!(Handler::parse("x", text), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,80}", digits in "(offset|magic|mask) \\PC{0,12}\n") {
            let _ = Handler::parse("x", &text);
            let _ = Handler::parse("x", &digits);
        }

        #[test]
        fn recognising_never_panics(offset in 0usize..=usize::MAX, program in proptest::collection::vec(0u8..=255, 0..40)) {
            let recognition = Recognition::Magic { offset, magic: vec![0; 20], mask: vec![0; 20] };
            let handler = Handler { recognition, ..Handler::parse("x", AARCH64).unwrap() };
            prop_assert_eq!(handler.recognises(&program), offset <= program.len() && program.len() - offset >= 20);
        }
    }
}
