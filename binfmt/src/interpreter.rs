//! Finds emulators on disk that work inside any root file system: static executables for this machine.
//!
//! An emulator that needs a program loader or shared libraries cannot start inside an image that has none, whatever
//! the kernel was told, so it is passed over.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::machine::Machine;

/// Where distributions put QEMU's user emulators.
const DEFAULT_FOLDERS: [&str; 3] = ["/usr/bin", "/usr/libexec/qemu-binfmt", "/usr/local/bin"];

/// The folders in which emulators are looked for, in order.
#[derive(Debug, Clone)]
pub struct InterpreterFolders(Vec<PathBuf>);

impl Default for InterpreterFolders {
    fn default() -> Self {
        Self(DEFAULT_FOLDERS.iter().map(PathBuf::from).collect())
    }
}

impl InterpreterFolders {
    /// Only this folder, relative to the working folder as command lines have it.
    pub fn only(folder: &Path) -> io::Result<Self> {
        Ok(Self(vec![std::path::absolute(folder)?]))
    }

    /// The first static emulator for `machine`.
    pub fn find(&self, machine: &Machine) -> Option<PathBuf> {
        let name = machine.name();
        let file_names = [
            format!("qemu-{name}-static"),
            format!("qemu-{name}"),
            format!("{name}-binfmt-P"),
        ];
        let candidates = self
            .0
            .iter()
            .flat_map(|folder| file_names.iter().map(|file_name| folder.join(file_name)));
        candidates
            .into_iter()
            .find(|candidate| match is_static_executable(candidate) {
                Ok(is_static) => is_static,
                Err(error) => {
                    if error.kind() != io::ErrorKind::NotFound {
                        tracing::debug!(path = %candidate.display(), %error, "emulator passed over");
                    }
                    false
                }
            })
    }

    /// The folders, for messages.
    pub fn listed(&self) -> String {
        self.0
            .iter()
            .map(|folder| folder.display().to_string())
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Whether the file is an executable for this machine that asks for no program loader.
fn is_static_executable(path: &Path) -> io::Result<bool> {
    const PROGRAM_LOADER: u32 = 3;
    let file = File::open(path)?;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let Some(host) = Machine::host() else {
        return Ok(false);
    };
    if !host.matches(&header) {
        return Ok(false);
    }
    // The host's byte order is this process's own; hosts with emulators are 64-bit ones, or 32-bit ARM.
    let (table_at, entry_size, entries) = if host.is_64_bit() {
        (
            number(&header[32..40]),
            number(&header[54..56]),
            number(&header[56..58]),
        )
    } else {
        (
            number(&header[28..32]),
            number(&header[42..44]),
            number(&header[44..46]),
        )
    };
    for index in 0..entries {
        let mut segment_type = [0; 4];
        let at = index
            .checked_mul(entry_size)
            .and_then(|skipped| table_at.checked_add(skipped));
        file.read_exact_at(&mut segment_type, at.ok_or(io::ErrorKind::InvalidData)?)?;
        if u32::from_ne_bytes(segment_type) == PROGRAM_LOADER {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An unsigned number in this machine's byte order.
fn number(bytes: &[u8]) -> u64 {
    let digit = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    if cfg!(target_endian = "little") {
        bytes.iter().rev().fold(0, digit)
    } else {
        bytes.iter().fold(0, digit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    fn static_program() -> Vec<u8> {
        Machine::host()
            .unwrap()
            .probe_program(&crate::Platform::host())
            .unwrap()
    }

    /// The same program with its only segment turned into a request for a program loader.
    fn dynamic_program() -> Vec<u8> {
        let mut program = static_program();
        let segment = if Machine::host().unwrap().is_64_bit() {
            64
        } else {
            52
        };
        program[segment..segment + 4].copy_from_slice(&3u32.to_ne_bytes());
        program
    }

    #[test]
    fn only_static_programs_for_this_machine_are_emulators() {
        let arm = Machine::named("arm").unwrap();
        let mips = Machine::named("mips64").unwrap();
        let foreign = mips.probe_program(&mips.platforms().next().unwrap()).unwrap();
        for (content, found) in [
            (static_program(), true),
            (dynamic_program(), false),
            (foreign, false),
            (b"#!/bin/sh".to_vec(), false),
        ] {
            let folder = folder_with(&[("qemu-arm-static", content)]);
            let folders = InterpreterFolders::only(folder.path()).unwrap();
            assert_eq!(
                folders.find(arm),
                found.then(|| folder.path().join("qemu-arm-static"))
            );
        }
    }

    #[test]
    fn a_static_emulator_behind_a_dynamic_one_is_found() {
        let folder = folder_with(&[
            ("qemu-arm-static", dynamic_program()),
            ("qemu-arm", static_program()),
        ]);
        let folders = InterpreterFolders::only(folder.path()).unwrap();
        assert_eq!(
            folders.find(Machine::named("arm").unwrap()),
            Some(folder.path().join("qemu-arm"))
        );
        assert_eq!(folders.find(Machine::named("s390x").unwrap()), None);
    }

    #[test]
    fn the_test_program_itself_is_read_without_error() {
        assert!(is_static_executable(&std::env::current_exe().unwrap()).is_ok());
    }
}
