//! The daemon's executable on this machine: `$TRIMARAN_BUILDERD`, else beside this program, else in `$PATH`.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use crate::settings::Settings;

const NAME: &str = "builderd";

#[derive(Debug, thiserror::Error)]
pub enum ExecutableError {
    #[error("no builderd found beside {} or in PATH: put it there, or name it in TRIMARAN_BUILDERD", beside.display())]
    NotFound { beside: PathBuf },
    #[error("TRIMARAN_BUILDERD names {}, which is no file", path.display())]
    NoFile { path: PathBuf },
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

pub fn find(settings: &Settings) -> Result<PathBuf, ExecutableError> {
    if let Some(path) = settings.get("TRIMARAN_BUILDERD") {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(ExecutableError::NoFile { path })
        };
    }
    let beside = std::env::current_exe()
        .and_then(std::fs::canonicalize)
        .ok()
        .and_then(|program| program.parent().map(Path::to_owned))
        .unwrap_or_default();
    std::iter::once(beside.clone())
        .chain(settings.path())
        .map(|folder| folder.join(NAME))
        .find(|path| path.is_file())
        .ok_or(ExecutableError::NotFound { beside })
}

/// The SHA-256 of a file, as hexadecimal text.
pub fn hash(path: &Path) -> Result<String, ExecutableError> {
    let failed = |source| ExecutableError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}
