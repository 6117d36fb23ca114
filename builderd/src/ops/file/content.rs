//! The content half of a file operation's cache key.
//!
//! An input from which files are only taken counts by the checksum of those files; one that is written to counts by
//! its layers. So a change in a source that the operation does not take makes no difference.

use std::path::Path;

use dockerfile::glob;
use prost::Message as _;
use proto::pb;
use proto::pb::file_action::Action;

use super::{FileOpError, Problem, copy, owner, view_of};
use crate::store::checksum::{self, KnownDigests, Root};
use crate::store::view::{LastLink, Selection, View, ViewError};
use crate::store::{CacheKey, Snapshot, Store};

/// The key of `op` by the content of its copy sources; nothing if it takes no files from any of its inputs.
///
/// A source that does not exist is an error, the same that running the operation would give.
pub fn content_key(
    op: &pb::FileOp,
    inputs: &[Snapshot],
    store: &Store,
) -> Result<Option<CacheKey>, FileOpError> {
    let mut parts = vec![without_source_folders(op).encode_to_vec()];
    let mut any = false;
    for (index, input) in inputs.iter().enumerate() {
        // Of no files there is no checksum: whoever copies from there finds out.
        if by_content(op, index) && !input.is_scratch() {
            any = true;
            let known = KnownDigests::of(input, store);
            let view = view_of(input, store).map_err(Problem::from)?;
            for (number, action) in op.actions.iter().enumerate() {
                let sum = taken_by(action, index, &view, &known).map_err(FileOpError::in_action(number))?;
                parts.push(sum.len().to_le_bytes().to_vec());
                parts.extend(sum.into_iter().map(Vec::from));
            }
        } else {
            parts.push(input.layers().len().to_le_bytes().to_vec());
            parts.extend(
                input
                    .layers()
                    .iter()
                    .map(|layer| layer.as_str().as_bytes().to_vec()),
            );
        }
    }
    Ok(any.then(|| CacheKey::new("file content", parts)))
}

/// The inputs that `op` does not count by the files it takes.
pub fn bases(op: &pb::FileOp, inputs: usize) -> Vec<usize> {
    (0..inputs).filter(|index| !by_content(op, *index)).collect()
}

/// The checksum of all files of a snapshot.
pub fn whole_content(snapshot: &Snapshot, store: &Store) -> Result<[u8; 32], ViewError> {
    let view = view_of(snapshot, store)?;
    let root = view.lookup("/", LastLink::Follow)?;
    let known = KnownDigests::of(snapshot, store);
    checksum::of_selection(&view, &root, &Selection::default(), Root::ContentsOnly, &known)
}

/// Whether an input counts by the files that are taken from it.
fn by_content(op: &pb::FileOp, index: usize) -> bool {
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    !op.actions.iter().any(|action| action.input == index)
        && op
            .actions
            .iter()
            .any(|action| taken_from(action).contains(&index))
}

/// The inputs that an action reads files of.
fn taken_from(action: &pb::FileAction) -> Vec<i64> {
    let mut inputs = owner::inputs(action);
    if matches!(action.action, Some(Action::Copy(_))) {
        inputs.push(action.secondary_input);
    }
    inputs
}

/// The operation with the folders that its sources are in taken out: what matters is in the checksums.
fn without_source_folders(op: &pb::FileOp) -> pb::FileOp {
    let mut op = op.clone();
    for action in &mut op.actions {
        if let Some(Action::Copy(copy)) = &mut action.action {
            copy.src = copy.src.rsplit('/').next().unwrap_or_default().to_owned();
        }
    }
    op
}

fn taken_by(
    action: &pb::FileAction,
    input: usize,
    view: &View,
    known: &KnownDigests,
) -> Result<Vec<[u8; 32]>, Problem> {
    let is_this = |index: i64| usize::try_from(index) == Ok(input);
    let mut sums = Vec::new();
    if owner::inputs(action).into_iter().any(is_this) {
        for path in ["/etc/passwd", "/etc/group"] {
            sums.push(match view.lookup(path, LastLink::Follow) {
                Ok(found) => {
                    checksum::of_selection(view, &found, &Selection::default(), Root::ContentsOnly, known)?
                }
                Err(ViewError::NotFound { .. } | ViewError::NotADirectory { .. }) => [0; 32],
                Err(error) => return Err(error.into()),
            });
        }
    }
    if let Some(Action::Copy(copy)) = &action.action
        && is_this(action.secondary_input)
    {
        sums.extend(copied(copy, view, known)?);
    }
    Ok(sums)
}

fn copied(copy: &pb::FileActionCopy, view: &View, known: &KnownDigests) -> Result<Vec<[u8; 32]>, Problem> {
    let selection = Selection::new(&copy.include_patterns, &copy.exclude_patterns)?;
    let mut sums = Vec::new();
    for path in copy::sources(copy, view)? {
        let found = view.lookup(&path, copy::last_link(copy))?;
        let is_dir = found.metadata().is_some_and(|metadata| metadata.is_dir());
        let name = Path::new(&path).file_name().unwrap_or_default();
        let root = if is_dir && copy.dir_copy_contents {
            Root::ContentsOnly
        } else {
            Root::Named(Path::new(name))
        };
        sums.push(checksum::of_selection(view, &found, &selection, root, known)?);
    }
    for required in &copy.required_paths {
        check_required(required, view)?;
    }
    Ok(sums)
}

/// Paths that must exist although patterns select the files.
fn check_required(path: &str, view: &View) -> Result<(), Problem> {
    if glob::has_wildcards(path) {
        return Ok(());
    }
    view.lookup(path, LastLink::Follow)
        .map(drop)
        .map_err(Problem::from)
}
