//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// A program of this workspace, beside the test that asks. Cargo builds programs of other crates only when told.
pub fn ours(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let folders = own.ancestors().skip(1).take(2);
    let found = folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built: run `cargo build --workspace --bins`"))
}

/// A program of the system, if it is installed.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The folder that `scripts/setup` works in.
pub fn setup_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("TRIMARAN_WORK") {
        return PathBuf::from(folder);
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is a folder of the repository");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository.join("target"), PathBuf::from)
        .join("setup")
}
