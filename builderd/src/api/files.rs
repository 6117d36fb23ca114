//! Looks into results for a client: `ReadFile`, `ReadDir`, `StatFile`.

use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proto::fsutil::Stat;
use proto::gateway::{
    FileRange, ReadDirRequest, ReadDirResponse, ReadFileRequest, ReadFileResponse, StatFileRequest,
    StatFileResponse,
};
use proto::transfer::mode;
use proto::tunnel::MAX_MESSAGE;
use tonic::Status;

use super::build::Build;
use super::status;
use crate::ops::file::view_of;
use crate::store::view::{Entry, Found, Kind, LastLink, Metadata, View, ViewError, expand_wildcards};

/// What else is in the message of a file.
const ENVELOPE: usize = 1024;

pub(super) async fn read(build: &Arc<Build>, request: ReadFileRequest) -> Result<ReadFileResponse, Status> {
    let id = request.r#ref.clone();
    look(build, &id, move |view| read_in(view, &request)).await
}

pub(super) async fn stat(build: &Arc<Build>, request: StatFileRequest) -> Result<StatFileResponse, Status> {
    let id = request.r#ref.clone();
    look(build, &id, move |view| stat_in(view, &request)).await
}

pub(super) async fn list(build: &Arc<Build>, request: ReadDirRequest) -> Result<ReadDirResponse, Status> {
    let id = request.r#ref.clone();
    look(build, &id, move |view| list_in(view, &request)).await
}

pub(super) fn read_in(view: &View, request: &ReadFileRequest) -> Result<ReadFileResponse, Status> {
    let path = &request.file_path;
    let file = view.open_file(path).map_err(|error| absent(path, &error))?;
    let data = part(file, request.range.as_ref())
        .map_err(|error| Status::unknown(format!("read {path}: {error}")))?;
    Ok(ReadFileResponse { data })
}

pub(super) fn stat_in(view: &View, request: &StatFileRequest) -> Result<StatFileResponse, Status> {
    let path = &request.path;
    let found = view
        .lookup(path, LastLink::Keep)
        .map_err(|error| absent(path, &error))?;
    let name = Path::new(path).file_name().unwrap_or(OsStr::new("/")).to_owned();
    let stat = match found.found {
        Found::Directory(directory) => message(&name, directory.metadata(), None),
        Found::Other(entry) => entry_message(&entry)?,
        Found::Nothing => return Err(not_found(path)),
    };
    Ok(StatFileResponse { stat: Some(stat) })
}

pub(super) fn list_in(view: &View, request: &ReadDirRequest) -> Result<ReadDirResponse, Status> {
    let (path, pattern) = (&request.dir_path, &request.include_pattern);
    let entries = view.read_dir(path).map_err(|error| absent(path, &error))?;
    let matching = if pattern.is_empty() {
        None
    } else {
        let full = format!("{}/{pattern}", path.trim_end_matches('/'));
        Some(expand_wildcards(view, &full, LastLink::Keep).map_err(|error| absent(&full, &error))?)
    };
    let is_wanted = |entry: &&Entry| {
        matching
            .as_ref()
            .is_none_or(|paths| paths.iter().any(|path| path.file_name() == Some(entry.name())))
    };
    let entries = entries.iter().filter(is_wanted).map(entry_message);
    Ok(ReadDirResponse {
        entries: entries.collect::<Result<_, _>>()?,
    })
}

/// Computes a result if need be, and looks at it on the pool.
async fn look<T, F>(build: &Arc<Build>, id: &str, what: F) -> Result<T, Status>
where
    T: Send + 'static,
    F: FnOnce(&View) -> Result<T, Status> + Send + 'static,
{
    let job = build.job();
    let reference = build.find(id)?;
    let evaluated = job
        .evaluate_all(reference.iter())
        .await
        .map_err(|error| build.status_of(&error))?;
    let snapshot = evaluated.into_iter().next().unwrap_or_default();
    job.fetch_files(&snapshot)
        .await
        .map_err(|error| status::of_failure(&error))?;
    let store = job.store().clone();
    let pool = store.pool().clone();
    let looked = pool.run(move || {
        let view = view_of(&snapshot, &store).map_err(|error| Status::unknown(error.to_string()))?;
        what(&view)
    });
    looked.await.map_err(|lost| Status::internal(lost.to_string()))?
}

fn part(mut file: std::fs::File, range: Option<&FileRange>) -> Result<Bytes, std::io::Error> {
    let number = |value: i64| u64::try_from(value).unwrap_or_default();
    let limit = (MAX_MESSAGE - ENVELOPE) as u64;
    let wanted = match range {
        Some(range) => {
            file.seek(SeekFrom::Start(number(range.offset)))?;
            match number(range.length) {
                0 => None,
                length => Some(length),
            }
        }
        None => None,
    };
    let mut data = Vec::new();
    let most = wanted.unwrap_or(limit + 1).min(limit + 1);
    file.take(most).read_to_end(&mut data)?;
    if data.len() as u64 > limit {
        return Err(std::io::Error::other(format!(
            "larger than {limit} bytes; read it in parts"
        )));
    }
    Ok(data.into())
}

fn entry_message(entry: &Entry) -> Result<Stat, Status> {
    let target = match entry.metadata().kind {
        Kind::Symlink => Some(
            entry
                .read_link()
                .map_err(|error| Status::unknown(error.to_string()))?,
        ),
        _ => None,
    };
    Ok(message(entry.name(), entry.metadata(), target.as_deref()))
}

fn message(name: &OsStr, metadata: &Metadata, target: Option<&OsStr>) -> Stat {
    Stat {
        path: name.to_string_lossy().into_owned(),
        mode: mode::from_stat(metadata.kind.mode_bits() | metadata.mode),
        uid: metadata.uid,
        gid: metadata.gid,
        size: i64::try_from(metadata.size).unwrap_or(i64::MAX),
        mod_time: metadata.modified.unix_nanos(),
        linkname: target
            .map(|target| target.to_string_lossy().into_owned())
            .unwrap_or_default(),
        devmajor: metadata.device.0.into(),
        devminor: metadata.device.1.into(),
        ..Stat::default()
    }
}

fn absent(path: &str, error: &ViewError) -> Status {
    if error.is_not_found() {
        not_found(path)
    } else {
        Status::unknown(proto::chain(error))
    }
}

/// Go's words, which frontends look for.
fn not_found(path: &str) -> Status {
    Status::not_found(format!(
        "open {}: no such file or directory",
        PathBuf::from(path).display()
    ))
}
