//! File operations: copy, make and remove files on snapshots, by writing layer folders. Nothing is mounted.
//!
//! Actions that only hand their result to the next one share a draft, so `COPY a b c /d/` is one layer. A result that
//! is an output, or that several actions use, is committed and read as a snapshot from then on.

mod archive;
mod content;
mod copy;
mod make;
mod mode;
mod owner;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use dockerfile::ignore::PatternError;
use proto::pb;
use proto::pb::file_action::Action;

use crate::ops::remains::{Remains, Remnant};
use crate::store::view::{Overlay, View, ViewError};
use crate::store::{LayerDraft, LayerError, NewLayer, Snapshot, Store, WorkLost};

pub use archive::{is_compressed, newest_in_archive};
pub use content::{bases, content_key, whole_content};

/// What failed, and in which action of the operation.
#[derive(Debug)]
pub struct FileOpError {
    pub action: Option<usize>,
    problem: Problem,
}

impl std::fmt::Display for FileOpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for FileOpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.problem.source()
    }
}

impl FileOpError {
    /// Whether a path that the operation names does not exist.
    pub fn is_not_found(&self) -> bool {
        match &self.problem {
            Problem::View(view) => view.is_not_found(),
            Problem::Absent(_) => true,
            _ => false,
        }
    }

    fn in_action(action: usize) -> impl FnOnce(Problem) -> Self {
        move |problem| Self {
            action: Some(action),
            problem,
        }
    }
}

impl From<ViewError> for FileOpError {
    fn from(error: ViewError) -> Self {
        Problem::View(error).into()
    }
}

impl From<Problem> for FileOpError {
    fn from(problem: Problem) -> Self {
        Self {
            action: None,
            problem,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    View(#[from] ViewError),
    /// BuildKit's text where what is copied is looked for only by the copy itself.
    #[error("lstat {}: no such file or directory", .0.display())]
    Absent(PathBuf),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Lost(#[from] WorkLost),
    #[error("file operation without actions")]
    NoActions,
    #[error("file operation has no output {0}")]
    MissingOutput(usize),
    #[error("file operation has output {0} twice")]
    DuplicateOutput(i64),
    #[error("file action refers to input {index} of {available}")]
    Index { index: i64, available: usize },
    #[error("file action of a kind that this daemon does not know")]
    UnknownAction,
    #[error("owner {name:?} is looked up in no file system")]
    OwnerWithoutInput { name: String },
    #[error("invalid include or exclude pattern")]
    Pattern(#[from] PatternError),
    #[error("invalid mode {0:?}")]
    Mode(String),
    #[error("cannot copy to non-directory: {}", .0.display())]
    CopyToNonDirectory(PathBuf),
    #[error("cannot replace to directory {} with file", .0.display())]
    ReplaceDirectory(PathBuf),
    #[error("{path:?}: file exists")]
    Exists { path: PathBuf },
    #[error("the root folder cannot be removed")]
    RemoveRoot,
    #[error("copy {path:?}")]
    CopyData { path: PathBuf, source: std::io::Error },
    #[error("write {path:?}")]
    WriteData { path: PathBuf, source: std::io::Error },
    #[error("extract {archive:?}")]
    Extract {
        archive: PathBuf,
        source: std::io::Error,
    },
    #[error("extract {archive:?}: entry {entry:?} {reason}")]
    ArchiveEntry {
        archive: PathBuf,
        entry: PathBuf,
        reason: &'static str,
    },
}

/// A failed operation, and what it leaves to look at.
pub type Failed = Box<(FileOpError, Remains)>;

/// Runs `op` off the async threads.
pub async fn run(op: pb::FileOp, inputs: Vec<Snapshot>, store: Store) -> Result<Vec<Snapshot>, Failed> {
    let pool = store.pool().clone();
    let ran = pool.run(move || run_keeping(&op, &inputs, &store)).await;
    ran.unwrap_or_else(|lost| Err(Box::new((Problem::from(lost).into(), Remains::default()))))
}

/// Runs `op` on `inputs`; the results are in the order of its outputs. All layer folders of the inputs must be there.
pub fn run_blocking(
    op: &pb::FileOp,
    inputs: &[Snapshot],
    store: &Store,
) -> Result<Vec<Snapshot>, FileOpError> {
    run_keeping(op, inputs, store).map_err(|failed| failed.0)
}

fn run_keeping(op: &pb::FileOp, inputs: &[Snapshot], store: &Store) -> Result<Vec<Snapshot>, Failed> {
    let outputs = output_actions(op).map_err(|problem| Box::new((problem.into(), Remains::default())))?;
    let mut run = Run {
        store,
        inputs,
        shared: shared_results(op, inputs.len()),
        results: Vec::new(),
        unfinished: None,
    };
    for (index, action) in op.actions.iter().enumerate() {
        match run.act(index, action) {
            Ok(result) => run.results.push(result),
            Err(problem) => {
                let error = FileOpError::in_action(index)(problem);
                return Err(Box::new((error, run.remains(index, op.actions.len()))));
            }
        }
    }
    outputs
        .into_iter()
        .map(|action| run.committed(action).map_err(FileOpError::in_action(action)))
        .collect::<Result<_, _>>()
        .map_err(|error| Box::new((error, Remains::default())))
}

/// For each output the action whose result it is.
fn output_actions(op: &pb::FileOp) -> Result<Vec<usize>, Problem> {
    if op.actions.is_empty() {
        return Err(Problem::NoActions);
    }
    let mut outputs = std::collections::BTreeMap::new();
    for (index, action) in op.actions.iter().enumerate() {
        let Ok(output) = usize::try_from(action.output) else {
            continue;
        };
        if outputs.insert(output, index).is_some() {
            return Err(Problem::DuplicateOutput(action.output));
        }
    }
    if let Some(missing) = (0..=outputs.len()).find(|output| !outputs.contains_key(output))
        && (missing < outputs.len() || outputs.is_empty())
    {
        return Err(Problem::MissingOutput(missing));
    }
    Ok(outputs.into_values().collect())
}

/// For each action whether its result must be committed: anything but the one action that goes on writing needs it.
fn shared_results(op: &pb::FileOp, inputs: usize) -> Vec<bool> {
    let mut writers = vec![0; op.actions.len()];
    let mut shared = vec![false; op.actions.len()];
    let result = |index: i64| {
        usize::try_from(index)
            .ok()
            .and_then(|index| index.checked_sub(inputs))
    };
    for (index, action) in op.actions.iter().enumerate() {
        if action.output >= 0 {
            shared[index] = true;
        }
        if let Some(writers) = result(action.input).and_then(|index| writers.get_mut(index)) {
            *writers += 1;
        }
        let readers = std::iter::once(action.secondary_input)
            // The file system that is written to may as well be read for names of owners.
            .chain(
                owner::inputs(action)
                    .into_iter()
                    .filter(|owner| *owner != action.input),
            );
        for reader in readers {
            if let Some(shared) = result(reader).and_then(|index| shared.get_mut(index)) {
                *shared = true;
            }
        }
    }
    for (shared, writers) in shared.iter_mut().zip(writers) {
        *shared |= writers > 1;
    }
    shared
}

/// A layer being written.
struct Draft {
    // Before the draft: its descriptors go before the folder does.
    overlay: Overlay,
    draft: LayerDraft,
    base: Snapshot,
}

enum ActionResult {
    Open(Box<Draft>),
    Committed(Snapshot),
    /// The next action of a chain goes on writing in the same draft.
    Continued,
}

struct Run<'a> {
    store: &'a Store,
    inputs: &'a [Snapshot],
    shared: Vec<bool>,
    results: Vec<ActionResult>,
    /// What the action that failed was writing in.
    unfinished: Option<Box<Draft>>,
}

impl Run<'_> {
    fn act(&mut self, index: usize, action: &pb::FileAction) -> Result<ActionResult, Problem> {
        let draft = self.draft(action.input)?;
        if let Err(problem) = self.write(action, &draft.overlay) {
            self.unfinished = Some(Box::new(draft));
            return Err(problem);
        }
        if self.shared.get(index).copied().unwrap_or(true) {
            Ok(ActionResult::Committed(self.commit(draft)?))
        } else {
            Ok(ActionResult::Open(Box::new(draft)))
        }
    }

    fn write(&self, action: &pb::FileAction, overlay: &Overlay) -> Result<(), Problem> {
        let owner = match owner::of(action) {
            Some(owner) => Some(self.owner(owner, action.input, overlay)?),
            None => None,
        };
        match action.action.as_ref().ok_or(Problem::UnknownAction)? {
            Action::Copy(copy) => {
                let source = self.view(action.secondary_input)?;
                copy::run(copy, &source, overlay, owner).map_err(|problem| match problem {
                    Problem::View(ViewError::NotFound { path }) => Problem::Absent(path),
                    other => other,
                })?;
            }
            Action::Mkfile(mkfile) => make::file(mkfile, overlay, owner)?,
            Action::Mkdir(mkdir) => make::folder(mkdir, overlay, owner)?,
            Action::Rm(rm) => make::removed(rm, overlay)?,
            Action::Symlink(symlink) => make::symlink(symlink, overlay, owner)?,
        }
        Ok(())
    }

    /// What every action has left when one failed; nothing where another one went on writing.
    fn remains(self, failed: usize, actions: usize) -> Remains {
        let written = |draft: Box<Draft>| {
            // What cannot be brought to an end is not shown.
            let Draft { overlay, draft, base } = *draft;
            overlay.finish().ok().map(|()| Remnant::written(base, draft))
        };
        let results = self.results.into_iter().map(|result| match result {
            ActionResult::Open(draft) => written(draft),
            ActionResult::Committed(snapshot) => Some(Remnant::Untouched(snapshot)),
            ActionResult::Continued => None,
        });
        let mut mounts: Vec<Option<Remnant>> = results.collect();
        mounts.push(self.unfinished.and_then(written));
        mounts.resize_with(actions, || None);
        Remains {
            inputs: self.inputs.iter().cloned().map(Some).collect(),
            mounts,
            action: Some(failed),
            unreadable: None,
        }
    }

    /// The draft to write in: the one of the result that `index` refers to, else a new one above the snapshot.
    fn draft(&mut self, index: i64) -> Result<Draft, Problem> {
        if let Some(result) = self.result_index(index)
            && let Some(slot @ ActionResult::Open(_)) = self.results.get_mut(result)
            && let ActionResult::Open(draft) = std::mem::replace(slot, ActionResult::Continued)
        {
            return Ok(*draft);
        }
        let base = self.snapshot(index)?;
        let draft = self.store.draft()?;
        let overlay = Overlay::new(&view_of(&base, self.store)?, &draft.upper())?;
        Ok(Draft { overlay, draft, base })
    }

    fn commit(&self, draft: Draft) -> Result<Snapshot, Problem> {
        draft.overlay.finish()?;
        let layer = self.store.commit(draft.draft, NewLayer::default())?;
        Ok(draft.base.with(layer))
    }

    /// The result of an action as a snapshot.
    fn committed(&self, action: usize) -> Result<Snapshot, Problem> {
        match self.results.get(action) {
            Some(ActionResult::Committed(snapshot)) => Ok(snapshot.clone()),
            _ => Err(Problem::MissingOutput(action)),
        }
    }

    fn snapshot(&self, index: i64) -> Result<Snapshot, Problem> {
        if index == -1 {
            return Ok(Snapshot::default());
        }
        if let Some(input) = usize::try_from(index)
            .ok()
            .and_then(|index| self.inputs.get(index))
        {
            return Ok(input.clone());
        }
        match self
            .result_index(index)
            .and_then(|result| self.results.get(result))
        {
            Some(ActionResult::Committed(snapshot)) => Ok(snapshot.clone()),
            // What is read is committed before anybody reads it, so this refers to itself or to a later action.
            _ => Err(self.bad_index(index)),
        }
    }

    fn view(&self, index: i64) -> Result<View, Problem> {
        Ok(view_of(&self.snapshot(index)?, self.store)?)
    }

    fn owner(&self, owner: &pb::ChownOpt, base: i64, overlay: &Overlay) -> Result<owner::Owner, Problem> {
        owner::resolve(owner, |index| {
            if index == base {
                Ok(overlay.view().clone())
            } else {
                self.view(index)
            }
        })
    }

    fn result_index(&self, index: i64) -> Option<usize> {
        usize::try_from(index).ok()?.checked_sub(self.inputs.len())
    }

    fn bad_index(&self, index: i64) -> Problem {
        Problem::Index {
            index,
            available: self.inputs.len() + self.results.len(),
        }
    }
}

/// The view of a snapshot whose layer folders are all there.
pub fn view_of(snapshot: &Snapshot, store: &Store) -> Result<View, ViewError> {
    let folders: Vec<PathBuf> = snapshot
        .layers()
        .iter()
        .map(|layer| store.layer_folder(layer))
        .collect();
    View::open(&folders)
}
