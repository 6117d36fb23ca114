//! One time for everything in a layer.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crate::store::view::{Directory, Entry, Folder, Overlay, Time, View, ViewError};

/// Gives every file and folder below `upper`, and `upper` itself, the same time.
pub(super) fn set_all_times(upper: &Path, seconds: i64) -> Result<(), ViewError> {
    let time = Time {
        seconds,
        nanoseconds: 0,
    };
    let overlay = Overlay::new(&View::open(&[])?, upper)?;
    let root = overlay.folder(Path::new("/"))?;
    // However deep folders lie in each other, what waits is in a list and not on the stack; and only those on the way
    // are open.
    let mut way = vec![stamp(&root, overlay.view().root(), time)?];
    while let Some(level) = way.last_mut() {
        let Some(entry) = level.folders.pop() else {
            way.pop();
            continue;
        };
        let folder = level.folder.open(entry.path().file_name().unwrap_or_default())?;
        let directory = Arc::new(level.directory.open(&entry)?);
        way.push(stamp(&folder, &directory, time)?);
    }
    overlay.finish()
}

/// A folder on the way, and the folders in it that are still to be walked.
struct Level {
    folder: Rc<Folder>,
    directory: Arc<Directory>,
    folders: Vec<Entry>,
}

fn stamp(folder: &Rc<Folder>, directory: &Arc<Directory>, time: Time) -> Result<Level, ViewError> {
    folder.set_own_time(time)?;
    let (folders, files): (Vec<Entry>, Vec<Entry>) = directory
        .entries()?
        .into_iter()
        .partition(|entry| entry.metadata().is_dir());
    for file in files {
        folder.set_time(file.path().file_name().unwrap_or_default(), time)?;
    }
    Ok(Level {
        folder: Rc::clone(folder),
        directory: Arc::clone(directory),
        folders,
    })
}
