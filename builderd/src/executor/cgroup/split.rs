//! The old kind: a folder in each hierarchy.

use std::path::{Path, PathBuf};

use super::files::{make_folder, read, write};
use super::hierarchies::Hierarchy;
use super::limits::Limits;
use super::{CgroupError, Draft};

/// A processor or node of memory has to be given before a process may enter.
const INHERITED: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Makes the folder at `place` in the hierarchies that matter: below a parent all of them, as any may limit it there,
/// else those that the limits are of.
pub(super) fn make(
    hierarchies: &[Hierarchy],
    place: &[String],
    below_parent: bool,
    limits: &Limits,
    draft: &mut Draft,
) -> Result<(), CgroupError> {
    let settings = limits.split();
    for setting in &settings {
        if !hierarchies
            .iter()
            .any(|hierarchy| hierarchy.controllers.contains(&setting.controller))
        {
            return Err(CgroupError::NoController(setting.controller));
        }
    }
    for hierarchy in hierarchies {
        let own = || {
            settings
                .iter()
                .filter(|setting| hierarchy.controllers.contains(&setting.controller))
        };
        if !below_parent && own().next().is_none() {
            continue;
        }
        let is_set = hierarchy.controllers.contains(&"cpuset");
        let folder = descend(&hierarchy.folder, place, is_set, draft)?;
        for setting in own() {
            write(&folder.join(setting.file), &setting.value)?;
        }
        if hierarchy.controllers.contains(&"memory") {
            draft.events = Some(folder.join("memory.oom_control"));
        }
        draft.enter_through(&folder)?;
    }
    Ok(())
}

/// Makes the folders on the way, and the last one as the draft's own.
fn descend(root: &Path, place: &[String], is_set: bool, draft: &mut Draft) -> Result<PathBuf, CgroupError> {
    let mut folder = root.to_owned();
    for (at, name) in place.iter().enumerate() {
        let upper = folder.clone();
        folder.push(name);
        if at + 1 == place.len() {
            draft.make_own(&folder)?;
        } else {
            make_folder(&folder)?;
        }
        if is_set {
            inherit(&upper, &folder)?;
        }
    }
    Ok(folder)
}

fn inherit(upper: &Path, folder: &Path) -> Result<(), CgroupError> {
    for file in INHERITED {
        let own = folder.join(file);
        if read(&own)?.trim().is_empty() {
            write(&own, read(&upper.join(file))?.trim())?;
        }
    }
    Ok(())
}

/// Where leftovers of earlier lives may be.
pub(super) fn neighbourhoods(hierarchies: &[Hierarchy], above: &[String]) -> Vec<PathBuf> {
    let below = |hierarchy: &Hierarchy| hierarchy.folder.join(above.iter().collect::<PathBuf>());
    hierarchies.iter().map(below).collect()
}
