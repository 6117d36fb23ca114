//! Build records: what daemons keep of builds, and what was imported from bundles.
//!
//! A [`Library`] is where records are looked up: the nodes of one builder and the folder of imported records. What it
//! finds is a [`Found`]: the record, where it came from, and the way to its logs ([`Found::replay`]) and its other files
//! ([`Found::blobs`]). The rest are views of it: [`inspect`] as text, [`page`] as a page for a browser, [`trace`] for
//! Jaeger, [`bundle`] as an archive.

pub mod attachments;
pub mod blobs;
pub mod bundle;
mod filters;
mod imported;
pub mod inspect;
mod library;
pub mod local_state;
mod name;
pub mod page;
mod reference;
mod replay;
pub mod trace;

pub use imported::{BUILDER as IMPORTED, Imported};
pub use library::{Found, HistoryError, Library, Query};
pub use name::of as name;
pub use reference::Reference;

use proto::control::BuildHistoryRecord;

/// How a build stands or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Running,
    Completed,
    Failed,
    Canceled,
}

impl Outcome {
    pub fn of(record: &BuildHistoryRecord) -> Self {
        const CANCELLED: i32 = 1;
        match (&record.error, &record.completed_at) {
            (Some(error), _) if error.code == CANCELLED => Self::Canceled,
            (Some(_), _) => Self::Failed,
            (None, Some(_)) => Self::Completed,
            (None, None) => Self::Running,
        }
    }
}

/// A time of a message; none if no clock can show it.
pub fn timestamp(time: &prost_types::Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(time.seconds, time.nanos).ok()
}
