//! Errors as clients get them: gRPC codes, texts and details. Nobody else makes statuses of errors.
//!
//! What goes wrong in a build has the code `Unknown`: clients print other codes as well, and take `Internal` for a
//! fault of the daemon.

use prost::Message;
use proto::errdefs::{self, Detail};
use proto::rpc;
use tonic::{Code, Status};

use super::builds::StartError;
use crate::progress::CANCELED;
use crate::session::SessionError;
use crate::solver::SolveError;

pub(super) fn of_solve(error: &SolveError) -> Status {
    of_solve_with(error, None)
}

/// The same with one more detail.
pub(super) fn of_solve_with(error: &SolveError, more: Option<Detail>) -> Status {
    let code = match error {
        SolveError::Canceled => Code::Cancelled,
        // By this a client knows to ask in another way.
        SolveError::Frontend(error) if error.is_unknown() => Code::Unimplemented,
        _ => Code::Unknown,
    };
    let mut details = error.details();
    details.extend(more);
    details.push(Detail::Stack(reported()));
    errdefs::status(code, error.to_string(), &details)
}

/// Says of an error which daemon it is from.
fn reported() -> errdefs::Stack {
    errdefs::Stack {
        frames: vec![errdefs::Frame {
            name: concat!(module_path!(), "::of_solve").to_owned(),
            file: file!().to_owned(),
            line: i32::try_from(line!()).unwrap_or_default(),
        }],
        cmdline: vec!["builderd".to_owned()],
        pid: i32::try_from(std::process::id()).unwrap_or_default(),
        version: crate::version::VERSION.to_owned(),
        revision: crate::version::revision().to_owned(),
    }
}

/// Of anything else that goes wrong in a build.
pub(super) fn of_failure(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::unknown(proto::chain(error))
}

pub(super) fn of_session(error: &SessionError) -> Status {
    let code = match error {
        SessionError::NoId => Code::InvalidArgument,
        _ => Code::Unknown,
    };
    Status::new(code, proto::chain(error))
}

pub(super) fn of_start(error: &StartError) -> Status {
    match error {
        StartError::Exists(_) => Status::already_exists(error.to_string()),
        StartError::Stopping => Status::unavailable(error.to_string()),
    }
}

pub(super) fn canceled() -> Status {
    Status::cancelled(CANCELED)
}

pub(super) fn no_such_job(reference: &str) -> Status {
    Status::not_found(format!("no such job {reference}"))
}

/// The status that a message carries, with its details as they are.
pub(super) fn from_message(error: &rpc::Status) -> Status {
    let code = match Code::from_i32(error.code) {
        // An error without a code is an error all the same.
        Code::Ok => Code::Unknown,
        code => code,
    };
    Status::with_details(code, error.message.clone(), error.encode_to_vec().into())
}
