//! How a command failed: the text for the user and the exit code.
//!
//! The daemon's answer is a gRPC status with details. Its text is printed as it is; the lines of the Dockerfile that it
//! points at come before it. Exit codes are those of buildx.

use proto::errdefs::{self, Detail, Source};
use proto::message;
use tonic::Code;

use crate::output;

pub use proto::chain;

const FAILURE: u8 = 1;
const INTERNAL: u8 = 100;
const EXHAUSTED: u8 = 102;
/// Ended by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// A build that the daemon could not finish.
#[derive(Debug, thiserror::Error)]
#[error("failed to solve: {}", message(.status))]
pub struct BuildFailed {
    pub status: Box<tonic::Status>,
    /// The Dockerfile's path as the user knows it; the daemon knows only its name.
    pub dockerfile: Option<String>,
}

impl From<tonic::Status> for BuildFailed {
    fn from(status: tonic::Status) -> Self {
        Self {
            status: Box::new(status),
            dockerfile: None,
        }
    }
}

/// The user ended the command.
#[derive(Debug, thiserror::Error)]
#[error("failed to solve: Canceled: context canceled")]
pub struct Interrupted;

/// The command failed, and why has been said.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
pub struct Failed(pub u8);

/// Prints the failure and says how to exit.
pub fn report(error: &anyhow::Error) -> u8 {
    if let Some(Failed(code)) = error.downcast_ref() {
        return *code;
    }
    if let Some(place) = error.downcast_ref::<bake::Error>().and_then(bake::Error::place) {
        output::note(source_of(place).excerpt().trim_end_matches('\n'));
    }
    if let Some(failed) = error.downcast_ref::<BuildFailed>() {
        for detail in errdefs::details(&failed.status) {
            match detail {
                Detail::Source(mut source) => {
                    if let Some(path) = failed.dockerfile.as_ref().filter(|path| is_named(path, &source)) {
                        source.info.filename.clone_from(path);
                    }
                    output::note(source.excerpt().trim_end_matches('\n'));
                }
                Detail::Decision(decision) => {
                    for denial in decision.deny_messages {
                        output::note(&format!("Policy: {}", denial.message));
                    }
                }
                _ => {}
            }
        }
    }
    output::note(&format!("ERROR: {}", chain(error.as_ref())));
    exit_code(error)
}

/// A place in a definition, in the form of a place in a Dockerfile.
fn source_of(place: &bake::Place) -> Source {
    let position = |position: bake::Position| errdefs::Position {
        line: i32::try_from(position.line).unwrap_or(i32::MAX),
        character: i32::try_from(position.column).unwrap_or(i32::MAX),
    };
    Source {
        info: errdefs::SourceInfo {
            filename: place.file.clone(),
            data: place.text.as_bytes().to_vec().into(),
            ..errdefs::SourceInfo::default()
        },
        ranges: vec![errdefs::Range {
            start: position(place.start),
            end: position(place.end),
        }],
    }
}

fn is_named(path: &str, source: &Source) -> bool {
    std::path::Path::new(path)
        .file_name()
        .is_some_and(|name| name == source.info.filename.as_str())
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<Interrupted>().is_some() {
        return INTERRUPTED;
    }
    let status = error
        .downcast_ref::<BuildFailed>()
        .map(|failed| &*failed.status)
        .or_else(|| error.downcast_ref());
    match status.map(tonic::Status::code) {
        Some(Code::Internal) => INTERNAL,
        Some(Code::ResourceExhausted) => EXHAUSTED,
        Some(Code::Cancelled) => INTERRUPTED,
        _ => FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_buildx() {
        let failed = |code| anyhow::Error::from(BuildFailed::from(tonic::Status::new(code, "x")));
        for (error, code) in [
            (failed(Code::Unknown), 1),
            (failed(Code::Internal), 100),
            (failed(Code::ResourceExhausted), 102),
            (failed(Code::Cancelled), 130),
            (Interrupted.into(), 130),
            (failed(Code::Internal).context("failed to build"), 100),
            (anyhow::anyhow!("other"), 1),
        ] {
            assert_eq!(exit_code(&error), code, "{error}");
        }
        assert_eq!(failed(Code::Unknown).to_string(), "failed to solve: x");
        assert_eq!(failed(Code::NotFound).to_string(), "failed to solve: NotFound: x");
    }
}
